"""Training and asking a model from a notebook or a script; the verbs are a thin layer over it.

```python
import jaxdna

config = jaxdna.load_config("tal1", ["train.epochs=5"])
run = jaxdna.train(config)
run.predict(["ACGTTGACCAGATGGTT", "TTTTTTTTTTTTTTTTTT"])
run.evaluate()["test"]["auroc"]
run.filters()[0].motif
```
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from functools import cached_property, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import numpy as np
from ml_collections import ConfigDict
from numpy.typing import NDArray
from rich.console import Console

from jaxdna import config as configs
from jaxdna.config_files import run_name
from jaxdna.console import loud, make_console
from jaxdna.data.fasta import Piece, read_fasta_pieces
from jaxdna.data.records import join
from jaxdna.data.sequences import encode
from jaxdna.errors import UserError, nearest, speaking_python
from jaxdna.notebook import Interpretation, Page, report_page, run_page, shown_curves
from jaxdna.parallel.settings import own_settings
from jaxdna.progress import counted, shown_on
from jaxdna.runs.guard import Guard
from jaxdna.runs.own_folder import own_folder
from jaxdna.runs.run_folder import RunFolder
from jaxdna.runs.trained import Trained, load_trained
from jaxdna.schema import ATTRIBUTION_METHODS, ATTRIBUTION_REFERENCES, STRAND_CHOICES
from jaxdna.storage.files import folder_at
from jaxdna.storage.places import Place, Url, input_place, place_of

if TYPE_CHECKING:
    from jaxdna.analysis.attributed import Attributed

_P = ParamSpec("_P")
_R = TypeVar("_R")
_AT_ONCE = 10_000  # sequences given as letters that are scored together


@speaking_python()
@own_settings()
def train(
    config: str | Path | ConfigDict,
    workdir: str | Place | None = None,
    *,
    quiet: bool = False,
    guard: Guard | None = None,
) -> "Run":
    """Trains a model and evaluates it on the test split, as `jaxdna train` does.

    The same call again resumes a run that was stopped, or finds it finished.

    Args:
      config: what `load_config` returns, changed as you like; or the name or path of a config.
      workdir: the run folder, or the URL of one in a bucket. Without one: `runs/NAME` for a name
        or path (`runs/NAME-2` and so on where that has other settings), as the command has it; for
        a configuration `runs/DATA-DIGEST`, so that another configuration is another run.
      quiet: show nothing.
      guard: who hears signals and watches the clock. The command gives its own, which may end the
        process. Without one, Ctrl-C (a notebook's interrupt) saves the state and raises Preempted.

    Raises:
      UserError: the configuration is wrong, or does not fit the devices or the folder.
      JaxdnaError: the run ended in another way that has a sentence; see `jaxdna.errors`.
    """
    from jaxdna.analysis.run_report import write_run_report
    from jaxdna.runs.run import train_in

    if isinstance(config, str | Path):
        spec, config = str(config), configs.load_config(config)
        named = Path("runs") / run_name(spec)
        if not workdir:
            named, note = own_folder(named, config)
            if note:
                _console(quiet).print(f"note     {note}")
    elif isinstance(config, ConfigDict | Mapping):
        config = configs.validate(configs.flat(config))
        named = default_workdir(config)
    else:
        raise UserError(
            f"config={config!r} is not a configuration; legal: the name or the path of a config, "
            "or what jaxdna.load_config returns"
        )
    folder = _folder(workdir or named)
    console = _console(quiet)
    own = Guard(config.watchdog, owns_process=False)
    with shown_on(lambda: console), nullcontext(guard) if guard else own as hearing:
        summary = train_in(config, folder, hearing, console, write_run_report)
    if "folds" in summary:
        from jaxdna.analysis.report import folds_html
        from jaxdna.runs.cross_validation import fold_folder
        from jaxdna.tasks.kinds import task_of

        whole = RunFolder(folder)
        task = task_of(fold_folder(folder, 0).read_data() or {})
        _, targets, outputs = whole.read_test(task)
        page = folds_html(folder.resolve().name, summary, task, targets, outputs)
        whole.write(whole.report.name, page)
    elif "folder" in summary:
        from jaxdna.analysis.report import grid_html

        whole = RunFolder(folder)
        whole.write(whole.report.name, grid_html(folder.resolve().name, summary))
    return Run(folder, summary=summary, quiet=quiet)


def default_workdir(config: ConfigDict) -> Path:
    """Returns the run folder of a configuration without a name: `runs/DATA-DIGEST`."""
    digest = hashlib.sha256(configs.to_json(config).encode()).hexdigest()
    return Path("runs") / f"{config.data.name}-{digest[:8]}"


@speaking_python()
def open_run(
    workdir: str | Place,
    overrides: Iterable[str] = (),
    *,
    member: int | None = None,
    quiet: bool = False,
) -> "Run":
    """Opens the folder of a run that was trained before, here or on another machine.

    Args:
      workdir: the run folder, or the URL of one in a bucket.
      overrides: `section.key=value` texts that change its configuration, e.g. its devices.
      member: of several networks that were trained at once the one to ask, from 0; all of them, the
        mean of what they say, if None.
      quiet: show nothing.

    Raises:
      UserError: this is not a run folder.
    """
    run = Run(_folder(workdir), overrides, member=member, quiet=quiet)
    run.folder.read_config()
    return run


def _shown(method: Callable[_P, _R]) -> Callable[_P, _R]:
    """Wraps a method of a run: under jax settings of its own, and with its progress shown."""

    @wraps(method)
    def shown(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        run: Any = args[0]
        with speaking_python(), own_settings(), shown_on(lambda: run._console):
            return method(*args, **kwargs)

    return shown


class Run:
    """A run folder, with the model that was trained in it.

    Attributes:
      folder: paths of the run and what is stored at them.
    """

    def __init__(
        self,
        workdir: Place,
        overrides: Iterable[str] = (),
        *,
        summary: dict[str, Any] | None = None,
        member: int | None = None,
        quiet: bool = False,
    ):
        """Names the folder; nothing is read until it is asked for. See `train` and `open_run`."""
        self.folder = RunFolder(workdir)
        self._overrides, self._member = tuple(overrides), member
        self._summary = summary  # of several processes only one finds it on its disk
        self._console = _console(quiet)

    def __repr__(self) -> str:
        return f"jaxdna.open_run({str(self.folder.path)!r})"

    def _repr_html_(self) -> str:
        return run_page(self.folder)._repr_html_()

    @property
    def summary(self) -> dict[str, Any]:
        """What summary.json holds: scores, ceiling, seconds, devices; empty if unfinished."""
        return self._summary or self.folder.read_summary() or {}

    @property
    def answering(self) -> RunFolder:
        """The folder of the network that answers: of a grid over networks that of the best."""
        best = self.summary.get("folder")
        if not isinstance(best, str) or not re.fullmatch(r"group\d+", best):
            return self.folder
        return RunFolder(self.folder.path / best, self.folder.path)

    @property
    def history(self) -> list[dict[str, Any]]:
        """One dict per epoch, the lines of metrics.jsonl."""
        return self.answering.read_metrics()

    @cached_property
    @speaking_python()
    def config(self) -> ConfigDict:
        """The configuration that the run was begun with, and the overrides of `open_run`."""
        leaves = configs.flat(self.answering.read_model_config())
        return configs.validate(configs.override(leaves, self._overrides))

    @cached_property
    @_shown
    def model(self) -> Trained:
        """The best parameters, on all devices; for networks that read sequences.

        Raises:
          UserError: the network reads something else.
          NoCheckpointError: the run has no parameters yet.
        """
        from jaxdna.parallel.runtime import describe_devices, start_backend

        config = self.config
        devices = start_backend(config, self._console)
        self._console.print(f"devices  {describe_devices(devices)}")
        return load_trained(self.answering, config, devices, loud(self._console), self._member)

    @_shown
    def predict(
        self, sequences: str | Path | Iterable[str], strands: str | None = None
    ) -> NDArray[np.float32]:
        """Returns what the network answers: probabilities, or numbers.

        Args:
          sequences: letters of one sequence or of many, of any lengths; or the `Path` of a FASTA
            file. Lengths and ambiguous letters are treated as in training.
          strands: `average`, `forward` or `max`; as it was trained if None.

        Returns:
          float32 [sequences], in order, or [sequences, outputs] where there are several classes,
          labels or numbers (`run.model.task.names`); NaN for a sequence that is shorter than a
          filter, is not as long as the network reads, or has no base.

        Raises:
          UserError: a letter is not a nucleotide, or the file is wrong.
        """
        from jaxdna.analysis.predictions import Lengths, score_records
        from jaxdna.analysis.scorers import make_scorer

        _check_choice("strands", strands, STRAND_CHOICES)
        _check_sequences(sequences)
        model = self.model
        data = model.config.data
        pieces = _pieces(sequences, data.get("ambiguous", "zero"))
        lengths = Lengths(data.get("lengths", "error"), model.length)
        scored = score_records(pieces, make_scorer(model, strands), lengths)
        none = np.empty((0, model.task.outputs), np.float32)
        outputs = np.concatenate([none, *(rows.outputs for rows in scored)])
        answers = model.task.predicted(outputs).astype(np.float32)
        return answers[:, 0] if model.task.outputs == 1 else answers

    @_shown
    def attribute(
        self,
        sequences: str | Path | Iterable[str],
        method: str = "deeplift_shap",
        *,
        references: str | None = None,
        shuffles: int = 20,
        steps: int = 64,
        seed: int = 0,
        answer: str | None = None,
        strands: str | None = None,
    ) -> "Attributed":
        """Returns what each base adds to what the network answers; a notebook shows logos.

        Args:
          sequences: letters of one sequence or of many, of one length; or the `Path` of a FASTA
            file. Lengths and ambiguous letters are treated as in training.
          method: `deeplift_shap`, `integrated_gradients`, `saliency` or `ism`.
          references: `dinucleotide_shuffle`, `zeros` or `background`; the method's own if None.
          shuffles: of each sequence, where these are the references.
          steps: places at which `integrated_gradients` takes the gradient.
          seed: of the shuffles.
          answer: the name of the one to score; all if None.
          strands: `average`, `forward` or `max`; as it was trained if None.

        Returns:
          A `jaxdna.analysis.attribution.Attributed`: `contributions` float32 [sequences, answers,
          length], `hypothetical` float32 [sequences, answers, length, 4], `delta`, `plot()`.

        Raises:
          UserError: a letter is not a nucleotide, a sequence has a length that is not mended, or
            the method does not go with the network or the sequences.
        """
        from jaxdna.analysis.attributed import Attributed
        from jaxdna.analysis.attribution import Settings, make_attributor
        from jaxdna.analysis.attribution_inputs import fitted_blocks

        _check_choice("strands", strands, STRAND_CHOICES)
        _check_choice("method", method, ATTRIBUTION_METHODS)
        _check_choice("references", references, ATTRIBUTION_REFERENCES)
        _check_sequences(sequences)
        model = self.model
        pieces = _pieces(sequences, model.config.data.get("ambiguous", "zero"))
        records = (piece.records for piece in pieces)
        where = str(sequences) if isinstance(sequences, Path) else "sequences"
        settings = Settings(method, references or "", shuffles, steps, seed, answer)
        blocks = fitted_blocks(model, records, where)
        parts = list(make_attributor(model, settings, strands)(blocks))
        if not parts:
            raise UserError("there is no sequence to attribute; legal: one or more")
        return Attributed.joined(parts)

    @_shown
    def evaluate(self, strands: str | None = None, **files: str | Path) -> dict[str, Any]:
        """Scores the best parameters on the test split, or on labelled files.

        Args:
          strands: `average`, `forward` or `max`; as it was trained if None.
          **files: paths of labelled files: `positives` and `negatives` (FASTA), `sequences` (FASTA)
            and `labels` (a table with columns id and label, or those of the targets), or `table`
            (as `data.table`).

        Returns:
          `test` (loss in nats, accuracy, auroc, auprc), `chance` (what the sizes of the classes
          alone give, and those sizes), `measures` (each with its 95% interval),
          `ceiling` (the best that is possible, for simulated data), and what it was measured on.

        Raises:
          UserError: the files do not go together, or one is wrong.
        """
        from jaxdna.analysis.evaluate import check_files, evaluate_files, evaluate_test_split

        _check_choice("strands", strands, STRAND_CHOICES)
        if not files:
            return evaluate_test_split(
                self.answering, self.config, strands, self._console, self._member
            )
        check_files(files)
        paths = {key: str(input_place(_path(key, value))) for key, value in files.items()}
        inputs = (self.answering.read_data() or {}).get("inputs", [])
        keys = self.answering.read_train_keys()
        return evaluate_files(self.model, paths, strands, self._console, inputs, keys)

    @_shown
    def filters(
        self, sequences: str | Path | None = None, motifs: str | Path | None = None
    ) -> list[Any]:
        """Returns the filters as motifs, the most influential first.

        Args:
          sequences: FASTA file on which the filters fire, lengths treated as in training; the test
            split if None.
          motifs: file of known motifs to compare with (MEME, JASPAR, HOMER, gimme, TRANSFAC or
            CIS-BP); the archetypes of JASPAR 2024 and the presets if None.

        Returns:
          A list of `jaxdna.analysis.filters.FilterMotif`.
        """
        from jaxdna.analysis.filters import filter_motifs
        from jaxdna.analysis.windows import find_windows

        model, (sample, known) = self.model, self._sample(sequences, motifs)
        both = model.config.model.strands != "forward"
        windows = find_windows(model, sample.codes, both)
        return filter_motifs(model, sample.codes, windows, known)

    @_shown
    def interpret(
        self,
        sequences: str | Path | None = None,
        motifs: str | Path | None = None,
        mutate: int = 3,
        output: str | Path | None = None,
    ) -> Interpretation:
        """Does what `jaxdna interpret` does: filters as motifs, logos, in-silico mutagenesis.

        Args:
          sequences: see `filters`.
          motifs: see `filters`.
          mutate: how many of the top-scoring sequences to mutate.
          output: the folder for tables, motif files and pictures; `interpret` in the run's if None.

        Raises:
          UserError: an argument is wrong, or the folder cannot be written.
        """
        from jaxdna.analysis.interpretation import interpret

        if not isinstance(mutate, int) or mutate < 0:
            raise UserError(f"mutate={mutate} is not legal: it must be an integer, 0 or more")
        sample, known = self._sample(sequences, motifs)
        named = place_of(_path("output", output), "--output") if output else None
        place = named or self.folder.path / "interpret"
        folder = folder_at(place, named or self.folder.path)
        found = interpret(self.model, sample, known, min(mutate, len(sample.codes)), folder)
        return Interpretation(place, **found)

    def _sample(self, sequences: Any, motifs: Any) -> tuple[Any, Any]:
        """Returns the sequences to look at, and the motifs to compare with."""
        from jaxdna.analysis.interpretation import read_sample, test_sample
        from jaxdna.data.motifs import library, read_motifs

        known = read_motifs(str(_path("motifs", motifs))) if motifs else library()
        if not sequences:
            return test_sample(self.model, self.answering), known
        return read_sample(self.model, str(_path("sequences", sequences))), known

    def plot_curves(self) -> Any:
        """Returns a matplotlib figure of the loss, and what else is followed, over the epochs.

        Of a run that is under way these are its epochs until now.
        """
        return shown_curves(self.folder)

    def report(self) -> Page:
        """Returns report.html, which a notebook shows; its `path` is where it lies.

        Raises:
          UserError: the run has none: it is not finished, or drawing it has failed.
        """
        return report_page(self.folder)


def _console(quiet: bool) -> Console:
    return Console(quiet=True) if quiet else make_console()


def _folder(workdir: Any) -> Place:
    return workdir if isinstance(workdir, Url) else place_of(_path("workdir", workdir))


def _path(name: str, value: Any) -> Path:
    if not isinstance(value, str | Path):
        raise UserError(f"{name}={value!r} is not a path; legal: a string or a pathlib.Path")
    return Path(value)


def _check_choice(name: str, value: Any, legal: tuple[str, ...]) -> None:
    if value is not None and value not in legal:
        raise UserError(f"{name}={value!r} is unknown; {nearest(str(value), legal)}")


def _check_sequences(sequences: Any) -> None:
    if not isinstance(sequences, Iterable | Path) or isinstance(sequences, bytes | Mapping):
        raise UserError(
            f"sequences={sequences!r} are not sequences; legal: letters of one or a list of "
            "them, or the pathlib.Path of a FASTA file"
        )


def _pieces(sequences: Any, ambiguous: str) -> Iterable[Piece]:
    """Returns letters, or the records of a file."""
    if isinstance(sequences, Path):
        return read_fasta_pieces(sequences, ambiguous, most_bases=None)
    one = isinstance(sequences, str)
    hint = "; a file is given as a pathlib.Path" if one else ""
    return _pieces_of([sequences] if one else list(sequences), ambiguous, hint)


def _pieces_of(sequences: list[Any], ambiguous: str, hint: str) -> Iterator[Piece]:
    firsts = range(0, len(sequences), _AT_ONCE)
    for first in counted("scoring", firsts, len(firsts)):
        numbers = range(first, min(first + _AT_ONCE, len(sequences)))
        codes = [_encoded(i, sequences[i], ambiguous, hint) for i in numbers]
        yield Piece(join(list(map(str, numbers)), codes), False, False)


def _encoded(number: int, letters: Any, ambiguous: str, hint: str) -> NDArray[np.uint8]:
    if not isinstance(letters, str | bytes):
        raise UserError(f"sequence {number}: {letters!r} has no letters; give a string of bases")
    try:
        return encode(letters, ambiguous)
    except UserError as error:
        raise UserError(f"sequence {number}: {error}{hint}") from None
