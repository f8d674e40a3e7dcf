"""Reads optimized HLO as text: computations, how often each runs, cycles.

Pure functions of strings, without jax. XLA's own cost analysis counts the body of a
loop once, however often it runs; here every instruction counts as often as its
computation runs in one call of the module.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Iterator, Mapping

_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{\s*$")
_INSTRUCTION = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = (.*)$")
_NAME = re.compile(r"%([\w.\-]+)")
_ARRAY = re.compile(r"([a-z]\w*)\[([^\]]*)\]")
# What hands on control to another computation, and under which attribute.
_CALLEES = {
    "call": ("to_apply",),
    "call-start": ("to_apply",),
    "async-start": ("calls",),
    "conditional": ("true_computation", "false_computation", "branch_computations"),
}
_CYCLES = re.compile(r'"estimated_cycles":"?(\d+)')
_NO_ESTIMATE = 2**63 - 1  # what the compiler writes for what it cannot tell
_COST = re.compile(r'"cost_estimate":\{"flops":"?(\d+).*?"bytes_accessed":"?(\d+)')
_PASSES_ON = ("copy", "bitcast", "convert", "reshape")
# Instructions that move data and for which the TPU compiler may give no cycles.
_MOVERS = ("fusion", "sort", "gather", "scatter", "reduce-window", "copy")


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a computation.

    Attributes:
      name: without the percent sign.
      type: of the result, as written: `f32[8,128]{1,0}` or a tuple of such.
      opcode: such as `fusion`.
      operands: names of other instructions, or the literal of a constant.
      attributes: the rest of the line.
      is_root: whether it is its computation's result.
    """

    name: str
    type: str
    opcode: str
    operands: tuple[str, ...]
    attributes: str
    is_root: bool

    def called(self, *attributes: str) -> list[str]:
        """Names of the computations under the attributes."""
        found = []
        for attribute in attributes:
            pattern = rf"[ ,]{attribute}=(\{{[^}}]*\}}|%[\w.\-]+)"
            if match := re.search(pattern, self.attributes):
                found += _NAME.findall(match[1])
        return found


Computation = Mapping[str, Instruction]


@dataclasses.dataclass(frozen=True)
class Module:
    """A parsed module.

    Attributes:
      computations: instructions by name, in their order, by computation.
      entry: name of the computation that runs first.
      num_partitions: devices that the module is compiled for; 1 if it does not say.
    """

    computations: Mapping[str, Computation]
    entry: str
    num_partitions: int


def parse(text: str) -> Module:
    """Parses the text of an HLO module.

    Raises:
      ValueError: it has no entry computation.
    """
    computations: dict[str, dict[str, Instruction]] = {}
    entry, current = None, None
    for line in text.splitlines():
        if not line.startswith(" ") and (header := _HEADER.match(line)):
            current = computations.setdefault(header[2], {})
            entry = header[2] if header[1] else entry
        elif line.startswith("}"):
            current = None
        elif current is not None and (match := _INSTRUCTION.match(line)):
            one = _instruction(match[2], match[3], match[1] is not None)
            current[one.name] = one
    if entry is None:
        raise ValueError("no entry computation: not the text of an HLO module")
    partitions = re.search(r"num_partitions=(\d+)", text[: text.index("\n")])
    return Module(computations, entry, int(partitions[1]) if partitions else 1)


def _instruction(name: str, rest: str, is_root: bool) -> Instruction:
    end = _closing(rest, 0) + 1 if rest.startswith("(") else rest.index(" ")
    type_, call = rest[:end], rest[end:].strip()
    start = call.index("(")
    stop = _closing(call, start)
    inside = call[start + 1 : stop]
    operands = tuple(_NAME.findall(inside)) or ((inside.strip(),) if inside else ())
    attributes = call[stop + 1 :]
    return Instruction(name, type_, call[:start], operands, attributes, is_root)


def _closing(text: str, start: int) -> int:
    """Index of the parenthesis that closes the one at `start`."""
    depth = 0
    for match in re.finditer(r"[()]", text[start:]):
        depth += 1 if match[0] == "(" else -1
        if not depth:
            return start + match.start()
    raise ValueError(f"unbalanced parentheses: {text[:80]}")


def elements(type_: str) -> list[str]:
    """The parts of a tuple type; of any other, itself."""
    if not type_.startswith("("):
        return [type_]
    parts, depth, begin = [], 0, 1
    for match in re.finditer(r"[(){}\[\],]", type_):
        sign = match[0]
        if (sign == "," and depth == 1) or (sign == ")" and depth == 1):
            parts.append(re.sub(r"/\*.*?\*/", "", type_[begin : match.start()]).strip())
            begin = match.end()
        depth += (sign in "({[") - (sign in ")}]")
    return [part for part in parts if part]


@functools.cache
def byte_count(type_: str) -> int:
    """Bytes of a type without the padding of its layout: tuples are summed.

    Raises:
      ValueError: an element type that no width is known of.
    """
    return sum(_array_bytes(*match) for match in _ARRAY.findall(type_))


def _array_bytes(element: str, shape: str) -> int:
    dims = [int(dim.strip("<= ")) for dim in shape.split(",") if dim.strip()]
    if element in ("token", "opaque"):
        return 0
    digits = re.match(r"[a-z]+(\d+)", element)
    if element != "pred" and not digits:
        raise ValueError(f"element type {element} has no known width")
    bits = int(digits[1]) if digits else 8
    return math.prod(dims) * bits // 8


@dataclasses.dataclass(frozen=True)
class Execution:
    """How often each computation runs in one call of the module.

    Attributes:
      times: by computation; those that only fusions and reductions use are absent.
      unknown_loops: names of loops whose number of rounds the text does not tell;
        their bodies count as run once.
    """

    times: Mapping[str, int]
    unknown_loops: tuple[str, ...]


def execution(module: Module) -> Execution:
    """Counts how often each computation runs: loops multiply, branches all count."""
    times: dict[str, int] = {}
    unknown: list[str] = []

    def run(name: str, count: int) -> None:
        times[name] = times.get(name, 0) + count
        for one in module.computations[name].values():
            if one.opcode == "while":
                rounds = trip_count(module, name, one)
                if rounds is None:
                    unknown.append(one.name)
                for body in one.called("body"):
                    run(body, count * (1 if rounds is None else rounds))
            for callee in one.called(*_CALLEES.get(one.opcode, ())):
                run(callee, count)

    run(module.entry, 1)
    return Execution(times, tuple(unknown))


def executed(module: Module, runs: Execution) -> Iterator[tuple[Instruction, int]]:
    """Yields every instruction that runs by itself, and how often."""
    for name, count in runs.times.items():
        for one in module.computations[name].values():
            yield one, count


def trip_count(module: Module, computation: str, loop: Instruction) -> int | None:
    """Rounds of a while loop; None if the text does not tell.

    From the compiler's own annotation, or else from a condition that compares a
    counter, of known start and step, with a constant.
    """
    if match := re.search(r'known_trip_count"?:\{"n":"?(\d+)', loop.attributes):
        return int(match[1])
    condition = module.computations[loop.called("condition")[0]]
    body = module.computations[loop.called("body")[0]]
    root = _root(condition)
    direction = re.search(r"direction=(LT|LE)", root.attributes)
    if root.opcode != "compare" or not direction:
        return None
    index = _tuple_index(condition, root.operands[0])
    limit = _constant(condition, root.operands[1])
    carried = module.computations[computation].get(loop.operands[0])
    if limit is None and carried is not None:
        place = _tuple_index(condition, root.operands[1])
        limit = _carried_in(module, computation, carried, place)
    if index is None or limit is None or carried is None:
        return None
    start = _carried_in(module, computation, carried, index)
    step = _step(body, index)
    if start is None or not step:
        return None
    span = limit - start + (direction[1] == "LE")
    return max(0, -(-span // step))


def _root(computation: Computation) -> Instruction:
    return next(one for one in computation.values() if one.is_root)


def _behind(computation: Computation, name: str) -> Instruction | None:
    """The instruction that makes a value, past copies."""
    one = computation.get(name)
    while one is not None and one.opcode in _PASSES_ON:
        one = computation.get(one.operands[0])
    return one


def _constant(computation: Computation, name: str) -> int | None:
    one = _behind(computation, name)
    if one is None or one.opcode != "constant":
        return None
    literal = one.operands[0] if one.operands else ""
    return int(literal) if re.fullmatch(r"-?\d+", literal) else None


def _tuple_index(computation: Computation, name: str) -> int | None:
    one = _behind(computation, name)
    if one is None or one.opcode != "get-tuple-element":
        return None
    return int(re.search(r"index=(\d+)", one.attributes)[1])


def _carried_in(
    module: Module, name: str, carried: Instruction, index: int | None
) -> int | None:
    """The constant with which an element of a loop's tuple enters the loop."""
    if index is None or carried.opcode != "tuple":
        return None
    return _constant(module.computations[name], carried.operands[index])


def _step(body: Computation, index: int) -> int | None:
    """What a round adds to an element of the loop's tuple."""
    root = _root(body)
    if root.opcode != "tuple":
        return None
    added = _behind(body, root.operands[index])
    if added is None or added.opcode != "add":
        return None
    left, right = added.operands
    if _tuple_index(body, left) != index:
        left, right = right, left
    return _constant(body, right) if _tuple_index(body, left) == index else None


@dataclasses.dataclass(frozen=True)
class Work:
    """What one device computes in one call, by the compiler's own estimates.

    Attributes:
      cycles: of all instructions for which the compiler gives them.
      kernel_flops: of custom kernels, by the estimate that they bring along.
      kernel_bytes: read and written by those.
      moved_bytes: twice the result of sorts, gathers, scatters and the like, for
        which the compiler gives nothing: read once, written once.
      unestimated: how often such instructions run.
    """

    cycles: int
    kernel_flops: int
    kernel_bytes: int
    moved_bytes: int
    unestimated: int


def work(module: Module, runs: Execution) -> Work:
    """Sums the estimates of everything but collectives."""
    cycles = flops = traffic = moved = unestimated = 0
    for one, count in executed(module, runs):
        match = _CYCLES.search(one.attributes)
        if match and int(match[1]) != _NO_ESTIMATE:
            cycles += count * int(match[1])
        elif match := _COST.search(one.attributes):
            flops += count * int(match[1])
            traffic += count * int(match[2])
        elif one.opcode in _MOVERS and not _has_collective(module, one):
            moved += count * 2 * byte_count(one.type)
            unestimated += count
    return Work(cycles, flops, traffic, moved, unestimated)


def _has_collective(module: Module, fusion: Instruction) -> bool:
    return any(
        "replica_groups=" in one.attributes
        for callee in fusion.called("calls")
        for one in module.computations[callee].values()
    )
