"""The docs build, their links and sentences are true, and their commands are commands."""

import ast
import importlib
import itertools
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import jax
import pytest

from jaxdna import extensions
from jaxdna.api import train
from jaxdna.cli.main import VERBS, main, split_command, split_overrides
from jaxdna.cli.parser import Parser
from jaxdna.config import default_config, flat, load_config, validate
from jaxdna.config_files import shipped_configs
from jaxdna.data.registry import LOADERS
from jaxdna.errors import UserError
from jaxdna.models.registry import BUILDERS
from jaxdna.schema import COMMON, DATA_SETS, MODELS, schema
from jaxdna.strategies.prepare import PROGRAMS
from jaxdna.study import layouts
from jaxdna.tasks.kinds import KINDS
from tools import run_docs

pytestmark = pytest.mark.site

REPOSITORY = Path(__file__).parent.parent
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]


def test_the_site_builds_without_a_warning(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", tmp_path],
        cwd=REPOSITORY,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert ">open_run<" in (tmp_path / "notebook" / "index.html").read_text()
    assert ">needs a checkout<" in (tmp_path / "index.html").read_text()
    reference = (tmp_path / "api" / "index.html").read_text()
    assert 'id="jaxdna.api.Run.predict"' in reference and "float32 [sequences]" in reference


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_outside_the_site_lead_to_files(name):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", (REPOSITORY / name).read_text()):
        assert target.startswith("https://") or (REPOSITORY / target).exists(), target


def sentences() -> set[str]:
    """Every text of the package, with … for what is filled in."""
    found = set()
    for path in (REPOSITORY / "jaxdna").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = [p.value if isinstance(p, ast.Constant) else "…" for p in node.values]
                found.add("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(node.value)
    return found


def matches(heading: str, sentence: str) -> bool:
    """Whether the heading is the sentence; its … stands for anything, more than one value too."""
    pattern = ".*".join(re.escape(part) for part in heading.split("…"))
    return re.fullmatch(pattern, sentence) is not None


def test_every_sentence_of_the_troubleshooting_page_is_one_that_the_program_says():
    page = (REPOSITORY / "docs" / "troubleshooting.md").read_text()
    headings = re.findall(r"^### `(.*)`$", page, re.MULTILINE)
    assert len(headings) >= 15
    said = sentences()
    for heading in headings:
        assert any(matches(heading, sentence) for sentence in said), heading


LEGAL_FENCE = r'python|text|toml|sh( title="(takes|needs) [^"]+")?|console title="needs [^"]+"'
COMMAND = re.compile(
    r"^ *(\$|jaxdna|make|pip|python3?|ray|sbatch|for|tools/\S+) (?!.*\[)", re.MULTILINE
)


@pytest.mark.parametrize("page", run_docs.PAGES, ids=lambda page: page.stem)
def test_every_block_of_commands_is_run_or_says_what_it_needs(page):
    fences = [line for line in page.read_text().splitlines() if line.lstrip().startswith("```")]
    found = run_docs.blocks(page)
    assert len(fences) == 2 * len(found)  # none is indented, nor left open
    for info, text in found:
        assert re.fullmatch(LEGAL_FENCE, info), f"```{info}"
        if info in ("text", "python", "toml"):
            assert not COMMAND.search(text), text


def test_what_takes_minutes_runs_when_asked_for():
    assert sum(bool(run_docs.script(page)) for page in run_docs.PAGES) >= 9
    page = REPOSITORY / "docs" / "reliability.md"
    assert "fault_campaign" not in run_docs.script(page)
    assert "fault_campaign" in run_docs.script(page, long=True)


def tables(page: Path) -> list[list[str]]:
    """The lines of every Markdown table of a page, those in blocks left out."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    lines = itertools.groupby(text.splitlines(), key=lambda line: line.startswith("|"))
    return [list(group) for is_table, group in lines if is_table]


@pytest.mark.parametrize("page", run_docs.PAGES, ids=lambda page: page.stem)
def test_every_table_is_whole(page):
    """A header, a rule below it, rows, and as many cells in each of them."""
    for header, *rows in tables(page):
        assert len(rows) >= 2 and re.fullmatch(r"\|( :?-{3,}:? \|)+", rows[0]), header
        for row in (header, *rows):
            assert row.endswith("|"), row
            assert len(re.findall(r"(?<!\\)\|", row)) == rows[0].count("|"), row


# What is said more than once: each pattern finds its figure at least once, and all of them agree.
FIGURES = {
    "parameters of TAL1's network": {
        "README.md": r"network of ([\d,]+) parameters",
        "docs/index.md": r"network of ([\d,]+) parameters",
        "docs/networks.md": r"\| `tal1` \| ([\d,]+) \|",
        "docs/recipe.md": r"linear score; ([\d,]+) parameters",
        "docs/benchmarks.md": r"`configs/tal1.py` .*\| ([\d,]+) \| 32 \||DNA, ([\d,]+) parameters",
        "docs/genomics.md": r"([\d,]+)-parameter model|`configs/fasta.py`, ([\d,]+) parameters",
        "docs/tutorials/report_experiment.md": r"network of ([\d,]+) parameters",
        "configs/tal1.py": r"([\d,]+) parameters",
    },
    "parameters of CIFAR-10's network": {
        "docs/benchmarks.md": r"`configs/cifar10.py` .*\| ([\d,]{5,}) \||CIFAR, ([\d,]+) param",
        "configs/cifar10.py": r"([\d,]+) parameters",
    },
    "parameters of MNIST's networks": {
        "docs/benchmarks.md": r"`configs/mnist\w*.py` .*\| ([\d,]{5,}) \||MNIST, ([\d,]+) param",
        "configs/mnist.py": r"([\d,]+) parameters",
        "configs/mnist_mlp.py": r"([\d,]+) parameters",
    },
    "test AUROC of seed 0": {
        "README.md": r"│ AUROC +│ ([\d.]+) │|\| 0 \| ([\d.]+) \(",
        "docs/genomics.md": r"test AUROC ([\d.]+) against",
        "docs/networks.md": r"\| `tal1` .* ([\d.]+) \|",
        "docs/tutorials/report_experiment.md": r"│ AUROC       │ ([\d.]+) │ ",
    },
    "AUROC's ceiling for seed 0": {
        "README.md": r"│ AUROC .* ([\d.]+) │|\| 0 \| [\d.]+ \(([\d.]+)\)",
        "docs/genomics.md": r"against a ceiling of ([\d.]+)[.]",
        "docs/networks.md": r"AUROC ([\d.]+)\)",
        "docs/tutorials/report_experiment.md": r"│ AUROC .* ([\d.]+) │",
    },
    "test accuracy of seed 0": {
        "README.md": r"│ accuracy +│ ([\d.]+) │|\| 0 \| .*?\| ([\d.]+) \(",
        "docs/tutorials/report_experiment.md": r"│ accuracy    │ ([\d.]+) │ ",
    },
    "test accuracy of seed 0 in per cent": {
        "README.md": r"^([\d.]+)% of 4,000 test examples",
        "docs/networks.md": r"\| `tal1` .* ([\d.]+)% \|",
    },
    "test loss of seed 0": {
        "README.md": r"│ loss \(nats\) │ ([\d.]+) │|\| 0 \| .*\| ([\d.]+) \([\d.]+\) \|$",
        "docs/tutorials/report_experiment.md": r"│ loss \(nats\) │ ([\d.]+) │",
    },
    "bases predicted per second": {
        "docs/performance.md": r"it is ([\d.]+) million bases/s|\*Prediction\*: ([\d.]+) million",
    },
    "the report's seconds for DNA on one GPU": {
        "docs/benchmarks.md": r"\| DNA, 993 parameters \| ([\d.]+) s",
        "docs/plan.md": r"\| DNA, 100 epochs at most \| ([\d.]+) s",
    },
} | {
    f"{what} of {name}": {"docs/networks.md": in_table, f"configs/{name}.py": in_config}
    for name in ("deep_cnn", "dilated", "attention")
    for what, in_table, in_config in (
        ("parameters", rf"\| `{name}` \| ([\d,]+) \|", r"([\d,]+) parameters"),
        ("accuracy", rf"\| `{name}` .* ([\d.]+)% \|", r"accuracy ([\d.]+)%"),
        ("AUROC", rf"\| `{name}` .* ([\d.]+) \|$", r"AUROC ([\d.]+) "),
    )
}


@pytest.mark.parametrize("figure", FIGURES)
def test_figures_that_stand_in_several_places_agree(figure):
    """To the digits of the one that has the fewest."""
    found = []
    for name, pattern in FIGURES[figure].items():
        matches = re.finditer(pattern, (REPOSITORY / name).read_text(), re.MULTILINE)
        here = [next(filter(None, match.groups())).replace(",", "") for match in matches]
        assert here, f"{name} does not say it"
        found += here
    assert len(found) > 1
    digits = min(len(number.partition(".")[2]) for number in found)
    assert len({f"{float(number):.{digits}f}" for number in found}) == 1, found


def commands(page: Path) -> list[str]:
    """Every `jaxdna ...` of a page, in blocks and in lines; a backslash at the end goes on."""
    text = page.read_text()
    parts = re.split(r"^```.*$", text, flags=re.MULTILINE)  # text, block, text, block, ...
    blocks = "\n".join(parts[1::2]).replace("\\\n", " ")
    inline = re.findall(r"`(jaxdna [^`]+)`", "\n".join(parts[0::2]))
    lines = [line.strip().removeprefix("$ ") for line in blocks.splitlines()]
    # `[--flag]` is a summary of a verb, not a command.
    return [line for line in [*lines, *inline] if line.startswith("jaxdna ") and "[" not in line]


def check_command(line: str) -> None:
    """Fails unless the verb, its flags and the keys and values of the config exist."""
    words = [word for word in shlex.split(line, comments=True)[1:] if word not in ("...", "…")]
    words = [re.sub(r"=[A-Z]$", "=1", word) for word in words]  # `--processes=N`
    verb, *rest = list(itertools.takewhile(lambda word: word not in ("|", ">", "&&"), words))
    if verb == "--version":
        return
    assert verb in VERBS
    rest, command = split_command(rest)
    overrides, others = split_overrides(rest)
    module = importlib.import_module(f"jaxdna.cli.{verb}")
    parser = Parser(prog=line, allow_abbrev=False)
    module.add_arguments(parser)
    parser.add_argument("--json", action="store_true")
    required = {action.dest for action in parser._actions if action.required}
    for action in parser._actions:
        action.required = False  # prose may name a command without all of its flags
    if "--help" in others:
        return
    parsed = parser.parse_args(others)
    if command:
        check_command(shlex.join(["jaxdna", *command]))
    specs = getattr(parsed, "config", None) or (["tal1"] if "config" in required else [])
    for spec in [specs] if isinstance(specs, str) else specs:
        if Path(spec.partition(":")[0]).stem in shipped_configs():
            # What a person is to fill in (`$seed`, HOST:PORT, `...`) has no value to check.
            legal = [o for o in overrides if not re.search(r"[$A-Z]{3,}|\$|\.\.\.", o)]
            load_config(spec, legal, measure=False)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_has_a_verb_flags_and_keys_that_exist(page):
    for line in commands(page):
        try:
            check_command(line)
        except (SystemExit, AssertionError, UserError, ValueError) as error:
            pytest.fail(f"{line}: {error}")


def test_the_pages_show_commands():
    assert sum(len(commands(page)) for page in PAGES) > 60


@pytest.fixture
def worked_examples(monkeypatch):
    """Runs the code of the architecture page; returns all names that it makes."""
    page = (REPOSITORY / "docs" / "architecture.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    assert len(blocks) == 5
    for table, key in (
        (BUILDERS, "motif_mlp"), (MODELS, "motif_mlp"), (LOADERS, "e_box"), (DATA_SETS, "e_box"),
        (PROGRAMS, "one_device"), (COMMON, "strategy"), (KINDS, "robust"), (LOADERS, "planted"),
        (DATA_SETS, "planted"),
    ):  # fmt: skip
        monkeypatch.setitem(table, key, table.get(key))  # so that it is as before afterwards
    made = {"__name__": "architecture"}
    for block in blocks:
        assert len(re.findall(r"^.*\S", block, re.MULTILINE)) < 35
        assert not re.search(r"import .*\b_", block)
        exec(compile(block, "architecture.md", "exec"), made)
    LOADERS["planted"], DATA_SETS["planted"] = made["load_planted"], DATA_SETS["e_box"]
    return made


def test_a_package_of_ones_own_adds_the_worked_examples(tmp_path, monkeypatch):
    """The package of the page, as pip lays it out; then one that cannot be imported."""
    page = (REPOSITORY / "docs" / "architecture.md").read_text()
    project = tomllib.loads(re.search(r"^```toml\n(.*?)^```", page, re.DOTALL | re.MULTILINE)[1])
    package, groups = project["project"], project["project"]["entry-points"]
    network, data = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)[:2]
    (module,) = project["tool"]["setuptools"]["py-modules"]
    made = tmp_path / f"{module}-{package['version']}.dist-info"
    made.mkdir()
    (made / "METADATA").write_text(f"Name: {package['name']}\nVersion: {package['version']}\n")
    (made / "entry_points.txt").write_text(
        "".join(f"[{group}]\n{name} = {where}\n" for group, own in groups.items()
                for name, where in own.items())
    )  # fmt: skip
    monkeypatch.syspath_prepend(tmp_path)
    for tables, key in (((BUILDERS, MODELS), "motif_mlp"), ((LOADERS, DATA_SETS), "e_box")):
        for one in tables:
            monkeypatch.setitem(one, key, None)
            del one[key]  # so that it is gone afterwards
    (tmp_path / f"{module}.py").write_text("raise SystemExit('no such\\nlibrary')\n" + network)
    extensions._named.cache_clear()
    monkeypatch.setattr(extensions, "_loaded", set())
    try:
        with pytest.raises(
            UserError,
            match=r"^the extension e_box of the package e-box cannot be "
            r"imported \(SystemExit: no such library\)",
        ):
            schema("e_box", "motif_mlp")
        (tmp_path / f"{module}.py").write_text(network + data)
        config = default_config("e_box", "motif_mlp")
        assert config.model.hidden == 8 and config.data.length == 500
        assert extensions.extensions() == {"e_box": "e-box 1"}
        assert LOADERS["e_box"].__module__ == module
    finally:
        extensions._named.cache_clear()
        sys.modules.pop(module, None)


def worked_config(data, **changes):
    config = default_config(data, "motif_mlp")
    config.data.length, config.data.train_examples = 60, 1200
    config.data.validation_examples = config.data.test_examples = 200
    config.optimizer.learning_rate, config.train.epochs = 0.02, 4
    return validate(flat(config) | changes)


@pytest.mark.usefixtures("worked_examples")
def test_the_worked_examples_of_the_architecture_page_train(tmp_path):
    """The network, the data set and the strategy, in one run together."""
    run = train(worked_config("e_box", strategy="one_device"), tmp_path / "run", quiet=True)
    assert run.summary["devices"] == 1
    assert run.summary["params"] == 15 * 4 * 16 + 16 + 16 * 8 + 8 + 8 + 1
    assert run.summary["test"]["auroc"] > 0.9
    bound = "A" * 27 + "CACGTG" + "A" * 27
    assert run.predict([bound])[0] > run.predict(["A" * 60])[0]
    filters = run.filters()
    assert sorted(one.number for one in filters) == list(range(16))
    assert "CACGTG" in [one.core.consensus for one in filters if one.core]


@pytest.mark.usefixtures("worked_examples")
def test_the_worked_task_and_source_go_through_every_verb_on_several_meshes(
    tmp_path, monkeypatch, capsys
):
    """The network with them on three meshes; then each verb that runs in this process.

    `scale` measures in processes of its own, which know what the files of a checkout have.
    """
    monkeypatch.setattr("jaxdna.training.feed._RESIDENT_BYTES_ON_CPU", 0)
    for number, axes in enumerate(({"data": 4}, {"fsdp": 2, "model": 2}, {"data": 2, "seq": 2})):
        mesh = {f"mesh.{axis}": 1 for axis in ("data", "fsdp", "seq", "model")}
        mesh |= {f"mesh.{axis}": n for axis, n in axes.items()}
        config = worked_config("planted", **mesh, **{"data.train_examples": 3000})
        with monkeypatch.context() as few:
            devices = jax.devices()[:4]
            few.setattr("jaxdna.strategies.prepare.start_backend", lambda *_, d=devices: d)
            run = train(config, tmp_path / f"run{number}", quiet=True)
        assert (run.summary["task"], run.summary["devices"]) == ("robust", 4)
        # Absolute errors have no slope at zero, and Adam tells every rounding: that meshes give the
        # same numbers is what `layouts` says below.
        assert run.summary["test"]["pearson"] > 0.8
    (tmp_path / "x.fa").write_text(">bound\nCACGTG" + "A" * 54 + "\n>unbound\n" + "A" * 60 + "\n")
    (tmp_path / "c.py").write_text(
        "from jaxdna.config import flat, validate\n"
        f"def get_config(variant=''):\n    return validate({dict(flat(config))!r})\n"
    )
    workdir, sized = f"--workdir={tmp_path / 'run0'}", f"--config={tmp_path / 'c.py'}"
    one = ["--config.mesh.data=-1", "--config.mesh.seq=1"]
    meshes = ({"mesh.data": 2, "mesh.seq": 2, "mesh.model": 2}, {"mesh.fsdp": 8})
    ones = {f"mesh.{axis}": 1 for axis in ("data", "fsdp", "seq", "model")}
    monkeypatch.setattr(layouts, "layout_flags", lambda _: iter([ones | mesh for mesh in meshes]))
    for command, words in {
        ("predict", workdir, f"--sequences={tmp_path / 'x.fa'}"): "id\tsites\tnote\nbound\t",
        ("evaluate", workdir, *one): "Pearson's r",
        ("interpret", workdir, "--mutate=1"): "CACGTG",
        ("export", workdir): "model.stablehlo",
        ("layouts", sized, "--steps=1", "--json"): '"same": true}',
        ("plan", sized, "--json", *one): "flops_per_step",
    }.items():
        assert main(list(command)) == 0, capsys.readouterr()
        out = capsys.readouterr().out
        assert words in out, out
