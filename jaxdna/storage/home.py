"""The folders of the user, who may have none: in a container, or in a job under a bare number."""

import os
from pathlib import Path


def home() -> Path | None:
    """Returns the user's home folder; None where neither HOME nor the system's list names one."""
    try:
        return Path.home()
    except RuntimeError:
        return None


def user_cache() -> Path | None:
    """Returns the folder of what jaxdna can make anew; None where the user has none."""
    own = home()
    root = os.environ.get("XDG_CACHE_HOME") or (own and own / ".cache")
    return Path(root) / "jaxdna" if root else None
