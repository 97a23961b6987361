"""The checkpoints of a run: how they are named, and which is the newest intact one."""

import hashlib
import json
import re
from collections.abc import Callable, Collection
from typing import TypeVar

import jax

from jaxdna.errors import NoCheckpointError
from jaxdna.parallel.cluster import is_primary, own_id
from jaxdna.parallel.peers import all_accept
from jaxdna.storage.files import Folder
from jaxdna.storage.manifest import NAME as MANIFEST
from jaxdna.storage.manifest import UNREAD, damage

Note = Callable[[str], None]
Position = tuple[int, int]  # epochs done, and steps done in the next one
T = TypeVar("T")


def positions(folder: Folder) -> list[Position]:
    """Returns the positions of the checkpoints in `folder`, oldest first, whether intact or not."""
    found = map(position_of, folder.finished())
    return sorted(position for position in found if position is not None)


def name_of(position: Position) -> str:
    """`epoch-4` after four epochs, `epoch-4-step-20` after 20 steps of the fifth."""
    epoch, step = position
    return f"epoch-{epoch}-step-{step}" if step else f"epoch-{epoch}"


def position_of(name: str) -> Position | None:
    """The position that a folder's name says; None where it is not a checkpoint's."""
    found = re.fullmatch(r"epoch-([0-9]{1,18})(?:-step-([0-9]{1,18}))?", name)
    position = (int(found[1]), int(found[2] or 0)) if found else None
    return position if position is not None and name_of(position) == name else None


def newest_intact(
    folder: Folder, read: Callable[[str], T], note: Note
) -> tuple[Position, T] | None:
    """Returns the newest position whose digests are right and which `read` can read.

    Of several processes the first one looks at the digests, and all read what it has chosen.

    Raises:
      NoCheckpointError: there are checkpoints, and none of them is intact.
    """
    causes: dict[Position, str] = {}
    while True:
        chosen = _newest_undamaged(folder, causes, note) if is_primary() else None
        position = _agreed(folder, chosen)
        if position is None:
            break
        name = name_of(position)
        try:
            restored = read(name)
        except Exception as error:  # whatever a file that is not ours makes Orbax raise
            if jax.process_count() > 1:  # the others may have read it; they end when this one does
                raise
            cause = " ".join(str(error).split())[:300] or repr(error)
            _reject(folder, position, cause, causes, note)
        else:
            if causes:
                note(f"falling back to the newest intact checkpoint, {name}")
            return position, restored
    if not positions(folder):
        return None
    found = "; ".join(f"{name_of(position)}: {cause}" for position, cause in causes.items())
    if causes and all(cause.startswith(UNREAD) for cause in causes.values()):
        raise NoCheckpointError(
            f"no checkpoint in {folder.path} can be read ({found}); they may all be intact: check "
            "the disk or file server, then run the same command to resume"
        )
    raise NoCheckpointError(
        f"no checkpoint in {folder.path} is intact ({found}); restore the folder from a copy, or "
        "train from scratch with another --workdir"
    )


def _agreed(folder: Folder, chosen: Position | None) -> Position | None:
    """Returns what process 0 has chosen, where the others find the very same in their folder.

    Raises:
      Disagreement: one of them finds another checkpoint of that name, or none.
    """

    def found(position: Position | None) -> str:
        if position is None:
            return ""
        try:
            manifest = folder.read(f"{name_of(position)}/{MANIFEST}")
            return hashlib.sha256(manifest).hexdigest()[:16]
        except OSError as error:
            return f"not there ({error.strerror})"

    def objection(offer: str) -> str | None:
        position, theirs = json.loads(offer)
        mine = found(position)
        if mine == theirs:
            return None
        return (
            "the processes disagree: the manifest of the checkpoint "
            f"{folder.path / name_of(position)} is {theirs} in process 0 and {mine} in process "
            f"{own_id()}; they need a folder that all hosts share, or the same copy of it"
        )

    position, _ = json.loads(all_accept(json.dumps([chosen, found(chosen)]), objection))
    return None if position is None else tuple(position)


def _left(folder: Folder, causes: Collection[Position]) -> list[Position]:
    """The positions there now, without those that were rejected."""
    return [position for position in positions(folder) if position not in causes]


def _newest_undamaged(folder: Folder, causes: dict[Position, str], note: Note) -> Position | None:
    while left := _left(folder, causes):
        cause = damage(folder, name_of(left[-1]))
        if cause is None:
            return left[-1]
        _reject(folder, left[-1], cause, causes, note)
    return None


def _reject(
    folder: Folder, position: Position, cause: str, causes: dict[Position, str], note: Note
) -> None:
    """Takes a checkpoint for damaged if it is the newest still.

    Otherwise a job that trains here has saved a newer one meanwhile, and removed this one.
    """
    if _left(folder, causes)[-1:] == [position]:
        causes[position] = cause
        note(f"DAMAGED: the checkpoint {folder.path / name_of(position)} cannot be used ({cause})")
