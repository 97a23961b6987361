"""What is asked of other machines: by which library, how long, and with which errors."""

import errno
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from jaxdna.errors import UserError
from jaxdna.storage.places import Url

# of a scheme: the module, and the extra that it comes with
_LIBRARIES = {"gs": ("gcsfs", "gcs"), "s3": ("s3fs", "s3"), "https": ("aiohttp", "gcs")}


def file_system(url: Url) -> Any:
    """Returns fsspec's file system for a URL.

    Raises:
      UserError: the package that it needs is not installed.
    """
    import fsspec

    scheme = url.parts[0].removesuffix(":")
    module, extra = _LIBRARIES[scheme]
    logging.getLogger(module).setLevel(logging.CRITICAL)  # all that it logs it raises too
    # Others write there as well: TensorStore, and the other hosts. Orbax' paths heed it too.
    fsspec.config.conf.setdefault(scheme, {})["use_listings_cache"] = False
    try:
        return fsspec.filesystem(scheme)
    except ImportError:
        raise UserError(
            f"{url} needs the package {module}, which is not installed; run "
            f"pip install 'jaxdna[{extra}]', or give a path on a disk"
        ) from None


@contextmanager
def os_errors(name: str, limit: float) -> Iterator[None]:
    """Raises OSError with a sentence for whatever goes wrong: every library has its own errors.

    Args:
      name: what is asked for.
      limit: seconds after which the library gives up.
    """
    try:
        yield
    except (FileExistsError, UserError):
        raise
    except TimeoutError:
        raise TimeoutError(errno.ETIMEDOUT, f"no good answer within {limit:g} s") from None
    except Exception as raised:
        # fsspec says of whatever keeps it from a file on the web that it is not there.
        hidden = isinstance(raised, FileNotFoundError) and name.startswith("https:")
        error = (raised.__cause__ if hidden else None) or raised
        if isinstance(error, FileNotFoundError) or getattr(error, "status", None) == 404:
            raise FileNotFoundError(errno.ENOENT, "it is not there", name) from None
        words = getattr(error, "strerror", None) or str(error) or repr(error)
        said = " ".join(str(words).split())[:300]
        denied = isinstance(error, PermissionError) or said.startswith(("Forbidden", "403"))
        kind = (errno.EACCES, f"permission denied: {said}") if denied else (errno.EIO, said)
        raise OSError(*kind) from error
