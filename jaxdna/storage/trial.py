"""Whether a run could be in a folder: tried out before it is needed."""

import secrets

from jaxdna.errors import JaxdnaError, UserError
from jaxdna.storage.files import UNFINISHED, Folder, folder_at
from jaxdna.storage.places import Place, Url


def trial(folder: Folder) -> str | None:
    """Writes, reads, lists, locks and removes a small file in a folder.

    A folder that is made for it is removed again; nothing of a run that is there is touched.

    Returns:
      What cannot be done and why, as words after the name of the folder; None where all can.
    """
    name = f".{secrets.token_hex(8)}{UNFINISHED}"
    doing, content = "made", secrets.token_bytes(100)
    try:
        folder.make()
        doing = "written"
        folder.write(name, content)
        doing = "read"
        if folder.read(name) != content:
            return "gives other bytes than were written"
        doing = "listed"
        if name not in folder.names():
            return "does not list what was written"
        doing = "cleared of what was written"
        folder.remove(name)
        doing = "locked"
        lock = folder.lock(name)
        lock.take(lambda note: None)
        lock.check()
        lock.release()
        folder.remove(name)
        folder.drop_empty()
    except (OSError, JaxdnaError) as error:
        return f"cannot be {doing} ({getattr(error, 'strerror', None) or error})"
    return None


def check_store(place: Place) -> None:
    """Asks the store that a run folder is to be in whether it is there.

    Before jax is imported: on a busy machine that takes longer than a person should wait to hear
    that a bucket cannot be reached.

    Raises:
      UserError: it is not, or does not answer; or a package that it needs is missing.
    """
    if isinstance(place, Url):
        try:
            folder_at(place).names()
        except OSError as error:
            raise cannot_be_written(place, error) from error


def cannot_be_written(place: Place, error: OSError) -> UserError:
    """Returns the error of a run folder that the system says `error` of."""
    return UserError(f"--workdir={place} cannot be written ({error.strerror}); give another folder")
