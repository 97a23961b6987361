"""Scores of bases in files, by the suffix: arrays, tables, tracks and pictures."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from tempfile import TemporaryFile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jaxdna.analysis.attributed import Attributed
from jaxdna.analysis.attribution_logos import Telling
from jaxdna.analysis.attribution_tracks import Track
from jaxdna.data.bigwig import open_bigwig
from jaxdna.data.intervals import Windows
from jaxdna.data.prediction_files import appears_whole, open_output
from jaxdna.data.sequences import LETTERS, decode
from jaxdna.errors import UserError
from jaxdna.storage.files import picture
from jaxdna.storage.places import disk_path

Write = Callable[[Attributed], None]


@dataclass(frozen=True)
class Source:
    """Where the sequences are from.

    Attributes:
      together: how many that follow one another are compared: 2 for the alleles of a variant.
      windows: where they lie on a genome, if they do.
      sizes: bases of each of its chromosomes.
    """

    together: int = 1
    windows: Windows | None = None
    sizes: Mapping[str, int] = field(default_factory=dict)


def _arrays(part: Attributed) -> dict[str, NDArray]:
    """The numbers of some sequences, their axis of bases before that of places.

    With one answer there is no axis of answers.
    """
    found: dict[str, NDArray] = {
        "one_hot": part.one_hot.swapaxes(1, 2),
        "hypothetical": part.hypothetical.swapaxes(2, 3),
        "contributions": part.contributions,
        "outputs": part.outputs,
        "change": part.change,
        "delta": part.delta,
    }
    if len(part.answers) == 1:
        found |= {k: v[:, 0] for k, v in found.items() if k != "one_hot"}
    return found


@contextmanager
def _npz(path: str, source: Source) -> Iterator[Write]:
    """Arrays grow in files beside `path`, since nobody knows how many sequences will come."""
    ids: list[str] = []
    answers: list[str] = []
    forms: dict[str, NDArray] = {}
    with appears_whole(path) as partial, ExitStack() as opened:
        files: dict[str, Any] = {}

        def write(part: Attributed) -> None:
            ids.extend(part.ids)
            answers[:] = part.answers
            for name, values in _arrays(part).items():
                if name not in files:
                    files[name] = opened.enter_context(TemporaryFile(dir=partial.parent))
                    forms[name] = values[:0]
                files[name].write(np.ascontiguousarray(values).data)

        yield write
        whole: dict[str, Any] = {"ids": np.array(ids), "answers": np.array(answers)}
        for name, file in files.items():
            file.flush()
            shape = (len(ids), *forms[name].shape[1:])
            whole[name] = np.memmap(file, forms[name].dtype, "r", shape=shape)
        with partial.open("wb") as stream:
            np.savez(stream, **whole)


_HDF5_NAMES = {"one_hot": "raw/seq", "hypothetical": "shap/seq"}  # as tfmodisco-lite reads them


@contextmanager
def _hdf5(path: str, source: Source) -> Iterator[Write]:
    import h5py

    # It is locked already, which HDF5 would take for another writer.
    with appears_whole(path) as partial, h5py.File(partial, "w", locking=False) as file:

        def add(name: str, values: NDArray, kind: Any = None) -> None:
            if name not in file:
                file.create_dataset(
                    name,
                    (0, *values.shape[1:]),
                    kind or values.dtype,
                    maxshape=(None, *values.shape[1:]),
                    chunks=(16, *values.shape[1:]),
                    compression="gzip",
                    compression_opts=1,
                )
            held = file[name]
            held.resize(len(held) + len(values), axis=0)
            held[len(held) - len(values) :] = values

        def write(part: Attributed) -> None:
            add("ids", np.array(part.ids, dtype=object), h5py.string_dtype())
            for name, values in _arrays(part).items():
                add(_HDF5_NAMES.get(name, name), values)
            file.attrs["answers"] = list(part.answers)

        yield write


@contextmanager
def _tsv(path: str, source: Source) -> Iterator[Write]:
    with open_output(path) as stream:
        begun: list[bool] = []

        def write(part: Attributed) -> None:
            several = len(part.answers) > 1
            if not begun:
                last = ["answer"] if several else []
                print(
                    "id", "position", "base", "contribution", *LETTERS, *last, sep="\t", file=stream
                )
                begun.append(True)
            for row, name in enumerate(part.ids):
                letters = decode(part.codes[row])
                for own, answer in enumerate(part.answers):
                    numbers = np.column_stack(
                        [part.contributions[row, own], part.hypothetical[row, own]]
                    ).tolist()
                    end = f"\t{answer}\n" if several else "\n"
                    stream.writelines(
                        f"{name}\t{place}\t{base}\t" + "\t".join(f"{x:.6g}" for x in line) + end
                        for place, (base, line) in enumerate(zip(letters, numbers, strict=True), 1)
                    )

        yield write


@contextmanager
def _picture(path: str, source: Source) -> Iterator[Write]:
    telling = Telling(source.together)
    with appears_whole(path) as partial:
        yield telling.add
        partial.write_bytes(picture(telling.figure(), "png", dpi=110))


@contextmanager
def _bedgraph(path: str, source: Source) -> Iterator[Write]:
    assert source.windows is not None
    track = Track(source.windows)
    with open_output(path) as stream:
        yield track.add
        stream.writelines(track.lines())


@contextmanager
def _bigwig(path: str, source: Source) -> Iterator[Write]:
    assert source.windows is not None
    track = Track(source.windows)
    with open_bigwig(path, source.sizes) as stream:
        yield track.add
        for lines in track.lines():
            stream.write(lines)


FORMS: dict[str, Callable[[str, Source], AbstractContextManager[Write]]] = {
    "npz": _npz,
    "h5": _hdf5,
    "hdf5": _hdf5,
    "tsv": _tsv,
    "png": _picture,
    "bedgraph": _bedgraph,
    "bdg": _bedgraph,
    "bw": _bigwig,
    "bigwig": _bigwig,
}
_PACKAGES = {_hdf5: ("h5py", "hdf5", ".npz"), _bigwig: ("pyBigWig", "bigwig", ".bedGraph")}


def form_of(path: str, intervals: bool, answers: int) -> str:
    """Returns the suffix of a file, a key of `FORMS`.

    Args:
      path: the file.
      intervals: whether the sequences lie on a genome, which tracks need.
      answers: how many are scored; a track holds one.

    Raises:
      UserError: the suffix is another one, or needs what is not there; or it is a URL.
    """
    plain = path.removesuffix(".gz")
    form = disk_path(plain).suffix.lower().lstrip(".")
    write = FORMS.get(form)
    if write is None or (plain != path and write not in (_tsv, _bedgraph)):
        raise UserError(
            f"--output={path} has an unknown suffix; legal: .npz, .h5, .png, .bw, or .tsv or "
            ".bedGraph, both also with .gz"
        )
    if write in _PACKAGES and find_spec(_PACKAGES[write][0]) is None:
        package, extra, other = _PACKAGES[write]
        raise UserError(
            f"--output={path} needs {package}; run pip install 'jaxdna[{extra}]', or write {other}"
        )
    if write in (_bedgraph, _bigwig):
        if not intervals:
            raise UserError(
                f"--output={path} needs --bed, which gives positions; legal: .npz, .h5, .tsv, .png"
            )
        if answers > 1:
            raise UserError(
                f"--output={path} holds one number for each base, but the network has {answers} "
                "answers; choose one with --answer"
            )
    return form
