"""Files in the forms that people have them, each with what must be read from it."""

import gzip
import re
from typing import Any, NamedTuple

import numpy as np
import pytest
from genome_files import bgzip
from genome_files import forms as genome_forms

from jaxdna.data.genome import Genome
from jaxdna.data.intervals import read_intervals
from jaxdna.data.motifs import load_motif, read_motifs
from jaxdna.data.sequences import decode
from jaxdna.data.variants import read_variants
from jaxdna.errors import UserError


class Form(NamedTuple):
    kind: str  # which of READERS reads it
    name: str
    content: bytes
    value: Any  # what the reader returns


def motifs(path):
    return [(motif.label, np.round(motif.probabilities, 6).tolist()) for motif in read_motifs(path)]


def intervals(path):
    found = read_intervals(path)
    strands = np.where(found.reverse, "-", "+").tolist()
    rows = zip(found.chromosomes.tolist(), found.centers.tolist(), strands, found.ids, strict=True)
    (note,) = found.notes()
    assert ("column 10 holds no summits" in note) == (found.others > 0)
    return found.summits, list(rows)


def variants(path):
    (path.parent / "g.fa").write_text(f">chr1\n{BASES_OF_CHR1}\n")
    genome = Genome(path.parent / "g.fa", cache=path.parent)
    return [
        (v.id, *(c if c is None else decode(c) for c in (v.reference_codes, v.alternative_codes)))
        for v in read_variants(path, genome, 6)
    ]


def chromosomes(path):
    genome = Genome(path, cache=path.parent)
    return {name: decode(genome.codes(name, 0, size)) for name, size in genome.lengths.items()}


READERS = {
    "motif": motifs,
    "interval": intervals,
    "variant": variants,
    "genome": chromosomes,
}

# One motif of width three in every format: asymmetric, so that no wrong order gives it too.
MATRIX = [[0.7, 0.1, 0.1, 0.1], [0.0, 0.2, 0.0, 0.8], [0.1, 0.5, 0.4, 0.0]]
ROWS = "".join(" ".join(map(str, row)) + "\n" for row in MATRIX)
BASES = ["7 0 1", "1 2 5", "1 0 4", "1 8 0"]  # of ten sites, rows A C G T
LABELLED = "".join(f"{base} [ {row} ]\n" for base, row in zip("ACGT", BASES, strict=True))
HEAD = "MEME version 4\n\nALPHABET= ACGT\n\nstrands: + -\n\nBackground letter frequencies\n"
HEAD += "A 0.25 C 0.25 G 0.25 T 0.25\n\n"
BODY = "letter-probability matrix: alength= 4 w= 3 nsites= 10 E= 0\n" + ROWS
MEME = HEAD + "MOTIF m1 NFE2\n" + BODY
ACCENTED = MEME.replace("frequencies\n", "frequencies (données)\n")
DEFINITION = """ALPHABET "DNA" DNA-LIKE
A "Adenine" CC0000 ~ T "Thymine" 008000
C "Cytosine" 0000CC ~ G "Guanine" FFB300
N "Any base" = ACGT
U = T
END ALPHABET
"""
OF_MEME_ITSELF = f"""****************
MEME - Motif discovery tool
MEME version 5.5.3 (Release date: Sat Jul  1)
DATAFILE= x.fa
ALPHABET= ACGT
MOTIF m1 NFE2\twidth =   3  sites =  10  llr = 44  E-value = 1.0e-010
--------------------------------------------------------------------------------
\tMotif m1 NFE2 position-specific scoring matrix
log-odds matrix: alength= 4 w= 3 n= 90 bayes= 6.5 E= 1.0e-010
   148   -32   -32   -32
  -832    -3  -832   167
   -32   100    67  -832
--------------------------------------------------------------------------------
\tMotif m1 NFE2 position-specific probability matrix
{BODY}--------------------------------------------------------------------------------
Time  0.05 secs.
"""
TRANSFAC = """VV  TRANSFAC MATRIX TABLE
XX
//
AC  m1
XX
ID  V$NFE2_01
XX
NA  NFE2
XX
BF  T00526; MyoD; Species: mouse, Mus musculus.
P0      A      C      G      T
01      7      1      1      1      A
02      0      2      0      8      T
03      1      5      4      0      S
XX
CC  compiled sequences
//
"""
CISBP_ROWS = "1\t0.7\t0.1\t0.1\t0.1\n2\t0\t0.2\t0\t0.8\n3\t0.1\t0.5\t0.4\t0\n"
CISBP = (
    "TF\tT1\nTF Name\tNFE2\nGene\tENSG1\nMotif\tm1\nFamily\tbZIP\nPos\tA\tC\tG\tT\n" + CISBP_ROWS
)
HOMER = ">ATS\tm1\t8.05\t-23791.5\t0\tT:17311.0(44.36%),B:2181.5(5.80%),P:1e-10317\n"
TAGC = "".join(" ".join(str(row[i]) for i in (3, 0, 2, 1)) + "\n" for row in MATRIX)
FOUR = [[0.9, 0.1, 0, 0], [0.8, 0, 0.1, 0.1], [0.1, 0.7, 0.1, 0.1], [0.3, 0.3, 0.3, 0.1]]
FOUR_ROWS = "".join("\t".join(map(str, row)) + "\n" for row in FOUR)

ONE = [("m1", MATRIX)]
FORM = [("form", MATRIX)]
SWAP = [("m1", np.eye(4)[[1, 0, 2, 3]].tolist())]  # the same by rows and by columns
NAMED = [("m1 NFE2", MATRIX)]
_MOTIFS = {
    "MEME's minimal format": (MEME, NAMED),
    "MEME without nsites or width": (HEAD + "MOTIF m1\nletter-probability matrix:\n" + ROWS, ONE),
    "MEME without an alphabet": ("MEME version 4\nMOTIF m1 NFE2\n" + BODY, NAMED),
    "MEME without its first line": ("MOTIF m1\n\n" + BODY, ONE),
    "MEME in another order of letters": (
        MEME.replace("= ACGT", "= TAGC").replace(ROWS, TAGC),
        NAMED,
    ),
    "MEME without an equals sign": (MEME.replace("ALPHABET= ", "ALPHABET "), NAMED),
    "MEME with a lower-case alphabet": (
        MEME.replace("ALPHABET= ACGT", "alphabet= tagc").replace(ROWS, TAGC),
        NAMED,
    ),
    "MEME of RNA": (MEME.replace("= ACGT", "= ACGU"), NAMED),
    "MEME with a defined alphabet": (MEME.replace("ALPHABET= ACGT\n", DEFINITION), NAMED),
    "MEME files put together": (
        MEME + MEME.replace("= ACGT", "= TAGC").replace(ROWS, TAGC),
        NAMED * 2,
    ),
    "MEME's own output": (OF_MEME_ITSELF, NAMED),
    "MEME's own output of an old release": (OF_MEME_ITSELF.replace("m1 NFE2", "m1"), ONE),
    "MEME with a name beyond ASCII": (ACCENTED, NAMED),
    "MEME in Latin-1": (ACCENTED.encode("latin-1"), NAMED),
    "MEME with a byte order mark": (b"\xef\xbb\xbf" + MEME.encode(), NAMED),
    "MEME with CR LF": (MEME.replace("\n", "\r\n"), NAMED),
    "MEME with CR alone": (MEME.replace("\n", "\r"), NAMED),
    "MEME, gzipped": (gzip.compress(MEME.encode()), NAMED),
    "JASPAR": (">m1\tNFE2\n" + LABELLED, NAMED),
    "JASPAR's newer titles": (">m1\tm1.NFE2\n" + LABELLED, NAMED),
    "JASPAR without blanks at the brackets": (
        ">m1 NFE2\n" + LABELLED.replace(" [ ", "[").replace(" ]", "]"),
        NAMED,
    ),
    "JASPAR without letters": (">m1 NFE2\n" + "\n".join(BASES) + "\n", NAMED),
    "JASPAR with letters and no brackets": (
        ">m1\n" + "".join(f"{base}|\t{row}\n" for base, row in zip("ACGT", BASES, strict=True)),
        ONE,
    ),
    "JASPAR of frequencies": (
        ">m1\nA [0.7 0.0 0.1]\nC [0.1 0.2 0.5]\nG [0.1 0 0.4]\nT [0.1 0.8 0]\n",
        ONE,
    ),
    "JASPAR with a number in its title": (">m1 NFE2 3\n" + LABELLED, NAMED),
    "JASPAR of width four with a number in its title": (
        ">m1 NFE2 3\n"
        + "".join(f"{b} {' '.join(str(row[i]) for row in FOUR)}\n" for i, b in enumerate("ACGT")),
        [("m1 NFE2", FOUR)],
    ),
    "JASPAR without letters, with a number in its title": (
        ">m1 NFE2 13\n" + "\n".join(BASES) + "\n",
        NAMED,
    ),
    "four rows and no title": ("\n".join(BASES) + "\n", [("form", MATRIX)]),
    "JASPAR of width four": (
        ">m1\n" + "\n".join("\t".join(str(row[i]) for row in FOUR) for i in range(4)) + "\n",
        [("m1", FOUR)],
    ),
    "HOMER": (HOMER + ROWS.replace(" ", "\t"), ONE),
    "HOMER with blanks for tabs": (">ATS m1 8.05 -23791.5 0\n" + ROWS, ONE),
    "HOMER of width four": (HOMER + FOUR_ROWS, [("m1", FOUR)]),
    "gimme of width four, symmetric": (">m1\n" + "0 1 0 0\n1 0 0 0\n0 0 1 0\n0 0 0 1\n", SWAP),
    "gimme": ("# GimmeMotifs\n>m1\n" + ROWS.replace(" ", "\t"), ONE),
    "gimme of width four": (">m1\n" + FOUR_ROWS, [("m1", FOUR)]),
    "gimme of width four, told by its neighbour": (
        ">m1\n" + ROWS + ">m2\n0 1 0 0\n0 0 1 0\n0 0 0 1\n1 0 0 0\n",
        [*ONE, ("m2", np.eye(4)[[1, 2, 3, 0]].tolist())],
    ),
    "positions that begin with the consensus": (
        ">m1 NFE2\n" + "A {}\nT {}\nS {}\n".format(*ROWS.splitlines()),
        NAMED,
    ),
    "TRANSFAC": (TRANSFAC, NAMED),
    "TRANSFAC of JASPAR": (
        f"AC m1\nXX\nID NFE2\nXX\nDE m1 NFE2 ; JASPAR\nPO\tA\tC\tG\tT\n{CISBP_ROWS}XX\n//\n",
        NAMED,
    ),
    "TRANSFAC of STAMP": ("DE\tm1\n" + CISBP_ROWS.replace("\n", "\tN\n") + "XX\n" * 2, ONE),
    "TRANSFAC of SwissRegulon": (
        "//\nNA m1\nPO A C G T cons inf\n01 7 1 1 1 A 0.6\n02 0 2 0 8 T 1.2\n03 1 5 4 0 S 1\n//\n",
        ONE,
    ),
    "a table of RSAT": ("; by hand\n" + LABELLED.lower().replace("[", "|").replace(" ]", ""), FORM),
    "two tables of RSAT": (
        (LABELLED.lower().replace("[", "|").replace(" ]", "") + "//\n") * 2,
        [("form_1", MATRIX), ("form_2", MATRIX)],
    ),
    "two of TRANSFAC": (TRANSFAC + TRANSFAC.replace("m1", "m2"), [*NAMED, ("m2 NFE2", MATRIX)]),
    "CIS-BP, one motif": ("Pos\tA\tC\tG\tT\n" + CISBP_ROWS, [("form", MATRIX)]),
    "CIS-BP of RNA": ("Pos\tA\tC\tG\tU\n" + CISBP_ROWS, [("form", MATRIX)]),
    "CIS-BP, all motifs": (CISBP + "\n" + CISBP.replace("m1", "m2"), [*NAMED, ("m2 NFE2", MATRIX)]),
    "CIS-BP with a motif withheld": (
        CISBP.replace(CISBP_ROWS, "\n").replace("m1", "m0") + CISBP,
        NAMED,
    ),
    "a table of columns T A G C": ("T A G C\n" + TAGC, [("form", MATRIX)]),
}  # fmt: skip


def tabs(*rows):
    return "".join("\t".join(row.split()) + "\n" for row in rows)


# Two intervals, (chromosome, start, end), with their midpoints, and their summits 7 and 30.
BED6 = "chr1 100 201 a 9 +", "chr2 40 80 b 9 -"
MIDPOINTS = 0, [("chr1", 150, "+", "a"), ("chr2", 60, "-", "b")]
SUMMITS = 2, [("chr1", 107, "+", "a"), ("chr2", 70, "-", "b")]
ONE_SUMMIT = 1, [("chr1", 107, "+", "a"), ("chr2", 60, "-", "b")]
UNNAMED = 0, [("chr1", 150, "+", "chr1:100-201"), ("chr2", 60, "+", "chr2:40-80")]
PEAKS = [f"{row} 4.86 15.5 12.7 {summit}" for row, summit in zip(BED6, (7, 30), strict=True)]
PLAIN_BED = tabs(*BED6)
IDR = "2.46 2.73 {} 620.0 16 {} 213.8 16"  # two values, and each replicate's peak and summit
BED12 = (
    "chr1 100 201 a 9 + 100 201 0 2 10,10, 0,91,",
    "chr2 40 80 b 9 - 40 80 0 1 40, 0,",
)

_INTERVALS = {
    "BED3": (tabs("chr1 100 201", "chr2 40 80"), UNNAMED),
    "BED3 with blanks": ("chr1  100 201\nchr2 40 80\n", UNNAMED),
    "BED4 without names": (tabs("chr1 100 201 .", "chr2 40 80 ."), UNNAMED),
    "BED6": (PLAIN_BED, MIDPOINTS),
    "BED6 with CR LF": (PLAIN_BED.replace("\n", "\r\n"), MIDPOINTS),
    "BED6 with CR alone": ("# by hand\r" + PLAIN_BED.replace("\n", "\r"), MIDPOINTS),
    "BED6 with a BOM": (b"\xef\xbb\xbf" + PLAIN_BED.encode(), MIDPOINTS),
    "BED6 in gzip": (gzip.compress(PLAIN_BED.encode()), MIDPOINTS),
    "BED6 without a last line end": (PLAIN_BED.rstrip(), MIDPOINTS),
    "BED6 with comments and settings": (
        f"browser position chr1:1-9\ntrack name=x\n#chrom\tstart\n\n{PLAIN_BED}#end\n",
        MIDPOINTS,
    ),
    "BED6 of contigs called track2 and browser": (
        PLAIN_BED.replace("chr1", "track2").replace("chr2", "browser"),
        (0, [("track2", 150, "+", "a"), ("browser", 60, "-", "b")]),
    ),
    "BED6+4, text": (tabs(*(f"{row} src gene . ID=g0" for row in BED6)), MIDPOINTS),
    "BED6+4, text and numbers": (tabs(*(f"{row} src gene . 5" for row in BED6)), MIDPOINTS),
    "BED9": (tabs(*(f"{row} 40 201 255,0,0" for row in BED6)), MIDPOINTS),
    "BED12": (tabs(*BED12), MIDPOINTS),
    "BED12 of single blocks": (
        tabs("chr1 100 201 a 9 + 0 0 0 1 101 0", "chr2 40 80 b 9 - 40 80 0 1 40 0"),
        MIDPOINTS,
    ),
    "gappedPeak": (tabs(*(f"{row} 4.86 15.5 12.7" for row in BED12)), MIDPOINTS),
    "broadPeak": (tabs(*(f"{row} 4.86 15.5 12.7" for row in BED6)), MIDPOINTS),
    "MACS's summits": (
        tabs("chr1 107 108 a 24.1", "chr2 70 71 b 8.2"),
        (0, [("chr1", 107, "+", "a"), ("chr2", 70, "+", "b")]),
    ),
    "narrowPeak": (tabs(*PEAKS), SUMMITS),
    "narrowPeak with a track line": ("track type=narrowPeak\n" + tabs(*PEAKS), SUMMITS),
    "narrowPeak with a peak without a summit": (
        tabs(PEAKS[0], PEAKS[1].replace(" 30", " -1")),
        ONE_SUMMIT,
    ),
    "narrowPeak without values": (
        tabs(*(row.replace("4.86 15.5 12.7", ". NA -1") for row in PEAKS)),
        SUMMITS,
    ),
    "IDR of two replicates": (
        tabs(*(f"{row} {IDR.format('60 87', '60 87')}" for row in PEAKS)),
        SUMMITS,
    ),
    "IDR of two replicates, a peak without a summit": (
        tabs(*(f"{row} {IDR.format('60 87', '60 87')}".replace(" 30 ", " -1 ") for row in PEAKS)),
        ONE_SUMMIT,
    ),
    "narrowPeak with a column more": (tabs(*(f"{row} 3" for row in PEAKS)), SUMMITS),
    "narrowPeak with counts": (tabs(*(f"{row} 3 0" for row in PEAKS)), SUMMITS),
    "sixteen columns of which one tenth is no summit": (
        tabs(f"{PEAKS[0]} x y", f"{BED6[1]} 4.86 15.5 12.7 9000 x y"),
        MIDPOINTS,
    ),
}  # fmt: skip

BASES_OF_CHR1 = "ACGTTGCATTGACCAGGTAC"
SNV = [("s", "CATTGA", "CATGGA")]  # the tenth base, T, in the middle of six
VCF = "##fileformat=VCFv4.2\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n{}"
SNV_ROW = "chr1\t10\ts\tT\tG\t.\tPASS\t.\n"
PLAIN_VCF = VCF.format(SNV_ROW)

_VARIANTS = {
    "VCF": (PLAIN_VCF, SNV),
    "VCF without a header": (SNV_ROW, SNV),
    "VCF of five columns": (SNV_ROW.replace("\t.\tPASS\t.", ""), SNV),
    "VCF with samples": (SNV_ROW.replace("\n", "\tGT\t0/1\t1/1\n"), SNV),
    "VCF in lower case": (PLAIN_VCF.replace("T\tG", "t\tg"), SNV),
    "VCF with CR LF": (PLAIN_VCF.replace("\n", "\r\n"), SNV),
    "VCF with CR alone": (PLAIN_VCF.replace("\n", "\r"), SNV),
    "VCF with a BOM": (b"\xef\xbb\xbf" + PLAIN_VCF.encode(), SNV),
    "VCF in gzip": (gzip.compress(PLAIN_VCF.encode()), SNV),
    "VCF in bgzip": (bgzip(PLAIN_VCF.encode(), 40), SNV),
    "VCF without a last line end": (PLAIN_VCF.rstrip("\n"), SNV),
    "VCF with two alleles in a row": (
        VCF.format(SNV_ROW.replace("G", "G,C")),
        [*SNV, ("s", "CATTGA", "CATCGA")],
    ),
    "VCF with an insertion": (
        VCF.format(SNV_ROW.replace("T\tG", "T\tTAA")),
        [("s", "CATTGA", "CATTAA")],
    ),
    "VCF with a deletion": (
        VCF.format(SNV_ROW.replace("T\tG", "TGA\tT")),
        [("s", "ATTGAC", "ATTCCA")],
    ),
    "VCF with what has no sequence": (
        VCF.format(
            "".join(
                f"chr1\t10\t{i}\t{alleles}\t.\t.\t.\n"
                for i, alleles in enumerate(
                    ("T\t<DEL>", "T\t*", "T\t.", "T\tG]chr1:3]", "<DEL>\tG", "*\tG", ".\tG")
                )
            )
            + SNV_ROW
        ),
        [*((str(i), None, None) for i in range(7)), *SNV],
    ),
    "VCF with letters that are not bases": (
        VCF.format("chr1\t9\tx\tX\tA\n" + "chr1\t10\ty\tT\tX,G\n"),
        [("x", None, None), ("y", None, None), ("y", "CATTGA", "CATGGA")],
    ),
    "VCF of structural variants": (VCF.format("chr1\t9\td\tN\t<DUP>\n"), [("d", None, None)]),
    "VCF header alone": (VCF.format(""), []),
}  # fmt: skip

CHROMOSOMES = {"chr1": BASES_OF_CHR1 * 9, "2": "acgtNNrya" * 7, "track2": "G"}
_GENOMES = {
    name: (content, {k: re.sub("[^ACGT]", "N", v.upper()) for k, v in CHROMOSOMES.items()})
    for name, content in genome_forms(CHROMOSOMES).items()
}

FORMS = [
    Form(kind, name, text if isinstance(text, bytes) else text.encode(), value)
    for kind, forms in {
        "motif": _MOTIFS,
        "interval": _INTERVALS,
        "variant": _VARIANTS,
        "genome": _GENOMES,
    }.items()
    for name, (text, value) in forms.items()
]


@pytest.mark.parametrize("form", FORMS, ids=lambda form: f"{form.kind}: {form.name}")
def test_a_form_is_read_as_what_it_is(tmp_path, form):
    path = tmp_path / "form.txt"
    path.write_bytes(form.content)
    assert READERS[form.kind](path) == form.value


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("MEME version 4\nMOTIF m1\nlog-odds matrix: w= 1\n 1 2 3 4\n", "line 2.*only log-odds"),
        (HEAD, "it contains no motif"),
        (MEME.replace("= ACGT", "= ACDEFGHIKLMNPQRSTVWY"), "line 3: alphabet ACDEF"),
        (MEME.replace("w= 3", "w= 4"), "line 11: motif m1 declares w=4 but has 3 rows"),
        (MEME.replace(" w= 3", "").replace("0.0 0.2", "0.0 O.2"), r"line 13: '0.0 O.2 0.0 0.8'"),
        (HOMER + ROWS.replace("0.2", "0,2"), r"line 3: '0.0 0,2 0.0 0.8' is not a row of numbers"),
        (TRANSFAC.replace("02      0", "02      O"), "line 13: .* is not a row of numbers"),
        (">m1\n0 1 0 0\n0 0 1 0\n0 0 0 1\n1 0 0 0\n", "line 1: the rows of motif m1 may be"),
        (">m1\n9 0 1 0\n1 7 0 2\n0 0 8 0\n3 1 0 6\n", "line 1: the rows of motif m1 may be"),
        (">r1\nACGTTGCA\n>r2\nACGT\n", "line 2: 'ACGTTGCA' is not a row of numbers"),
        ("<!DOCTYPE html>\n<html>\n", "line 1: '<!DOCTYPE html>' is not a row of numbers"),
        (">m1\n-1 0.2 1 0\n0 1 1 0\n1 1 1 2\n", "line 1: motif m1 has a negative entry"),
        (">m1\nC [1 2]\nA [1 2]\nG [1 2]\nT [1 2]\n", "line 1: .* for CAGT; legal: a row each"),
    ],
)  # fmt: skip
def test_what_is_no_motif_file_is_refused_with_its_line(tmp_path, content, sentence):
    path = tmp_path / "form.txt"
    path.write_text(content)
    with pytest.raises(
        UserError, match=rf"form\.txt cannot be parsed \({sentence}.*legal: MEME, JAS"
    ):
        read_motifs(path)


def test_text_of_two_bytes_a_letter_and_binary_files_are_refused(tmp_path):
    path = tmp_path / "form.txt"
    path.write_text(MEME, encoding="utf-16")
    with pytest.raises(UserError, match=r"form\.txt is UTF-16 text; legal: plain text"):
        read_motifs(path)
    path.write_bytes(MEME.encode() + b"\0")
    with pytest.raises(UserError, match=r"cannot be parsed \(not a text file"):
        read_motifs(path)


def test_a_motif_file_is_bounded_by_what_it_unpacks_to(tmp_path):
    path = tmp_path / "form.gz"
    path.write_bytes(gzip.compress(b"\n" * (65 << 20), compresslevel=1))
    with pytest.raises(UserError, match="larger than 64 MiB"):
        read_motifs(path)


def test_a_motif_without_a_name_has_that_of_its_file(tmp_path):
    path = tmp_path / "M0149_1.02.txt.gz"
    path.write_bytes(gzip.compress(("Pos\tA\tC\tG\tT\n" + CISBP_ROWS).encode()))
    assert read_motifs(path)[0].label == "M0149_1.02"


def test_a_motif_is_picked_by_name_wherever_the_path_has_colons(tmp_path):
    path = tmp_path / "a:b.meme"
    path.write_text(MEME + MEME.replace("m1", "C1:x"))
    assert load_motif(str(path)).name == "m1"
    path = path.rename(tmp_path / "b.meme")
    assert load_motif(f"{path}:C1:x").name == "C1:x"
