"""The wheel and the sdist as a stranger gets them."""

import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

import jaxdna

REPOSITORY = Path(__file__).parent.parent
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


def test_the_wheel_trains_where_there_is_no_checkout(built, tmp_path):
    environment, away = tmp_path / "venv", tmp_path / "away"
    away.mkdir()
    clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    clean["JAX_PLATFORMS"] = "cpu"

    def run(*command: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*map(str, command)], cwd=away, env=clean, capture_output=True, text=True, timeout=300
        )

    run(sys.executable, "-m", "venv", "--without-pip", environment)
    python = environment / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check"]
    installed = run(*pip, "install", "--no-deps", "--no-index", built[".whl"])
    assert installed.returncode == 0, installed.stderr
    # The dependencies come from this environment. A folder that a .pth names has its own .pth files
    # ignored, so that an editable install of jaxdna stays out.
    [site] = environment.glob("lib/python*/site-packages")
    others = {sysconfig.get_path("purelib"), *(p for p in sys.path if p.endswith("-packages"))}
    (site / "dependencies.pth").write_text("\n".join(sorted(others)) + "\n")
    where = run(python, "-c", "import jaxdna; print(jaxdna.__file__)").stdout.strip()
    assert Path(where).is_relative_to(environment)
    done = run(
        environment / "bin" / "jaxdna", "train", "--config=tal1:report", "--json",
        "--config.data.train_examples=64", "--config.data.validation_examples=32",
        "--config.data.test_examples=32", "--config.data.length=40", "--config.train.epochs=1",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert '"params": 993' in done.stdout
    assert (away / "runs" / "tal1-report" / "summary.json").is_file()


def test_the_pins_for_python_311_fit_its_first_release():
    """Debian's own is 3.11.2, and pip refuses a pin that wants a later one."""
    lines = (REPOSITORY / "constraints/py311.txt").read_text().splitlines()
    pins = [Requirement(line) for line in lines if "==" in line]
    here = {package.name.lower(): package for package in metadata.distributions()}
    seen = 0
    for pin in pins:
        package = here.get(pin.name.lower())
        if package and pin.specifier.contains(package.version, prereleases=True):
            wanted = SpecifierSet(package.metadata["Requires-Python"] or "")
            assert wanted.contains("3.11.0"), f"{pin} needs Python {wanted}"
            seen += 1
    if sys.version_info < (3, 12):
        assert seen > len(pins) / 2, "the pins are of another environment"


def test_the_newest_change_is_of_this_version():
    versions = re.findall(r"^## (\S+)", (REPOSITORY / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert versions[0] == jaxdna.__version__


def test_public_ci_runs_both_commands_on_every_python_that_the_package_names():
    if not (REPOSITORY / ".github").is_dir():
        pytest.skip("an sdist is without .github")
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    named = re.findall(r"Python :: (3\.\d+)", "\n".join(project["classifiers"]))
    workflow = yaml.safe_load((REPOSITORY / ".github" / "workflows" / "ci.yml").read_text())
    job = workflow["jobs"]["test"]
    assert job["strategy"]["matrix"]["python"] == named
    python = "PYTHON=python${{ matrix.python }}"
    commands = [step["run"] for step in job["steps"] if "run" in step]
    assert commands == [f"make train {python}", f".ci/run {python}"]
    assert '\nmake test "$@"\n' in (REPOSITORY / ".ci" / "run").read_text()
