"""A trace of some training steps for XProf, as `runtime.profile` asks."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import jax

from jaxdna.errors import UserError, one_line
from jaxdna.storage.files import Folder
from jaxdna.training.program import Program
from jaxdna.training.state import TrainState

_BELOW = "tensorboard/plugins/profile"  # where XProf and TensorBoard look


def traced_steps(program: Program) -> range:
    """Returns the steps of a run, from 0, that `runtime.profile` asks for.

    Raises:
      UserError: the run has not so many.
    """
    asked = program.config.runtime.profile
    first, stop = map(int, (asked or "0:0").split(":"))
    total = program.config.train.epochs * program.steps_per_epoch
    if stop > total:
        raise UserError(
            f"--config.runtime.profile={asked} goes beyond the last step; legal: STOP up to {total}"
        )
    return range(first, stop)


class Profiler:
    """Traces the calls that hold the steps asked for, each as a whole: training is not changed.

    What goes wrong with a trace is said, and does not keep the run from going on.
    """

    def __init__(self, program: Program, files: Folder, writes: bool, note: Callable[[str], None]):
        """Traces nothing yet.

        Args:
          program: what is trained.
          files: the run folder.
          writes: false where another process writes to it; nothing is traced then.
          note: is told where the trace is.
        """
        self._wanted = traced_steps(program) if writes else range(0)
        self._files, self._note = files, note
        self._trace: tempfile.TemporaryDirectory | None = None
        self._first = self._done = 0

    def before(self, step: int, steps: int, state: TrainState) -> None:
        """Begins if one of the `steps` from `step` on is wanted; they start from `state`."""
        wanted = step < self._wanted.stop and self._wanted.start < step + steps
        if wanted and self._trace is None:
            jax.block_until_ready(state)
            self._first, folder = step, tempfile.TemporaryDirectory(prefix="jaxdna-profile-")
            if self._try(jax.profiler.start_trace, folder.name):
                self._trace = folder
            else:
                folder.cleanup()

    def after(self, step: int, state: TrainState) -> None:
        """Ends once no step from `step` on is wanted; the call before returned `state`."""
        self._done = step
        if self._trace is not None and step >= self._wanted.stop:
            jax.block_until_ready(state)
            self.close()

    def close(self) -> None:
        """Ends, where the run ends before all wanted steps."""
        if self._trace is not None:
            with self._trace as folder:
                self._try(self._keep, folder)
            self._trace, self._wanted = None, range(0)

    def _keep(self, folder: str) -> None:
        jax.profiler.stop_trace()
        name = f"{_BELOW}/steps-{self._first}-{self._done - 1}"
        self._files.make(name)
        for path in Path(folder).rglob("plugins/profile/*/*"):
            self._files.write(f"{name}/{path.name}", path.read_bytes())
        self._note(
            f"profile  steps {self._first} to {self._done - 1} are traced; to look: pip install "
            f"xprof, then xprof --logdir={self._files.path / 'tensorboard'}"
        )

    def _try(self, action: Callable[[str], None], folder: str) -> bool:
        try:
            action(folder)
            return True
        except Exception as error:  # the run goes on, whatever becomes of its trace
            self._note(f"note     the steps cannot be traced ({one_line(error)})")
            self._wanted = range(0)
            return False
