"""The FASTA reader against a plain line-by-line reader, and against everything people feed it."""

import gzip
import io
import sys
import tracemalloc
import zlib
from unittest import mock

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jaxdna.data import streams
from jaxdna.data.fasta import read_fasta_blocks, read_fasta_pieces
from jaxdna.data.sequence_stats import SequenceStats
from jaxdna.data.sequences import decode, encode
from jaxdna.errors import UserError

FEW_EXAMPLES = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def write(folder, content, name="x.fa"):
    path = folder / name
    path.write_bytes(content)
    return path


def read(path, **options):
    blocks = read_fasta_blocks(path, **options)
    return [(name, decode(block[i])) for block in blocks for i, name in enumerate(block.ids)]


def refusal(path, **options):
    with pytest.raises(UserError) as caught:
        list(read_fasta_blocks(path, **options))
    sentence = str(caught.value)
    assert "\n" not in sentence
    return sentence


def plain_reader(content):
    """The slow way: line by line."""
    records = []
    for line in content.replace(b"\r\n", b"\n").split(b"\n"):
        if line.startswith(b">"):
            records.append([line[1:].split()[0].decode(), b""])
        elif not line.startswith(b";"):
            records[-1][1] += b"".join(line.split())
    return [(name, decode(encode(letters))) for name, letters in records]


NORMAL = {
    "one line": (b">a\nACGT\n>b\nTTTT\n", [("a", "ACGT"), ("b", "TTTT")]),
    "several lines": (b">a\nAC\nGT\n\n>b\nT\nTTT", [("a", "ACGT"), ("b", "TTTT")]),
    "CRLF": (b">a x\r\nAC\r\nGT\r\n>b\r\nT\r\n", [("a", "ACGT"), ("b", "T")]),
    "CR alone": (b">a x\rAC\rGT\r>b\rT\r", [("a", "ACGT"), ("b", "T")]),
    "CR alone, LF at the end": (b">a x\rAC\rGT\r>b\rT\r\n", [("a", "ACGT"), ("b", "T")]),
    "blank lines and blanks": (b"\n \n>a\n\n A C\tGT \n\n\n>b\nT\n\n", [("a", "ACGT"), ("b", "T")]),
    "comments": (b"; by hand\n>a\nAC\n;mid\nGT\n;end", [("a", "ACGT")]),
    "soft-masked and RNA": (b">a\nacgtUu\n", [("a", "ACGTTT")]),
    "IUPAC": (b">a\nANRYn\n", [("a", "ANNNN")]),
    "byte order mark": (b"\xef\xbb\xbf>a\nAC\n", [("a", "AC")]),
    "ids alike": (b">a\nAC\n>a\nGT\n", [("a", "AC"), ("a", "GT")]),
    "no id": (b">a\nAC\n> \nGT\n", [("a", "AC"), ("record2", "GT")]),
    "words after the id": (b">a  two words \nAC\n>b\tc\nGT\n", [("a", "AC"), ("b", "GT")]),
    "> inside a header": (b">a>b c\nAC\n", [("a>b", "AC")]),
    "id of another alphabet": (">é\nAC\n".encode(), [("é", "AC")]),
}


@pytest.mark.parametrize("block", [3, 4, 7, 2**20])
@pytest.mark.parametrize(("content", "expected"), NORMAL.values(), ids=NORMAL.keys())
def test_reads_what_is_normal_in_any_blocks(tmp_path, monkeypatch, content, expected, block):
    monkeypatch.setattr(streams, "BLOCK_BYTES", block)
    assert read(write(tmp_path, content)) == expected
    assert read(write(tmp_path, gzip.compress(content), "no_suffix")) == expected


@FEW_EXAMPLES
@given(data=st.data(), block=st.integers(1, 60))
def test_equals_the_plain_reader(tmp_path, data, block):
    letters = st.text("ACGTacgtNnRUu", min_size=1, max_size=30).map(str.encode)
    end = st.sampled_from([b"\n", b"\r\n"])
    filler = st.sampled_from([b"", b"", b"", b"\n", b"; note > A\n", b"  \n"])
    content = b""
    for number in range(data.draw(st.integers(1, 6))):
        content += b">s%d words%s" % (number, data.draw(end))
        for line in data.draw(st.lists(letters, min_size=1, max_size=4)):
            content += line + data.draw(end) + data.draw(filler)
    if data.draw(st.booleans()):
        content = content.rstrip()
    with mock.patch.object(streams, "BLOCK_BYTES", block):
        assert read(write(tmp_path, content)) == plain_reader(content)


@FEW_EXAMPLES
@given(
    content=st.one_of(
        st.binary(max_size=80),
        st.text(">;ACGTN-*\r\n @\0é", max_size=80).map(str.encode),
        st.binary(max_size=40).map(lambda junk: b">a\nACGT\n" + junk),
        st.binary(max_size=40).map(lambda junk: gzip.compress(b">a\nACGT\n") + junk),
        st.binary(max_size=40).map(lambda junk: b"\x1f\x8b\x08" + junk),
    ),
    block=st.integers(3, 30),
)
def test_any_bytes_give_records_or_a_sentence(tmp_path, content, block):
    path = write(tmp_path, content)
    with mock.patch.object(streams, "BLOCK_BYTES", block):
        try:
            blocks, sentence = list(read_fasta_blocks(path)), ""
        except UserError as error:
            blocks, sentence = [], str(error)
    if not blocks:
        assert sentence.startswith(str(path))
        assert "\n" not in sentence
    assert all(block.lengths.all() and block.codes.max() <= 5 for block in blocks)


JUNK = {
    "empty": (b"", ["is empty"]),
    "blank lines only": (b"\n\n", ["contains no records"]),
    "comment only": (b";x\n", ["contains no records"]),
    "empty gzip": (gzip.compress(b""), ["is empty"]),
    "text first": (b"\nhello\n>a\nAC\n", ["line 2", "'hello'", "before the first header"]),
    "FASTQ": (b"@r1\nACGT\n+\nIIII\n", ["line 1", "FASTQ"]),
    "header without sequence": (b">a\nAC\n>b\n>c\nAC\n", ["record 'b'", "line 3", "no sequence"]),
    "last header without sequence": (b">a\nAC\n>b", ["record 'b'", "line 3", "no sequence"]),
    "header only": (b">a\n", ["record 'a'", "line 1", "no sequence"]),
    "protein": (b">p\nMKV\nAEL\n", ["record 'p'", "line 3", "offset 4", "'E'", "protein"]),
    "stop": (b">p\nMKV*\n", ["record 'p'", "line 2", "offset 3", "'*'", "protein"]),
    "gap": (b">a\nAC\n>b x\nAC-T\n", ["record 'b'", "line 4", "offset 2", "'-'", "gaps"]),
    "digit": (b">a\nAC1\n", ["record 'a'", "line 2", "offset 2", "'1'"]),
    "binary": (b">a\nAC\x00\x01\n", ["line 2", "0x00", "not text"]),
    "half an old Mac": (b">a\nACGT\n>b\rAC\nAC\n", ["line 3", "old Macs"]),
    "a joint in a sequence": (b">a\nAC\x01\n", ["record 'a'", "line 2", "'\\x01'"]),
    "zip": (b"PK\x03\x04rest", ["zip archive"]),
    "bzip2": (b"BZh91AY", ["bzip2"]),
    "UTF-16": ("\ufeff>a\nAC\n".encode("utf-16-le"), ["UTF-16"]),
    "truncated gzip": (gzip.compress(b">a\n" + b"ACGT" * 999)[:-9], ["truncated gzip"]),
    "damaged gzip": (gzip.compress(b">a\nACGT\n")[:-8] + b"\1" * 8, ["damaged gzip"]),
    "endless header": (b">" + b"x" * (2**20 + 1), ["line 1", "header of more than"]),
}


@pytest.mark.parametrize(("content", "words"), JUNK.values(), ids=JUNK.keys())
def test_each_kind_of_junk_has_its_sentence(tmp_path, content, words):
    path = write(tmp_path, content)
    sentence = refusal(path)
    assert sentence.startswith(str(path))
    assert all(word in sentence for word in words), sentence


@pytest.mark.parametrize("block", [3, 5, 8, 2**20])
def test_place_of_a_wrong_letter_is_right_in_any_blocks(tmp_path, monkeypatch, block):
    monkeypatch.setattr(streams, "BLOCK_BYTES", block)
    path = write(tmp_path, b";c\n>a\r\nACGT\r\n\r\n>b rest\nAC GT\nAAAA\nAC!GT\n")
    sentence = refusal(path)
    assert "record 'b', line 8, offset 10: letter '!'" in sentence


@pytest.mark.parametrize("block", range(3, 9))
@pytest.mark.parametrize("mark", [">", ";"])
def test_a_mark_within_a_line_begins_no_record(tmp_path, monkeypatch, block, mark):
    monkeypatch.setattr(streams, "BLOCK_BYTES", block)
    sentence = refusal(write(tmp_path, f">a\nAC{mark}GT\n".encode()))
    assert f"record 'a', line 2, offset 2: letter '{mark}'" in sentence


def test_missing_file_and_folder_have_a_sentence(tmp_path):
    assert "no such file" in refusal(tmp_path / "absent.fa")
    assert "is a directory" in refusal(tmp_path)


def test_ambiguous_letters_follow_the_policy_and_are_counted(tmp_path):
    path = write(tmp_path, b">a\nACNN\n>b\nNNNN\n>c\nACGTAAAA\n>a\nrAAA\n")
    for policy, code in (("zero", 4), ("uniform", 5)):
        stats = SequenceStats()
        first, *_ = read_fasta_blocks(path, ambiguous=policy, stats=stats)
        assert first[0].tolist() == [0, 1, code, code]
        assert (stats.records, stats.bases, stats.ambiguous) == (4, 20, 7)
        assert stats.ambiguous_fraction == 7 / 20
        assert (stats.unknown_records, stats.shortest, stats.longest) == (1, 4, 8)
        assert stats.duplicate_ids == 1
        assert stats.notes() == [
            "7 of 20 letters (0.35) are N or another ambiguous letter",
            "1 of 4 sequences contain only N",
            "1 of 4 records repeat an earlier id (kept)",
        ]
    sentence = refusal(path, ambiguous="error")
    assert "'N'" in sentence
    assert "--config.data.ambiguous=error" in sentence
    assert "did you mean 'zero'" in refusal(path, ambiguous="zeros")


def test_headers_without_sequence_can_be_kept(tmp_path):
    stats = SequenceStats()
    path = write(tmp_path, b">a\n>b\nNN\n>c\n")
    assert read(path, allow_empty=True, stats=stats) == [("a", ""), ("b", "NN"), ("c", "")]
    assert (stats.empty_records, stats.unknown_records) == (2, 1)
    assert stats.notes()[-1] == "2 of 3 headers have no sequence"


def test_half_an_old_mac_is_refused_where_headers_without_sequence_are_kept(tmp_path):
    path = write(tmp_path, b">a\nACGT\n>b\rAC\n>c\nA\n")
    assert "old Macs" in refusal(path, allow_empty=True)
    with pytest.raises(UserError, match="old Macs"):
        list(read_fasta_pieces(path))


def test_headers_that_ncbi_joined_are_text(tmp_path):
    path = write(tmp_path, b">gi|1|a first\x01gi|2|b second\nACGT\n>gi|3\x01gi|4\nAC\n")
    assert read(path) == [("gi|1|a", "ACGT"), ("gi|3", "AC")]


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_reads_stdin(monkeypatch, pack):
    stream = io.TextIOWrapper(io.BytesIO(pack(b">a\nACGT\n")))
    monkeypatch.setattr(sys, "stdin", stream)
    assert read("-") == [("a", "ACGT")]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(pack(b""))))
    assert refusal("-").startswith("stdin is empty")


@pytest.mark.parametrize("member", [1, 100, 65280])
def test_reads_many_gzip_members_as_bgzip_writes_them(tmp_path, member):
    content = b"".join(b">s%d\n%s\n" % (i, b"ACGTN" * 50) for i in range(300))
    content = content[: 300 if member == 1 else None]
    parts = [gzip.compress(content[i : i + member]) for i in range(0, len(content), member)]
    path = write(tmp_path, b"".join(parts) + gzip.compress(b"") + b"\0" * 512)
    assert read(path) == plain_reader(content)


def test_highly_compressed_input_is_read_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(streams, "BLOCK_BYTES", 1000)
    squeeze = zlib.compressobj(9, wbits=31)
    path = write(tmp_path, squeeze.compress(b">a\n" + b"A" * 10**6) + squeeze.flush())
    assert [len(codes) for _, codes in read(path)] == [10**6]


def test_a_line_of_many_million_bases_takes_a_few_times_its_size(tmp_path):
    letters = np.random.default_rng(0).choice(np.frombuffer(b"ACGT", np.uint8), 3 * 10**7)
    path = write(tmp_path, b">chr\n" + letters.tobytes())
    tracemalloc.start()
    (block,) = read_fasta_blocks(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert block.codes.size == letters.size
    np.testing.assert_array_equal(block.codes, encode(letters.tobytes()))
    # The parts and their joint copy, and what is in flight for one block (masks, positions).
    assert peak < 2 * letters.size + 12 * streams.BLOCK_BYTES


def test_memory_does_not_grow_with_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(streams, "BLOCK_BYTES", 2**16)
    peaks = []
    for records in (1_000, 10_000):
        path = write(tmp_path, b"".join(b">s%d\n%s\n" % (i, b"ACGT" * 125) for i in range(records)))
        tracemalloc.start()
        assert sum(len(block) for block in read_fasta_blocks(path)) == records
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    ids_seen = 8 * 9_000  # a hash of every further id stays, for the count of duplicates
    assert peaks[1] < peaks[0] * 1.2 + ids_seen


def test_reads_the_real_peaks_as_the_plain_reader_does(nfe2):
    for name in ("positives.fa", "negatives.fa"):
        stats = SequenceStats()
        assert read(nfe2 / name, stats=stats) == plain_reader((nfe2 / name).read_bytes())
        assert stats.records == 644
        assert 59 <= stats.shortest < stats.longest <= 247
