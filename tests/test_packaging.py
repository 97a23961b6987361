"""Pins, versions and public CI."""

import re
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

import jaxdna

REPOSITORY = Path(__file__).parent.parent


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
