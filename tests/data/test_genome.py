"""Genomes in every form: each stretch has the letters that the file has today."""

import gzip
import os
import struct
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from genome_files import bgzip, fasta, forms, two_bit

from jaxdna.data import streams
from jaxdna.data.genome import Genome
from jaxdna.data.sequences import decode
from jaxdna.errors import UserError

REPOSITORY = Path(__file__).parents[2]


def draw(seed=0, first=3_000):
    rng = np.random.default_rng(seed)
    sizes = {"chr1": first, "chr2": 1_204, "track2": 120, "chrM": 59, "s": 1}
    letters = {name: "".join(rng.choice(list("ACGTacgt"), n)) for name, n in sizes.items()}
    return letters | {"chrN": "nN" + "ACGT" * 20 + "N" * 33 + "G" + "N" * 8}


LETTERS = draw()


PLAIN = fasta(LETTERS)
FORMS = forms(LETTERS)


def check(genome, letters, windows=60):
    """Every chromosome whole, and windows at random places, those over its ends among them."""
    assert genome.lengths == {name: len(bases) for name, bases in letters.items()}
    rng = np.random.default_rng(1)
    for name, bases in letters.items():
        assert decode(genome.codes(name, 0, len(bases))) == bases.upper()
        around = "N" * 50 + bases.upper() + "N" * 50
        for start in rng.integers(-50, len(bases), windows).tolist():
            stop = min(start + int(rng.integers(0, 70)), len(bases) + 50)
            assert decode(genome.codes(name, start, stop)) == around[start + 50 : stop + 50]


@pytest.mark.parametrize("block", [61, 2**20])
@pytest.mark.parametrize("form", FORMS)
def test_each_form_has_the_same_letters(tmp_path, monkeypatch, form, block):
    monkeypatch.setattr(streams, "BLOCK_BYTES", block)
    path = tmp_path / "genome"
    path.write_bytes(FORMS[form])
    for _ in range(2):  # made, and found again
        check(Genome(path, cache=tmp_path / "cache"), LETTERS)


def test_stretches_beyond_an_end_are_unknown(tmp_path):
    (tmp_path / "g.fa").write_bytes(PLAIN)
    genome = Genome(tmp_path / "g.fa")
    assert decode(genome.codes("chrM", -3, 4)) == "NNN" + LETTERS["chrM"][:4].upper()
    assert decode(genome.codes("chrM", 57, 62)) == LETTERS["chrM"][57:].upper() + "NNN"
    assert decode(genome.codes("chrM", 200, 203)) == "NNN"
    assert genome.codes("chrM", 5, 5).size == 0


# In a process of its own: a fork of this one, where jax may have threads, could hang.
_FORKED_READERS = """
import multiprocessing, sys
import numpy as np
from jaxdna.data.genome import Genome

genome = Genome(sys.argv[1])  # opens the file that the children inherit

def read(seed):
    starts = np.random.default_rng(seed).integers(0, 2900, 500).tolist()
    return [genome.codes("chr1", start, start + 50).tobytes() for start in starts]

with multiprocessing.get_context("fork").Pool(4) as pool:
    together = pool.map(read, range(16), chunksize=1)
sys.exit(together != [read(seed) for seed in range(16)])
"""


def test_forked_processes_share_an_open_file_without_harm(tmp_path):
    (tmp_path / "g.fa").write_bytes(PLAIN)
    command = [sys.executable, "-c", _FORKED_READERS, str(tmp_path / "g.fa")]
    assert subprocess.run(command, cwd=REPOSITORY, timeout=60).returncode == 0


def test_processes_that_open_a_packed_genome_at_once_unpack_it_once(tmp_path):
    (tmp_path / "g.fa.gz").write_bytes(gzip.compress(PLAIN))
    opened = []
    work = [
        threading.Thread(target=lambda: opened.append(Genome(tmp_path / "g.fa.gz", cache=tmp_path)))
        for _ in range(4)
    ]
    for thread in work:
        thread.start()
    for thread in work:
        thread.join()
    assert len(opened) == 4
    for genome in opened:
        check(genome, LETTERS, windows=5)
    assert len(list((tmp_path / "genomes").iterdir())) == 1


def fai(content):
    """An index as samtools makes it of lines of 60 bases."""
    rows, place = [], 0
    for record in content.decode().split(">")[1:]:
        head, lines = record.split("\n", 1)
        place += len(head) + 2
        rows.append(f"{head.split()[0]}\t{len(lines.replace(chr(10), ''))}\t{place}\t60\t61\n")
        place += len(lines)
    return "".join(rows)


@pytest.mark.parametrize(
    "index",
    [
        pytest.param(fai(PLAIN), id="of another genome"),
        pytest.param("", id="empty"),
        pytest.param("chr1\tx\n", id="damaged"),
    ],
)
@pytest.mark.parametrize("pack", [bytes, bgzip], ids=["plain", "bgzip"])
def test_no_index_beside_the_file_is_believed(tmp_path, index, pack):
    other = draw(1, first=2_941)
    path = tmp_path / "g.fa"
    path.write_bytes(pack(fasta(other)))
    (tmp_path / "g.fa.fai").write_text(index)
    (tmp_path / "g.fa.gzi").write_bytes(b"")
    long_ago = path.stat().st_mtime_ns - 10**12
    os.utime(path, ns=(long_ago, long_ago))  # older than its index
    check(Genome(path), other)
    assert (tmp_path / "g.fa.fai").read_text() == index  # it is not ours


@pytest.mark.parametrize("how", ["copied over", "moved", "linked"])
def test_another_genome_in_its_place_is_read_from_then_on(tmp_path, how):
    other, path = draw(1, first=2_941), tmp_path / "g.fa"
    first, second = tmp_path / "a.fa", tmp_path / "b.fa"
    first.write_bytes(PLAIN)
    second.write_bytes(fasta(other))
    for file in (first, second):
        os.utime(file, ns=(10**18, 10**18))
    if how == "linked":
        path.symlink_to(first)
    else:
        first.rename(path)
    before = Genome(path, cache=tmp_path / "cache")
    check(before, LETTERS)
    if how == "copied over":
        path.write_bytes(second.read_bytes())
        os.utime(path, ns=(10**18, 10**18))
    elif how == "moved":
        second.rename(path)
    else:
        path.unlink()
        path.symlink_to(second)
    check(Genome(path, cache=tmp_path / "cache"), other)
    if how != "copied over":
        check(before, LETTERS)  # the open file is still the old one


def test_a_genome_that_is_cut_while_it_is_open_is_a_sentence(tmp_path):
    path = tmp_path / "g.fa"
    path.write_bytes(PLAIN)
    genome = Genome(path)
    path.write_bytes(PLAIN[:500])
    with pytest.raises(UserError, match="changed while it was being read"):
        genome.codes("chr2", 0, 100)


def test_without_a_cache_a_plain_genome_is_read_and_a_packed_one_is_a_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    path = tmp_path / "g.fa"
    path.write_bytes(PLAIN)
    check(Genome(path, cache=tmp_path / "file"), LETTERS, windows=5)
    path.write_bytes(gzip.compress(PLAIN))
    with pytest.raises(UserError, match=r"unpacked once into .*, which failed"):
        Genome(path, cache=tmp_path / "file")


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "packed"])
def test_a_damaged_index_is_made_anew(tmp_path, pack):
    path = tmp_path / "g.fa"
    path.write_bytes(pack(PLAIN))
    Genome(path, cache=tmp_path)
    (index,) = (tmp_path / "genomes").glob("*/index.json")
    whole = index.read_text()
    index.write_text(whole.replace("3000", "3001"))
    check(Genome(path, cache=tmp_path), LETTERS, windows=5)
    assert index.read_text() == whole
    assert list((tmp_path / "genomes").iterdir()) == [index.parent]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", ["contains no records"]),
        (b"\n\n", ["contains no records"]),
        (b"; a comment\n", ["contains no records"]),
        (b"hello\n>a\nACGT\n", ["'hello' comes before the first header"]),
        (b">a\nACGT\n>b\nA\n>a x\nACGT\n", ["cannot be indexed", "a occurs twice"]),
        (b">a\nACGT\n>b\rACGT\n>c\nA\n", ["CR alone", "others with LF"]),
        (gzip.compress(PLAIN)[:-30], ["truncated gzip"]),
        (two_bit(LETTERS)[:-1], ["truncated .2bit"]),
        (two_bit(LETTERS)[:30], ["truncated .2bit"]),
        (struct.pack("<4I", 0x1A412743, 7, 0, 0), ["version 7"]),
        (b"BZh91AY&SY", ["bzip2-compressed"]),
    ],
)
def test_what_is_no_genome_has_its_sentence(tmp_path, content, words):
    path = tmp_path / "bad.fa"
    path.write_bytes(content)

    def read_all():
        genome = Genome(path)
        for name, length in genome.lengths.items():
            genome.codes(name, 0, length)

    with pytest.raises(UserError) as caught:
        read_all()
    assert all(word in str(caught.value) for word in words), caught.value


def test_what_cannot_be_opened_has_its_sentence(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path, words in (("absent.fa", "no such file"), (".", "directory"), ("pipe", "is a pipe")):
        with pytest.raises(UserError, match=words):
            Genome(tmp_path / path)
    with pytest.raises(UserError, match="stdin is a pipe"):
        Genome("-")


def test_letters_that_are_no_bases_are_named_with_their_place(tmp_path):
    path = tmp_path / "p.fa"
    path.write_bytes(b">a\nACGTEEACGT\n")
    genome = Genome(path)
    assert decode(genome.codes("a", 6, 10)) == "ACGT"
    with pytest.raises(UserError, match="a:2-8: letter 'E' at offset 2"):
        genome.codes("a", 2, 8)
