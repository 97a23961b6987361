"""What a stranger, a typing error or a broken disk can write: a sentence, never a traceback.

Hypothesis makes the inputs; each is given to the code that reads such input, in this process.
"""

import gc
import json
import os
import shutil
import string
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jaxdna.config import flat, load_config, override, validate
from jaxdna.data.motifs import read_motifs
from jaxdna.errors import NoCheckpointError, UserError
from jaxdna.runs.run_folder import RunFolder
from jaxdna.runs.trained import load_trained
from jaxdna.schema import COMMON
from jaxdna.storage.disk import DiskFolder
from jaxdna.storage.manifest import damage, write_manifest
from jaxdna.tasks.kinds import of_classes
from jaxdna.training.checkpoint import load_best
from jaxdna.training.program import Program

REPRODUCIBLE = settings(
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
LEAVES = flat(load_config("configs/tal1.py"))
KEYS = st.sampled_from(sorted(LEAVES)) | st.text(max_size=30)
VALUES = (
    st.text(max_size=40)
    | st.integers().map(str)
    | st.floats().map(str)
    | st.sampled_from(["", "-1", "1e999", "nan", "true", "None", "[1]", "{}", "0x10", "9" * 5000])
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=12,
)
BYTES = st.binary(max_size=300) | st.sampled_from(
    [b"[" * 100_000, b'{"a":' * 50_000, b"9" * 10_000]
)


@given(KEYS, VALUES)
@settings(REPRODUCIBLE, max_examples=400)
def test_a_config_flag_is_taken_or_refused_in_one_sentence(key, value):
    try:
        config = validate(override(LEAVES, [f"{key}={value}"]))
    except UserError as error:
        assert "--config." in str(error)
    else:
        assert set(flat(config)) == set(LEAVES)


@given(st.dictionaries(st.sampled_from(sorted(LEAVES)) | st.text(max_size=10), JSON, max_size=4))
@settings(REPRODUCIBLE, max_examples=200)
def test_a_config_json_of_any_values_is_taken_or_refused(tmp_path, changes):
    folder = RunFolder(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(LEAVES | changes))
    try:
        folder.read_config()
    except UserError as error:
        assert "config.json is damaged" in str(error)


@given(BYTES | JSON.map(lambda value: json.dumps(value).encode()))
@settings(REPRODUCIBLE, max_examples=200)
def test_any_bytes_in_the_files_of_a_run_folder_are_read_or_refused(tmp_path, content):
    folder = RunFolder(tmp_path)
    names = ("config.json", "summary.json", "metrics.jsonl", "data.json", "test.tsv")
    for name in names:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError):
        folder.read_config()
    assert folder.read_summary() is None
    assert folder.read_metrics() == []
    assert isinstance(folder.read_data(), dict | None)
    with pytest.raises(UserError):
        folder.check(load_config("configs/tal1.py"))
    assert {path.name for path in tmp_path.iterdir()} == set(names)


def test_a_run_folder_says_neither_whom_to_join_nor_whence_to_load_programs(finished, tmp_path):
    """Compiled programs are machine code; and the folder would be written to."""
    config = json.loads((finished.path / "config.json").read_text())
    config["runtime"]["compilation_cache"] = "/somewhere/else"
    config["cluster"] = {"coordinator": "192.0.2.1:1", "processes": 2, "process_id": 1}
    (tmp_path / "config.json").write_text(json.dumps(config))
    read = RunFolder(tmp_path).read_config()
    assert read.runtime.compilation_cache == "auto"
    assert read.cluster == load_config("configs/tal1.py").cluster


def test_a_run_folder_whose_name_is_no_text_is_refused_before_it_is_trained_in(tmp_path):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/latin\xe9"))
    with pytest.raises(UserError, match="is not UTF-8 text"):
        RunFolder(path)


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ([2**31 - 1], r"data\.json says that a sequence has 2,147,483,647 bases"),
        ([61], "61 bases, and its config.json 60; legal"),
    ],
)
def test_a_length_that_the_run_cannot_have_is_refused_with_it(finished, tmp_path, shape, words):
    import jax

    for name in ("config.json", "data.json"):
        shutil.copy(finished.path / name, tmp_path)
    record = json.loads((tmp_path / "data.json").read_text()) | {"example_shape": shape}
    (tmp_path / "data.json").write_text(json.dumps(record))
    folder = RunFolder(tmp_path)
    with pytest.raises(UserError, match=words):
        load_trained(folder, folder.read_model_config(), jax.devices()[:1], print)


@pytest.fixture
def few_objects():
    """Lets a collection look at what the test makes, and at nothing of the tests before it."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="module")
def wanted(finished):
    """What `evaluate` asks of a checkpoint."""
    import jax

    from jaxdna.parallel.mesh import make_mesh

    config = RunFolder(finished.path).read_config()
    config.mesh.data = 1
    mesh = make_mesh(config, jax.devices()[:1])
    return Program(config, mesh, (60,), of_classes(2), 1280).abstract_state.params


# Orbax leaves coroutines behind where TensorStore fails; Python tells so when it frees them.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.usefixtures("few_objects")
@given(st.data())
@settings(REPRODUCIBLE, max_examples=60)
def test_a_checkpoint_of_any_bytes_is_restored_or_refused(finished, wanted, tmp_path, data):
    """Signed with right digests, so that Orbax and TensorStore have to read it."""
    copy = tmp_path / "checkpoints" / "epoch-8"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(finished.path / "checkpoints" / "epoch-8", copy)
    files = sorted(path for path in (copy / "arrays").rglob("*") if path.is_file())
    path = data.draw(st.sampled_from(files))
    content = bytearray(path.read_bytes())
    if content and data.draw(st.booleans()):
        at = data.draw(st.integers(0, len(content) - 1))
        piece = data.draw(st.binary(min_size=1, max_size=16))
        content[at : at + len(piece)] = piece
    else:
        content = bytearray(data.draw(st.binary(max_size=100)))
    path.write_bytes(content)
    before = damage(DiskFolder(copy))
    (copy / "manifest.json").unlink()
    write_manifest(DiskFolder(copy))
    assert before is not None or damage(DiskFolder(copy)) is None
    try:
        params = load_best(DiskFolder(copy.parent), wanted, lambda text: None)
    except NoCheckpointError as error:
        assert "epoch-8" in str(error)
        gc.collect()
    else:
        assert params["conv"]["kernel"].shape == wanted["conv"]["kernel"].shape
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoints"]


@given(st.dictionaries(st.text(max_size=20) | st.just("../../escape"), JSON, max_size=3))
@settings(REPRODUCIBLE, max_examples=60)
def test_a_manifest_that_names_other_files_opens_none_of_them(finished, tmp_path, files):
    copy = tmp_path / "epoch-8"
    if not copy.exists():
        shutil.copytree(finished.path / "checkpoints" / "epoch-8", copy)
    (copy / "manifest.json").write_text(json.dumps({"files": files}))
    assert damage(DiskFolder(copy)) is not None


WORDS = st.lists(
    st.sampled_from(
        ["MEME version 4", "MOTIF", "MOTIF a", "letter-probability matrix: w= 2", ">a", "A [1 2]",
         "C [1 2]", "G [1 2]", "T [1 2]", "1 0 0 0", "nan 0 0 0", "1e999 1 1 1", "-1 1 1 1", "",
         "0 0 0 0", "letter-probability matrix: w= 99999999999", "\x00", "é", ">a\tb\t8.05",
         "ALPHABET= TAGC", 'ALPHABET "x"', 'A "a" ~ T "t"', "C ~ G", "END ALPHABET", "P0 A C G T",
         "Pos\tA\tC\tG\tU", "A A C G", "01 1 2 3 4 N", "DE x", "AC x", "ID", "//", "TF\tx",
         "Motif\tx", "0 1 0 0", "A | 1 2 3 4", "1e308 1e308 0 0", "\r", "#"]
    )
    | st.text(alphabet=string.printable, max_size=12),
    max_size=12,
)  # fmt: skip


@given(WORDS.map(lambda lines: "\n".join(lines).encode()) | BYTES)
@settings(REPRODUCIBLE, max_examples=300)
def test_a_motif_file_is_read_or_refused(tmp_path, content):
    path = tmp_path / "motif"
    path.write_bytes(content)
    try:
        motifs = read_motifs(path)
    except UserError as error:
        assert str(path) in str(error)
    else:
        assert all(motif.probabilities.shape[1] == 4 for motif in motifs)


def test_every_key_of_the_schema_is_fuzzed():
    assert {key for key in COMMON if key in LEAVES} == set(COMMON)
