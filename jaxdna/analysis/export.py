"""A trained model as files that run without jaxdna: a StableHLO program, and the weights."""

import importlib.util
import json

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import export, lax
from numpy.typing import NDArray

from jaxdna.data.sequences import UNIFORM, UNKNOWN, encode
from jaxdna.errors import UserError
from jaxdna.models.motif_cnn import scan_of
from jaxdna.ops.strands import complement_strand
from jaxdna.parallel.sharding import path_name
from jaxdna.runs.trained import Trained
from jaxdna.storage.files import Folder, writing
from jaxdna.training.step import STRANDS

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
_README = """# {name}

`model.stablehlo` is the whole model: letters in, {outputs} out, for any number of sequences of
{lengths}. {treatment}It needs only jax and flatbuffers, and runs on {platforms}:

```python
import jax, numpy as np
model = jax.export.deserialize(bytearray(open("model.stablehlo", "rb").read()))
print(model.call(np.frombuffer(b"{example}", np.uint8)[None]))  # {reading}
```

`model.safetensors` holds the weights: {weights}.
"""
_BY_HAND = """
With numpy and safetensors, the output of one strand of one sequence ({strands_note}):

```python
import numpy as np; from safetensors.numpy import load_file; w = load_file("model.safetensors")
one_hot = np.eye(4)[["ACGT".index(base) for base in "{example}"]]
{fit}windows = np.lib.stride_tricks.sliding_window_view(one_hot, {width}, axis=0)
scores = np.einsum("pcw,wcf->pf", windows, w["conv.kernel"]) + w["conv.bias"]
print(np.maximum(scores.max(axis=0), 0) @ w["dense.kernel"] + w["dense.bias"])
```
"""
_TREATMENT = {  # of lengths, as in training: what the README says, and a line of its second example
    "error": ("", ""),
    "pad": (
        "Sequences of fewer than {length} bases are padded to {length}, as in training, inside the "
        "program: do not pad them yourself. ",
        "short = max(0, {length} - len(one_hot))  # padded as in training\n"
        "one_hot = np.pad(one_hot, [(short // 2, short - short // 2), (0, 0)])\n",
    ),
    "center_crop": (
        "Of sequences of more than {length} bases the middle is scored, as in training. ",
        "one_hot = one_hot[max(0, len(one_hot) - {length}) // 2 :][:{length}]  # as in training\n",
    ),
}
_STRANDS_NOTE = {
    "average": "the model's output is the mean of this one and that of the reverse complement",
    "max": "the model's output is the larger of this one and that of the reverse complement",
    "forward": "the model reads only this strand",
}


def write_export(trained: Trained, folder: Folder, name: str) -> list[str]:
    """Writes model.stablehlo, model.safetensors and README.md with a short example for each.

    Args:
      trained: the model.
      folder: made if absent.
      name: the title of the README.

    Returns:
      The files' names.

    Raises:
      UserError: the folder cannot be written.
    """
    weights = {
        path_name(path).replace("/", "."): np.asarray(value, dtype="<f4")
        for path, value in jax.tree_util.tree_leaves_with_path(trained.params)
    }
    strands, lengths = trained.config.model.strands, trained.config.data.get("lengths", "error")
    treatment, fit = (text.format(length=trained.length) for text in _TREATMENT[lengths])
    example, task = "ACGT" * max(5, -(-trained.width // 4)), trained.task
    readme = _README.format(
        name=name,
        outputs="logits" if task.target_dtype == "int32" else "outputs",
        lengths=f"any length of {trained.width} bases or more (one call for each length)"
        if trained.scan
        else f"{trained.length} bases",
        platforms=", ".join(PLATFORMS),
        treatment=treatment if trained.scan else "",
        example=example[: None if trained.scan else trained.length],
        reading=task.reading,
        weights=", ".join(f"`{key}` {list(value.shape)}" for key, value in weights.items()),
    )
    if set(weights) == {"conv.kernel", "conv.bias", "dense.kernel", "dense.bias"} and trained.scan:
        readme += _BY_HAND.format(
            fit=fit, width=trained.width, example=example, strands_note=_STRANDS_NOTE[strands]
        )
    metadata = {
        "strands": strands,
        "letters": "ACGT",
        "lengths": lengths,
        "length": str(trained.length),
        "producer": "jaxdna",
    }
    files = {
        "model.stablehlo": stablehlo(trained),
        "model.safetensors": safetensors(weights, metadata),
        "README.md": readme.encode(),
    }
    with writing(folder):
        folder.make()
        for file, content in files.items():
            folder.write(file, content)
    return list(files)


def stablehlo(trained: Trained) -> bytes:
    """Returns the serialised program: letters uint8 [batch, length] to outputs float32.

    Outputs are [batch], or [batch, outputs] where there are several. Batch and length are open; a
    network that does not begin with a motif scan takes the length of training only. Upper and lower
    case, U for T, and the run's own treatment of lengths and of ambiguous letters are part of it;
    what is no letter of a sequence counts as ambiguous. Of a motif scan the plain form is exported,
    which leaves the length open.

    Raises:
      UserError: flatbuffers, in which jax serialises, is not installed.
    """
    ambiguous = trained.config.data.get("ambiguous", "zero")
    other = UNIFORM if ambiguous == "uniform" else UNKNOWN
    table = np.full(256, other, dtype=np.uint8)
    letters = b"ACGTUacgtu"
    table[np.frombuffer(letters, np.uint8)] = encode(letters)
    strands = trained.config.model.strands
    fit = _FIT[trained.config.data.get("lengths", "error") if trained.scan else "error"]
    task = trained.task

    def model(text: jax.Array) -> jax.Array:
        network = nnx.merge(trained.graph, nnx.State(jax.tree.map(np.asarray, trained.params)))

        if scan := scan_of(network):
            scan.implementation = "plain"
        codes = fit(jnp.asarray(table)[text], trained.length)
        outputs = network(codes)
        if strands != "forward":
            other = task.turned(network(complement_strand(codes)))
            outputs = STRANDS[strands](outputs, other)
        return outputs[:, 0] if task.outputs == 1 else outputs

    if trained.scan:
        batch, length = export.symbolic_shape(
            "batch, length", constraints=[f"length >= {trained.width}"]
        )
    else:
        (batch,), length = export.symbolic_shape("batch"), trained.length
    argument = jax.ShapeDtypeStruct((batch, length), jnp.uint8)
    if importlib.util.find_spec("flatbuffers") is None:
        raise UserError("StableHLO files need flatbuffers; run pip install 'jaxdna[export]'")
    return bytes(export.export(jax.jit(model), platforms=PLATFORMS)(argument).serialize())


def _padded(codes: jax.Array, length: int) -> jax.Array:
    """Pads as `records.fit_length` does; the number of bases may be a symbol."""
    short = jax.core.max_dim(length - codes.shape[1], 0)
    return jnp.pad(codes, [(0, 0), (short // 2, short - short // 2)], constant_values=UNKNOWN)


def _cropped(codes: jax.Array, length: int) -> jax.Array:
    """Takes the middle as `records.fit_length` does; the number of bases may be a symbol."""
    kept = jax.core.min_dim(codes.shape[1], length)
    return lax.dynamic_slice_in_dim(codes, (codes.shape[1] - kept) // 2, kept, axis=1)


_FIT = {"error": lambda codes, length: codes, "pad": _padded, "center_crop": _cropped}


def safetensors(tensors: dict[str, NDArray], metadata: dict[str, str]) -> bytes:
    """Returns a safetensors file of float32 arrays.

    Format: https://huggingface.co/docs/safetensors: the header's length as 8 bytes little-endian,
    the header as JSON (padded with blanks so that the data begin at a multiple of 8), the data.
    """
    header: dict[str, object] = {"__metadata__": metadata}
    end = 0
    for name, value in tensors.items():
        start, end = end, end + value.nbytes
        header[name] = {"dtype": "F32", "shape": list(value.shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    data = b"".join(np.ascontiguousarray(value, "<f4").tobytes() for value in tensors.values())
    return len(text).to_bytes(8, "little") + text + data
