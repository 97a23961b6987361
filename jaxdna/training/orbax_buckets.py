"""Orbax in buckets, and in `s3://`, where it cannot write yet (github.com/google/orbax/pull/2739).

Its metadata go through etils, which can; its arrays through TensorStore, which can too once it is
told where they are. Orbax has the words for that for disks and `gs://` alone.
"""

import functools
import os
from typing import Any

from orbax.checkpoint import path as orbax_path

from jaxdna.errors import UserError
from jaxdna.storage.places import Place, Url

_SCHEME = "s3://"


def in_place(place: Place) -> dict[str, Any]:
    """Returns the options with which Orbax writes to a folder.

    In a bucket nothing can be renamed: Orbax writes to the final names.
    """
    if not isinstance(place, Url):
        return {}
    if place.parts[0] == "s3:":
        _allow_s3()
    return {"temporary_path_class": orbax_path.atomicity.CommitFileTemporaryPath}


@functools.cache
def _allow_s3() -> None:
    """From now on Orbax takes `s3://BUCKET/FOLDER` where it takes `gs://BUCKET/FOLDER`.

    Raises:
      UserError: another version of Orbax has these functions, which are its own, elsewhere.
    """
    try:
        from orbax.checkpoint._src.path import gcs_utils
        from orbax.checkpoint._src.serialization import tensorstore_utils

        normalize, in_gcs = tensorstore_utils._normalize_path, gcs_utils.get_kvstore_for_gcs
    except (ImportError, AttributeError) as changed:
        raise UserError(
            "checkpoints in s3:// need orbax-checkpoint 0.12.8, which this one differs from "
            f"({changed}); install that, or give a folder on a disk or in gs://"
        ) from changed

    def normalized(path: str) -> str:
        return normalize(path).replace("s3:/", _SCHEME)

    def in_bucket(path: str) -> dict[str, Any]:
        return _in_s3(path) if path.startswith(_SCHEME) else in_gcs(path)

    tensorstore_utils._normalize_path = normalized
    tensorstore_utils._use_gcs_driver = lambda path: path.startswith(("gs://", _SCHEME))
    gcs_utils.get_kvstore_for_gcs = in_bucket


def _in_s3(path: str) -> dict[str, Any]:
    """Returns TensorStore's words for a folder, with what it does not look for by itself.

    Those are the variables of a store that is not Amazon's. Without them TensorStore asks the
    bucket for its region.
    """
    bucket, _, key = path.removeprefix(_SCHEME).partition("/")
    spec: dict[str, Any] = {"driver": "s3", "bucket": bucket, "path": key}
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if endpoint:
        region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
        spec |= {"endpoint": endpoint, "aws_region": region or "us-east-1"}
    if os.environ.get("AWS_ACCESS_KEY_ID"):  # else it complains about files that are not there
        spec["aws_credentials"] = {"type": "environment"}
    return spec
