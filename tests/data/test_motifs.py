import numpy as np
import pytest

from jaxdna.data.motifs import load_motif, presets, read_motifs
from jaxdna.errors import UserError

MEME = """MEME version 4

ALPHABET= ACGT

MOTIF first one
letter-probability matrix: alength= 4 w= 2 nsites= 20 E= 0
 0.25 0.25 0.25 0.25
 1.0 0.0 0.0 0.0

MOTIF second
letter-probability matrix: alength= 4 w= 1
 0.1 0.2 0.3 0.4
"""
JASPAR = """>MA0001.1 one
A [ 3 0 ]
C [ 1 4 ]
G [ 0 0 ]
T [ 0 0 ]
>MA0002.1 two
1 1 1
1 1 1
1 1 1
1 1 5
"""


def test_presets_have_the_consensus_that_their_collections_state():
    consensus = {name: motif.consensus for name, motif in presets().items()}
    assert consensus["TAL1_known4"] == "TCCAGCTGCT"
    assert consensus["TAL1_known1"] == "CTGAACAGATGGTCGG"
    assert presets()["MA0091.1"].width == 12
    for motif in presets().values():
        np.testing.assert_allclose(motif.probabilities.sum(axis=1), 1, atol=1e-12)
        np.testing.assert_allclose(motif.smoothed().sum(axis=1), 1, atol=1e-12)


def test_meme_files_are_read(tmp_path):
    path = tmp_path / "m.meme"
    path.write_text(MEME)
    first, second = read_motifs(path)
    assert (first.name, first.label, second.label) == ("first", "first one", "second")
    assert first.probabilities.tolist() == [[0.25] * 4, [1, 0, 0, 0]]
    np.testing.assert_allclose(second.probabilities, [[0.1, 0.2, 0.3, 0.4]])
    assert load_motif(f"{path}:second").name == "second"


def test_jaspar_files_are_read_bracketed_and_bare(tmp_path):
    path = tmp_path / "m.jaspar"
    path.write_text(JASPAR)
    first, second = read_motifs(path)
    assert (first.name, first.label) == ("MA0001.1", "MA0001.1 one")
    path.write_text(JASPAR.replace(" one", "\tMA0001.1.one"))  # as newer releases have it
    assert read_motifs(path)[0].label == "MA0001.1 one"
    assert first.probabilities.tolist() == [[0.75, 0.25, 0, 0], [0, 1, 0, 0]]
    assert second.width == 3
    np.testing.assert_allclose(second.probabilities[2], [1 / 8, 1 / 8, 1 / 8, 5 / 8])


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no motif at all\n",
        b"\x00\x01",
        b">MA1 x\nA [ 1 2 ]\nC [ 1 ]\nG [ 1 2 ]\nT [ 1 2 ]\n",
        b">MA1 x\nA [ 1 ]\nC [ 1 ]\n",
        b">MA1 x\nA [ -1 ]\nC [ 1 ]\nG [ 1 ]\nT [ 1 ]\n",
        b">MA1 x\nC [ 1 ]\nA [ 1 ]\nG [ 1 ]\nT [ 1 ]\n",
        b">MA1 x\n0\n0\n0\n0\n",
        b"MEME version 4\nMOTIF m\nletter-probability matrix: w= 3\n 1 0 0 0\n",
        b"MEME version 4\nMOTIF m\nletter-probability matrix: w= 1\n nan 0 0 0\n",
        b"MEME version 4\nMOTIF\n",
        b">MA1 TAL1 1 2 3\nC [ 3 2 1 ]\nG [ 0 0 1 ]\nT [ 1 1 1 ]\n",
    ],
)
def test_a_file_that_does_not_parse_is_one_sentence(tmp_path, content):
    path = tmp_path / "broken"
    path.write_bytes(content)
    with pytest.raises(UserError, match="cannot be parsed"):
        load_motif(str(path))


def test_a_name_too_long_for_a_file_is_one_sentence():
    with pytest.raises(UserError, match="is neither a preset nor a file"):
        load_motif("TAL1" * 100)


def test_an_unknown_preset_gets_the_nearest_name():
    with pytest.raises(UserError, match="did you mean 'TAL1_known4'"):
        load_motif("TAL1_know4")
