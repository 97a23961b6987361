"""Gives every reader of users' files odd bytes: `python tools/fuzz_readers.py [INPUTS] [SEED]`.

Each input is a good file of the reader's own kind that was cut, spliced and sprinkled, or words of
its format in any order, or noise; plain or packed. What comes back must be data or a sentence, in
bounded time and memory. Prints the counts of each reader, and how to have any failure again.
"""

import argparse
import gzip
import json
import os
import random
import resource
import struct
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).parent.parent))

from jaxdna.analysis.labelled_scores import read_labels
from jaxdna.config import flat, load_config, validate
from jaxdna.data import streams
from jaxdna.data.fasta import read_fasta_blocks, read_fasta_pieces
from jaxdna.data.genome import Genome
from jaxdna.data.header_targets import labelled_by_headers
from jaxdna.data.intervals import place_windows, read_intervals, read_windows
from jaxdna.data.motifs import load_motif, read_motifs
from jaxdna.data.registry import load_dataset
from jaxdna.data.split_table import read_split_table
from jaxdna.data.tables import read_table
from jaxdna.data.targets import FORMS
from jaxdna.data.variants import read_variants
from jaxdna.errors import JaxdnaError
from jaxdna.runs.run_folder import RunFolder

MOST_SECONDS = 20.0  # of one input; each has some kilobytes
MOST_GIGABYTES = 2.0  # that the process grows by, all inputs together
POLICIES = ("zero", "uniform", "uniform", "zero", "error")
WORDS = [
    b"\n", b"\r\n", b"\r", b"\t", b" ", b"", b"0", b"1", b"-1", b"1e9", b"nan", b"inf", b"\0",
    b"9" * 5000, b"2147483648", b"18446744073709551616", b"0x10", b"1_0", b"\xef\xbb\xbf",
    b"\xff\xfe", b"\xe2\x80\xa8", b"\xc2\x85", b"\xa0", b"\xe9", b"\x1c", b"\v", b"#", b">", b";",
    "\u0661\u00b2\U0001f9ec".encode(), b"N", b"A" * 300, b"*", b"-", b"..", b"/", b"[/]", b"$\\",
]  # fmt: skip


@dataclass(frozen=True)
class Reader:
    """How one kind of file is read.

    Attributes:
      read: takes the path of a file, and a source of chance.
      seeds: good files of the kind.
      words: beside `WORDS`, what the kind is made of.
    """

    read: Callable[[Path, random.Random], object]
    seeds: list[bytes]
    words: list[bytes]


def make_input(reader: Reader, rng: random.Random) -> bytes:
    """Returns the bytes of one file."""
    words = WORDS + reader.words
    kind = rng.random()
    if kind < 0.1:
        content = rng.randbytes(rng.randrange(80))
    elif kind < 0.3:
        content = b"".join(rng.choices(words, k=rng.randrange(1, 40)))
    else:
        content = rng.choice(reader.seeds)
        for _ in range(rng.randrange(0, 4)):
            content = _changed(content, words, rng)
    packed = rng.random()
    if packed < 0.1:
        content = gzip.compress(content, 1, mtime=0)
        if packed < 0.06:
            content = _changed(content, words, rng)
    return content


def _changed(content: bytes, words: list[bytes], rng: random.Random) -> bytes:
    at, stop = sorted(rng.randrange(len(content) + 1) for _ in range(2))
    stop = min(stop, at + rng.choice([0, 1, 5, 40, len(content)]))
    lines = content.split(b"\n")
    change = rng.randrange(7)
    if change == 0:  # a word in the place of a stretch
        return content[:at] + rng.choice(words) + content[stop:]
    if change == 1:
        return content[:at]
    if change == 2:  # a stretch twice
        return content[:stop] + content[at:]
    if change == 3 and content:
        flipped = bytearray(content)
        flipped[at % len(content)] ^= 1 << rng.randrange(8)
        return bytes(flipped)
    if change == 4:
        rng.shuffle(lines)
        return b"\n".join(lines)
    if change == 5:  # a word in the place of a column
        row = rng.randrange(len(lines))
        columns = lines[row].split(b"\t")
        columns[rng.randrange(len(columns))] = rng.choice(words)
        return b"\n".join([*lines[:row], b"\t".join(columns), *lines[row + 1 :]])
    return content.replace(b"\n", rng.choice([b"\r\n", b"\r", b"\n\n", b" \n"]))


def _lists(*readers: Callable) -> Callable[[Path, random.Random], object]:
    return lambda path, rng: list(rng.choice(readers)(path, rng))


def _whole_genome(path: Path, rng: random.Random) -> None:
    genome = Genome(path, rng.choice(POLICIES))
    for name, length in genome.lengths.items():
        start = rng.randrange(-5, min(length, 10**6) + 5)
        genome.codes(name, start, start + rng.randrange(300))


def _windows(path: Path, rng: random.Random) -> None:
    genome = Genome(path.parent / "genome.fa", rng.choice(POLICIES))
    placed = place_windows(read_intervals(path), genome, rng.choice([1, 20, 500]), "x")
    placed.notes()
    list(read_windows(placed, genome))


def _variants(path: Path, rng: random.Random) -> None:
    genome = Genome(path.parent / "genome.fa", rng.choice(POLICIES))
    for variant in read_variants(path, genome, rng.choice([1, 20, 500])):
        assert (variant.reference_codes is None) == (variant.alternative_codes is None)


def _motif(path: Path, rng: random.Random) -> None:
    for motif in read_motifs(path):
        assert motif.probabilities.shape == (motif.width, 4)
        _ = motif.label, motif.consensus
    load_motif(f"{path}{rng.choice(['', ':MA1', ':'])}")


def _run_folder(path: Path, rng: random.Random) -> None:
    folder = RunFolder(path.parent / "run")
    folder.path.mkdir(exist_ok=True)
    for name in ("config.json", "data.json", "summary.json", "metrics.jsonl"):
        (folder.path / name).write_bytes(path.read_bytes())
    folder.read_data(), folder.read_summary(), folder.read_metrics()
    folder.read_config()


def _data_set(key: str) -> Callable[[Path, random.Random], object]:
    """Everything that is done with a file before it is trained on."""

    def read(path: Path, rng: random.Random) -> None:
        other = {"positives": "negatives.fa", "bed": "dinucleotide_shuffle"}.get(key, "")
        given = {
            f"data.{key}": str(path),
            "data.negatives": str(path.parent / other) if "." in other else other,
            "data.genome": str(path.parent / "genome.fa") if key == "bed" else "",
            "data.ambiguous": rng.choice(POLICIES),
            "data.lengths": rng.choice(["error", "pad", "pad", "center_crop"]),
            "data.length": rng.choice([0, 0, 90, 30]),
            "model.width": rng.choice([1, 15]),
            "runtime.data_cache": str(path.parent / "cache"),
        }
        load_dataset(validate(flat(load_config("fasta")) | given))

    return read


def _two_bit() -> bytes:
    names, packed = [b"chr1", b"2"], bytes(range(40))
    begin = 16 + sum(5 + len(name) for name in names)
    record = struct.pack("<5I", 160, 1, 10, 20, 0) + struct.pack("<I", 0) + packed
    index = b"".join(
        bytes([len(name)]) + name + struct.pack("<I", begin + i * len(record))
        for i, name in enumerate(names)
    )
    return struct.pack("<4I", 0x1A412743, 0, len(names), 0) + index + record * len(names)


FASTA = b"".join(b">r%d x\n%s\n" % (i, b"ACGTTGCANACGGT" * (3 + i % 3)) for i in range(30))
TABLE = b"sequence\tlabel\n" + b"ACGTTGCATTGACCATGGATTACA\t1\nTTGCAACGTTGCATTGACCATGGA\t0\n" * 20
TARGETS = b"id\tsequence\tx\ty\n" + b"a\tACGTTGCATTGACCATGGATTACA\t1\t0\nb\tTTGCA\t0\t2.5\n" * 20
BED = b"track name=x\n" + b"".join(
    b"chr1\t%d\t%d\tp%d\t0\t%s\t1\t1\t1\t%d\n" % (95 * i, 95 * i + 30, i, b"+-."[i % 3 :][:1], i)
    for i in range(30)
)
BED3 = b"chr1 40 90\nchr2\t1\t2\n"
VCF = (
    b"##fileformat=VCFv4.2\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"
    b"chr1\t40\trs1\tA\tC,<DEL>\t.\t.\t.\n1\t60\t.\tACGT\tA\t.\t.\tX\nchr2\t5\tn\tN\t*\n"
)
SPLITS = b"id\tsplit\tlabel\n" + b"".join(
    b"r%d\t%s\t%d\n" % (i, [b"train", b"validation", b"test"][i % 3], i % 2) for i in range(9)
)
MEME = (
    b"MEME version 4\n\nALPHABET= ACGT\n\nMOTIF MA1 TAL1\n"
    b"letter-probability matrix: alength= 4 w= 2 nsites= 9\n 0.1 0.2 0.3 0.4\n 1 0 0 0\n"
)
JASPAR = b">MA1 TAL1\nA [ 1 2 3 ]\nC [ 3 2 1 ]\nG [ 0 0 1 ]\nT [ 1 1 1 ]\n"
HOMER = b">ACG\tname\t5.1\t-20\t0\t.\n0.7\t0.1\t0.1\t0.1\n0.1\t0.7\t0.1\t0.1\n0.1\t0.1\t0.7\t0.1\n"
TRANSFAC = b"AC M1\nID x\nP0 A C G T\n01 1 2 3 4 N\n02 4 3 2 1 N\nXX\n//\n"
LETTERS = [b"A", b"C", b"G", b"T", b"ACGT", b"NNNN", b"acgtu", b"RYSW", b">x\n", b"\n>"]
ROWS = [b"chr1\t", b"chr2\t", b"1\t", b"+", b"<DEL>", b"A,C", b"track ", b"browser", b"."]
RUN = json.dumps(flat(load_config("tal1"))).encode()
DATA = json.dumps(
    {"classes": 2, "example_shape": [60], "inputs": [{"path": "x", "sha256": "0"}]}
).encode()

READERS = {
    "fasta": Reader(
        _lists(
            lambda path, rng: read_fasta_blocks(path, rng.choice(POLICIES)),
            lambda path, rng: read_fasta_pieces(path, most_bases=rng.choice([None, 3, 50])),
        ),
        [FASTA],
        LETTERS,
    ),
    "table": Reader(
        _lists(
            lambda path, rng: read_table(path, rng.choice(POLICIES)),
            lambda path, rng: read_table(path, kind=rng.choice(list(FORMS))),
        ),
        [TABLE, TARGETS],
        [*LETTERS, b"\t", b"nan", b"1.5", b"-"],
    ),
    "headers": Reader(
        _lists(
            lambda path, rng: labelled_by_headers(
                read_fasta_blocks(path, whole_headers=True), str(path), rng.choice(list(FORMS))
            )
        ),
        [b">a label=1\nACGT\n>b label=0\nAC\n", b">1\nACGT\n>0\nAC\n", b">a|1\nAC\n>b|0\nAC\n"],
        [*LETTERS, b"|", b"label=", b"1", b" "],
    ),
    "intervals": Reader(_windows, [BED, BED3], ROWS),
    "genome": Reader(_whole_genome, [FASTA, _two_bit()], LETTERS),
    "variants": Reader(_variants, [VCF], [*ROWS, *LETTERS]),
    "labels": Reader(lambda path, rng: read_labels(str(path)), [SPLITS], [b"id", b"label"]),
    "split table": Reader(
        lambda path, rng: read_split_table(str(path), [f"r{i}" for i in range(9)]),
        [SPLITS],
        [b"id", b"split", b"train"],
    ),
    "motifs": Reader(_motif, [MEME, JASPAR, HOMER, TRANSFAC], [b"MOTIF", b"w= 3", b"A [", b"XX"]),
    "run folder": Reader(_run_folder, [RUN, DATA], [b"{", b"}", b"[", b'"', b"null", b":", b","]),
    "data set of FASTA": Reader(_data_set("positives"), [FASTA], LETTERS),
    "data set of a table": Reader(_data_set("table"), [TABLE], LETTERS),
    "data set of intervals": Reader(_data_set("bed"), [BED], ROWS),
}


def fuzz(inputs: int, seed: int, folder: Path) -> tuple[dict[str, Counter], list[str]]:
    """Reads files of chance, an equal number with each reader.

    Args:
      inputs: how many in all.
      seed: the same seed gives the same files.
      folder: for them; empty.

    Returns:
      For each reader what came back: `read`, `refused`, `failed` and `slow`; and the failures.
    """
    (folder / "genome.fa").write_bytes(b">chr1\n" + b"ACGTTGCANR" * 300 + b"\n>chr2\nACGTAC\n")
    (folder / "negatives.fa").write_bytes(FASTA.replace(b">r", b">n").replace(b"AC", b"GT"))
    counts: dict[str, Counter] = {name: Counter() for name in READERS}
    failures: list[str] = []
    path = folder / "input"
    for number in range(inputs):
        name = list(READERS)[number % len(READERS)]
        rng = random.Random(f"{seed} {number}")
        content = make_input(READERS[name], rng)
        path.write_bytes(content)
        begin = time.perf_counter()
        blocks = rng.choice([3, 17, 100, streams.BLOCK_BYTES])
        try:
            with mock.patch.object(streams, "BLOCK_BYTES", blocks), warnings.catch_warnings():
                warnings.simplefilter("error")
                READERS[name].read(path, rng)
            outcome = "read"
        except JaxdnaError as error:
            outcome = "refused" if "\n" not in str(error) else "failed"
            said = str(error)
        except BaseException:
            outcome, said = "failed", traceback.format_exc()
        counts[name][outcome] += 1
        counts[name]["slow"] += time.perf_counter() - begin > MOST_SECONDS
        if outcome == "failed":
            failures.append(f"input {number} of seed {seed}, {name}: {content[:200]!r}\n{said}")
    return counts, failures


def main() -> int:
    """Returns 1 where a reader failed, was slow, or took too much memory."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("inputs", type=int, nargs="?", default=20_000)
    parser.add_argument("seed", type=int, nargs="?", default=0)
    arguments = parser.parse_args()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        counts, failures = fuzz(arguments.inputs, arguments.seed, Path(folder))
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) / 2**20
    for failure in failures[:20]:
        print(failure)
    kinds = ("read", "refused", "failed", "slow")
    print(f"{'reader':<22}", *(f"{kind:>8}" for kind in kinds))
    for name, found in counts.items():
        print(f"{name:<22}", *(f"{found[kind]:>8,}" for kind in kinds))
    total = sum(counts.values(), Counter())
    print(f"{'all':<22}", *(f"{total[kind]:>8,}" for kind in kinds))
    print(f"{time.perf_counter() - begin:.0f} s; memory grew by {grown:.2f} GB")
    return int(bool(total["failed"] or total["slow"] or grown > MOST_GIGABYTES))


if __name__ == "__main__":
    sys.exit(main())
