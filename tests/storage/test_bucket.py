"""A folder in a bucket keeps what a folder on a disk keeps, against a real server."""

import json
import re
import subprocess
import sys
import threading
import time

import fsspec.config
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from jaxdna.config import load_config
from jaxdna.errors import UserError
from jaxdna.runs.run_folder import RunFolder
from jaxdna.storage import bucket, bucket_lock
from jaxdna.storage.bucket import BucketFolder
from jaxdna.storage.disk import DiskFolder
from jaxdna.storage.files import folder_at
from jaxdna.storage.manifest import damage
from jaxdna.storage.places import Url, beside, disk_path, place_of
from jaxdna.storage.remote import file_system
from jaxdna.storage.trial import trial
from tools.object_store import STORES, Fault, GoogleStore


@pytest.fixture(scope="module", params=STORES)
def store(request):
    with STORES[request.param]() as store, pytest.MonkeyPatch.context() as patch:
        for name, value in store.environment.items():
            patch.setenv(name, value)
        yield store


@pytest.fixture
def folder(store, request):
    store.faults.clear()
    return BucketFolder(Url(f"{store.scheme}://bkt/runs/{request.node.originalname}"))


def fill(folder):
    folder.make()
    folder.write("config.json", "old")
    folder.write("config.json", "new")
    folder.write("metrics.jsonl", "")
    folder.append("metrics.jsonl", "row\n")
    folder.append("metrics.jsonl", "another row\n")
    folder.make("deep/below")
    folder.write("deep/below/file", b"x" * 1000)
    folder.make("gone")
    folder.write("gone/file", "x")
    folder.remove("gone")
    folder.remove("never")
    folder.begin("saved/one")
    folder.make(f"{folder.unfinished('saved/one')}/arrays")
    folder.write(f"{folder.unfinished('saved/one')}/arrays/a", b"a" * 100_000)
    folder.finish("saved/one")
    folder.begin("saved/two")
    folder.write(f"{folder.unfinished('saved/two')}/a", b"a")


def look(folder):
    """All that can be asked of a folder; the second save was not finished."""
    saved = folder_at(folder.path / "saved")
    return {
        "names": [folder.names(), folder.names("deep"), folder.names("absent")],
        "exists": [folder.exists(name) for name in ("deep", "config.json", "gone", "none")],
        "read": [folder.read("config.json"), folder.read("metrics.jsonl", 100)],
        "local": folder.local("deep/below/file").read_bytes(),
        "sizes": folder.sizes("deep"),
        "blocks": b"".join(map(bytes, folder.blocks("deep/below/file", 1000))),
        "finished": saved.finished(),
        "whole": damage(saved, "one"),
        "sees": [folder.sees("config.json"), folder.sees("none")],
    }


def test_a_folder_in_a_bucket_answers_as_one_on_a_disk_does(folder, tmp_path):
    on_disk = DiskFolder(tmp_path)
    fill(folder)
    fill(on_disk)
    assert look(folder) == look(on_disk)
    for one in (folder, on_disk):
        with pytest.raises(FileNotFoundError):
            one.read("none")
        with pytest.raises(ValueError, match=r"file is larger than 0 MiB"):
            one.read("deep/below/file", 999)
        one.remove("saved/one")
        assert damage(one, "saved/one") == "manifest.json is missing"


@pytest.mark.parametrize(
    ("hurt", "said"),
    [
        (lambda store, at: store.put(f"{at}/a", b"b" * 10), "the digest of a is not the one"),
        (lambda store, at: store.put(f"{at}/a", b"a" * 9), "a has 9 bytes instead of 10"),
        (lambda store, at: store.delete(f"{at}/a"), "a is missing"),
        (lambda store, at: store.put(f"{at}/b", b""), "b does not belong to it"),
    ],
)
def test_damage_to_an_object_is_found(store, hurt, said):
    folder = BucketFolder(Url(f"{store.scheme}://bkt/hurt"))
    folder.begin("one")
    folder.write("one/a", b"a" * 10)
    folder.finish("one")
    assert damage(folder, "one") is None
    hurt(store, "hurt/one")
    assert said in damage(folder, "one")


def test_a_file_that_grows_is_uploaded_at_most_every_two_seconds(folder, store):
    folder.write("metrics.jsonl", "")
    store.seen.clear()
    for i in range(200):
        folder.append("metrics.jsonl", f"{i}\n")
    folder.write("other", "")
    uploads = [one for one in store.seen if re.match(store.writes, one)]
    assert len(uploads) <= 3  # the first row, all the rest, the other file
    assert folder.read("metrics.jsonl").split() == [b"%d" % i for i in range(200)]


def test_too_many_requests_and_a_cut_answer_are_asked_again(folder, store):
    store.faults[:] = [
        Fault(store.writes, status=429, times=1),
        Fault(store.writes, status=503, times=1),
        Fault(store.reads, status=0, times=1),
    ]
    folder.write("file", b"whole" * 1000)
    assert folder.read("file") == b"whole" * 1000
    assert all(fault.times == 0 for fault in store.faults)


@pytest.mark.parametrize("fault", [{"seconds": 5}, {"status": 429}, {"status": 503}])
def test_a_store_that_gives_no_answer_is_not_asked_for_ever(folder, store, monkeypatch, fault):
    folder.write("file", "x")
    monkeypatch.setattr(folder, "_limit", 1.0)
    store.faults[:] = [Fault("GET", **fault)]
    begun = time.monotonic()
    with pytest.raises(TimeoutError, match="no good answer within 1 s"):
        folder.read("file")
    assert time.monotonic() - begun < 3


@pytest.mark.parametrize("before", [[], ["launch", "--processes=2", "--"]])
def test_a_store_that_cannot_hold_a_run_is_refused_before_jax_is_imported(store, before):
    """Whatever load the machine has, it is known within seconds of the processor."""
    store.faults[:] = [Fault("", status=403)]
    script = (
        "import sys, jaxdna.cli.main as cli; "
        "print(cli.main(sys.argv[1:]), 'jax' in sys.modules, 'gcsfs' in sys.modules)"
    )
    command = [*before, "train", "--config=tal1", f"--workdir={store.scheme}://bkt/runs/a"]
    done = subprocess.run([sys.executable, "-c", script, *command], capture_output=True, text=True)
    store.faults.clear()
    assert done.stdout == f"2 False {store.scheme == 'gs'}\n"
    assert "bkt/runs/a cannot be written (permission denied" in done.stderr


def test_one_of_several_processes_asks_a_store_that_refuses_once(store):
    run = RunFolder(Url(f"{store.scheme}://bkt/runs/b"))
    assert run.settle(load_config("tal1")) == load_config("tal1")  # it is not there yet
    store.faults[:] = [Fault("", status=403)]
    with pytest.raises(UserError, match=r"bkt/runs/b cannot be written \(permission denied"):
        run.settle(load_config("tal1"))
    store.faults.clear()


def test_a_run_that_is_to_be_read_from_no_bucket_is_told_from_one_that_is_not_there(store):
    for name, said in (("bkt", "is not a run folder"), ("nowhere", "there is no bucket nowhere")):
        with pytest.raises(UserError, match=said):
            RunFolder(Url(f"{store.scheme}://{name}/none")).read_config()


def test_permission_denied_is_said(folder, store):
    store.faults[:] = [Fault("POST|PUT", status=403)]
    with pytest.raises(PermissionError, match=r"permission denied: .*by the test"):
        folder.write("file", "x")
    folder.append("rows", "x")  # in the background
    with pytest.raises(PermissionError, match="permission denied"):
        folder.write("file", "x")


def test_a_store_says_that_a_signature_has_the_wrong_time(folder, store):
    late = "RequestTimeTooSkewed: The difference between the request time and the current time"
    store.faults[:] = [Fault("", status=403, says=f"{late} is too large.")]
    said = trial(folder)
    assert "cannot be written (permission denied" in said
    assert late.rpartition(": ")[2] in said


def test_a_token_that_is_refused_for_the_wrong_time_is_not_waited_for(tmp_path, monkeypatch):
    """Google takes a signed token with the time of this machine's clock for one of its own."""
    key = rsa.generate_private_key(65537, 2048)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    with GoogleStore() as store:
        account = {"type": "service_account", "project_id": "p", "private_key": pem}
        account |= {"client_email": "a@p", "token_uri": f"{store.url}/token"}
        (tmp_path / "key.json").write_text(json.dumps(account))
        for name, value in store.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setitem(fsspec.config.conf, "gs", {"token": str(tmp_path / "key.json")})
        monkeypatch.setattr(bucket, "_FIRST_SECONDS", 2.0)
        store.faults[:] = [Fault("POST /token", status=400, says="Invalid JWT: iat and exp")]
        begun = time.monotonic()
        said = trial(BucketFolder(Url("gs://bkt/late")))
        assert time.monotonic() - begun < 5
        assert store.faults[0].hits > 0
    assert said == "cannot be made (no good answer within 2 s)"


def test_one_of_many_takes_the_lock_and_the_others_name_it(folder, monkeypatch):
    monkeypatch.setattr(bucket_lock, "WATCH_SECONDS", 4.0)
    locks, took, said = [folder.lock(".lock") for _ in range(4)], [], []

    def take(lock):
        try:
            lock.take(lambda note: None)
            took.append(lock)
            for _ in range(8):
                time.sleep(0.5)
                lock.renew()
        except UserError as error:
            said.append(str(error))

    threads = [threading.Thread(target=take, args=(lock,)) for lock in locks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(took) == 1
    assert len(said) == 3
    assert all("is in use by process" in one and str(folder.path) in one for one in said)
    took[0].release()
    begun = time.monotonic()
    folder.lock(".lock").take(pytest.fail)  # at once
    assert time.monotonic() - begun < 2


def test_a_holder_that_was_stopped_finds_that_another_has_the_lock(folder, monkeypatch):
    monkeypatch.setattr(bucket_lock, "WATCH_SECONDS", 1.5)
    monkeypatch.setattr(bucket_lock, "_TRUSTED_SECONDS", 0.5)
    first, second, notes = folder.lock(".lock"), folder.lock(".lock"), []
    first.take(notes.append)
    second.take(notes.append)
    assert "watching whether it still runs" in notes[0]
    assert "taking over the run folder" in notes[1]
    folder.guard = first.check
    time.sleep(0.6)
    for change in (lambda: folder.write("file", "x"), lambda: folder.remove("file")):
        with pytest.raises(UserError, match="has lost the folder's lock to process"):
            change()
    first.renew()
    first.release()
    time.sleep(0.6)
    second.check()  # what the loser still does changes nothing
    folder.guard = second.check
    folder.write("file", "x")


def test_a_lock_whose_answer_was_cut_is_known_as_our_own(folder, store):
    store.faults[:] = [Fault(store.writes, status=0, times=1)]
    folder.lock(".lock").take(pytest.fail)


def test_a_store_without_conditional_writes_is_refused(folder, store):
    store.faults[:] = [Fault(store.writes, heedless=True)]
    with pytest.raises(UserError, match=rf"--workdir={folder.path} is in a store without condi"):
        folder.lock(".lock").take(pytest.fail)
    assert folder.names() == []


def test_a_lock_that_somebody_removed_is_lost(folder, monkeypatch):
    monkeypatch.setattr(bucket_lock, "_TRUSTED_SECONDS", 0.0)
    lock = folder.lock(".lock")
    lock.take(pytest.fail)
    folder.remove(".lock")
    with pytest.raises(UserError, match=r"or was the file \.lock removed"):
        lock.check()


def test_a_trial_says_what_cannot_be_done_and_leaves_nothing(folder, store, tmp_path):
    for one in (folder, DiskFolder(tmp_path / "absent")):
        assert trial(one) is None
    assert list(tmp_path.iterdir()) == []
    assert store.objects(f"runs/{folder.path.name}") == {}
    assert "cannot be made (there is no bucket no)" in trial(
        BucketFolder(Url(f"{store.scheme}://no/run"))
    )
    store.faults[:] = [Fault("POST|PUT", status=403)]
    assert "cannot be written (permission denied: " in trial(folder)
    store.faults[:] = [Fault(store.removals, status=403)]
    assert "cannot be cleared of what was written (permission denied" in trial(folder)


def test_nothing_above_the_folder_is_listed(folder, store):
    store.seen.clear()
    fill(folder)
    look(folder)
    listed = [one for one in store.seen if one.startswith("GET") and re.search("[?&]prefix=", one)]
    assert listed
    assert all(f"prefix=runs/{folder.path.name}/" in one for one in listed)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("gcs://bkt/run", r"--workdir=gcs://bkt/run: the scheme gcs:// is unknown; give a"),
        ("http://host/run", "the scheme http:// is unknown"),
        ("gs://bkt", "--workdir=gs://bkt names no folder in a bucket; give gs://BUCKET/FOLDER"),
        (
            "gs:bkt/a",
            "--workdir=gs:bkt/a is not a URL; give gs://bkt/a, or ./gs:bkt/a for a folder",
        ),
        ("gs://bkt/run*", "--workdir=gs://bkt/run\\* is not legal: the names in a URL must be"),
        ("s3://bkt/../run", "--workdir=s3://bkt/../run is not legal"),
        ("gs://", "--workdir=gs:// names no folder in a bucket"),
    ],
)
def test_a_url_that_cannot_be_a_run_folder_is_refused(text, said):
    with pytest.raises(UserError, match=said):
        place_of(text)


@pytest.mark.parametrize(("scheme", "extra"), [("gs", "gcs"), ("s3", "s3")])
def test_a_missing_extra_is_named(scheme, extra, monkeypatch):
    monkeypatch.setitem(sys.modules, {"gs": "gcsfs", "s3": "s3fs"}[scheme], None)
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, scheme, raising=False)
    with pytest.raises(UserError, match=rf"{scheme}://bkt/a needs the package .*jaxdna\[{extra}\]"):
        file_system(Url(f"{scheme}://bkt/a"))


def test_what_is_written_to_disks_alone_refuses_a_url():
    with pytest.raises(UserError, match="--output=gs://bkt/sim is a URL; give a path on a disk"):
        disk_path("gs://bkt/sim")


def test_names_in_a_bucket_are_computed_as_paths_are():
    url = place_of("gs://bkt/runs/a/")
    assert str(url) == "gs://bkt/runs/a"
    assert str(url / "checkpoints") == "gs://bkt/runs/a/checkpoints"
    assert str(url.parent) == "gs://bkt/runs"
    assert url.name == "a"
    assert f"{url.with_name('b')}" == "gs://bkt/runs/b"
    assert str(place_of(DiskFolder(place_of("x")).path / "y")) == "x/y"
    assert str(place_of("gs:/bkt/run")) == "gs://bkt/run"  # as pathlib has it
    assert str(beside(url, ".logs")) == "runs/a.logs"
