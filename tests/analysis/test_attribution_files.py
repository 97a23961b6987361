"""Scores of bases in tracks, pictures and the report."""

import itertools
import re
from dataclasses import replace
from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.image import imread
from matplotlib.path import Path

from jaxdna.analysis.attributed import Attributed
from jaxdna.analysis.attribution_files import FORMS, Source, form_of
from jaxdna.analysis.attribution_inputs import variant_blocks
from jaxdna.analysis.attribution_logos import MOST_DRAWN, Shown, Telling, draw
from jaxdna.analysis.pages import with_attributions
from jaxdna.analysis.report_figures import svg
from jaxdna.data.genome import Genome
from jaxdna.data.intervals import Windows
from jaxdna.errors import UserError

RNG = np.random.default_rng(8)
LENGTH = 30


def scored(count, answers=("logit",), length=LENGTH):
    shape = (count, len(answers))
    return Attributed(
        [f"s{i}" for i in range(count)],
        RNG.integers(0, 4, (count, length), dtype=np.uint8),
        answers,
        RNG.normal(size=(*shape, length, 4)).astype(np.float32),
        RNG.normal(size=shape).astype(np.float32),
        np.zeros(shape, np.float32),
        np.ones(shape, np.float32),
    )


@pytest.mark.parametrize("form", ["bedGraph", "bw"])
def test_windows_that_overlap_make_one_track_in_the_direction_of_the_genome(tmp_path, form):
    chromosomes = np.array(["chr2", "chr1", "chr1", "chr2", "chr1"])
    starts = np.array([50, 200, 10, 60, 25])
    reverse = np.array([False, True, True, True, False])
    windows = Windows(chromosomes, starts, reverse, list("abcde"), LENGTH)
    part, path = scored(5), tmp_path / f"x.{form}"
    source = Source(windows=windows, sizes={"chr1": 300, "chr2": 120, "chr3": 9})
    with FORMS[form_of(str(path), True, 1)](str(path), source) as write:
        for row in range(5):  # as they come, some at a time
            one = slice(row, row + 1)
            write(
                Attributed(
                    part.ids[one], part.codes[one], part.answers, part.hypothetical[one],
                    part.outputs[one], part.change[one], part.size[one],
                )
            )  # fmt: skip
    wanted = {}
    for row in range(5):
        own = part.contributions[row, 0][:: -1 if reverse[row] else 1]
        for place, score in enumerate(own, starts[row]):
            wanted.setdefault((chromosomes[row], int(place)), []).append(score)
    assert max(map(len, wanted.values())) == 2
    if form == "bw":
        pyBigWig = pytest.importorskip("pyBigWig")
        with pyBigWig.open(str(path)) as file:
            spans = [(name, *span) for name in ("chr1", "chr2") for span in file.intervals(name)]
    else:
        rows = (line.split("\t") for line in path.read_text().splitlines())
        spans = [(name, int(a), int(b), float(x)) for name, a, b, x in rows]
    assert [span[:2] for span in spans] == sorted(wanted)
    for name, start, stop, score in spans:
        assert stop == start + 1
        assert score == pytest.approx(np.mean(wanted[name, start]), rel=1e-5, abs=1e-6)


def test_a_picture_has_the_ten_sequences_with_the_largest_outputs(tmp_path):
    part, path = scored(25), tmp_path / "x.png"
    with FORMS["png"](str(path), Source()) as write:
        write(part)
    assert imread(path).shape[0] > 100 * MOST_DRAWN
    telling = Telling()
    telling.add(part)
    titles = [axes.get_title(loc="left") for axes in telling.figure().axes]
    best = np.argsort(-part.outputs[:, 0])[:MOST_DRAWN]
    assert titles == [f"s{i}, logit {part.outputs[i, 0]:.2f}" for i in best]


def test_a_site_is_in_the_middle_of_its_picture_whatever_little_is_beside_it():
    scores = np.zeros(300)
    scores[150:160], scores[101:105], scores[280:289] = 1, 0.1, 1
    figure = draw([[Shown("x", np.zeros(300, np.uint8), scores)]], "logit")
    assert figure.axes[0].get_xticklabels()[0].get_text() == "130"


def test_alleles_stand_together_on_one_scale_with_the_variant_in_the_middle():
    part, telling = scored(24, length=100), Telling(together=2)
    telling.add(part)
    axes = telling.figure().axes
    changes = np.abs(np.diff(part.outputs[:, 0].reshape(-1, 2)))[:, 0]
    best = int(np.argmax(changes))
    titles = [one.get_title(loc="left").split(",")[0] for one in axes]
    assert len(axes) == MOST_DRAWN and titles[:2] == [f"s{2 * best}", f"s{2 * best + 1}"]
    assert axes[0].get_ylim() == axes[1].get_ylim()
    shown = [int(tick.get_text()) for tick in axes[0].get_xticklabels()]
    assert shown == [30, 40, 50, 60, 70, 80]
    alleles = part.codes[2 * best : 2 * best + 2, 20:80]
    (box,) = (p.get_extents() for p in axes[1].patches if p.get_facecolor()[0] == 0.92)
    place = np.flatnonzero(alleles[0] != alleles[1])[0]
    middle = axes[1].transData.inverted().transform(box.get_points()).mean(axis=0)[0]
    assert middle == pytest.approx(place)


def test_alleles_that_have_no_window_or_another_reference_are_named(tmp_path):
    genome, vcf = tmp_path / "g.fa", tmp_path / "x.vcf"
    genome.write_text(">c\n" + "ACGT" * 25 + "\n")
    rows = ["41\tr\tA\tC,<DEL>,*", "42\t.\tG\tT", "43\t.\tG\t.", f"45\t.\tA\tA{'CG' * 20}"]
    vcf.write_text("".join(f"c\t{row}\n" for row in rows))
    left: list[str] = []
    noted: list[str] = []
    windows = variant_blocks(
        SimpleNamespace(length=20), vcf, Genome(genome), left.append, noted.append
    )
    ((ids, codes),) = windows
    assert ids[:4] == ["c:41:A", "c:41:A>C", "c:42:G", "c:42:G>T"]
    assert codes.shape == (6, 20)
    without = ("41:A><DEL>, allele <DEL>", "41:A>*, allele *", "43:G>., allele .")
    assert left == [f"c:{x} has no sequence of its own" for x in without]
    assert noted == ["c:42:G>T, reference mismatch: the genome has C"]


def test_a_long_name_is_cut_above_its_picture():
    part = replace(scored(1), ids=["c:45:A>" + "ACG" * 50])
    assert len(part.shown()[0].title) < 110


def test_letters_hang_where_a_base_takes_away():
    part, telling = scored(1), Telling()
    telling.add(part)
    (axes,) = telling.figure().axes
    ends = {}
    for path in [patch.get_path() for patch in axes.patches]:
        starts = [*np.flatnonzero(path.codes == path.MOVETO), len(path.codes)]
        for a, b in itertools.pairwise(starts):  # an outline of a letter, or the hole in it
            box = Path(path.vertices[a:b], path.codes[a:b]).get_extents()
            place, end = round((box.x0 + box.x1) / 2), max(box.y0, box.y1, key=abs)
            ends[place] = max(ends.get(place, 0), end, key=abs)
    wanted = part.contributions[0, 0]
    assert set(ends) == set(np.flatnonzero(abs(wanted) > 0.005 * np.ptp(wanted)))
    for place, end in ends.items():
        assert end == pytest.approx(wanted[place], rel=1e-6)


def test_the_report_has_the_section_once():
    telling = Telling()
    telling.add(scored(3, ("a<b",)))
    drawn = svg(telling.figure(), "attributions")
    ElementTree.fromstring(drawn)
    sections = [f"<section><h2>{title}</h2>x</section>\n" for title in ("Curves", "Data")]
    page = "".join(sections)
    once = with_attributions(page, drawn, "ism", "a<b")
    twice = with_attributions(once, drawn, "saliency", "a<b")
    assert len(re.findall("What each base adds", twice)) == 1
    assert "by saliency" in twice and "by ism" not in twice and "a&lt;b" in twice
    assert twice.startswith(sections[0]) and twice.endswith(f"</section>\n{sections[1]}")
    assert with_attributions("<p>another page</p>", drawn, "ism", "x") == "<p>another page</p>"


@pytest.mark.parametrize(
    ("path", "intervals", "answers", "said"),
    [
        ("x.bw", False, 1, "--output=x.bw needs --bed, which gives positions"),
        ("x.bedGraph.gz", True, 3, "has 3 answers; choose one with --answer"),
        ("x.npz.gz", True, 1, "--output=x.npz.gz has an unknown suffix"),
        ("-", True, 1, "--output=- has an unknown suffix"),
        ("gs://bkt/x.npz", True, 1, "--output=gs://bkt/x.npz is a URL; give a path on a disk"),
    ],
)
def test_a_file_that_cannot_hold_the_scores_is_refused(path, intervals, answers, said):
    with pytest.raises(UserError, match=re.escape(said)):
        form_of(path, intervals, answers)
