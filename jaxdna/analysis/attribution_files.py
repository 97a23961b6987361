"""Scores of bases in files, by the suffix: NPZ, HDF5 and TSV, written as the scores come."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jaxdna.analysis.attribution import Attributed
from jaxdna.data.prediction_files import appears_whole, open_output
from jaxdna.data.sequences import LETTERS, decode
from jaxdna.errors import UserError

Write = Callable[[Attributed], None]


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
def _npz(path: str) -> Iterator[Write]:
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
def _hdf5(path: str) -> Iterator[Write]:
    import h5py

    with appears_whole(path) as partial, h5py.File(partial, "w") as file:

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
def _tsv(path: str) -> Iterator[Write]:
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


FORMS: dict[str, Callable[[str], AbstractContextManager[Write]]] = {
    "npz": _npz,
    "h5": _hdf5,
    "hdf5": _hdf5,
    "tsv": _tsv,
}


def form_of(path: str) -> str:
    """Returns the suffix of a file, a key of `FORMS`.

    Raises:
      UserError: it is another one, or needs a package that is not there.
    """
    plain = path.removesuffix(".gz")
    form = Path(plain).suffix.lower().lstrip(".")
    if form not in FORMS or (plain != path and form != "tsv"):
        raise UserError(f"--output={path} has an unknown suffix; legal: .npz, .h5, .tsv or .tsv.gz")
    if FORMS[form] is _hdf5 and find_spec("h5py") is None:
        raise UserError(f"--output={path} needs h5py; legal: pip install jaxdna[hdf5], or .npz")
    return form
