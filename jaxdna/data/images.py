"""Images through tensorflow-datasets, without TensorFlow: the one place that imports it."""

import hashlib
import importlib
import io
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict
from numpy.typing import NDArray

from jaxdna.data.dataset import Dataset, Spec, Split
from jaxdna.data.image_downloads import SOURCES, DownloadError, Examples, download
from jaxdna.errors import UserError
from jaxdna.storage.home import user_cache
from jaxdna.storage.parts import whole_file
from jaxdna.tasks.kinds import of_classes

# Shape of an image, images to train on, images to test on; every set has ten classes.
SETS = {"mnist": ((28, 28, 1), 60_000, 10_000), "cifar10": ((32, 32, 3), 50_000, 10_000)}
CLASSES = 10
_VERSIONS = {"mnist": "3.0.1", "cifar10": "3.0.2"}  # those of tensorflow-datasets
_ORDER = 0x1A6E5  # which images validate is part of the data set: no seed of a run changes it


def load_images(config: ConfigDict) -> Dataset:
    """Returns MNIST or CIFAR-10 with a validation split carved out of its training images.

    Raises:
      UserError: the images are not there and cannot be had, are damaged, or are fewer than asked.
    """
    data = config.data
    if data.synthetic:
        train, test = _synthetic(config)
        describe = f"synthetic: labelled random images of {data.name}'s shape, nothing to learn"
    else:
        folder = prepared_folder(data.name, data.data_dir)
        splits = _read_cached(data.name, folder)
        train, test = splits["train"], splits["test"]
        describe = f"{data.name} from {folder}"
    parts = validation_split(train, data)
    limit = data.test_examples or len(test)
    if limit > len(test):
        raise UserError(
            f"--config.data.test_examples={limit} is more than there are: 0 to {len(test)}"
        )
    parts["test"] = Split(test.x[:limit], test.y[:limit])
    return Dataset(parts, of_classes(CLASSES), describe)


def validation_split(whole: Split, data: ConfigDict) -> dict[str, Split]:
    """Divides the training images, in an order that no seed changes.

    Of all of MNIST 54,000 train and 6,000 validate; of CIFAR-10 45,000 and 5,000.

    Args:
      whole: the data set's training images.
      data: `config.data`: train_examples, validation_examples.

    Returns:
      `train`: the first ones of the order, `validation`: the last ones.

    Raises:
      UserError: there are not enough images.
    """
    total = len(whole)
    train, validation = _sizes(total, data)
    order = np.random.default_rng(_ORDER).permutation(total)
    rows = {"train": order[:train], "validation": order[-validation:]}
    return {name: Split(whole.x[chosen], whole.y[chosen]) for name, chosen in rows.items()}


def _sizes(total: int, data: ConfigDict) -> tuple[int, int]:
    """How many of `total` training images train, and how many validate."""
    validation = data.validation_examples or max(1, (data.train_examples or total * 9 // 10) // 9)
    train = data.train_examples or total - validation
    if train < 1 or train + validation > total:
        raise UserError(
            f"--config.data.train_examples={data.train_examples} "
            f"--config.data.validation_examples={data.validation_examples} ask for {train} and "
            f"{validation} of {total} training images; together they can be {total} at most"
        )
    return train, validation


def images_spec(config: ConfigDict) -> Spec:
    """Returns the shapes of an image set; nothing is read or downloaded.

    Raises:
      UserError: as `validation_split`.
    """
    shape, total, _ = SETS[config.data.name]
    return Spec(shape, of_classes(CLASSES), _sizes(total, config.data)[0])


def _synthetic(config: ConfigDict) -> tuple[Split, Split]:
    shape, *sizes = SETS[config.data.name]
    rng = np.random.default_rng([config.seed, _ORDER])
    return tuple(  # type: ignore[return-value]
        Split(
            rng.integers(0, 256, (size, *shape), dtype=np.uint8),
            rng.integers(0, CLASSES, size, dtype=np.int32),
        )
        for size in sizes
    )


def prepared_folder(name: str, data_dir: str) -> Path:
    """Returns the folder of a prepared data set; downloads and prepares it where it is missing.

    Args:
      name: a key of `SETS`.
      data_dir: where tensorflow-datasets keeps its sets; empty for its own default.

    Raises:
      UserError: it is half prepared, or not there and out of reach.
    """
    default = os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    try:
        root = Path(data_dir or default).expanduser()
    except RuntimeError:
        raise UserError(
            f"--config.data.data_dir={data_dir or default} is in a home folder, and there is "
            "none; give the path of another folder, or set HOME"
        ) from None
    home = root / name
    versions = sorted(home.glob("*.*.*")) if home.is_dir() else []
    complete = [version for version in versions if (version / "dataset_info.json").is_file()]
    if complete:
        return complete[-1]
    if versions:
        raise UserError(
            f"--config.data.data_dir={root}: {versions[-1]} is only half prepared (no "
            "dataset_info.json); remove it, and prepare or copy the data set again"
        )
    try:
        write_dataset(root, name, _VERSIONS[name], download(SOURCES[name]))
    except (DownloadError, OSError) as error:
        raise UserError(
            f"--config.data.data_dir={root}: there is no folder {home}, and {error}; run this "
            f"command on a machine with a network and copy its {home} here, or time random images "
            "with --config.data.synthetic=true"
        ) from None
    return home / _VERSIONS[name]


def _read_cached(name: str, folder: Path) -> dict[str, Split]:
    """Reads a prepared data set, decoding its PNG files only once per machine."""
    own = user_cache()
    if own is None:
        return read_dataset(name, folder)
    files = sorted(folder.iterdir())
    state = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    digest = hashlib.sha256(repr(state).encode()).hexdigest()[:16]
    cached = own / "images" / f"{name}-{digest}.npz"
    try:
        with np.load(cached) as stored:
            return {
                split: Split(stored[f"{split}_x"], stored[f"{split}_y"])
                for split in ("train", "test")
            }
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        pass  # not there yet, or damaged since
    splits = read_dataset(name, folder)
    _store(cached, splits)
    return splits


def _store(path: Path, splits: dict[str, Split]) -> None:
    """Keeps decoded images; a folder that cannot be written only costs time."""
    arrays: dict[str, Any] = {f"{name}_x": split.x for name, split in splits.items()}
    arrays |= {f"{name}_y": split.y for name, split in splits.items()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as part, part.open("wb") as stream:
            np.savez(stream, **arrays)
    except OSError:
        pass


def read_dataset(name: str, folder: Path) -> dict[str, Split]:
    """Reads a data set that tensorflow-datasets prepared as array_record files.

    Args:
      name: a key of `SETS`.
      folder: `DATA_DIR/NAME/VERSION`.

    Raises:
      UserError: files are missing or damaged, or it is another data set.
    """
    tfds = _tfds()
    try:
        builder = tfds.builder_from_directory(str(folder))
        splits = {split: _read_split(builder, split, name) for split in ("train", "test")}
    except Exception as error:  # the readers raise whatever they like
        raise UserError(
            f"--config.data.data_dir: {folder} is damaged, or is not {name} prepared as "
            f"array_record ({_first_line(error)}); remove it, and prepare or copy the data set "
            "again"
        ) from None
    return splits


def _first_line(error: Exception) -> str:
    return (str(error).strip() or repr(error)).splitlines()[0]


def _read_split(builder: Any, split: str, name: str) -> Split:
    source = builder.as_data_source(split=split)
    examples = builder.info.splits[split].num_examples
    x = np.empty((examples, *SETS[name][0]), np.uint8)
    y = np.empty(examples, np.int32)
    for i in range(examples):
        try:
            example = source[i]
            image, label = example["image"], example["label"]
        except Exception as error:  # the readers raise whatever they like
            raise ValueError(f"{split} record {i}: {_first_line(error)}") from error
        if image.shape != x.shape[1:] or image.dtype != x.dtype:
            raise ValueError(
                f"{split} record {i}: its image is {image.dtype}{image.shape}, "
                f"not {x.dtype}{x.shape[1:]}"
            )
        if not 0 <= label < CLASSES:
            raise ValueError(f"{split} record {i}: its label is {label}, not 0 to {CLASSES - 1}")
        x[i], y[i] = image, label
    if not examples:
        raise ValueError(f"it has no images of {split}")
    return Split(x, y)


def write_dataset(root: Path, name: str, version: str, splits: dict[str, Examples]) -> None:
    """Writes images as tensorflow-datasets would prepare them: `ROOT/NAME/VERSION`, array_record.

    Args:
      root: the data directory.
      name: of the data set.
      version: as `3.0.1`.
      splits: uint8 [examples, height, width, channels] and int32 [examples] of each split.

    Raises:
      OSError: the folder cannot be written.
    """
    tfds = _tfds()
    shape = next(iter(splits.values()))[0].shape[1:]
    features = {
        "image": tfds.features.Image(shape=shape),
        "label": tfds.features.ClassLabel(num_classes=CLASSES),
    }

    with tfds.core.registered.skip_registration():  # the name may be taken: by the very set

        class Writer(tfds.core.GeneratorBasedBuilder):  # type: ignore[name-defined]
            VERSION = tfds.core.Version(version)

            def _info(self) -> Any:
                return tfds.core.DatasetInfo(
                    builder=self,
                    features=tfds.features.FeaturesDict(features),
                    supervised_keys=("image", "label"),
                )

            def _split_generators(self, manager: Any) -> Any:
                return {split: self._generate_examples(*splits[split]) for split in splits}

            def _generate_examples(
                self, x: NDArray[np.uint8], y: NDArray[np.int32]
            ) -> Iterator[tuple[int, dict[str, Any]]]:
                for i, (pixels, label) in enumerate(zip(x, y, strict=True)):
                    yield i, {"image": _png(pixels), "label": int(label)}

        Writer.name = name
        Writer(data_dir=str(root), file_format="array_record").download_and_prepare()


def _png(pixels: NDArray[np.uint8]) -> io.BytesIO:
    """An encoded image: given pixels, tensorflow-datasets would encode them with TensorFlow."""
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(stream, "PNG")
    stream.seek(0)
    return stream


def _tfds() -> Any:
    try:
        importlib.import_module("array_record")  # tensorflow_datasets would notice too late
        return importlib.import_module("tensorflow_datasets")
    except ImportError as error:
        raise UserError(
            f"--config.data.name needs the extra jaxdna[images] ({error}): pip install "
            "'jaxdna[images]', or time random images with --config.data.synthetic=true"
        ) from None
