"""Bytes that a compiled program moves between a device and its main memory."""

import re

from jaxdna.analysis import hlo

# They name memory and move nothing, or their other half has been counted.
_FREE = frozenset({"parameter", "constant", "bitcast", "tuple", "get-tuple-element", "after-all"})

# A memory on the chip, as TPU programs mark it in a layout: {2,1,0:T(4,128)S(1)}.
_ARRAY = re.compile(r"\b[a-z]\w*\[[\d,<= ]*\](?:\{[^}]*\})?")
_ON_CHIP = re.compile(r"S\([1-9]\d*\)")


def bytes_moved(hlo_text: str) -> int:
    """Adds up what each instruction of the entry computation reads from and writes to main memory.

    A fusion or kernel reads its operands once, whole, and writes its results once; buffers in the
    chip's own memory do not count, and neither does the padding of layouts. A loop of a known
    number of rounds counts that often. One of unknown rounds does not count: in the training step
    there is the loop over tied scores, which seldom runs.

    Args:
      hlo_text: what ``compiled.as_text()`` returns.

    Returns:
      Bytes of one execution on one device.
    """
    module = hlo.parse(hlo_text)
    return _of(module, module.entry)


def _of(module: hlo.Module, computation: str) -> int:
    total = 0
    for op in module.computations[computation]:
        if op.opcode in _FREE or op.opcode.endswith("-done"):
            continue
        if op.opcode == "while":
            known = "known_trip_count" in op.attributes
            total += sum(op.trips * _of(module, body) for body in op.called) if known else 0
        elif op.opcode == "copy-start":  # its result names both ends of one copy
            total += _in_main_memory(op.shape)
        else:
            total += _in_main_memory(op.shape) + sum(map(_in_main_memory, op.operand_shapes))
    return total


def _in_main_memory(shape: str) -> int:
    arrays = _ARRAY.findall(shape)
    return sum(hlo.size_in_bytes(array) for array in arrays if not _ON_CHIP.search(array))
