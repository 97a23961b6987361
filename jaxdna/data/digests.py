"""Digests of input files: what a run was begun with, and whether it has changed."""

import hashlib
from pathlib import Path

from jaxdna.data.streams import reason
from jaxdna.errors import UserError


def file_digest(path: str | Path) -> str:
    """Returns the SHA-256 of a file's bytes; raises UserError for stdin or an unreadable file."""
    if str(path) == "-":
        raise UserError("stdin cannot be trained on, a rerun must find it again; legal: a file")
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({reason(error, path)}); legal: a file, plain or gzipped"
        ) from error
