"""The text of an HLO module, as XLA prints a compiled program, taken apart.

Just enough of the grammar to follow calls and to size what an instruction moves and multiplies.
The text belongs to no stable interface, so `jaxdna.study.schedule` is tested on programs that
real compilers printed. Pure text in, plain values out: JAX is not needed.
"""

import dataclasses
import math
import re
from collections.abc import Iterator, Sequence

import numpy as np

MATMULS = frozenset({"convolution", "dot"})

_ARRAY = re.compile(r"\b([a-z]\w*)\[([\d,<= ]*)\]")
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) .*\{\s*$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = ")
_OPCODE = re.compile(r"\s*([\w\-]+)\(")
_LIBRARY_MATMUL = re.compile(r"^__(cudnn\$conv|cublas\$)")
_CALLED = re.compile(
    r"\b(?:calls|to_apply|body|branch_computations|true_computation|false_computation)="
    r"(\{[^}]*\}|%?[\w.\-]+)"
)


@dataclasses.dataclass(frozen=True, eq=False)
class Op:
    """One instruction.

    Attributes:
      name: its name, without the percent sign.
      opcode: such as ``fusion`` or ``all-reduce-start``.
      shape: the text of its result's shape, e.g. ``(f32[4,8]{1,0}, u32[])``.
      operands: the names of its operands.
      operand_shapes: the texts of their shapes.
      attributes: the text of everything after the operands.
      called: the computations that it names as its contents or as its function.
      number: which parameter of its computation it is, from 0; -1 for what is none.
    """

    name: str
    opcode: str
    shape: str
    operands: tuple[str, ...]
    operand_shapes: tuple[str, ...]
    attributes: str
    called: tuple[str, ...]
    number: int

    def attribute(self, name: str) -> str:
        """The text of an attribute such as ``custom_call_target``; empty where there is none."""
        found = re.search(rf'\b{name}="?([^",\s}}]+)', self.attributes)
        return found.group(1) if found else ""

    @property
    def known_trips(self) -> int | None:
        """How often a loop runs its body, where XLA has noted it."""
        known = re.search(r'"known_trip_count":\{"n":"(\d+)"', self.attributes)
        return int(known.group(1)) if known else None

    @property
    def trips(self) -> int:
        """How often a loop runs its body; 1 when XLA does not know, and for all that is no loop."""
        return self.known_trips or 1


@dataclasses.dataclass(frozen=True)
class Module:
    """A module's computations by name, each a list of instructions in the order of the text."""

    entry: str
    computations: dict[str, list[Op]]

    def inside(self, op: Op) -> Iterator[Op]:
        """Yields the instructions of the computations that ``op`` calls, at any depth."""
        for name in op.called:
            for inner in self.computations.get(name, ()):
                yield inner
                yield from self.inside(inner)

    def matmul_flops(self, op: Op) -> int:
        """Counts the operations of the convolutions and matrix products in ``op``."""
        if op.opcode in MATMULS or _LIBRARY_MATMUL.search(op.attribute("custom_call_target")):
            return _matmul_flops(op)
        inner = (o for name in op.called for o in self.computations.get(name, ()))
        return op.trips * sum(map(self.matmul_flops, inner))


def parse(text: str) -> Module:
    """Takes the text of an HLO module apart.

    Args:
      text: what ``compiled.as_text()`` returns.

    Returns:
      The module; lines that are neither an instruction nor the head of a computation are skipped.
    """
    entry = ""
    computations: dict[str, list[Op]] = {}
    current: list[Op] = []
    shapes: dict[str, str] = {}
    for line in text.splitlines():
        if line[:1].isspace():
            if op := _parse_instruction(line, shapes):
                current.append(op)
                shapes[op.name] = op.shape
        elif header := _COMPUTATION.match(line):
            current, shapes = computations.setdefault(header.group(2), []), {}
            entry = header.group(2) if header.group(1) else entry
    return Module(entry, computations)


def size_in_bytes(shape: str) -> int:
    """Adds up the arrays of a shape, in bytes, without the padding of the device's layout."""
    bits = 0
    for dtype, dims in _ARRAY.findall(shape):
        # f32, bf16, s4, f8e4m3fn, c64: the first number is the width. A truth value takes a byte.
        width = re.match(r"[a-z]+(\d+)", dtype)
        bits += (int(width.group(1)) if width else 8 * (dtype == "pred")) * math.prod(
            _numbers(dims)
        )
    return -(-bits // 8)


def entries(shape: str) -> int:
    """The number of entries of the first array of a shape."""
    return math.prod(_dims(shape))


def device_groups(op: Op) -> list[list[int]]:
    """The devices that a collective joins, by their place in the mesh.

    XLA writes them out, ``{{0,1},{2,3}}``; or as rows of counted-up numbers, ``[2,2]<=[4]``, which
    may be transposed, ``[2,2]<=[2,2]T(1,0)``; or as axes of a mesh, ``mesh['a'=2,'b'=2] {'b'}``.

    Returns:
      One list for each group; of a permutation one for each pair; none where all devices are meant.
    """
    text = op.attributes
    if found := re.search(r"(?:replica_groups|source_target_pairs)=\{(\{[\d,{}]*\})\}", text):
        return [_numbers(group) for group in re.findall(r"\{([\d,]*)\}", found.group(1))]
    if found := re.search(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", text):
        shape, dims, order = (_numbers(part or "") for part in found.groups())
        numbers = np.arange(math.prod(dims)).reshape(dims)
        return numbers.transpose(order or None).reshape(shape).tolist()
    if found := re.search(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}", text):
        axes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", found.group(1))}
        joined = re.findall(r"'(\w+)'", found.group(2))
        order = [name for name in axes if name not in joined] + joined
        numbers = np.arange(math.prod(axes.values())).reshape(list(axes.values()))
        rows = numbers.transpose([list(axes).index(name) for name in order])
        return rows.reshape(-1, math.prod(axes[name] for name in joined)).tolist()
    return []


def _parse_instruction(line: str, shapes: dict[str, str]) -> Op | None:
    head = _INSTRUCTION.match(line)
    if not head:
        return None
    start = head.end()
    stop = _closing(line, start) if line[start] == "(" else line.find(" ", start)
    opcode = _OPCODE.match(line, stop)
    if not opcode:
        return None
    close = _closing(line, opcode.end() - 1)
    inside = line[opcode.end() : close]
    operands = tuple(re.findall(r"%([\w.\-]+)", inside))
    attributes = line[close:]
    return Op(
        name=head.group(1),
        opcode=opcode.group(1),
        shape=line[start:stop],
        operands=operands,
        operand_shapes=tuple(shapes.get(operand, "") for operand in operands),
        attributes=attributes,
        called=tuple(
            name for text in _CALLED.findall(attributes) for name in re.findall(r"[\w.\-]+", text)
        ),
        number=int(inside.rstrip(")")) if opcode.group(1) == "parameter" else -1,
    )


def _closing(line: str, opening: int) -> int:
    """The position after the parenthesis that closes the one at ``opening``."""
    depth = 0
    for at in range(opening, len(line)):
        depth += (line[at] == "(") - (line[at] == ")")
        if depth == 0:
            return at + 1
    return len(line)


def _numbers(text: str) -> list[int]:
    return [int(n) for n in re.findall(r"-?\d+", text)]


def _dims(shape: str) -> list[int]:
    found = _ARRAY.search(shape)
    return _numbers(found.group(2)) if found else []


def _matmul_flops(op: Op) -> int:
    """Two operations for each multiplication whose factors are both in their arrays."""
    result = _dims(op.shape)
    left, right = (_dims(shape) for shape in op.operand_shapes[:2])
    target = op.attribute("custom_call_target")
    if op.opcode == "dot" or target.startswith("__cublas"):
        contracted = re.search(r"lhs_contracting_dim\w+\W+([\d,\" ]*)[}\]]", op.attributes)
        axes = _numbers(contracted.group(1)) if contracted else []
        return 2 * math.prod(result) * math.prod(left[axis] for axis in axes)
    # cuDNN's derivatives have the labels and the window of the convolution that they derive.
    if target.endswith("BackwardInput"):
        left, result = result, left
    elif target.endswith("BackwardFilter"):
        right, result = result, right
    # dim_labels=b01f_01io->b01f names the dimensions of the input, the kernel and the result.
    of_left, of_right, of_result = re.split("_|->", op.attribute("dim_labels"))
    text = re.search(r"window=\{([^}]*)\}", op.attributes)
    window = dict(re.findall(r"(\w+)=(\S+)", text.group(1) if text else ""))
    products = result[of_result.index("b")] * result[of_result.index("f")]
    products *= right[of_right.index("i")]
    for axis in range(len(of_result) - 2):

        def of(name: str, default: int, axis: int = axis) -> int:
            return int(window[name].split("x")[axis]) if name in window else default

        low = int(window["pad"].split("x")[axis].split("_")[0]) if "pad" in window else 0
        products *= _taps(
            length=left[of_left.index(str(axis))],
            taps=range(0, of("size", 1) * of("rhs_dilate", 1), of("rhs_dilate", 1)),
            places=range(-low, -low + result[of_result.index(str(axis))] * of("stride", 1),
                         of("stride", 1)),
            dilation=of("lhs_dilate", 1),
        )  # fmt: skip
    return 2 * products


def _taps(*, length: int, taps: Sequence[int], places: Sequence[int], dilation: int) -> int:
    """Pairs of a place of the window and a tap of it that fall on an entry, not on padding."""
    entries = range(0, length * dilation, dilation)
    return sum(place + tap in entries for place in places for tap in taps)
