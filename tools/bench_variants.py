"""Time and memory of `predict` on the alleles of a VCF file, beside as many single windows.

python tools/bench_variants.py [--alleles=100000,1000000] [--bases=8000000] [--workdir=DIR]

Makes a random genome and a bgzipped VCF file on it (a tenth of its alleles insertions, a tenth
deletions), and scores it from the file, from a pipe and into VCF; then a FASTA file with two
windows for each allele. Each command is a process of its own: the operating system reports its
processor seconds and its peak memory (resident), Python, JAX and its compiler included.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from jaxdna.data.bgzf import BgzfWriter

LENGTH = 500
CHROMOSOMES = 4
AT_ONCE = 10_000  # windows that are written at once


def jaxdna(*arguments: str, stdin: Path | None = None) -> tuple[float, float]:
    """Runs the command, with `stdin` through a pipe; returns processor seconds and GB."""
    source = stdin and subprocess.Popen(["cat", stdin], stdout=subprocess.PIPE)
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "jaxdna", *arguments],
            stdin=source.stdout if source else None,
            stdout=said,
            stderr=said,
        )
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            said.seek(0)
            raise RuntimeError(f"{' '.join(arguments)} failed:\n{said.read()}")
    if source:
        source.wait()
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024 / 1e9


def make_genome(bases: int, folder: Path) -> dict[str, bytes]:
    """Writes g.fa, and returns its chromosomes."""
    rng = np.random.default_rng(0)
    letters = np.frombuffer(b"ACGT", np.uint8)
    genome = {
        f"chr{number}": letters[rng.integers(0, 4, bases // CHROMOSOMES)].tobytes()
        for number in range(1, CHROMOSOMES + 1)
    }
    with (folder / "g.fa").open("wb") as stream:
        for name, sequence in genome.items():
            stream.write(b">%s\n%s\n" % (name.encode(), sequence))
    return genome


def make_alleles(count: int, genome: dict[str, bytes], folder: Path) -> Path:
    """Writes a sorted VCF file of so many alleles, one in each row."""
    rng, path = np.random.default_rng(1), folder / f"{count}.vcf.gz"
    with path.open("wb") as raw, BgzfWriter(raw, 4) as stream:
        stream.write(b"##fileformat=VCFv4.3\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n")
        for name, sequence in genome.items():
            places = np.sort(rng.integers(LENGTH, len(sequence) - LENGTH, count // CHROMOSOMES))
            for place, kind in zip(places.tolist(), rng.random(places.size), strict=True):
                base = sequence[place : place + 1]
                one, other = base, b"ACGT".replace(base, b"")[place % 3 :][:1]
                if kind < 0.1:
                    other = base + b"GATTA"
                elif kind < 0.2:
                    one, other = sequence[place : place + 4], base
                row = [name.encode(), b"%d" % (place + 1), b".", one, other, b".", b"PASS", b"."]
                stream.write(b"\t".join(row) + b"\n")
    return path


def make_windows(count: int, genome: dict[str, bytes], folder: Path) -> Path:
    """Writes a FASTA file of so many windows."""
    rng, path, sequence = np.random.default_rng(2), folder / f"{count}.fa", genome["chr1"]
    with path.open("wb") as stream:
        for first in range(0, count, AT_ONCE):
            places = rng.integers(0, len(sequence) - LENGTH, min(AT_ONCE, count - first))
            for number, place in enumerate(places.tolist(), first):
                stream.write(b">w%d\n%s\n" % (number, sequence[place : place + LENGTH]))
    return path


def main() -> None:
    """Measures, and prints the table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--alleles", default="100000,1000000")
    parser.add_argument("--bases", type=int, default=8_000_000)
    parser.add_argument("--workdir", type=Path, help="a run; default: a small one is trained")
    arguments = parser.parse_args()
    print("| what | alleles | processor seconds | µs per window | peak memory (resident), GB |")
    print("| --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        model = arguments.workdir or folder / "model"
        if not arguments.workdir:
            epochs = ["--config.train.epochs=1", "--config.data.train_examples=1280"]
            jaxdna("train", "--config=tal1", *epochs, f"--workdir={model}")
        genome = make_genome(arguments.bases, folder)
        predict = ["predict", f"--workdir={model}"]
        on = [*predict, f"--genome={folder / 'g.fa'}"]
        for count in map(int, arguments.alleles.split(",")):
            vcf = make_alleles(count, genome, folder)
            windows = make_windows(2 * count, genome, folder)
            tsv, scored = f"--output={folder / 'y.tsv'}", f"--output={folder / 'y.vcf.gz'}"
            ways = {
                "from bgzip": ([*on, f"--variants={vcf}", tsv], None),
                "from a pipe": ([*on, "--variants=-", tsv], vcf),
                "into VCF": ([*on, f"--variants={vcf}", scored], None),
                "as windows in FASTA": ([*predict, f"--sequences={windows}", tsv], None),
            }
            for name, (command, stdin) in ways.items():
                seconds, gb = jaxdna(*command, stdin=stdin)
                rate = seconds / count / 2 * 1e6
                print(f"| {name} | {count:,} | {seconds:.1f} | {rate:.1f} | {gb:.2f} |", flush=True)
            windows.unlink()


if __name__ == "__main__":
    main()
