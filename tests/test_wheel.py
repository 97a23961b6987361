"""The wheel and the sdist as a stranger gets them: what they hold, and that the docs' commands run.

The commands of README, quick start and tutorials run with the installed wheel, in turn, in one
folder that is empty at first and far from the checkout. Where they take minutes they do on less
data; `tools/run_docs.py` runs those of every page as they stand.
"""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

import jaxdna
from tools.run_docs import REPOSITORY, blocks, run, script

CONFIGS = {path.name for path in (REPOSITORY / "configs").glob("*.py")}


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> dict[str, Path]:
    """The sdist, and the wheel that is made from the sdist."""
    output = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", output, REPOSITORY]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "would be ignored" not in done.stderr, "a folder of the package is no package of it"
    return {path.suffix: path for path in output.iterdir()}


def test_the_wheel_holds_the_package_its_configs_and_its_types_and_nothing_else(built):
    with zipfile.ZipFile(built[".whl"]) as wheel:
        names = set(wheel.namelist())
        metadata = wheel.read(f"jaxdna-{jaxdna.__version__}.dist-info/METADATA").decode()
    ours = {
        str(path.relative_to(REPOSITORY))
        for path in (REPOSITORY / "jaxdna").rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    packed = {name for name in names if ".dist-info/" not in name}
    assert packed == ours | {f"jaxdna/configs/{name}" for name in CONFIGS}
    presets = {"tal1_motifs.json", "jaspar_2024_archetypes.meme", "jaspar_2024_archetypes.txt"}
    assert {"jaxdna/py.typed", *(f"jaxdna/data/presets/{name}" for name in presets)} <= packed
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert f"\nVersion: {jaxdna.__version__}\n" in metadata


def test_the_sdist_is_the_checkout(built):
    with tarfile.open(built[".gz"]) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    tracked = subprocess.run(["git", "ls-files"], capture_output=True, text=True, cwd=REPOSITORY)
    if tracked.returncode:
        pytest.skip("this is no git checkout, so nobody says which files belong to it")
    hosting = (".ci/", ".github/", ".gitignore")
    wanted = {name for name in tracked.stdout.split() if not name.startswith(hosting)}
    assert wanted - names == set()


@pytest.fixture(scope="module")
def typed(built, tmp_path_factory) -> Callable[[str, str], int]:
    """Runs commands where README's own lines have installed the wheel; returns the exit code.

    Its dependencies come from this environment, by links: nothing is downloaded. The second
    argument is a function of bash that stands in for the command.
    """
    folder = tmp_path_factory.mktemp("first")
    shutil.copy(built[".whl"], folder)
    links = tmp_path_factory.mktemp("dependencies")
    for packages in {sysconfig.get_path("purelib"), *(p for p in sys.path if "-packages" in p)}:
        for path in Path(packages).iterdir():
            ours = "jaxdna" in path.name or path.name.startswith(("pip", "setuptools"))
            if not ours and not (links / path.name).exists():
                (links / path.name).symlink_to(path)
    environment = {
        "HOME": str(folder / "home"),
        "JAX_PLATFORMS": "cpu",
        "LANG": "C.UTF-8",
        "PATH": f"{sys.base_prefix}/bin:{os.defpath}",
        "PIP_NO_INDEX": "1",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PYTHONPATH": str(links),
        # How the suite compiles, and what it has compiled.
        **{name: word for name, word in os.environ.items() if name.startswith(("JAX_", "XLA_"))},
    }
    page = REPOSITORY / "README.md"
    [install] = [text for info, text in blocks(page) if info == 'sh title="needs the wheel"']
    extras = re.findall(r"`pip install ('jaxdna\[[^`]+)`", page.read_text())
    assert len(extras) == 4
    together = f"pip install {' '.join(extras)}"  # all at once: pip itself takes its time to start
    assert run(f"{install}\n{together}", folder, environment, timeout=300) == 0

    def type_them(commands: str, wrapper: str = "") -> int:
        begin = f"source .venv/bin/activate\n{wrapper}\n"
        return run(begin + commands, folder, environment, timeout=1800)

    return type_them


def test_the_installed_package_is_the_wheels(typed, capfd):
    assert typed("command -v jaxdna; python -c 'import jaxdna; print(jaxdna.__file__)'") == 0
    assert re.search(r"/first.*/\.venv/bin/jaxdna\n.*/first.*/\.venv/lib/", capfd.readouterr().out)


FEWER = (
    "--config.data.train_examples=640 --config.data.validation_examples=200 "
    "--config.data.test_examples=200 --config.data.length=120"
)
ENOUGH = (
    "--config.data.train_examples=2000 --config.data.validation_examples=400 "
    "--config.data.test_examples=400 --config.data.length=120 --config.train.epochs=4"
)
IMAGES = "--config.data.train_examples=1280 --config.data.test_examples=128"
SHORT, NARROW = "--config.train.epochs=2", "--config.model.filters=4"
SMALL = {  # what is added to the commands of a page: patterns of bash, in turn
    "README.md": {
        "simulate*": FEWER,
        "layouts*": f"{FEWER} --config.runtime.cpu_devices=2 --steps=2",
        "train*mnist_mlp*": f"{IMAGES} {SHORT}",
        "train*positives*": SHORT,
        "train*dilated*": f"{FEWER} {SHORT}",
        "train*|launch*": f"{FEWER} {SHORT} {NARROW}",
    },
    "docs/index.md": {"simulate*": FEWER, "train*": f"{FEWER} {SHORT} {NARROW}"},
    "docs/tutorials/fasta_to_motif.md": {},
    "docs/tutorials/report_experiment.md": {"train*|simulate*": ENOUGH},
}
SHOWN = {
    "README.md": ("Bayes ceiling", "filter0", "Roofline", "What would be started"),
    "docs/index.md": ("95% interval", "id\tprobability\tlogit\tnote", "Bayes ceiling", "filter0"),
    "docs/tutorials/fasta_to_motif.md": (
        "TAL1_known4", "recall at 10% FDR", "id\tprobability\tlogit\tnote",
    ),
    "docs/tutorials/report_experiment.md": ("TAL1_known4", "Bayes ceiling", '"epoch": 3'),
}  # fmt: skip


@pytest.mark.parametrize("page", SMALL)
def test_the_commands_of_a_page_run_where_only_the_wheel_is(page, typed, capfd):
    cases = "".join(f'{of}) set -- "$@" {flags};; ' for of, flags in SMALL[page].items())
    smaller = f'jaxdna() {{ case "$*" in {cases}esac; command jaxdna "$@"; }}'
    code = typed(script(REPOSITORY / page), smaller)
    shown, said = capfd.readouterr()
    assert code == 0, said[-3000:]
    for words in SHOWN[page]:
        assert words in shown
