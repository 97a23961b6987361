"""The kernels of a compiled program: what each computes, and moves from and to main memory."""

import dataclasses
import math
import re
from collections.abc import Iterator, Sequence

from jaxdna.study import hlo

# They name memory and move nothing, or their other half has been counted.
_FREE = frozenset({"parameter", "constant", "bitcast", "tuple", "get-tuple-element", "after-all"})

# They change at most the layout. A fusion of one operand inside of a fusion does the same.
_SAME_VALUE = frozenset({"bitcast", "copy"})

_SLICES = frozenset({"slice", "dynamic-slice"})

# A memory on the chip, as TPU programs mark it in a layout: {2,1,0:T(4,128)S(1)}.
_ARRAY = re.compile(r"\b[a-z]\w*\[[\d,<= ]*\](?:\{[^}]*\})?")
_ON_CHIP = re.compile(r"S\([1-9]\d*\)")


# A Triton kernel's grid, and the operations of one of its blocks where its author says them.
_GRID = re.compile(r"\bgrid_[xyz] = (\d+)")
_OF_BLOCK = re.compile(r"flops_of_block\\22: \\22(\d+)")

# One operation for each entry of the result; what only moves or renames data has none.
_ARITHMETIC = frozenset({
    "add", "subtract", "multiply", "divide", "maximum", "minimum", "power", "remainder", "negate",
    "abs", "sign", "exponential", "exponential-minus-one", "log", "log-plus-one", "logistic",
    "tanh", "sine", "cosine", "sqrt", "rsqrt", "cbrt", "erf", "atan2", "floor", "ceil", "and", "or",
    "xor", "not", "shift-left", "shift-right-logical", "shift-right-arithmetic", "compare",
    "select", "clamp",
})  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Kernel:
    """What is launched as one: a fusion, or an instruction that stands alone.

    Attributes:
      name: the instruction.
      library: the library's function behind a custom call, such as ``__cudnn$convForward``.
      flops: floating-point operations of one launch; of a convolution without those on padding.
      bytes: that one launch reads from and writes to main memory.
      launches: in the whole program.
    """

    name: str
    library: str
    flops: int
    bytes: int
    launches: int


def kernels(hlo_text: str, steps: int = 1, rounds: int = 1) -> list[Kernel]:
    """Lists the kernels of a program with what each computes and moves.

    A kernel reads its operands once, whole, or the slices that it takes of them, and writes its
    results once; buffers in the chip's own memory do not count, and neither does the padding of
    layouts. A loop of a known number of rounds counts that often. One of unknown rounds does not
    count: in the training step there is the loop over tied scores, which seldom runs.

    Args:
      hlo_text: what ``compiled.as_text()`` returns.
      steps: training steps that the program runs, in a loop if there are several.
      rounds: in which the program trains its networks, in a loop round that one.
    """
    module = hlo.parse(hlo_text)
    loops = [trips for trips in (rounds, steps) if trips > 1]
    return list(_of(module, module.entry, 1, loops))


def bytes_moved(hlo_text: str, steps: int = 1, rounds: int = 1) -> float:
    """Adds up what the kernels of a program read from and write to main memory.

    Args:
      hlo_text: as in `kernels`.
      steps: as in `kernels`.
      rounds: as in `kernels`.

    Returns:
      Bytes of one step on one device.
    """
    return sum(k.bytes * k.launches for k in kernels(hlo_text, steps, rounds)) / steps


def _of(
    module: hlo.Module, computation: str, launches: int, loops: Sequence[int]
) -> Iterator[Kernel]:
    for op in module.computations[computation]:
        if op.opcode in _FREE or op.opcode.endswith("-done"):
            continue
        if op.opcode == "while":
            # TPUs' compiler does not note the rounds of the loops over members and steps.
            trips = op.known_trips or (loops[0] if loops else 0)
            inner = loops if op.known_trips else loops[1:]
            for body in op.called:
                yield from _of(module, body, launches * trips, inner)
            continue
        moved = _in_main_memory(op.shape)
        if op.opcode != "copy-start":  # the result of that names both ends of one copy
            moved += _read(module, op)
        library = op.attribute("custom_call_target") if op.opcode == "custom-call" else ""
        yield Kernel(op.name, library, _flops(module, op), moved, launches)


def _flops(module: hlo.Module, op: hlo.Op) -> int:
    if op.opcode in _ARITHMETIC:
        return hlo.entries(op.shape)
    if op.opcode in ("reduce", "reduce-window", "select-and-scatter", "scatter"):
        return sum(map(hlo.entries, op.operand_shapes[:1]))
    if op.opcode in ("fusion", "call", "conditional"):
        return sum(_flops(module, o) for name in op.called for o in module.computations[name])
    if found := _OF_BLOCK.search(op.attributes):
        blocks = math.prod(int(size) for size in _GRID.findall(op.attributes))
        return blocks * int(found.group(1))
    return module.matmul_flops(op)


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
    """Bytes that the slices of a value take; None where anything else uses it."""
    total = 0
    for user in inside:
        if name not in user.operands:
            continue
        if user.opcode in _SLICES and user.operands[0] == name:
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
