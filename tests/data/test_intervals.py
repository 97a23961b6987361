"""BED rows, and the windows that a genome has for them."""

import gzip
import textwrap

import numpy as np
import pytest

from jaxdna.data import intervals as bed_files
from jaxdna.data.genome import Genome
from jaxdna.data.intervals import place_windows, read_intervals, read_windows
from jaxdna.data.negatives import GC_TOLERANCE, gc_fraction, gc_matched
from jaxdna.data.sequences import decode, encode, reverse_complement
from jaxdna.errors import UserError


@pytest.fixture
def letters():
    rng = np.random.default_rng(0)
    draw = {
        name: "".join(rng.choice(list("ACGTacgt"), size))
        for name, size in (("chr1", 5_000), ("chr2", 3_001), ("chrM", 90))
    }
    return draw | {"chrN": "N" * 400}


@pytest.fixture
def genome(tmp_path, letters):
    text = "".join(
        f">{name} assembled\n{textwrap.fill(bases, 60)}\n" for name, bases in letters.items()
    )
    (tmp_path / "g.fa").write_text(text)
    return Genome(tmp_path / "g.fa")


def bed(folder, text, name="x.bed"):
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def codes_of(windows, genome):
    return np.concatenate(
        [block.codes.reshape(len(block), -1) for block in read_windows(windows, genome)]
    )


def match(peaks, genome, length, seed=0):
    """Returns the positive windows, their codes, the negatives and their codes."""
    positives = place_windows(peaks, genome, length, "x.bed")
    codes = codes_of(positives, genome)
    found = gc_matched(positives, gc_fraction(codes), genome, seed, peaks)
    return positives, codes, found, codes_of(found.windows, genome)


def test_rows_are_read_as_bed_says(tmp_path):
    rows = (
        "track name=x\nbrowser position\n# comment\n\n"
        "chr1\t100\t201\r\n"
        "chr1\t100\t200\tpeak\t9\t-\n"
        "chr2 5 5\n"
        "chr1\t100\t200\t.\t0\t+\t1.5\t2\t3\t17\n"
        "chr1\t100\t200\t.\t0\t.\t1.5\t2\t3\t-1\n"
        "chr1\t100\t200\tgene\t0\t+\t100\t200\t0\t2\t10,10\t0,50\n"
    )
    for content in (rows.encode(), gzip.compress(rows.encode())):
        found = read_intervals(bed(tmp_path, content))
        assert found.chromosomes.tolist() == ["chr1", "chr1", "chr2", "chr1", "chr1", "chr1"]
        assert found.centers.tolist() == [150, 150, 5, 117, 150, 150]
        assert found.reverse.tolist() == [False, True, False, False, False, False]
        assert found.ids == ["chr1:100-201", "peak", "chr2:5-5", *["chr1:100-200"] * 2, "gene"]
        assert found.notes() == [
            "windows are centred on the summits (column 10) of 1 intervals, and the midpoints of 5"
        ]


@pytest.mark.parametrize(
    ("tail", "centre"),
    [
        ("", "midpoints of the intervals (no summits)"),
        ("\tn\t0\t+\t1\t1\t1\t-1", "midpoints of the intervals (no summits)"),
        ("\tn\t0\t+\t1\t1\t1\t7", "summits (column 10)"),
        ("\tn\t0\t+\t1\t1\t1\tx", "midpoints of the intervals (column 10 holds no summits)"),
    ],
)
def test_the_centre_is_always_said(tmp_path, tail, centre):
    found = read_intervals(bed(tmp_path, f"chr1\t10\t20{tail}\n" * 3))
    assert found.notes() == [f"windows are centred on the {centre}"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["is empty"]),
        ("# x\n", ["contains no intervals"]),
        ("chr1\t5\n", ["line 1", "2 columns"]),
        ("chr1\t5\t9\nchr1\tx\t9\n", ["line 2", "start 'x'"]),
        ("chr1\t9\t5\n", ["start 9 and end 5"]),
        ("chr1\t-1\t5\n", ["start -1"]),
        ("chr1\t1\t" + "9" * 30 + "\n", ["not an interval"]),
        ("chr1\t1\t5\ta\t0\tplus\n", ["strand 'plus'"]),
        ("chr1\t1\t5\ta\t0\t+\t1\t1\t1\t9\n", ["summit 9", "4 bases"]),
        (">a\nACGT\n", ["line 1", "1 column where"]),
        ("a\0b", ["binary"]),
        (
            "c\t1\t9\tn\t0\t+\t1\t1\t1\t4\nc\t1\t9\tn\t0\t+\t1\t1\t1\tx\n",
            ["line 2", "column 10 ('x') is not a narrowPeak summit", "in line 1 it is one"],
        ),
        (
            "c\t1\t9\tn\t0\t+\t1\t1\t1\tx\nc\t1\t9\tn\t0\t+\t1\t1\t1\t4\n",
            ["line 2", "column 10 ('4') is a narrowPeak summit", "in line 1 it is not one"],
        ),
    ],
)
def test_each_wrong_row_has_its_line(tmp_path, text, words):
    with pytest.raises(UserError) as caught:
        read_intervals(bed(tmp_path, text))
    assert all(word in str(caught.value) for word in words), caught.value


@pytest.mark.parametrize("name", ["track", "browser", "track2", "browser1", "tracks"])
def test_a_chromosome_may_be_called_like_a_setting(tmp_path, name):
    text = f"track name=x\nbrowser hide all\ntrack\n{name}\t10\t20\n{name} 30 41 peak\n"
    found = read_intervals(bed(tmp_path, text))
    assert found.chromosomes.tolist() == [name] * 2
    assert found.centers.tolist() == [15, 35]


@pytest.mark.parametrize("block", [1, 500, 2**20])
@pytest.mark.parametrize("length", [7, 10, 61, 200])
def test_windows_are_the_letters_around_the_center(
    tmp_path, genome, letters, length, block, monkeypatch
):
    monkeypatch.setattr(bed_files, "_BLOCK_BASES", block)
    intervals = read_intervals(
        bed(
            tmp_path,
            "chr1\t300\t401\nchr2\t1000\t1100\ta\t0\t-\nchr1\t2000\t2010\t.\t0\t+\t0\t0\t0\t3",
        )
    )
    windows = place_windows(intervals, genome, length, "x.bed")
    codes = codes_of(windows, genome)
    for i, (name, center) in enumerate((("chr1", 350), ("chr2", 1050), ("chr1", 2003))):
        start = center - length // 2
        expected = encode(letters[name][start : start + length])
        if i == 1:
            expected = reverse_complement(expected)
        np.testing.assert_array_equal(codes[i], expected)
        assert windows.starts[i] == start
    assert windows.notes() == []


def test_windows_beyond_an_end_are_dropped_and_counted(tmp_path, genome):
    rows = [("chr1", 0), ("chr1", 50), ("chr1", 4950), ("chr1", 4951), ("chrM", 45), ("chrN", 200)]
    text = "".join(f"{name}\t{center}\t{center}\n" for name, center in rows)
    windows = place_windows(read_intervals(bed(tmp_path, text)), genome, 100, "x.bed")
    assert windows.ids == ["chr1:50-50", "chr1:4950-4950", "chrN:200-200"]
    assert windows.notes() == [
        "3 of 6 windows of 100 bases reach beyond their chromosome (dropped)"
    ]
    with pytest.raises(UserError, match="every window of 100 bases reaches"):
        place_windows(read_intervals(bed(tmp_path, "chrM\t1\t9\n")), genome, 100, "x.bed")


@pytest.mark.parametrize(("name", "hint"), [("1", "called chr1"), ("MT", "called chrM")])
def test_the_other_naming_style_is_shown(tmp_path, genome, name, hint):
    with pytest.raises(UserError) as caught:
        place_windows(read_intervals(bed(tmp_path, f"{name}\t200\t300\n")), genome, 10, "x.bed")
    sentence = str(caught.value)
    assert f"x.bed names chromosome {name}, which" in sentence
    assert hint in sentence
    with pytest.raises(UserError, match="legal: chr1, chr2, chrM, chrN"):
        genome.require(["scaffold_77"], "x.bed")


def test_stretches_beyond_an_end_are_unknown(genome, letters):
    assert decode(genome.codes("chrM", -3, 4)) == "NNN" + letters["chrM"][:4].upper()
    assert decode(genome.codes("chrM", 88, 93)) == letters["chrM"][88:].upper() + "NNN"
    assert decode(genome.codes("chrM", 200, 203)) == "NNN"
    assert genome.codes("chrM", 5, 5).size == 0


@pytest.fixture
def isochores(tmp_path):
    """A genome whose GC content changes from place to place, with a gap of N."""
    rng = np.random.default_rng(1)
    path = tmp_path / "iso.fa"
    with path.open("w") as file:
        for name in ("chr1", "chr2"):
            gc = np.repeat(rng.uniform(0.25, 0.7, 200), 1000)
            letters = np.where(
                rng.random(gc.size) < gc,
                rng.choice(list("CG"), gc.size),
                rng.choice(list("AT"), gc.size),
            )
            letters[5000:9000] = "N"
            file.write(f">{name}\n{''.join(letters)}\n")
    return Genome(path)


def test_negatives_match_in_gc_and_avoid_every_peak(tmp_path, isochores):
    rng = np.random.default_rng(2)
    text = "".join(
        f"{name}\t{start}\t{start + 300}\n"
        for name in ("chr1", "chr2")
        for start in rng.integers(10_000, 190_000, 60)
    )
    peaks = read_intervals(bed(tmp_path, text))
    positives, bound, found, unbound = match(peaks, isochores, 200)
    assert found.missing == 0
    assert found.partners.tolist() == list(range(120))
    windows = found.windows
    np.testing.assert_array_equal(windows.chromosomes, positives.chromosomes)
    difference = np.abs(gc_fraction(unbound) - gc_fraction(bound))
    assert found.loose == (difference > GC_TOLERANCE).sum() <= 6
    assert (unbound < 4).all()
    for name in ("chr1", "chr2"):
        mine = windows.starts[windows.chromosomes == name]
        assert np.unique(mine).size == mine.size
        starts = peaks.starts[peaks.chromosomes == name]
        overlap = (mine[:, None] < starts + 300) & (mine[:, None] + 200 > starts)
        assert not overlap.any()
    again, other = (match(peaks, isochores, 200, seed)[2] for seed in (0, 1))
    np.testing.assert_array_equal(windows.starts, again.windows.starts)
    assert (other.windows.starts != windows.starts).any()


def test_no_place_is_used_twice_where_places_are_few(tmp_path):
    genome = Genome(bed(tmp_path, ">a\n" + "AC" * 150 + "\n", "small.fa"))
    text = "".join(f"a\t{i + 50}\t{i + 51}\n" for i in range(40)) * 3
    _, _, found, _ = match(read_intervals(bed(tmp_path, text)), genome, 100)
    assert sorted(found.windows.starts) == list(range(139, 201))  # the last positive ends at 139
    assert found.missing == 120 - 62


def test_positives_without_a_place_are_counted(tmp_path, isochores):
    peaks = read_intervals(bed(tmp_path, "chr1\t0\t200000\n"))
    with pytest.raises(UserError, match="no room for a GC-matched negative of 100"):
        match(peaks, isochores, 100)
    two = read_intervals(bed(tmp_path, "chr1\t0\t200000\nchr2\t500\t600\n"))
    found = match(two, isochores, 100)[2]
    assert (found.missing, found.partners.tolist()) == (1, [1])
    assert found.notes() == [
        "1 of 2 positives have no negative, since none with their GC content was found"
    ]


def test_reads_windows_of_the_real_peaks_again(tmp_path, nfe2):
    lines = (nfe2 / "positives.fa").read_text().split("\n")
    genome = Genome(bed(tmp_path, "\n".join(lines), "peaks.fa"))
    text = "".join(f"{line[1:]}\t0\t{genome.lengths[line[1:]]}\n" for line in lines[:200:2])
    windows = place_windows(read_intervals(bed(tmp_path, text)), genome, 59, "x.bed")
    codes = codes_of(windows, genome)
    for i in range(100):
        bases = lines[2 * i + 1].upper()
        start = len(bases) // 2 - 29
        assert decode(codes[i]) == bases[start : start + 59]
