"""What is larger than memory or disk is refused with its size, before it is made."""

import gzip
import os
import re
import subprocess
import sys

import numpy as np
import pytest

from jaxdna.config import load_config
from jaxdna.data import fasta, memory
from jaxdna.data.code_store import find_or_make
from jaxdna.data.fasta import read_fasta_blocks, read_fasta_pieces
from jaxdna.data.memory import available_memory
from jaxdna.data.motifs import read_motifs
from jaxdna.data.records import Records, fit_length
from jaxdna.data.registry import load_dataset
from jaxdna.data.streams import read_blocks, read_lines
from jaxdna.errors import UserError

MANY = Records([f"r{i}" for i in range(1000)], np.zeros(3000, np.uint8), np.arange(1001) * 3)


def test_a_limit_of_the_shell_is_memory_that_is_not_there():
    limit = 3 * 2**30
    code = (
        "import resource; from jaxdna.data.memory import available_memory\n"
        f"resource.setrlimit(resource.RLIMIT_AS, ({limit}, {limit}))\n"
        "print(available_memory())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 0 < int(done.stdout) <= limit
    assert 2**20 < available_memory() < 2**60


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_a_simulation_beyond_memory_is_refused_with_its_size(split):
    sizes = [f"data.{split}_examples=1000000000", "data.length=1000000"]
    with pytest.raises(UserError, match=rf"{split}_examples=1000000000.* would take 1,000,\d\d\d"):
        load_dataset(load_config("configs/tal1.py", sizes))


def test_rows_beyond_memory_or_disk_are_refused_with_their_size(tmp_path):
    with pytest.raises(UserError, match=r"x\.fa: 1,000 rows of 1,000,000,000,000,000 bases"):
        fit_length(MANY, 10**15, "pad", "x.fa")
    with pytest.raises(UserError, match=r"lengths=pad makes 1,000 rows .* 1,000,000,000\.0 GB"):
        find_or_make([], tmp_path, lambda writer: writer.add("x", [MANY]), "pad", 10**15)
    assert not list(tmp_path.glob("[!.]*"))


@pytest.mark.parametrize(
    "read", [read_fasta_blocks, lambda at: read_fasta_pieces(at, most_bases=None)]
)
def test_a_record_that_no_memory_holds_is_refused_with_its_size(tmp_path, monkeypatch, read):
    monkeypatch.setattr(fasta, "_MOST_WHOLE_BASES", 2**20)
    path = tmp_path / "x.fa"
    path.write_bytes(b">short\nACGT\n>long\n" + b"ACGT" * 4 * 2**20 + b"\n")
    with pytest.raises(UserError, match=r"'long', line 3 has more than 1,048,576 bases"):
        list(read(path))
    assert sum(piece.records.codes.size for piece in read_fasta_pieces(path)) == 4 + 2**24


def test_a_file_that_fills_the_memory_row_by_row_is_refused_with_its_size(tmp_path):
    """Packed, a few megabytes hold more rows than any memory; nothing says so in advance."""
    path = tmp_path / "x.bed.gz"
    packed = gzip.compress(b"1\t1\t2\n" * 2**20)
    path.write_bytes(packed * 300)  # 1.8 GB, but only 40 GB as rows of Python
    code = (
        "import resource, sys; from jaxdna.data.intervals import read_intervals\n"
        "limit = 400_000_000 + 4096 * int(open('/proc/self/statm').read().split()[0])\n"
        "resource.setrlimit(resource.RLIMIT_AS, (limit, limit))\n"
        "try:\n    read_intervals(sys.argv[1])\n"
        "except Exception as error:\n    print(type(error).__name__, error)"
    )
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True)
    assert re.fullmatch(
        r"UserError .*x\.bed\.gz: reading on after 0\.\d GB of text would take 0\.3 GB of memory, "
        r"but only 0\.\d GB are free here; try a smaller file, or more memory\n",
        done.stdout,
    ), done.stdout + done.stderr


def test_a_motif_file_of_too_many_lines_is_refused(tmp_path):
    (tmp_path / "x.meme.gz").write_bytes(gzip.compress(b"MEME version 4\n" + b"\n" * 2**21))
    with pytest.raises(UserError, match=r"more than 1,048,576 lines"):
        read_motifs(tmp_path / "x.meme.gz")


@pytest.fixture
def job(tmp_path, monkeypatch):
    """Makes a job's limit, in both versions of the system's interface."""

    def limit(bytes_, current, **stat):
        monkeypatch.setattr(memory, "_CGROUPS", tmp_path)
        kinds = (
            ("memory.max", "memory.current", ""),
            (
                "memory/memory.limit_in_bytes",
                "memory/memory.usage_in_bytes",
                "total_",
            ),
        )
        (tmp_path / "memory").mkdir()
        for most, used, prefix in kinds:
            (tmp_path / most).write_text(f"{bytes_}\n")
            if current is not None:
                (tmp_path / used).write_text(f"{current}\n")
                rows = [f"{prefix}{name} {value}\n" for name, value in stat.items()]
                (tmp_path / most).with_name("memory.stat").write_text("".join(rows))

    return limit


def test_files_that_a_job_has_cached_are_memory_that_it_may_take(job):
    job(600 * 2**20, 500 * 2**20, active_file=300 * 2**20, inactive_file=100 * 2**20)
    assert available_memory() == 500 * 2**20


def test_mapped_files_are_not_memory_that_is_taken(job, tmp_path):
    (tmp_path / "x").write_bytes(b"")
    os.truncate(tmp_path / "x", 128 * 2**20)
    job(2**30, None)
    before = available_memory()
    mapped = np.memmap(tmp_path / "x", np.uint8, "r")
    assert not mapped.sum()
    assert abs(available_memory() - before) < 32 * 2**20


def test_what_is_read_block_by_block_needs_no_more_than_its_blocks(job, tmp_path):
    (tmp_path / "x.fa").write_bytes(b">a\nACGT\n>b\nAC\n" * 2**20)  # beyond one block
    job(600 * 2**20, 500 * 2**20, active_file=0, inactive_file=0)
    assert sum(map(len, read_blocks(tmp_path / "x.fa"))) == 14 * 2**20
    with pytest.raises(UserError, match=r"would take 0\.3 GB of memory, but only 0\.1 GB are free"):
        list(read_lines(tmp_path / "x.fa"))


def test_rows_that_are_written_one_chunk_after_the_other_ask_for_no_memory(job, tmp_path):
    job(1, 1, active_file=0, inactive_file=0)
    store = find_or_make([], tmp_path / "cache", lambda writer: writer.add("x", [MANY]), "pad", 5)
    assert store.codes.shape == (1000, 5)
