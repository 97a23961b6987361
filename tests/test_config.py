import json

import pytest

from jaxdna.config import differences, flat, load_config, to_json, validate
from jaxdna.config_files import run_name, shipped_configs
from jaxdna.errors import UserError
from jaxdna.schema import COMMON, DATA_SETS, IMAGE_SETS, MODELS, schema

TAL1 = "configs/tal1.py"


def test_every_default_is_legal():
    tables = [COMMON, *DATA_SETS.values(), *MODELS.values()]
    for key, field in [item for fields in tables for item in fields.items()]:
        assert field.accepts(field.default), key
    for name in DATA_SETS:
        model = "image_cnn" if name in IMAGE_SETS else "motif_cnn"
        validate({key: field.default for key, field in schema(name, model).items()})


def test_flags_change_the_file_s_values_and_the_last_one_wins():
    config = load_config(TAL1, ["train.batch_size=64", "seed=1", "seed=2", "data.gc=0.5"])
    assert (config.train.batch_size, config.seed, config.data.gc) == (64, 2, 0.5)
    assert load_config(TAL1, ["data.reverse_complement=false"]).data.reverse_complement is False
    assert load_config(TAL1, ["optimizer.learning_rate=1"]).optimizer.learning_rate == 1.0


def test_the_report_s_variant_is_the_report_s():
    config = load_config(f"{TAL1}:report")
    assert (config.optimizer.name, config.optimizer.learning_rate) == ("adam", 1e-3)
    assert (config.train.batch_size, config.train.early_stopping.patience) == (32, 3)
    assert not config.data.reverse_complement
    assert run_name(f"{TAL1}:report") == "tal1-report"


@pytest.mark.parametrize(
    ("override", "words"),
    [
        (
            "train.batchsize=64",
            "train.batchsize=64 is an unknown key; did you mean 'train.batch_size'",
        ),
        ("batch_size=64", "did you mean 'train.batch_size'"),
        ("train.batch_size=0", "train.batch_size=0 is not legal: it must be an integer, 1 or more"),
        ("train.batch_size=many", "train.batch_size=many is not legal"),
        ("train.batch_size=1.5", "train.batch_size=1.5 is not legal"),
        ("train.batch_size", "train.batch_size needs a value"),
        ("optimizer.name=adamw2", "it must be one of adam, sgd, momentum"),
        ("optimizer.learning_rate=nan", "a number above 0"),
        ("data.reverse_complement=perhaps", "true or false"),
        ("data.name=mnist", "motif_cnn cannot read data.name=mnist; legal with it: image_cnn, mlp"),
        ("model.width=501", "longer than the sequences"),
        ("mesh.data=0", "or -1 for all remaining devices"),
    ],
)
def test_a_wrong_flag_is_one_sentence_with_the_flag_and_what_is_legal(override, words):
    with pytest.raises(UserError) as caught:
        load_config(TAL1, [override])
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_s_own_mistakes_are_found(tmp_path):
    cases = {
        "def get_config(variant): return 3": "must return an ml_collections.ConfigDict",
        "x = 1": "no function get_config",
        "def get_config(variant): raise KeyError('a')": "fails: KeyError",
        "def get_config(:": "fails: SyntaxError",
        "import nowhere_to_be_found": "fails: ModuleNotFoundError",
        "raise SystemExit('one\\ntwo')": "fails: SystemExit: one two$",
        "def get_config(a, b): return a": "fails: TypeError",
    }
    path = tmp_path / "mine.py"
    for text, words in cases.items():
        path.write_text(text)
        with pytest.raises(UserError, match=words):
            load_config(str(path))
    path.write_text(
        "from jaxdna.config import default_config\n"
        "def get_config(variant):\n"
        "    config = default_config('tal1', 'motif_cnn')\n"
        "    config.train.epoch = 3\n"
        "    return config\n"
    )
    with pytest.raises(UserError, match=r"train\.epoch is an unknown key; did you mean"):
        load_config(str(path))


@pytest.mark.parametrize(
    ("signature", "variants"),
    [
        ("get_config()", [""]),
        ("get_config(*, more=1)", [""]),
        ("get_config(variant=None)", ["", "v"]),
        ("get_config(*arguments)", ["", "v"]),
    ],
)
def test_get_config_may_do_without_a_variant(tmp_path, signature, variants):
    path = tmp_path / "mine.py"
    path.write_text(
        "from jaxdna.config import default_config\n"
        f"def {signature}: return default_config('tal1', 'motif_cnn')\n"
    )
    for variant in variants:
        assert load_config(f"{path}:{variant}").data.name == "tal1"
    if len(variants) == 1:
        with pytest.raises(UserError, match=r"takes no variant; give --config=.*mine\.py$"):
            load_config(f"{path}:v")


@pytest.mark.parametrize("spec", ["nowhere.py", "a" * 300, "configs", "configs/tal1.py:reprot"])
def test_a_wrong_config_flag_is_a_user_error(spec):
    with pytest.raises(UserError, match="--config="):
        load_config(spec)


def test_a_shipped_config_is_found_by_name_from_any_folder(tmp_path, monkeypatch):
    by_path = load_config(f"{TAL1}:report")
    monkeypatch.chdir(tmp_path)
    assert load_config("tal1:report") == by_path
    assert run_name("tal1:report") == "tal1-report"
    assert set(shipped_configs()) >= {"tal1", "fasta", "mnist", "mnist_mlp", "cifar10"}
    with pytest.raises(UserError, match="did you mean 'tal1'"):
        load_config("configs/tal1.py")
    (tmp_path / "tal1").write_text("a file of the user's comes first, and this one is no Python")
    with pytest.raises(UserError, match="--config=tal1"):
        load_config("tal1")


def test_json_brings_the_same_config_back():
    config = load_config(f"{TAL1}:report", ["seed=9"])
    assert validate(flat(json.loads(to_json(config)))) == config


def test_differences_tell_another_run_from_another_setting():
    old = load_config(TAL1)
    breaking, harmless = differences(old, load_config(TAL1, ["seed=1", "train.epochs=9"]))
    assert breaking == ["seed: 0 -> 1"]
    assert harmless == ["train.epochs: 20 -> 9"]


def test_another_network_or_data_set_begins_with_its_defaults():
    other = load_config("configs/tal1.py", ["model.name=dilated", "model.layers=3"])
    assert (other.model.name, other.model.layers, other.model.width) == ("dilated", 3, 21)
    assert other.data == load_config("configs/tal1.py").data
    with pytest.raises(UserError, match=r"--config\.model\.name=dilate is unknown; did you mean"):
        load_config("configs/tal1.py", ["model.name=dilate"])
    with pytest.raises(UserError, match=r"model\.scan=plain is an unknown key|unknown key"):
        load_config("configs/tal1.py", ["model.name=dilated", "model.scan=plain"])
    same = load_config("configs/tal1.py", ["model.name=motif_cnn"])
    assert same == load_config("configs/tal1.py")
