"""Whatever bytes a user names as a file: rows, or one sentence; never a traceback."""

import gzip
from unittest import mock

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from jaxdna.data import streams
from jaxdna.data.genome import Genome
from jaxdna.data.intervals import place_windows, read_intervals, read_windows
from jaxdna.data.tables import read_table
from jaxdna.data.variants import read_variants
from jaxdna.errors import UserError

FEW_EXAMPLES = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def contents(letters, start):
    """Random bytes, or text of a format's own letters with or without a good start; also packed."""
    text = st.text(letters, max_size=60).map(str.encode)
    plain = st.one_of(st.binary(max_size=60), text, text.map(lambda tail: start + tail))
    return st.one_of(plain, plain.map(gzip.compress), plain.map(lambda b: gzip.compress(b)[:-5]))


def rows_or_sentence(call):
    try:
        call()
        sentence = ""
    except UserError as error:
        sentence = str(error)
    assert "\n" not in sentence


@pytest.fixture
def genome(tmp_path):
    (tmp_path / "g.fa").write_text(">1\n" + "ACGTTGCA" * 20 + "\n")
    return Genome(tmp_path / "g.fa")


@FEW_EXAMPLES
@given(content=contents("chr1\t\n 0123456789+-.X#", b"1\t40\t50\n"), block=st.integers(3, 40))
@example(content=b"1\t1\t" + b"9" * 40, block=40)
def test_bed(tmp_path, genome, content, block):
    path = tmp_path / "x"
    path.write_bytes(content)
    with mock.patch.object(streams, "BLOCK_BYTES", block):
        rows_or_sentence(
            lambda: list(read_windows(place_windows(read_intervals(path), genome, 10, "x"), genome))
        )


@FEW_EXAMPLES
@given(content=contents("ACGTN\t\n01 é#", b"ACGT\t1\n"), block=st.integers(3, 40))
def test_table(tmp_path, content, block):
    path = tmp_path / "x"
    path.write_bytes(content)
    with mock.patch.object(streams, "BLOCK_BYTES", block):
        rows_or_sentence(lambda: list(read_table(path)))


@FEW_EXAMPLES
@given(content=contents("1\t\n0245.ACGTN<>*,[]#", b"1\t40\t.\tA\tC\n"), block=st.integers(3, 40))
def test_vcf(tmp_path, genome, content, block):
    path = tmp_path / "x"
    path.write_bytes(content)
    with mock.patch.object(streams, "BLOCK_BYTES", block):
        rows_or_sentence(lambda: list(read_variants(path, genome, 10)))


@FEW_EXAMPLES
@given(content=contents(">ACGTN\n\r ;é", b">1\nACGT\n"))
@example(content=b">\0\n\0\0\n\xc2\x80")
@example(content=b">1\n\nA\nAC\n\n")
def test_genome(tmp_path, content):
    path = tmp_path / "x"
    path.write_bytes(content)

    def read_all():
        genome = Genome(path)
        for name, length in genome.lengths.items():
            assert genome.codes(name, 0, length).size == length

    rows_or_sentence(read_all)
