"""Input files under URLs: the same bytes, fetched once, and a sentence where they cannot be."""

import functools
import gzip
import os
import re
import shutil
import ssl
import subprocess
import sys
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from jaxdna.config import load_config
from jaxdna.config_files import run_name
from jaxdna.data.code_store import cache_folder
from jaxdna.data.digests import file_digest
from jaxdna.data.genome import Genome
from jaxdna.data.motifs import load_motif
from jaxdna.data.registry import load_dataset
from jaxdna.data.streams import read_blocks, read_lines
from jaxdna.errors import UserError
from jaxdna.storage import fetched
from jaxdna.storage.places import name_and_choice
from tools.object_store import STORES, Fault

CONFIG = b"""
from jaxdna.config import default_config
def get_config(variant):
    config = default_config("tal1", "motif_cnn")
    config.train.epochs = 5 if variant else 3
    return config
"""
MOTIFS = b"""MEME version 4

MOTIF first
letter-probability matrix: alength= 4 w= 2
1 0 0 0
0 1 0 0

MOTIF second
letter-probability matrix: alength= 4 w= 2
0 0 1 0
0 0 0 1
"""


@pytest.fixture(scope="module", params=STORES)
def running(request):
    with STORES[request.param]() as store:
        yield store


@pytest.fixture
def store(running, tmp_path, monkeypatch):
    running.faults.clear()
    for name in running.names(""):
        running.delete(name)
    for name, value in running.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(fetched, "_WAIT_SECONDS", 0.01)
    as_another_process()
    yield running
    as_another_process()


def as_another_process():
    fetched._seen.cache_clear()
    fetched._fetched.cache_clear()


def hurt_reads(store):
    store.faults[:] = [
        Fault(store.reads, status=503, times=1),
        Fault(store.reads, status=0, times=1),  # in the middle of a block
    ]


TEXT = b">a\n" + b"ACGT" * 1000 + b"\n"


def test_a_genome_in_a_bucket_is_fetched_once_and_anew_where_it_has_changed(store, monkeypatch):
    monkeypatch.setattr(fetched, "_BLOCK", 1000)
    store.put("data/g.fa", TEXT)
    hurt_reads(store)
    url = f"{store.scheme}://bkt/data/g.fa"
    assert Genome(url).codes("a", 3, 9).tolist() == [3, 0, 1, 2, 3, 0]
    assert [fault.times for fault in store.faults] == [0, 0]
    store.seen.clear()
    as_another_process()
    assert file_digest(url) == file_digest(fetched.local_path(url))
    assert b"".join(read_blocks(url)) == TEXT
    assert not any(re.match(store.reads, one) for one in store.seen)
    store.put("data/g.fa", TEXT.lower().replace(b"a\n", b"b\n", 1))
    as_another_process()
    assert list(Genome(url).lengths) == ["b"]


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_what_is_read_once_is_read_as_it_comes(store, monkeypatch, tmp_path, pack):
    monkeypatch.setattr(fetched, "_BLOCK", 20)
    store.put("a.fa", pack(TEXT))
    hurt_reads(store)
    assert b"".join(read_blocks(f"{store.scheme}://bkt/a.fa")) == TEXT
    assert [fault.times for fault in store.faults] == [0, 0]
    assert not (tmp_path / "cache").exists()


def test_a_file_that_changes_while_it_is_read_is_told_of(store, monkeypatch):
    monkeypatch.setattr(fetched, "_BLOCK", 1000)
    monkeypatch.setattr(fetched, "_TRIES", 1)
    store.put("a.fa", TEXT)
    with fetched.open_input(f"{store.scheme}://bkt/a.fa") as stream:
        assert stream.read(1000) == TEXT[:1000]
        store.put("a.fa", TEXT.lower())
        with pytest.raises(OSError, match="it changed while it was being read"):
            stream.read()


def test_a_copy_that_was_damaged_is_fetched_anew(store):
    store.put("t.tsv", b"ACGT\t1\n")
    copy = fetched.local_path(f"{store.scheme}://bkt/t.tsv")
    copy.write_bytes(b"ACGA\t1\n")
    as_another_process()
    assert list(read_lines(f"{store.scheme}://bkt/t.tsv")) == [(1, "ACGT\t1")]


def test_a_data_set_from_urls_is_the_one_of_its_files(store, tmp_path):
    for name, middle in (("positives", "CACGTG"), ("negatives", "AAAAAA")):
        records = [f">{name}{i}\n{'ACGT'[i % 4] * 9}{middle}{'TGCA'[i // 4 % 4] * (5 + i % 3)}\n"
                   for i in range(60)]  # fmt: skip
        (tmp_path / f"{name}.fa").write_text("".join(records))
        store.put(f"{name}.fa", (tmp_path / f"{name}.fa").read_bytes())

    def loaded(where):
        names = ("positives", "negatives")
        overrides = [f"data.{name}={where}/{name}.fa" for name in names] + ["data.lengths=pad"]
        return load_dataset(load_config("fasta", overrides))

    ours, theirs = loaded(f"{store.scheme}://bkt"), loaded(tmp_path)
    for name, split in theirs.splits.items():
        assert (ours.splits[name].x[:] == split.x[:]).all()
    assert ours.inputs[0].path == f"{store.scheme}://bkt/positives.fa"
    assert [source.sha256 for source in ours.inputs] == [one.sha256 for one in theirs.inputs]


@pytest.mark.parametrize("name", ["bkt/none.fa", "nowhere/a.fa"])
def test_a_url_without_a_file_is_one_sentence(store, name):
    url = f"{store.scheme}://{name}"
    with pytest.raises(UserError, match=rf"{url} cannot be read \(it is not there\)"):
        list(read_blocks(url))


def test_a_file_that_may_not_be_read_is_one_sentence(store):
    store.put("a.fa", b">a\nACGT\n")
    store.faults[:] = [Fault("GET|HEAD", status=403)]
    with pytest.raises(UserError, match=r"://bkt/a.fa cannot be read \(permission denied"):
        list(read_blocks(f"{store.scheme}://bkt/a.fa"))


def test_a_file_that_stops_coming_is_not_waited_for(store, monkeypatch):
    store.put("a.fa", b">a\nACGT\n")
    monkeypatch.setattr(fetched, "_SECONDS", 1.0)
    monkeypatch.setattr(fetched, "_TRIES", 1)
    store.faults[:] = [Fault(store.reads, seconds=5)]
    with pytest.raises(UserError, match=r"a.fa cannot be read \(no good answer within 1 s"):
        list(read_blocks(f"{store.scheme}://bkt/a.fa"))


def test_a_config_and_a_motif_file_are_read_from_a_bucket(store):
    at = f"{store.scheme}://bkt/mine"
    store.put("mine/short.py", CONFIG)
    store.put("mine/two.meme", MOTIFS)
    assert load_config(f"{at}/short.py", []).train.epochs == 3
    config = load_config(f"{at}/short.py:five", [f"data.motif={at}/two.meme:second"])
    assert config.train.epochs == 5
    assert run_name(f"{at}/short.py:five") == "short-five"
    assert load_motif(config.data.motif).name == "second"
    with pytest.raises(UserError, match=r"two\.meme has no motif third"):
        load_motif(f"{at}/two.meme:third")
    with pytest.raises(UserError, match=rf"--config={at}/no.py cannot be read \(it is not there"):
        load_config(f"{at}/no.py", [])


def test_codes_are_kept_on_disks_alone():
    with pytest.raises(UserError, match=r"--config.runtime.data_cache=gs://bkt/c is a URL; give a"):
        cache_folder("gs://bkt/c")


@pytest.mark.parametrize(
    ("text", "split"),
    [
        ("tal1:report", ("tal1", "report")),
        ("configs/tal1.py", ("configs/tal1.py", "")),
        ("s3://bkt/a.py:x:y", ("s3://bkt/a.py", "x:y")),
        ("https://host:8443/a.meme:MA1", ("https://host:8443/a.meme", "MA1")),
        ("https://host:8443/a.meme", ("https://host:8443/a.meme", "")),
    ],
)
def test_a_choice_is_told_from_a_scheme_and_a_port(text, split):
    assert name_and_choice(text) == split


@pytest.mark.skipif(not shutil.which("openssl"), reason="needs openssl for a certificate")
def test_a_file_is_read_over_https(store, tmp_path, monkeypatch):
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj",
         "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out",
         certificate], check=True, capture_output=True,
    )  # fmt: skip
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "a.bed").write_text("chr1\t1\t9\n")
    handler = functools.partial(SimpleHTTPRequestHandler, directory=tmp_path / "site")
    monkeypatch.setattr(SimpleHTTPRequestHandler, "log_message", lambda *arguments: None)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"https://localhost:{server.server_port}/a.bed"
        with pytest.raises(UserError, match=r"cannot be read .*certificate verify failed"):
            list(read_lines(url))  # a server that nobody vouches for
        with pytest.raises(UserError, match="cannot be read"):
            Genome(url)
        read = f"from jaxdna.data.streams import read_lines; print(list(read_lines({url!r})))"
        done = subprocess.run(
            [sys.executable, "-c", read], capture_output=True, text=True, timeout=120,
            env={**os.environ, "SSL_CERT_FILE": str(certificate)},
        )  # fmt: skip
        server.shutdown()
    assert done.stdout == "[(1, 'chr1\\t1\\t9')]\n", done.stderr
    assert done.stderr.startswith(f"fetching {url} (0.0 MB) into ")
