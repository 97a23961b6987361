"""What a parameter server does, without a network: variables, updates, versions, bounds.

A push is known by (step, part): step is the number of its batch in the run, part the piece of that
batch. Synchronous training cuts each batch into one part per worker and updates when all parts are
there; asynchronous training has one part, and updates with every push.
"""

import os
import pickle
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from numpy.typing import NDArray

Variables = dict[str, dict[str, NDArray[np.float32]]]  # by layer and name; some of them


class Store:
    """The variables of one server and their optimizer state.

    Attributes:
      version: updates made since the run began, those of earlier calls included.
      staleness: updates between pull and push -> pushes, since `load`.
    """

    def __init__(self, optimizer: optax.GradientTransformation, checkpoint: Path, every: int):
        """Is empty until `load` or `restore`.

        Args:
          optimizer: an update rule that treats every variable by itself.
          checkpoint: file that `restore` reads.
          every: updates between two checkpoints.
        """

        def update(variables: Any, opt_state: Any, gradients: Any) -> Any:
            updates, opt_state = optimizer.update(gradients, opt_state, variables)
            return optax.apply_updates(variables, updates), opt_state

        self._update = jax.jit(update)
        self._checkpoint = checkpoint
        self._every = every
        self.version = 0
        self.staleness: Counter[int] = Counter()

    def load(self, variables: Variables, opt_state: Any, step: int, parts: int) -> None:
        """Begins a call of training steps; saves a checkpoint.

        Args:
          variables: the values.
          opt_state: the optimizer's state for them.
          step: first step of the call; pushes of earlier ones are ignored.
          parts: pushes that make one step.
        """
        self._variables, self._opt_state = variables, opt_state
        self._first_step, self._parts = step, parts
        self._waiting: dict[int, dict[int, Variables]] = {}
        self._applied: set[int] = set()
        self.version = step
        self.staleness = Counter()
        self.save()

    def pull(self) -> tuple[int, Variables]:
        """Returns the version and the values."""
        return self.version, self._variables

    def push(self, step: int, part: int, version: int, gradients: Variables) -> bool:
        """Takes a gradient; the second push of the same (step, part) changes nothing.

        Args:
          step: number of the batch in the run.
          part: piece of the batch.
          version: that the gradient was computed with.
          gradients: of every variable of this server.

        Returns:
          Whether the step's update has been made.
        """
        if step < self._first_step or step in self._applied:
            return True
        waiting = self._waiting.setdefault(step, {})
        if part not in waiting:
            waiting[part] = gradients
            # A server that came back from its checkpoint may be behind what the worker has seen.
            self.staleness[max(0, self.version - version)] += 1
        if len(waiting) < self._parts:
            return False
        total = waiting[0]
        for i in range(1, self._parts):  # in one order, whoever came first
            total = jax.tree.map(np.add, total, waiting[i])
        made = self._update(self._variables, self._opt_state, total)
        self._variables, self._opt_state = jax.tree.map(np.asarray, made)
        del self._waiting[step]
        self._applied.add(step)
        self.version += 1
        if self.version - self._saved >= self._every:
            self.save()
        return True

    def state(self) -> tuple[Variables, Any]:
        """Returns the values and the optimizer's state."""
        return self._variables, self._opt_state

    def save(self) -> None:
        """Writes the checkpoint: readers see the old file or the new one."""
        self._saved = self.version
        kept = {key: value for key, value in vars(self).items() if key in _KEPT}
        self._checkpoint.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=self._checkpoint.parent)
        with os.fdopen(handle, "wb") as stream:
            pickle.dump(kept, stream)
        os.replace(temporary, self._checkpoint)

    def restore(self) -> None:
        """Goes back to the checkpoint: fewer than `every` updates are lost."""
        vars(self).update(pickle.loads(self._checkpoint.read_bytes()))
        self._waiting = {}


_KEPT = (
    "_variables", "_opt_state", "_first_step", "_parts", "_applied", "_saved", "version",
    "staleness",
)  # fmt: skip


class Gate:
    """Lets pulls pass so that no gradient can become older than the bound.

    While a gradient is computed, the others that are on their way may each bring one update, and so
    may those that have come meanwhile. Another pull passes only if this sum stays within the bound
    for every gradient on its way, the new one included. With W workers and a bound of at least
    W - 1 all of them work, until one falls behind by the rest.
    """

    def __init__(self, max_staleness: int):
        """Starts with nothing on its way."""
        self._bound = max_staleness
        self._done = 0
        self._begun: dict[Any, int] = {}

    def open(self) -> bool:
        """Whether another pull may pass."""
        others = len(self._begun)
        older = (self._done - begun for begun in self._begun.values())
        return others <= self._bound and all(done + others <= self._bound for done in older)

    def begin(self, ticket: Any) -> None:
        """A pull has passed."""
        self._begun[ticket] = self._done

    def end(self, ticket: Any, pushed: bool = True) -> None:
        """The gradient has arrived, or its worker is lost."""
        del self._begun[ticket]
        self._done += pushed


def paths_of(params: Mapping[str, Any]) -> dict[str, Any]:
    """Returns parameters by layer and name as one dict by path, `layer/name`."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {"/".join(str(key.key) for key in path): leaf for path, leaf in leaves}


def assign(sizes: Mapping[str, int], servers: int) -> list[list[str]]:
    """Shares variables among servers, the largest first, each to the server with the least.

    Args:
      sizes: scalars in each variable.
      servers: at most the number of variables.

    Returns:
      The paths of each server.
    """
    shares: list[list[str]] = [[] for _ in range(servers)]
    for path in sorted(sizes, key=lambda path: (-sizes[path], path)):
        min(shares, key=lambda share: sum(sizes[p] for p in share)).append(path)
    return shares


def take(tree: Any, params: Mapping[str, Any], paths: Iterable[str]) -> Any:
    """Returns a server's part: every parameter-like subtree of `tree` has its variables only.

    Args:
      tree: parameters, or an optimizer state.
      params: parameters of the same layers, for their structure.
      paths: the server's variables.
    """
    alike = _alike(params.keys())

    def own(node: Any) -> Any:
        return choose(node, paths) if alike(node) else node

    return jax.tree.map(own, tree, is_leaf=alike)


def choose(params: Mapping[str, Any], paths: Iterable[str]) -> dict[str, Any]:
    """Returns some of the parameters, nested as they were.

    Args:
      params: by layer and name.
      paths: those wanted.
    """
    chosen: dict[str, Any] = {}
    for path in paths:
        *outer, name = path.split("/")
        source, place = params, chosen
        for key in outer:
            source, place = source[key], place.setdefault(key, {})
        place[name] = source[name]
    return chosen


def merge(parts: list[Any], like: Any, params: Mapping[str, Any]) -> Any:
    """Undoes `take`; what belongs to no variable comes from the first server.

    Args:
      parts: of all servers.
      like: a tree of the wanted structure.
      params: parameters of the same layers, for their structure.
    """
    alike, structure = _alike(params.keys()), jax.tree.structure(params)
    order = list(paths_of(params))
    nodes, whole = jax.tree.flatten(like, is_leaf=alike)
    per_server = [jax.tree.leaves(part, is_leaf=lambda n: isinstance(n, dict)) for part in parts]
    merged = []
    for node, *owned in zip(nodes, *per_server, strict=True):
        if alike(node):
            by_path = {path: leaf for own in owned for path, leaf in paths_of(own).items()}
            merged.append(jax.tree.unflatten(structure, [by_path[path] for path in order]))
        else:
            merged.append(owned[0])
    return jax.tree.unflatten(whole, merged)


def _alike(layers: Collection[str]) -> Callable[[Any], bool]:
    return lambda node: isinstance(node, dict) and node.keys() == layers
