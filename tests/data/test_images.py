"""Reading and preparing image sets, on real files that tensorflow-datasets wrote."""

import gzip
import io
import shutil
import subprocess
import sys
import tarfile

import numpy as np
import pytest

from jaxdna.config import load_config
from jaxdna.data import images
from jaxdna.data.image_downloads import (
    SOURCES,
    DownloadError,
    Source,
    download,
    parse_cifar10,
    parse_mnist,
)
from jaxdna.data.registry import load_dataset
from jaxdna.errors import UserError
from tests.data.digits import mnist_like_digits, write_digits


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    root = tmp_path_factory.mktemp("prepared")
    write_digits(root)
    return root


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def load(root, *overrides):
    return load_dataset(load_config("configs/mnist.py", [f"data.data_dir={root}", *overrides]))


def test_a_prepared_set_brings_back_what_was_written_and_splits_it_once_for_all(digits):
    written = mnist_like_digits()
    dataset = load(digits)
    assert {name: len(split) for name, split in dataset.splits.items()} == {
        "train": 1260, "validation": 140, "test": 397,
    }  # fmt: skip
    assert dataset.example_shape == (28, 28, 1)
    assert dataset.task.outputs == 10
    for split in dataset.splits.values():
        assert (split.x.dtype, split.y.dtype) == (np.uint8, np.int32)

    def rows(*parts):
        return sorted((x.tobytes(), int(y)) for part in parts for x, y in zip(*part, strict=True))

    parts = [(dataset.splits[name].x, dataset.splits[name].y) for name in dataset.splits]
    assert rows(*parts[:2]) == rows(written["train"])
    assert rows(parts[2]) == rows(written["test"])

    again = load(digits, "seed=7")  # from the cache; the seed of the run changes nothing
    for name, split in dataset.splits.items():
        np.testing.assert_array_equal(split.x, again.splits[name].x)
    limited = load(digits, "data.train_examples=90", "data.test_examples=20")
    assert [len(split) for split in limited.splits.values()] == [90, 10, 20]
    np.testing.assert_array_equal(limited.splits["train"].x, dataset.splits["train"].x[:90])


def test_the_cache_is_used_and_notices_another_data_set(digits, monkeypatch, tmp_path):
    first = load(digits)
    monkeypatch.setattr(images, "read_dataset", None)
    np.testing.assert_array_equal(load(digits).splits["test"].x, first.splits["test"].x)
    (cached,) = (tmp_path / "cache").glob("jaxdna/images/*.npz")
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for damaged in (cached.read_bytes()[:-5000], cached.read_bytes()[:1000], b"PK\x03\x04", b""):
        cached.write_bytes(damaged)
        np.testing.assert_array_equal(load(digits).splits["test"].x, first.splits["test"].x)
    monkeypatch.setattr(images, "read_dataset", None)
    other = tmp_path / "other"
    shutil.copytree(digits, other)
    with pytest.raises(TypeError):  # it would read
        load(other)


def test_tensorflow_is_never_imported(digits):
    code = (
        "import sys\n"
        "from jaxdna.config import load_config\n"
        "from jaxdna.data.registry import load_dataset\n"
        "assert 'tensorflow_datasets' not in sys.modules\n"
        f"load_dataset(load_config('configs/mnist.py', ['data.data_dir={digits}']))\n"
        "assert 'tensorflow_datasets' in sys.modules and 'tensorflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("data.train_examples=1390", "ask for 1390 and 154 of 1400 training images"),
        ("data.validation_examples=1400", "together they can be 1400 at most"),
        ("data.test_examples=398", "test_examples=398 is more than there are: 0 to 397"),
    ],
)
def test_more_images_than_there_are_is_a_user_error(digits, override, words):
    with pytest.raises(UserError, match=words):
        load(digits, override)


def test_a_damaged_or_half_prepared_folder_is_one_sentence(digits, tmp_path):
    def damaged(name, change):
        root = tmp_path / name
        shutil.copytree(digits, root)
        folder = root / "mnist" / "3.0.1"
        (record,) = folder.glob("*-train.array_record-*")
        change(folder, record)
        with pytest.raises(UserError) as caught:
            load(root)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    def cut(folder, record):
        record.write_bytes(record.read_bytes()[: record.stat().st_size // 2])

    def flip(folder, record):
        content = bytearray(record.read_bytes())
        content[len(content) // 2] ^= 0xFF
        record.write_bytes(content)

    assert "is damaged" in damaged("cut", cut)
    assert "is damaged" in damaged("flip", flip)
    assert "is damaged" in damaged("gone", lambda folder, record: record.unlink())
    assert "is damaged" in damaged(
        "features", lambda folder, record: (folder / "features.json").write_text("{")
    )
    assert "is damaged" in damaged(
        "info", lambda folder, record: (folder / "dataset_info.json").write_text("{")
    )
    assert "is only half prepared" in damaged(
        "half", lambda folder, record: (folder / "dataset_info.json").unlink()
    )
    wrong = tmp_path / "wrong"
    x, y = mnist_like_digits()["test"]
    colour = np.repeat(x[:5], 3, axis=-1)
    written = {"train": (colour, y[:5]), "test": (x[:5], y[:5])}
    images.write_dataset(wrong, "mnist", "3.0.1", written)
    with pytest.raises(UserError, match=r"train record 0: its image is uint8\(28, 28, 3\), not "):
        load(wrong)
    assert "train record" in damaged("flipped", flip)


def test_without_files_and_without_a_network_the_sentence_says_where_to_put_what(
    tmp_path, monkeypatch
):
    def unreachable(source):
        raise DownloadError("https://somewhere cannot be downloaded: no route to host")

    monkeypatch.setattr(images, "download", unreachable)
    with pytest.raises(UserError) as caught:
        load(tmp_path / "empty")
    assert f"copy its {tmp_path}/empty/mnist here" in str(caught.value)
    assert "--config.data.synthetic=true" in str(caught.value)


def test_synthetic_images_have_the_shapes_and_say_so():
    config = load_config(
        "configs/cifar10.py",
        ["data.synthetic=true", "data.train_examples=900", "data.test_examples=50"],
    )
    dataset = load_dataset(config)
    assert {name: split.x.shape for name, split in dataset.splits.items()} == {
        "train": (900, 32, 32, 3), "validation": (100, 32, 32, 3), "test": (50, 32, 32, 3),
    }  # fmt: skip
    assert set(dataset.splits["train"].y) == set(range(10))
    assert dataset.describe.startswith("synthetic")
    assert dataset.ceiling is None


def test_the_original_files_are_read_as_their_authors_describe():
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (3, 28, 28), dtype=np.uint8), np.array([7, 0, 9], np.uint8)
    header = np.array([2051, 3, 28, 28], ">i4").tobytes()
    packed = gzip.compress(header + x.tobytes())
    labels = gzip.compress(np.array([2049, 3], ">i4").tobytes() + y.tobytes())
    parsed = parse_mnist(packed, labels, packed, labels)
    for split in ("train", "test"):
        np.testing.assert_array_equal(parsed[split][0][..., 0], x)
        np.testing.assert_array_equal(parsed[split][1], y)

    colour = rng.integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        for i, name in enumerate([*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]):
            record = bytes([i]) + colour[i].transpose(2, 0, 1).tobytes()
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}.bin")
            member.size = len(record)
            tar.addfile(member, io.BytesIO(record))
        tar.addfile(tarfile.TarInfo("cifar-10-batches-bin/readme.html"), io.BytesIO())
    parsed = parse_cifar10(stream.getvalue())
    np.testing.assert_array_equal(parsed["train"][0], colour[:5])
    np.testing.assert_array_equal(parsed["train"][1], range(5))
    np.testing.assert_array_equal(parsed["test"][0], colour[5:])
    assert parsed["test"][1] == 5


def test_a_download_is_checked(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"abc")
    right = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # of "abc", FIPS 180
    assert download(Source({file.as_uri(): right}, lambda content: content)) == b"abc"
    file.write_bytes(b"abx")
    with pytest.raises(DownloadError, match="not the file that was expected"):
        download(Source({file.as_uri(): right}, lambda content: content))
    with pytest.raises(DownloadError, match="cannot be downloaded"):
        download(Source({(tmp_path / "gone").as_uri(): right}, lambda content: content))
    assert set(SOURCES) == set(images.SETS)
