"""Who else on this machine can read what is secret, or write what is believed."""

import os
import stat
from pathlib import Path

from jaxdna.errors import UserError


def keep_to_owner(path: Path) -> None:
    """Takes a file or a folder from all but its owner; nothing is done where none is.

    Raises:
      UserError: others can read or write it, and it cannot be taken from them.
    """
    try:
        mode = path.stat().st_mode
        if mode & 0o077:
            path.chmod(stat.S_IMODE(mode) & 0o700)
    except FileNotFoundError:
        return
    except OSError as error:
        raise UserError(
            f"{path} is open to other users and cannot be closed to them ({error.strerror}); "
            f"its owner must run: chmod go= {path}"
        ) from error


def umask() -> int:
    """Returns which permissions this process takes from what it makes."""
    mask = os.umask(0o077)  # that of another thread's files meanwhile: rather too close than open
    os.umask(mask)
    return mask


def who_can_write(folder: Path) -> str:
    """Returns why others can change what is in a folder, in words; empty where they cannot.

    Who can write a folder above it could put another one in its place, unless that folder keeps
    what is in it to its owners, as /tmp does.
    """
    for part in (folder := folder.resolve(), *folder.parents):
        try:
            found = part.stat()
        except OSError:  # none is there, or who looks may not look
            return ""
        if found.st_uid not in (0, os.geteuid()):
            return f"{part} belongs to another user"
        own_group = found.st_gid == os.geteuid()  # many systems give each user a group
        open_to = stat.S_IWOTH | (0 if own_group else stat.S_IWGRP)
        if found.st_mode & open_to and not (part != folder and found.st_mode & stat.S_ISVTX):
            return f"{part} has mode {stat.S_IMODE(found.st_mode):04o}; chmod go-w closes it"
    return ""
