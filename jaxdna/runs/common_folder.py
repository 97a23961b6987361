"""Whether all processes of a run see the one folder that process 0 writes to."""

import json
import secrets
import socket
from contextlib import suppress

from jaxdna.parallel.cluster import is_primary, own_id
from jaxdna.parallel.peers import all_accept
from jaxdna.storage.files import UNFINISHED, Folder


def check_common(folder: Folder) -> None:
    """Ends all processes where one of them does not find what process 0 writes in the run folder.

    Without it they would train to the first checkpoint, whose parts all of them write, and wait
    for one another there.

    Args:
      folder: the run folder, which process 0 has made and locked.

    Raises:
      Disagreement: the folder is not the same on every host.
      StorageError: process 0 cannot write to it.
    """
    token = f".{secrets.token_hex(8)}{UNFINISHED}"  # nobody has looked for it before

    def objection(offer: str) -> str | None:
        name, host, theirs = json.loads(offer)
        if folder.sees(name):
            return None
        return (
            f"--workdir={folder.path}: process {own_id()} on {socket.gethostname()} cannot see "
            f"what process 0 on {host} has written to {theirs}; give a folder on a disk that "
            "all hosts share"
        )

    try:
        if is_primary():
            folder.write(token, "")
        all_accept(json.dumps([token, socket.gethostname(), str(folder.path)]), objection)
    except OSError as error:
        raise folder.failure("a file of the run", error) from error
    finally:
        if is_primary():
            with suppress(OSError):  # the next start removes it
                folder.remove(token)
