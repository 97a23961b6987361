"""Which bases matter: a score of each base of a sequence for each answer of a network.

A hypothetical score says what a base would add in a place, also one that is not there. That of the
base that is there is its contribution. Of `ism` and `saliency` it is what the base adds to the mean
of all four; of the other two it is a share of the difference between the sequence and its
references, and the contributions add up to that difference. Scores are in the units of the task's
additive columns: of a logit, say.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from numpy.typing import NDArray

from jaxdna.analysis.attributed import Attributed
from jaxdna.analysis.attribution_kept import Draws, Kept
from jaxdna.analysis.attribution_methods import BY_DERIVATIVES
from jaxdna.analysis.mutagenesis import mutate
from jaxdna.analysis.references import make_references
from jaxdna.analysis.scorer import Scorer
from jaxdna.analysis.scorers import make_scorer
from jaxdna.data.sequences import UNKNOWN, Codes
from jaxdna.errors import UserError
from jaxdna.ops.one_hot import one_hot
from jaxdna.ops.strands import complement_strand
from jaxdna.parallel.mesh import AXES
from jaxdna.parallel.sharding import replicated
from jaxdna.runs.trained import Trained
from jaxdna.training.dispatch import few_ahead
from jaxdna.training.state import Params
from jaxdna.training.step import STRANDS

_SAME_FORM = 1e-4  # of an output: by which codes and their one-hot form may differ
# Bases of references that one device reads in one call: as many as fill it.
_CALL_BASES = {"cpu": 2**15}
_CALL_BASES_ON_ACCELERATORS = 2**20
# Sequences whose references are drawn at once, whatever the devices: others would be drawn anew.
# Even, so that the alleles of a variant stay together.
_DRAWN = 32

Blocks = Iterable[tuple[Sequence[str], Codes]]


@dataclass(frozen=True)
class Settings:
    """How bases are scored.

    Attributes:
      method: `ism`, or a key of `BY_DERIVATIVES`.
      references: a key of `references.KINDS`; the method's own if empty.
      shuffles: references of each sequence, where they are drawn.
      steps: places on the way from a reference at which gradients are taken.
      seed: of what is drawn.
      answer: the name of the one answer to score; all if None.
      together: how many sequences that follow one another have the same references; see
        `make_references`.
    """

    method: str = "deeplift_shap"
    references: str = ""
    shuffles: int = 20
    steps: int = 64
    seed: int = 0
    answer: str | None = None
    together: int = 1


def make_attributor(
    trained: Trained, settings: Settings, strands: str | None = None
) -> Callable[..., Iterator[Attributed]]:
    """Returns what scores sequences, and compiles once.

    It takes blocks of names and uint8 [sequences, length], all of one length, and a `Kept` where it
    is to go on from where it was stopped. It yields their scores in order, many at a time.

    Args:
      trained: the network.
      settings: how.
      strands: how both strands make one answer; as it was trained if None.

    Raises:
      UserError: there is no such answer, all references of a sequence are as it is, or the network
        or the method cannot do it.
    """
    for name in ("shuffles", "steps"):
        if getattr(settings, name) < 1:
            raise UserError(
                f"--{name}={getattr(settings, name)} is not legal: it must be 1 or more"
            )
    if settings.seed < 0:
        raise UserError(f"--seed={settings.seed} is not legal: it must be 0 or more")
    if settings.references and not getattr(BY_DERIVATIVES.get(settings.method), "references", ""):
        raise UserError(
            f"--references={settings.references} does not go with --method={settings.method}, "
            "which compares with nothing; legal with it: deeplift_shap, integrated_gradients"
        )
    task = trained.task
    names = tuple(task.additive(np.zeros((0, task.outputs), np.float32)))
    if settings.answer is not None and settings.answer not in (*task.names, *names):
        raise UserError(
            f"--answer={settings.answer} is unknown; legal: {', '.join(dict.fromkeys(task.names))}"
        )
    chosen = [
        i for i, name in enumerate(names) if settings.answer in (None, name, *task.names[i : i + 1])
    ]
    if settings.method == "ism":
        scorer = make_scorer(trained, strands)

        def score(draws: Draws, number: int) -> Iterator[Attributed]:
            return _by_mutants(scorer, draws, chosen, names)

    else:
        strands = strands or trained.config.model.strands
        score = _Derivatives(trained, settings, strands, chosen, names).scores

    def scores(blocks: Blocks, kept: Kept | None = None) -> Iterator[Attributed]:
        draws = _of_size(blocks, _DRAWN)
        return kept.resumed(draws, score) if kept else score(draws, 0)

    return scores


def _by_mutants(
    scorer: Scorer,
    draws: Draws,
    chosen: list[int],
    names: Sequence[str],
) -> Iterator[Attributed]:
    """Scores by in-silico mutagenesis: every base in every place, exactly."""
    answers = tuple(names[i] for i in chosen)
    for ids, codes in draws:
        for name, row in zip(ids, codes, strict=True):
            changes = mutate(scorer, row)[None, ..., chosen].transpose(0, 3, 1, 2)
            places = np.array([row.size - scorer.width + 1])
            columns = scorer.task.additive(scorer.outputs(row, np.zeros(1, np.int64), places))
            outputs = np.stack(list(columns.values()), axis=1)[:, chosen].astype(np.float32)
            centred = (changes - changes.mean(axis=-1, keepdims=True)).astype(np.float32)
            none = np.full_like(outputs, np.nan)
            yield Attributed([name], row[None], answers, centred, outputs, none, none)


class _Derivatives:
    """Scores by derivatives or differences of the network over one-hot values."""

    def __init__(
        self,
        trained: Trained,
        settings: Settings,
        strands: str,
        chosen: list[int],
        names: Sequence[str],
    ):
        self.trained, self.settings, self.chosen = trained, settings, np.array(chosen)
        self.method = BY_DERIVATIVES[settings.method]
        self.kind = settings.references or self.method.references
        self.answers = tuple(names[i] for i in chosen)
        self.strands, task = strands, trained.task
        ends = [task.additive(np.full((1, task.outputs), x, np.float32)) for x in (0, 1)]
        low, high = (np.array(list(end.values()), np.float32)[chosen, 0] for end in ends)
        self.shift, self.scale = low, high - low
        bases = jax.ShapeDtypeStruct((1, trained.length, UNKNOWN), np.float32)
        try:
            jax.eval_shape(self._network, trained.networks, bases)
        except (IndexError, TypeError, ValueError) as error:
            raise self._other_form("does not take") from error

    def scores(self, draws: Draws, number: int) -> Iterator[Attributed]:
        """Scores what is drawn together, of which `number` draws came before."""
        return map(self._finish, few_ahead(map(self._submit, self._calls(draws, number))))

    def _calls(
        self, draws: Draws, before: int
    ) -> Iterator[tuple[list[str], Codes, NDArray[np.float32]]]:
        """Names, codes and references of the sequences of one call after the other."""
        mesh, settings = self.trained.mesh, self.settings
        platform = mesh.devices.flat[0].platform
        bases = _CALL_BASES.get(platform, _CALL_BASES_ON_ACCELERATORS)
        for number, (ids, codes) in enumerate(draws, before):
            rng = np.random.default_rng([settings.seed, number])
            each = np.zeros((len(ids), 0, codes.shape[1], 4), np.float32)
            if self.kind:
                each = make_references(self.kind, codes, settings.shuffles, rng, settings.together)
                self._check(ids, codes, each)
            work = settings.steps if settings.method == "integrated_gradients" else 1
            rows = max(1, bases // (codes.shape[1] * max(1, each.shape[1]) * work)) * mesh.size
            # Of few sequences there is one call, or a last one like the others.
            least = min(rows, _DRAWN if number else len(ids))
            for first in range(0, len(ids), rows):
                part = slice(first, first + rows)
                yield ids[part], codes[part], _filled(each[part], least, mesh.size)

    def _check(self, ids: Sequence[str], codes: Codes, references: NDArray[np.float32]) -> None:
        differ = _differ(codes, references)
        if not differ.all():
            name, together = ids[int(np.argmin(differ))], self.settings.together
            rng = np.random.default_rng()  # nothing is drawn
            others = [
                kind
                for kind in ("zeros", "background")
                if _differ(codes, make_references(kind, codes, 1, rng, together)).all()
            ]
            advice = f"references={' or '.join(others)}" if others else "method=ism"
            raise UserError(
                f"--references={self.kind}: every reference of sequence '{name}' equals the "
                f"sequence, which leaves no difference to attribute; try --{advice}"
            )

    def _submit(self, call: tuple[list[str], Codes, NDArray[np.float32]]) -> Any:
        ids, codes, references = call
        rows = _filled(codes, len(references), 1)
        by_row = NamedSharding(self.trained.mesh, P(AXES))
        sent = jax.device_put((rows, references), by_row)
        # Accelerators round the factors of float32 products otherwise.
        with jax.default_matmul_precision("highest"):
            return ids, codes, self._call(self._on_devices, *sent)

    def _finish(self, job: Any) -> Attributed:
        ids, codes, found = job
        scores, own, seen, change, size = (np.asarray(x)[: len(ids)] for x in found)
        if (np.abs(own - seen) > _SAME_FORM * np.maximum(np.abs(own), 1)).any():
            raise self._other_form("answers otherwise to")
        finite = np.isfinite(scores).all(axis=(1, 2, 3))
        if not finite.all():
            raise UserError(
                f"--method={self.settings.method}: the scores of sequence '{ids[finite.argmin()]}' "
                "are not finite numbers; try --method=ism"
            )
        return Attributed(
            ids,
            codes,
            self.answers,
            scores * self.scale[:, None, None],
            own * self.scale + self.shift,
            change * self.scale,
            size * np.abs(self.scale),
        )

    def _other_form(self, does: str) -> UserError:
        return UserError(
            f"--method={self.settings.method}: the network {does} bases in one-hot form; use "
            "--method=ism, or a first layer that takes them, as by jaxdna.ops.one_hot"
        )

    def _network(self, networks: Sequence[Params], x: jax.Array) -> jax.Array:
        """Maps codes [batch, length], or their one-hot form, to the answers [batch, answers]."""
        task, each = self.trained.task, []
        for network in map(self.trained.network, networks):
            if self.strands == "forward":
                each.append(network(x))
            else:  # both as one batch: half the program to compile
                both = network(jnp.concatenate([x, complement_strand(x)]))
                forward, other = jnp.split(both, 2)
                each.append(STRANDS[self.strands](forward, task.turned(other)))
        return (sum(each[1:], each[0]) / len(each))[:, self.chosen]

    @cached_property
    def _on_devices(self) -> list[Params]:
        return jax.device_put(list(self.trained.networks), replicated(self.trained.mesh))

    @cached_property
    def _call(self) -> Any:
        hypothetical, steps = self.method.hypothetical, self.settings.steps

        def rows(networks: list[Params], codes: jax.Array, references: jax.Array) -> tuple:
            def output(sequence: jax.Array) -> jax.Array:
                return self._network(networks, sequence[None])[0]

            bases = one_hot(codes)
            scores = jax.vmap(lambda x, r: hypothetical(output, x, r, steps))(bases, references)
            seen = jax.vmap(output)(bases)
            changes = seen[:, None] - jax.vmap(jax.vmap(output))(references)
            own = self._network(networks, codes)
            return scores, own, seen, changes.mean(axis=1), abs(changes).mean(axis=1)

        # Each device its own rows with whole parameters, so that no layer meets the mesh.
        by_row = P(AXES)
        on_mesh = jax.shard_map(
            rows,
            mesh=self.trained.mesh,
            in_specs=(P(), by_row, by_row),
            out_specs=by_row,
            check_vma=False,
        )
        # Which number is the largest is asked of the same numbers twice. XLA computes them alike
        # at its usual level of optimization, whatever XLA_FLAGS say.
        on_cpu = self.trained.mesh.devices.flat[0].platform == "cpu"
        options = {"xla_backend_optimization_level": 3} if on_cpu else None
        return jax.jit(on_mesh, compiler_options=options)


def _differ(codes: Codes, references: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which sequences have a reference that is not as they are."""
    own = (codes[..., None] == np.arange(UNKNOWN))[:, None]
    known = (codes < UNKNOWN)[:, None, :, None]
    return (known & (references != own)).any(axis=(1, 2, 3))


def _filled(rows: NDArray, least: int, multiple: int) -> NDArray:
    """Adds empty rows, so that calls have one shape and every device its share."""
    wanted = -(-max(len(rows), least) // multiple) * multiple
    return np.concatenate([rows, np.zeros((wanted - len(rows), *rows.shape[1:]), rows.dtype)])


def _of_size(blocks: Blocks, size: int) -> Iterator[tuple[list[str], Codes]]:
    """Yields the same sequences, `size` at a time."""
    names: list[str] = []
    held: list[Codes] = []
    for ids, codes in blocks:
        names += ids
        held.append(codes)
        if len(names) < size:
            continue
        joined = np.concatenate(held)
        whole = len(names) // size * size
        for first in range(0, whole, size):
            yield names[first : first + size], joined[first : first + size]
        names, held = names[whole:], [joined[whole:]]
    if names:
        yield names, np.concatenate(held)
