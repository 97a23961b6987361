"""Whether all processes of a run see the one folder that process 0 writes to."""

import json
import secrets
import socket
from contextlib import suppress
from pathlib import Path

from jaxdna.errors import storage_error
from jaxdna.parallel.cluster import is_primary, own_id
from jaxdna.parallel.peers import all_accept
from jaxdna.storage.files import UNFINISHED


def check_common(folder: Path) -> None:
    """Ends all processes where one of them does not find what process 0 writes in the run folder.

    Without it they would train to the first checkpoint, whose parts all of them write, and wait
    for one another there.

    Args:
      folder: the run folder, which process 0 has made and locked.

    Raises:
      Disagreement: the folder is not the same on every host.
      StorageError: process 0 cannot write to it.
    """
    token = folder / f".{secrets.token_hex(8)}{UNFINISHED}"  # nobody has looked for it before

    def objection(offer: str) -> str | None:
        name, host, theirs = json.loads(offer)
        if _finds(folder, name):
            return None
        return (
            f"--workdir={folder}: process {own_id()} on {socket.gethostname()} does not find there "
            f"what process 0 on {host} has written to {theirs}; give a folder on a disk that all "
            "hosts share"
        )

    try:
        if is_primary():
            token.touch()
        all_accept(json.dumps([token.name, socket.gethostname(), str(folder)]), objection)
    except OSError as error:
        raise storage_error("a file of the run", folder, error) from error
    finally:
        if is_primary():
            with suppress(OSError):  # the next start removes it
                token.unlink(missing_ok=True)


def _finds(folder: Path, name: str) -> bool:
    """Whether a file is there, though a network file system may remember that its folder was not.

    It answers a look-up from memory for up to a minute, but never makes a folder that is there.
    """
    made = []
    for part in (*reversed(folder.absolute().parents), folder.absolute()):
        with suppress(OSError):
            part.mkdir()
            made.append(part)
    for part in reversed(made):
        with suppress(OSError):
            part.rmdir()
    return not made and (folder / name).exists()
