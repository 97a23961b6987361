"""What Orbax is told, and what of this process is changed for it."""

import subprocess
import sys

import pytest
from orbax.checkpoint._src.path import gcs_utils
from orbax.checkpoint._src.serialization import tensorstore_utils

from jaxdna.errors import UserError
from jaxdna.storage.places import place_of
from jaxdna.training import orbax_buckets


def test_importing_checkpoints_changes_nothing_of_the_process():
    code = (
        "import logging, sys\nimport orbax.checkpoint\n"
        "before = sys.unraisablehook, list(logging.getLogger('absl').filters)\n"
        "import jaxdna.training.checkpoint\n"
        "assert before == (sys.unraisablehook, logging.getLogger('absl').filters)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("module", "name"),
    [(tensorstore_utils, "_normalize_path"), (gcs_utils, "get_kvstore_for_gcs")],
    ids=lambda part: part if isinstance(part, str) else "",
)
def test_an_orbax_that_keeps_its_functions_elsewhere_is_one_sentence_in_s3(
    monkeypatch, module, name
):
    monkeypatch.delattr(module, name)
    with pytest.raises(UserError, match=r"checkpoints in s3:// need orbax-checkpoint"):
        orbax_buckets._allow_s3.__wrapped__()  # once in a process, and others may have been here
    assert orbax_buckets.in_place(place_of("runs/a")) == {}
