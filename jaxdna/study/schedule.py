"""Reads the collectives, and what runs while they are under way, from a compiled program's text.

``jax.jit(f).lower(...).compile().as_text()`` prints XLA's *scheduled* module: within a computation
the instructions stand in the order in which they are issued. A collective that is split into a
start and a done is on the wire between the two, so the kernels that stand between them are the
computation that hides it. This module finds those windows. It says that the schedule overlaps, not
that it is faster: nothing here measures time.

Compilers spell an asynchronous collective in four ways, all of which are read here:

* ``all-reduce-start … all-reduce-done`` and the like, for every kind (GPU, and TPU permutes);
* ``async-start … async-update … async-done``, or ``call-start … call-done`` (a TPU's SparseCore),
  with the collective in the computation that they call;
* TPU fusions that hold ``AsyncCollectiveStart`` and ``AsyncCollectiveDone``, between which other
  fusions carry the collective's steps beside their own arithmetic; a ``chain_id`` ties them;
* ``send … recv-done`` for what goes between TPU slices, tied by the name of their rendezvous.

Pure text in, plain values out: JAX is not needed.
"""

import dataclasses
import re
from collections.abc import Iterator, Sequence

from jaxdna.study import hlo

KINDS = (
    "all-reduce", "all-gather", "reduce-scatter", "collective-permute", "all-to-all",
    "ragged-all-to-all", "collective-broadcast",
)  # fmt: skip

# What is launched as a kernel of its own. A lone addition or comparison at the top level is
# arithmetic on loop counters and addresses, too small to hide a transfer.
_KERNELS = hlo.MATMULS | {
    "fusion", "custom-call", "reduce", "reduce-window", "select-and-scatter", "scatter", "gather",
    "sort", "fft", "cholesky", "triangular-solve", "rng-bit-generator", "map",
}  # fmt: skip
_CONTROL = frozenset({"while", "call", "conditional"})
# A fusion of nothing but these only moves or renames data.
_MOVES = frozenset({
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "bitcast-convert", "copy",
    "reshape", "transpose", "broadcast", "iota", "slice", "dynamic-slice", "dynamic-update-slice",
    "concatenate", "pad", "reverse", "fusion", "after-all", "opt-barrier", "partition-id",
    "replica-id", "add-dependency", "custom-call",
})  # fmt: skip
# Most custom calls allocate, order or annotate. These compute: Pallas, and libraries.
_COMPUTE_TARGET = re.compile(r"tpu_custom_call|__cu|__gpu|__onednn|triton|mosaic", re.IGNORECASE)
_MATMUL_TARGET = re.compile(r"gemm|matmul|conv\$|cudnn", re.IGNORECASE)

_BETWEEN_SLICES = "_xla_megascale_transfer_type"
_RENDEZVOUS = "_xla_host_transfer_rendezvous"


@dataclasses.dataclass(frozen=True)
class Collective:
    """One collective of a compiled program, as its schedule has it.

    Attributes:
      kind: one of `KINDS`.
      name: the instruction that issues it.
      computation: the computation which that instruction stands in.
      bytes: size in bytes of the whole array (or arrays), per device and per execution: the larger
        of what goes in and what comes out, so an all-gather and the reduce-scatter that mirrors it
        count the same. It is not what the links carry, which depends on the algorithm.
      executions: how often a step runs it: the product of the trip counts of the loops round it,
        a loop of unknown length counting once.
      asynchronous: whether it is split into a start and a done.
      between_slices: whether it crosses the data-centre network that joins TPU slices.
      compute_ops: names of the kernels that are issued between start and done.
      matmul_ops: those of ``compute_ops`` which hold a convolution or a matrix product.
      flops: floating-point operations of these convolutions and matrix products; a multiplication
        and an addition are two. Those of custom calls are counted where they are a library's.
      groups: the devices that it joins, by their place in the mesh; empty where all are meant.
    """

    kind: str
    name: str
    computation: str
    bytes: int
    executions: int
    asynchronous: bool
    between_slices: bool = False
    compute_ops: tuple[str, ...] = ()
    matmul_ops: tuple[str, ...] = ()
    flops: int = 0
    groups: tuple[tuple[int, ...], ...] = ()

    @property
    def compute_ops_overlapped(self) -> int:
        """How many kernels are issued between start and done."""
        return len(self.compute_ops)


def collectives(hlo_text: str) -> list[Collective]:
    """Finds every collective of a scheduled HLO module, once, in the order of issue.

    Args:
      hlo_text: the text of a compiled program, ``compiled.as_text()``.

    Returns:
      The collectives of the entry computation and of the loops, branches and calls in it.

    Raises:
      ValueError: the text is not that of a scheduled module; the order of its lines says nothing.
    """
    if "is_scheduled=true" not in hlo_text:
        raise ValueError("overlap can be read from a compiled, scheduled HLO module only")
    module = hlo.parse(hlo_text)
    return list(_walk(module, module.entry, 1))


def overlap_fraction(found: Sequence[Collective], *, matmuls_only: bool = False) -> float:
    """The share of the collectives' bytes that are in flight while something is computed.

    Args:
      found: from `collectives`; pass a selection to ask about, say, the gradients alone.
      matmuls_only: ask for a convolution or a matrix product in the window. Otherwise any kernel
        will do, even a small element-wise one.

    Returns:
      A number from 0 to 1; 0 when there is nothing to overlap.
    """
    total = sum(c.bytes * c.executions for c in found)
    hidden = sum(
        c.bytes * c.executions for c in found if (c.matmul_ops if matmuls_only else c.compute_ops)
    )
    return hidden / total if total else 0.0


def _walk(module: hlo.Module, computation: str, executions: int) -> Iterator[Collective]:
    ops = module.computations.get(computation, [])
    for at, op in enumerate(ops):
        if op.opcode in _CONTROL:
            for name in op.called:
                yield from _walk(module, name, executions * op.trips)
            continue
        issued = _issued(module, op)
        if issued is None:
            continue
        done = _done(module, issued, op, ops[at + 1 :])
        # Without a done there is no window: the collective begins and ends in its own line.
        window = [] if done is None else ops[at + 1 : ops.index(done)]
        kernels = [o for o in window if _computes(module, o)]
        matmuls = [o for o in kernels if _multiplies(module, o)]
        result = done.shape if done is not None and issued is op else issued.shape
        yield Collective(
            kind=_kind(issued, op),
            name=op.name,
            computation=computation,
            bytes=max(
                sum(map(hlo.size_in_bytes, issued.operand_shapes)), hlo.size_in_bytes(result)
            ),
            executions=executions,
            asynchronous=done is not None,
            between_slices=issued.opcode == "send",
            compute_ops=tuple(o.name for o in kernels),
            matmul_ops=tuple(o.name for o in matmuls),
            flops=sum(map(module.matmul_flops, matmuls)),
            groups=tuple(map(tuple, hlo.device_groups(issued))),
        )


def _issued(module: hlo.Module, op: hlo.Op) -> hlo.Op | None:
    """The collective that an instruction issues: itself, one inside it, or none."""
    if op.opcode in KINDS or op.opcode.removesuffix("-start") in KINDS:
        return op
    if op.opcode == "send" and op.attribute(_BETWEEN_SLICES):
        return op
    if op.opcode != "fusion" and not op.opcode.endswith("-start"):
        return None
    inner = list(module.inside(op))
    moved = next((o for o in inner if o.opcode in KINDS), None)
    targets = {o.attribute("custom_call_target") for o in inner}
    # Of the fusions that share a chain only the first issues; the others carry it on or end it.
    if moved and moved.attribute("chain_id") and "AsyncCollectiveStart" not in targets:
        return None
    return moved


def _done(
    module: hlo.Module, issued: hlo.Op, start: hlo.Op, later: Sequence[hlo.Op]
) -> hlo.Op | None:
    """The instruction, if any, that waits for a collective which another one has started."""
    if chain := issued.attribute("chain_id"):
        for op in later:
            inner = list(module.inside(op)) if op.opcode == "fusion" else []
            if any(o.attribute("chain_id") == chain for o in inner) and any(
                o.attribute("custom_call_target") == "AsyncCollectiveDone" for o in inner
            ):
                return op
    elif start.opcode == "send" or start.opcode.endswith("-start"):
        handles = {start.name}
        for op in later:
            if op.opcode == "recv" and op.attribute(_RENDEZVOUS) == start.attribute(_RENDEZVOUS):
                handles = {op.name}  # what was sent comes back, reduced, here
            if handles.intersection(op.operands):
                if op.opcode.endswith("-done") and op.opcode != "send-done":
                    return op
                if op.opcode.endswith("-update"):
                    handles.add(op.name)
    return None


def _kind(issued: hlo.Op, op: hlo.Op) -> str:
    # A TPU fuses an all-reduce and the slice of it that follows; it moves as a reduce-scatter does.
    if any(name.startswith("all-reduce-scatter") for name in op.called):
        return "reduce-scatter"
    if issued.opcode == "send":
        return issued.attribute(_BETWEEN_SLICES).lower().replace("_", "-")
    return issued.opcode.removesuffix("-start")


def _computes(module: hlo.Module, op: hlo.Op) -> bool:
    if op.opcode in _CONTROL:
        return any(_computes(module, inner) for inner in module.inside(op))
    if op.opcode == "custom-call":
        return bool(_COMPUTE_TARGET.search(op.attribute("custom_call_target")))
    if op.opcode == "fusion":
        return any(o.opcode not in _MOVES and o.opcode not in KINDS for o in module.inside(op))
    return op.opcode in _KERNELS


def _multiplies(module: hlo.Module, op: hlo.Op) -> bool:
    return any(
        o.opcode in hlo.MATMULS or bool(_MATMUL_TARGET.search(o.attribute("custom_call_target")))
        for o in (op, *module.inside(op))
    )
