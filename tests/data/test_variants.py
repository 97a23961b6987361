"""Variants: both windows letter by letter, and a note for every row that has a doubt."""

import gzip

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jaxdna.data.genome import Genome
from jaxdna.data.sequences import decode
from jaxdna.data.variants import read_variants
from jaxdna.errors import UserError

LETTERS = "".join(np.random.default_rng(0).choice(list("ACGT"), 300))


@pytest.fixture
def genome(tmp_path):
    (tmp_path / "g.fa").write_text(f">chr1\n{LETTERS}\n>chr2\nACGT\n")
    return Genome(tmp_path / "g.fa")


def vcf(folder, *rows, pack=bytes):
    path = folder / "x.vcf"
    header = "##fileformat=VCFv4.2\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"
    lines = ["\t".join(map(str, row)) + "\t.\tPASS\tX=1\n" for row in rows]
    path.write_bytes(pack((header + "".join(lines)).encode()))
    return path


def other(base):
    return "ACGT"["ACGT".index(base) - 1]


@pytest.mark.parametrize("length", [20, 21])
@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_a_single_base_changes_in_the_middle(tmp_path, genome, length, pack):
    base = LETTERS[100]
    path = vcf(tmp_path, ("chr1", 101, "rs1", base.lower(), other(base)), pack=pack)
    (found,) = read_variants(path, genome, length)
    start = 100 - length // 2
    assert decode(found.reference_codes) == LETTERS[start : start + length]
    changed = np.flatnonzero(found.reference_codes != found.alternative_codes)
    assert changed.tolist() == [length // 2]
    assert decode(found.alternative_codes)[length // 2] == other(base)
    assert (found.chromosome, found.position, found.id, found.note) == ("chr1", 101, "rs1", "")


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.integers(60, 200), st.integers(1, 9), st.text("ACGT", min_size=1, max_size=9))
def test_indels_keep_the_length_and_the_flanks(tmp_path, genome, first, width, alternative):
    reference = LETTERS[first : first + width]
    path = vcf(tmp_path, ("chr1", first + 1, ".", reference, alternative))
    (found,) = read_variants(path, genome, 40)
    start = first + width // 2 - 20
    whole = LETTERS[:first] + alternative + LETTERS[first + width :]
    assert decode(found.reference_codes) == LETTERS[start : start + 40]
    assert decode(found.alternative_codes) == whole[start : start + 40]
    assert found.note == ""


def test_alleles_come_in_order_one_row_each(tmp_path, genome):
    base = LETTERS[100]
    rows = [
        ("chr1", 101, "a", base, f"{other(base)},<DEL>,{base}TT"),
        ("chr1", 101, "b", other(base), base),
        ("chr1", 2, "c", LETTERS[1], other(LETTERS[1])),
        ("chr1", 300, "d", LETTERS[299], "*"),
        ("chr1", 301, "e", "A", "C"),
        ("chr7", 5, "f", "A", "C"),
        ("chr1", 50, "g", LETTERS[49], "."),
        ("chr1", 60, "h", LETTERS[59], "N[chr2:3["),
        ("chr1", 0, "i", "N", "A"),
        ("chr1", 101, "j", LETTERS[100:150], LETTERS[100:125] + other(LETTERS[125])),
        ("chr1", 120, "k", "AR", "C,T"),
        ("chr1", 101, "l", "<DEL>", "A,<INS>"),
        ("chr1", 101, "m", ".", "A"),
        ("chr1", 101, "n", "*", "A"),
        ("chr1", 101, "o", "A[chr2:3[", "A"),
        ("chr1", 101, "q", "AX", "C"),
        ("chr1", 101, "r", base, "R,TX,-"),
        ("chr1", 101, "p", base, f"{other(base)}"),
    ]
    found = list(read_variants(vcf(tmp_path, *rows), genome, 20))
    assert [variant.id for variant in found] == list("aaabcdefghijkkllmnoqrrrp")
    notes = [variant.note for variant in found]
    expected = [
        "",
        "allele <DEL> has no sequence of its own",
        "",
        f"reference mismatch: the genome has {base}",
        "the window leaves chr1 (padded)",
        "allele * has no sequence of its own",
        "position lies outside chr1",
        "g.fa has no chromosome chr7",
        "allele . has no sequence of its own",
        "allele N[chr2:3[ has no sequence of its own",
        "position lies outside chr1",
        "an allele is longer than the window of 20 bases",
        "REF AR has the ambiguous letter R",
        "REF AR has the ambiguous letter R",
        "REF <DEL> has no sequence of its own",
        "allele <INS> has no sequence of its own",
        "REF . has no sequence of its own",
        "REF * has no sequence of its own",
        "REF A[chr2:3[ has no sequence of its own",
        "REF AX has the letter 'X', which is not a base",
        "allele R has the ambiguous letter R",
        "allele TX has the letter 'X', which is not a base",
        "allele - has the letter '-', which is not a base",
        "",
    ]
    assert notes == expected
    without = [variant.reference_codes is None for variant in found]
    assert without == [note.startswith(("allele", "position", "g.fa", "REF")) for note in notes]
    for variant in found:
        if variant.reference_codes is not None:
            assert variant.reference_codes.shape == variant.alternative_codes.shape == (20,)
    mismatch = found[3]
    assert decode(mismatch.reference_codes)[10] == other(base)
    assert decode(mismatch.alternative_codes)[10] == base
    assert decode(found[4].reference_codes) == "N" * 9 + LETTERS[:11]
    middle = next(variant for variant in found if variant.id == "j")
    assert decode(middle.reference_codes) == LETTERS[115:135]  # the middle of 50 bases


@pytest.mark.parametrize(
    ("reference", "alternative", "reached"),
    [
        (slice(100, 119), "", True),  # 9 bases before the middle: the window begins 1 before
        (slice(100, 121), "", True),  # at the anchor itself
        (slice(100, 122), "", False),  # behind it
        (slice(100, 160), LETTERS[101:160], False),  # and what follows is not the other side of it
        (slice(100, 160), "A" * 40, True),  # behind the anchor come new bases
        (slice(100, 160), LETTERS[101:158] + other(LETTERS[158]) + LETTERS[159], False),
    ],
)
def test_a_window_without_the_junction_has_no_score(
    tmp_path, genome, reference, alternative, reached
):
    letters = LETTERS[reference]
    row = ("chr1", reference.start + 1, "d", letters, letters[0] + alternative)
    (found,) = read_variants(vcf(tmp_path, row), genome, 20)
    start = reference.start + len(letters) // 2 - 10
    whole = LETTERS[: reference.start + 1] + alternative + LETTERS[reference.stop :]
    if reached:
        assert decode(found.alternative_codes) == whole[start : start + 20]
    else:
        assert found.reference_codes is None and found.alternative_codes is None
        assert found.note == (
            f"a window of 20 bases around the middle of REF ({len(letters)} bases) contains none "
            "of the change"
        )


@pytest.mark.parametrize(("ambiguous", "code"), [("zero", 4), ("uniform", 5), ("error", None)])
def test_an_n_is_read_by_one_policy_in_the_file_and_in_the_genome(tmp_path, ambiguous, code):
    letters = f"{LETTERS[:95]}R{LETTERS[96:100]}NN{LETTERS[102:]}"
    (tmp_path / "n.fa").write_text(f">chr1\n{letters}\n")
    genome = Genome(tmp_path / "n.fa", ambiguous)
    rows = [
        ("chr1", 101, "a", "N", "A"),  # the genome's
        ("chr1", 90, "b", LETTERS[89], "N"),  # the file's
        ("chr1", 113, "c", LETTERS[112], other(LETTERS[112])),  # a window that begins behind both
    ]
    a, b, c = read_variants(vcf(tmp_path, *rows), genome, 20)
    assert decode(c.reference_codes) == letters[102:122]
    if code is None:
        for refused in (a, b):
            assert refused.reference_codes is None and refused.alternative_codes is None
            assert refused.note == (
                "an ambiguous letter, which --config.data.ambiguous=error refuses"
            )
        return
    assert a.reference_codes[[5, 10, 11]].tolist() == [code] * 3
    assert a.alternative_codes[[5, 10, 11]].tolist() == [code, 0, code]
    assert b.alternative_codes[[10, 16]].tolist() == [code, code]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["is empty"]),
        ("\n\n", ["contains no variants"]),
        ("chr1\t5\n", ["line 1", "not a VCF row"]),
        ("chr1\tx\t.\tA\tC\n", ["line 1", "not a VCF row"]),
        (f"chr1\t{'9' * 5000}\t.\tA\tC\n", ["line 1", "not a VCF row"]),
        ("chr1\t5\t90\tpeak_1\t0\t+\n", ["line 1", "not a VCF row"]),  # BED
        ("1\t5\t.\tA\tC\n", ["line 1", "names chromosome 1", "called chr1"]),
        ("BCF\2\2\0\0", ["binary"]),
    ],
)
def test_what_is_no_vcf_has_its_sentence(tmp_path, genome, text, words):
    path = tmp_path / "x.vcf"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        list(read_variants(path, genome, 20))
    assert all(word in str(caught.value) for word in words), caught.value


def test_a_stray_letter_in_the_genome_costs_only_the_rows_that_have_it(tmp_path):
    letters = LETTERS[:200] + "!" + LETTERS[201:]
    (tmp_path / "g.fa").write_text(f">chr1\n{letters}\n")
    rows = [("chr1", place, ".", letters[place - 1], "T") for place in (51, 195, 251)]
    found = list(read_variants(vcf(tmp_path, *rows), Genome(tmp_path / "g.fa"), 20))
    assert [one.note for one in found] == ["", "g.fa has a letter here that is not a base", ""]
    assert found[1].reference_codes is None
    assert decode(found[2].reference_codes) == letters[240:260]
