"""Labelled tables: what is read, and the line of what is not."""

import gzip

import pytest

from jaxdna.data import tables
from jaxdna.data.sequences import decode
from jaxdna.data.tables import read_table
from jaxdna.errors import UserError


@pytest.mark.parametrize("header", [b"", b"sequence\tlabel\n", b"# made by hand\n\nseq\tbound\r\n"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_reads_rows_with_or_without_header(tmp_path, header, pack):
    path = tmp_path / "t"
    path.write_bytes(pack(header + b"ACGTn\t1\r\n\nacg\t0\nTT\t1"))
    (table,) = read_table(path)
    assert [decode(table.records[i]) for i in range(3)] == ["ACGTN", "ACG", "TT"]
    assert table.targets[:, 0].tolist() == [1, 0, 1]
    first = header.count(b"\n") + 1
    assert table.records.ids == [f"line{first}", f"line{first + 2}", f"line{first + 3}"]


@pytest.mark.parametrize(
    "text",
    [
        "id,sequence,label\na,ACGT,1\nb,ac,0\n",
        '\ufeff"id";"sequence";"label"\r\n"a";"ACGT";"1"\r\n"b";"ac";"0"\r\n;;\r\n',
        'id,note,sequence,label\na,"one, two; ""three""; four",ACGT,1\nb,,ac,0\n',
        "sequence,label\nACGT,1\nac,0\n",
        "ACGT;1\nac;0\n",
    ],
)
def test_tables_may_be_as_spreadsheets_write_csv(tmp_path, text):
    path = tmp_path / "t.csv"
    path.write_text(text)
    (table,) = read_table(path)
    assert [decode(table.records[i]) for i in range(2)] == ["ACGT", "AC"]
    assert table.targets[:, 0].tolist() == [1, 0]
    assert table.records.ids == (["a", "b"] if "id" in text else table.records.ids)


@pytest.mark.parametrize("limit", ["_BLOCK_ROWS", "_BLOCK_BASES"])
def test_rows_come_in_blocks_of_a_bounded_size(tmp_path, monkeypatch, limit):
    monkeypatch.setattr(tables, limit, 3)
    path = tmp_path / "t.tsv"
    path.write_text("".join(f"{'ACGT'[i % 4]}\t{i % 2}\n" for i in range(7)))
    blocks = list(read_table(path))
    assert [len(block.targets) for block in blocks] == [3, 3, 1]
    assert "".join(decode(block.records.codes) for block in blocks) == "ACGTACG"
    assert [x for block in blocks for x in block.targets[:, 0].tolist()] == [0, 1, 0, 1, 0, 1, 0]
    assert [name for block in blocks for name in block.records.ids] == [
        f"line{i}" for i in range(1, 8)
    ]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", ["is empty"]),
        (b"sequence\tlabel\n", ["no labelled sequence"]),
        (b"ACGT\t1\nACGT\n", ["line 2", "1 column where two"]),
        (b"ACGT 1\n", ["line 1", "1 column where two"]),
        (b"a\tACGT\t1\n", ["line 1", "3 columns"]),
        (b"ACGT\t1\nACGT\t2\n", ["line 2", "label '2'"]),
        (b"ACGT\t0.5\n", ["line 1", "label '0.5'"]),
        (b"ACGT\t1\n\t0\n", ["line 2", "no sequence"]),
        (b"ACGT\t1\nMKLV\t0\n", ["line 2", "'L'", "offset 2"]),
        (b"AC\x00T\t1\n", ["binary"]),
        (gzip.compress(b"ACGT\t1\n" * 99)[:-3], ["truncated gzip"]),
    ],
)
def test_each_wrong_row_has_its_line(tmp_path, content, words):
    path = tmp_path / "t.tsv"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        list(read_table(path))
    assert str(caught.value).startswith(str(path))
    assert all(word in str(caught.value) for word in words), caught.value
