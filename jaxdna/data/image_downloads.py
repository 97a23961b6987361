"""The original files of the image sets: where they are, what they must hash to, how they read.

tensorflow-datasets knows the same files, and needs TensorFlow to prepare them; we do not.
"""

import gzip
import hashlib
import io
import tarfile
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Examples = tuple[NDArray[np.uint8], NDArray[np.int32]]

_TIMEOUT = 20  # seconds without a byte


class DownloadError(Exception):
    """A file could not be had; the message says which and why."""


@dataclass(frozen=True)
class Source:
    """The original files of one data set.

    Attributes:
      files: address -> SHA-256, as in tensorflow_datasets/url_checksums.
      parse: the files' bytes, in that order -> the examples of each split.
    """

    files: dict[str, str]
    parse: Callable[..., dict[str, Examples]]


def parse_mnist(
    train_x: bytes, train_y: bytes, test_x: bytes, test_y: bytes
) -> dict[str, Examples]:
    """Reads four gzipped IDX files (format: yann.lecun.com/exdb/mnist)."""

    def images(packed: bytes) -> NDArray[np.uint8]:
        raw = gzip.decompress(packed)
        count, height, width = np.frombuffer(raw, ">i4", 3, offset=4)
        return np.frombuffer(raw, np.uint8, offset=16).reshape(count, height, width, 1)

    def labels(packed: bytes) -> NDArray[np.int32]:
        return np.frombuffer(gzip.decompress(packed), np.uint8, offset=8).astype(np.int32)

    return {"train": (images(train_x), labels(train_y)), "test": (images(test_x), labels(test_y))}


def parse_cifar10(archive: bytes) -> dict[str, Examples]:
    """Reads CIFAR-10's binary version: records of one label byte and 3 x 32 x 32 pixels.

    Format: www.cs.toronto.edu/~kriz/cifar.html.
    """
    parts: dict[str, list[NDArray[np.uint8]]] = {"train": [], "test": []}
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        for member in sorted(tar.getmembers(), key=lambda member: member.name):
            split = next((name for name in ("data", "test") if f"/{name}_batch" in member.name), "")
            stream = tar.extractfile(member) if split else None
            if stream is not None:
                records = np.frombuffer(stream.read(), np.uint8).reshape(-1, 1 + 3 * 32 * 32)
                parts["test" if split == "test" else "train"].append(records)
    splits = {}
    for name, arrays in parts.items():
        records = np.concatenate(arrays)
        pixels = records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        splits[name] = (np.ascontiguousarray(pixels), records[:, 0].astype(np.int32))
    return splits


_MNIST = "https://storage.googleapis.com/cvdf-datasets/mnist/"

SOURCES = {
    "mnist": Source(
        {
            f"{_MNIST}train-images-idx3-ubyte.gz": (
                "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"
            ),
            f"{_MNIST}train-labels-idx1-ubyte.gz": (
                "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"
            ),
            f"{_MNIST}t10k-images-idx3-ubyte.gz": (
                "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"
            ),
            f"{_MNIST}t10k-labels-idx1-ubyte.gz": (
                "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"
            ),
        },
        parse_mnist,
    ),
    "cifar10": Source(
        {
            "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz": (
                "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
            )
        },
        parse_cifar10,
    ),
}


def download(source: Source) -> dict[str, Examples]:
    """Downloads a data set and reads it.

    Returns:
      `train` and `test`: uint8 [examples, height, width, channels] and int32 [examples].

    Raises:
      DownloadError: a file is out of reach, or is not the one that is wanted.
    """
    files = []
    for address, sha256 in source.files.items():
        try:
            with urllib.request.urlopen(address, timeout=_TIMEOUT) as response:
                files.append(response.read())
        except (OSError, urllib.error.URLError) as error:
            reason = getattr(error, "reason", error)
            raise DownloadError(f"{address} cannot be downloaded: {reason}") from error
        if hashlib.sha256(files[-1]).hexdigest() != sha256:
            raise DownloadError(
                f"{address} is not the file that was expected (its SHA-256 differs)"
            )
    return source.parse(*files)
