"""Bytes that a compiled program moves between a device and its main memory."""

import re
from collections.abc import Sequence

from jaxdna.study import hlo

# They name memory and move nothing, or their other half has been counted.
_FREE = frozenset({"parameter", "constant", "bitcast", "tuple", "get-tuple-element", "after-all"})

# They change at most the layout. A fusion of one operand inside of a fusion does the same.
_SAME_VALUE = frozenset({"bitcast", "copy"})

# A memory on the chip, as TPU programs mark it in a layout: {2,1,0:T(4,128)S(1)}.
_ARRAY = re.compile(r"\b[a-z]\w*\[[\d,<= ]*\](?:\{[^}]*\})?")
_ON_CHIP = re.compile(r"S\([1-9]\d*\)")


def bytes_moved(hlo_text: str, steps: int = 1) -> float:
    """Adds up what each instruction of a program reads from and writes to main memory.

    A fusion or kernel reads its operands once, whole, or the slices that it takes of them, and
    writes its results once; buffers in the chip's own memory do not count, and neither does the
    padding of layouts. A loop of a known number of rounds counts that often. One of unknown rounds
    does not count: in the training step there is the loop over tied scores, which seldom runs.

    Args:
      hlo_text: what ``compiled.as_text()`` returns.
      steps: training steps that the program runs, in a loop if there are several.

    Returns:
      Bytes of one step on one device.
    """
    module = hlo.parse(hlo_text)
    return _of(module, module.entry, steps) / steps


def _of(module: hlo.Module, computation: str, steps: int = 1) -> int:
    total = 0
    for op in module.computations[computation]:
        if op.opcode in _FREE or op.opcode.endswith("-done"):
            continue
        if op.opcode == "while":
            # TPUs' compiler does not note the rounds of the loop over steps.
            trips = op.known_trips or (steps if steps > 1 else 0)
            total += sum(trips * _of(module, body) for body in op.called)
        elif op.opcode == "copy-start":  # its result names both ends of one copy
            total += _in_main_memory(op.shape)
        else:
            total += _in_main_memory(op.shape) + _read(module, op)
    return total


def _read(module: hlo.Module, op: hlo.Op) -> int:
    """What an instruction reads: of an operand that a fusion only slices, the slices."""
    total = 0
    for i, shape in enumerate(op.operand_shapes):
        whole = _in_main_memory(shape)
        if whole and op.opcode == "fusion":
            inside = module.computations[op.called[0]]
            (name,) = (inner.name for inner in inside if inner.number == i)
            slices = _slices(inside, name)
            whole = whole if slices is None else min(whole, slices)
        total += whole
    return total


def _slices(inside: Sequence[hlo.Op], name: str) -> int | None:
    """Bytes that the dynamic slices of a value take; None where anything else uses it."""
    total = 0
    for user in inside:
        if name not in user.operands:
            continue
        if user.opcode == "dynamic-slice" and user.operands[0] == name:
            total += hlo.size_in_bytes(user.shape)
        elif user.opcode in _SAME_VALUE or (user.opcode == "fusion" and len(user.operands) == 1):
            further = _slices(inside, user.name)
            if further is None:
                return None
            total += further
        else:
            return None
    return total or None


def _in_main_memory(shape: str) -> int:
    arrays = _ARRAY.findall(shape)
    return sum(hlo.size_in_bytes(array) for array in arrays if not _ON_CHIP.search(array))
