"""The order of kernels: one that keeps the peak of live memory low and lets state be updated.

The order as given is one candidate; list scheduling from the front and from the back are others:
at each point they take the kernel that adds least to what is live. The best of them is improved
by moving single kernels away from the peak. A result that a state becomes waits for the readers
of the state's old value, unless that makes a circle; then it is copied at the end of the run.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from asg.graph import Value
from asg.passes.kernels import FusionPlan
from asg.passes.liveness import Draft, Leaf, Lives, draft
from asg.passes.spans import Spans
from asg.passes.storage import align

_MOVE_WORK = 2_000_000  # visits of operands that improving an order may cost


@dataclass(frozen=True)
class OrderKernels:
    """Put kernels in an order that lowers the peak of live memory.

    Needs kernels in an order that respects data dependences; so it is afterwards. Returns the
    plan as it was where no order is better. With `search` off, kernels move only as far as
    updates of state in place need it.
    """

    search: bool = True

    def __call__(self, plan: FusionPlan) -> FusionPlan:
        problem = problem_of(plan)
        given = by_position(problem)
        best, lowest = given, _peak(problem, given)
        if self.search and lowest > least_of(problem):
            for order in (_forward(problem), _backward(problem)):
                peak = _peak(problem, order)
                if peak < lowest:
                    best, lowest = order, peak
            best = _move_from_peak(problem, best)
        kernels = [problem.steps.steps[node].kernel for node in best]
        return replace(plan, kernels=tuple(kernel for kernel in kernels if kernel is not None))


@dataclass(frozen=True)
class Tensor:
    """Arena memory that one step writes; `users` are the steps that read it, in no order."""

    size: int
    maker: int
    users: tuple[int, ...]
    is_kept: bool


@dataclass(frozen=True)
class Problem:
    """Steps as numbers, what each must wait for, and the memory they make and use."""

    steps: Draft
    before: tuple[tuple[int, ...], ...]
    after: tuple[tuple[int, ...], ...]
    tensors: tuple[Tensor, ...]
    makes: tuple[tuple[int, ...], ...]
    uses: tuple[tuple[int, ...], ...]
    in_place: tuple[tuple[tuple[int, int], ...], ...]  # tensors (read, written) of each step


def problem_of(plan: FusionPlan) -> Problem:
    """Return what decides how much memory an order of the plan's steps takes."""
    found = draft("", plan, {})
    count = len(found.steps)
    kept = [found.areas[value] for value in plan.graph.outputs.values()]
    lives = Lives(found.steps, kept)
    waits: list[dict[int, None]] = [{} for _ in range(count)]
    users: dict[tuple[object, int], dict[int, None]] = {}
    for index, step in enumerate(found.steps):
        for read in step.reads:
            for leaf in lives.leaves(read.area):
                waits[index][leaf.start] = None
                users.setdefault(_key(leaf), {})[index] = None
    updating = _wait_for_readers(found, waits)
    numbers: dict[tuple[object, int], int] = {}
    tensors: list[Tensor] = []
    makes: list[list[int]] = [[] for _ in range(count)]
    for leaves in lives.by_root.values():
        for leaf in leaves:
            key = _key(leaf)
            numbers[key] = len(tensors)
            makes[leaf.start].append(len(tensors))
            size = 0 if key[0] in updating else align(leaf.access.area.nbytes)
            is_kept = leaf.last == count
            tensors.append(Tensor(size, leaf.start, tuple(users.get(key, ())), is_kept))
    uses: list[list[int]] = [[] for _ in range(count)]
    for number, tensor in enumerate(tensors):
        for user in tensor.users:
            uses[user].append(number)
    after: list[list[int]] = [[] for _ in range(count)]
    for index, earlier in enumerate(waits):
        for other in earlier:
            after[other].append(index)
    return Problem(
        found,
        tuple(map(tuple, waits)),
        tuple(map(tuple, after)),
        tuple(tensors),
        tuple(map(tuple, makes)),
        tuple(map(tuple, uses)),
        tuple(_pairs(found, index, numbers, tensors) for index in range(count)),
    )


def _key(leaf: Leaf) -> tuple[object, int]:
    return leaf.access.area.root, leaf.access.area.offset


def _pairs(
    found: Draft, index: int, numbers: dict[tuple[object, int], int], tensors: Sequence[Tensor]
) -> tuple[tuple[int, int], ...]:
    """Return the tensors that a step may read and write in one place."""
    kernel = found.steps[index].kernel
    pairs: list[tuple[int, int]] = []
    for read, output in () if kernel is None else kernel.in_place:
        source, target = found.areas[read], found.areas[output]
        old = numbers.get((source.root, source.offset))
        new = numbers.get((target.root, target.offset))
        if old is None or new is None or target.root != output:
            continue
        if tensors[old].size == tensors[new].size == align(source.nbytes):
            pairs.append((old, new))
    return tuple(pairs)


def _wait_for_readers(found: Draft, waits: list[dict[int, None]]) -> set[object]:
    """Let the maker of a state's new value wait for the readers of the old one.

    Returns the results that can take the state's own memory.
    """
    graph = found.plan.graph
    makers = {
        output: index
        for index, step in enumerate(found.steps)
        if step.kernel is not None
        for output in step.kernel.outputs
    }
    readers = _readers(found)
    results: Spans[None] = Spans()
    for value in (*graph.outputs.values(), *graph.updates.values()):
        results.add(*found.areas[value].span, None)
    updating: dict[object, bool] = {}
    late: list[tuple[Value, list[tuple[int, int]]]] = []
    for state, value in graph.updates.items():
        old = found.areas[Value(graph.input(state))]
        made = found.areas[value].root
        if not isinstance(made, Value) or made not in makers or found.areas[made].root != made:
            continue
        is_result = bool(results.find(*old.span))  # the old value itself
        edges = None if is_result else _edges(found, made, makers[made], readers.find(*old.span))
        updating[made] = updating.get(made, True) and edges is not None
        if edges is not None and any(reader > maker for reader, maker in edges):
            late.append((made, edges))
        else:
            for reader, maker in edges or ():
                waits[maker][reader] = None
    for made, edges in late:
        if updating[made] and not _makes_circle(waits, edges):
            for reader, maker in edges:
                waits[maker][reader] = None
        else:
            updating[made] = False
    return {made for made, is_possible in updating.items() if is_possible}


_Reader = tuple[int, Value | None]  # a step, and as which value it reads


def _readers(found: Draft) -> Spans[_Reader]:
    """Return who reads what."""
    readers: Spans[_Reader] = Spans()
    for index, step in enumerate(found.steps):
        for position, read in enumerate(step.reads):
            value = step.kernel.reads[position] if step.kernel else None
            readers.add(*read.area.span, (index, value))
    return readers


def _edges(
    found: Draft, made: Value, maker: int, readers: Sequence[_Reader]
) -> list[tuple[int, int]] | None:
    """Return (reader, maker) for each reader of a state, None if it can't be updated in place."""
    kernel = found.steps[maker].kernel
    pairs = kernel.in_place if kernel is not None else ()
    edges = []
    for index, value in readers:
        if index != maker:
            edges.append((index, maker))
        elif not any(read == value and written == made for read, written in pairs):
            return None
    return edges


def _makes_circle(waits: Sequence[dict[int, None]], edges: Sequence[tuple[int, int]]) -> bool:
    """Tell whether some reader depends on the maker that is to wait for it."""
    maker = edges[0][1]
    pending = [reader for reader, _ in edges]
    seen = set(pending)
    while pending:
        node = pending.pop()
        if node == maker:
            return True
        fresh = [other for other in waits[node] if other not in seen]
        seen.update(fresh)
        pending += fresh
    return False


def by_position(problem: Problem) -> list[int]:
    """Return the order as given, but for what updates of state must wait for."""
    missing = [len(before) for before in problem.before]
    ready = [node for node, count in enumerate(missing) if not count]
    heapq.heapify(ready)
    order: list[int] = []
    while ready:
        node = heapq.heappop(ready)
        order.append(node)
        for other in problem.after[node]:
            missing[other] -= 1
            if not missing[other]:
                heapq.heappush(ready, other)
    return order


def least_of(problem: Problem) -> int:
    """Return what no order can go below: the most that one step needs, or the results."""
    tensors = problem.tensors
    kept = sum(tensor.size for tensor in tensors if tensor.is_kept)
    needs = [kept]
    for index in range(len(problem.before)):
        shared = {new for _, new in problem.in_place[index]}
        made = [number for number in problem.makes[index] if number not in shared]
        needs.append(sum(tensors[number].size for number in (*made, *problem.uses[index])))
    return max(needs)


def _peak(problem: Problem, order: Sequence[int]) -> int:
    return max(_profile(problem, order), default=0)


def _profile(problem: Problem, order: Sequence[int]) -> list[int]:
    """Return the live bytes during each step of `order`."""
    tensors = problem.tensors
    left = [len(tensor.users) for tensor in tensors]
    live = 0
    profile: list[int] = []
    for node in order:
        dying = []
        for number in problem.uses[node]:
            left[number] -= 1
            if not left[number] and not tensors[number].is_kept:
                dying.append(number)
        live += sum(tensors[number].size for number in problem.makes[node])
        passed = _passed_on(problem, node, dying)
        profile.append(live - passed)
        live -= sum(tensors[number].size for number in dying)
        for number in problem.makes[node]:
            if not tensors[number].users and not tensors[number].is_kept:
                live -= tensors[number].size
    return profile


def _passed_on(problem: Problem, node: int, dying: Sequence[int]) -> int:
    """Return the bytes that a step's results take over from its dying operands."""
    total = 0
    used: set[int] = set()
    for old, new in problem.in_place[node]:
        if old in dying and old not in used and new not in used:
            used |= {old, new}
            total += problem.tensors[new].size
    return total


def _forward(problem: Problem) -> list[int]:
    """Take next the step that adds least to what is live."""
    tensors = problem.tensors
    left = [dict.fromkeys(tensor.users) for tensor in tensors]
    change = [0] * len(problem.before)
    for tensor in tensors:
        if tensor.users or tensor.is_kept:
            change[tensor.maker] += tensor.size
        if len(tensor.users) == 1 and not tensor.is_kept:
            change[tensor.users[0]] -= tensor.size

    def follow(node: int) -> list[tuple[int, int]]:
        """The last user left of a tensor will free it."""
        freeing = []
        for number in problem.uses[node]:
            del left[number][node]
            if len(left[number]) == 1 and not tensors[number].is_kept:
                freeing.append((next(iter(left[number])), -tensors[number].size))
        return freeing

    return _schedule(problem.before, problem.after, change, follow)


def _backward(problem: Problem) -> list[int]:
    """Take last, then next to last, … the step that leaves least live before it."""
    tensors = problem.tensors
    change = [0] * len(problem.before)
    for tensor in tensors:
        if tensor.users or tensor.is_kept:
            change[tensor.maker] -= tensor.size
        for user in () if tensor.is_kept else tensor.users:
            change[user] += tensor.size
    seen: set[int] = set()

    def follow(node: int) -> list[tuple[int, int]]:
        """Operands of `node` are live before it, whoever else reads them there."""
        known = []
        for number in problem.uses[node]:
            if number not in seen and not tensors[number].is_kept:
                seen.add(number)
                known += [
                    (user, -tensors[number].size) for user in tensors[number].users if user != node
                ]
        return known

    # Numbers count from the back, so that of equal steps the later one is taken first.
    last = len(change) - 1
    turned = _schedule(
        _mirror(problem.after),
        _mirror(problem.before),
        change[::-1],
        lambda node: [(last - other, delta) for other, delta in follow(last - node)],
    )
    return [last - node for node in reversed(turned)]


def _mirror(edges: Sequence[Sequence[int]]) -> list[list[int]]:
    last = len(edges) - 1
    return [[last - other for other in others] for others in reversed(edges)]


def _schedule(
    before: Sequence[Sequence[int]],
    after: Sequence[Sequence[int]],
    change: list[int],
    follow: Callable[[int], list[tuple[int, int]]],
) -> list[int]:
    """Take the ready node with the least `change`, of equal ones the first.

    `follow(node)` tells what taking a node adds to the change of others.
    """
    missing = [len(others) for others in before]
    ready = [(change[node], node) for node, count in enumerate(missing) if not count]
    heapq.heapify(ready)
    order: list[int] = []
    taken = [False] * len(missing)
    while ready:
        key, node = heapq.heappop(ready)
        if taken[node] or key != change[node]:
            continue  # an entry from before the node's change was known
        taken[node] = True
        order.append(node)
        for other, delta in follow(node):
            change[other] += delta
            if not missing[other] and not taken[other]:
                heapq.heappush(ready, (change[other], other))
        for other in after[node]:
            missing[other] -= 1
            if not missing[other]:
                heapq.heappush(ready, (change[other], other))
    return order


def _move_from_peak(problem: Problem, order: list[int]) -> list[int]:
    """Move single steps across the peak while that lowers it."""
    size = len(order) + sum(map(len, problem.uses)) + sum(map(len, problem.before))
    trials = _MOVE_WORK // max(size, 1)
    profile = _profile(problem, order)
    is_better = True
    while is_better and trials > 0:
        is_better = False
        for moved in _moves(problem, order, profile):
            trials -= 1
            tried = _profile(problem, moved)
            if _badness(tried) < _badness(profile):
                order, profile, is_better = moved, tried, True
                break
            if trials <= 0:
                break
    return order


def _badness(profile: Sequence[int]) -> tuple[int, int]:
    peak = max(profile)
    return peak, profile.count(peak)


def _moves(problem: Problem, order: Sequence[int], profile: Sequence[int]) -> Iterator[list[int]]:
    """Yield orders in which a tensor that only waits at the peak is made later or used earlier."""
    at = {node: position for position, node in enumerate(order)}
    peak = profile.index(max(profile))
    waiting = [
        tensor
        for tensor in problem.tensors
        if tensor.users
        and at[tensor.maker] < peak
        and all(at[user] != peak for user in tensor.users)
        and max(at[user] for user in tensor.users) > peak
    ]
    for tensor in sorted(waiting, key=lambda tensor: -tensor.size):
        latest = min(at[other] for other in problem.after[tensor.maker]) - 1
        if latest >= peak:
            yield _moved(order, at[tensor.maker], latest)
        users = [user for user in tensor.users if at[user] > peak]
        earliest = max((at[other] for other in problem.before[users[0]]), default=-1) + 1
        if len(users) == 1 and earliest <= peak:
            yield _moved(order, at[users[0]], earliest)


def _moved(order: Sequence[int], start: int, end: int) -> list[int]:
    moved = list(order)
    moved.insert(end, moved.pop(start))
    return moved
