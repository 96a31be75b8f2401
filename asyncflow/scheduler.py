"""The brain: what every task somebody wants is waiting for, and what is to be done next.

It is told facts (wanted, found complete, found missing, finished, failed, cancelled) and answers with
instructions, which the executor collects:

* ``checks``: is this node complete? Answered by ``complete``, ``missing``, ``absent`` or ``unknown``.
* ``verify()``: walk the plans that have become whole.
* ``next()``: start this node's body, or answer this demand of a suspended one.
* ``delivered``: demands to answer at once, since their body is not waiting for a place.
* ``cancels``: nodes whose body has to stop; answered by one of the facts about its end.
* ``rests``: nodes whose attempt has failed and that get another after their delay; answered by ``again``.
* ``settled``: the demands of builds that have got all they will get.
* ``finals``: nodes that have just got their final status, where somebody listens.

No ``await``, no I/O and no clock in here, so it can be driven by a test, step by step.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from . import graph
from ._options import DEFAULTS, wrong_option
from .cycles import above, find_cycles, tasks_of
from .errors import CycleError, PlanError
from .followers import Followers
from .graph import (
    BLOCKED,
    BYPASSED,
    CANCELLED,
    CANCELLING,
    COMPLETE,
    DELIVERED,
    EXCLUDED,
    EXPANDING,
    FAILED,
    FINAL,
    GOING,
    INPUT_RAN,
    LEFT,
    LOCKING,
    MISSING,
    NEW,
    NONE,
    PLANNING,
    RESTING,
    RETRYING,
    RUNNING,
    SETTLED,
    SUCCEEDED,
    SUSPENDED,
    THERE,
    UNKNOWN,
    VERIFIED,
    WAITING,
    WRAPPER,
    Build,
    Demand,
    Node,
)
from .holds import impossible, stuck
from .hub import Hub
from .leaving import Leaving
from .places import Places
from .ranks import raise_priority, rank
from .sharing import Sharing

if TYPE_CHECKING:
    from ._task import Task

__all__ = ["Scheduler"]

_NO_TIMES = (0.0, 0.0)  # of a node that has not been started


class Scheduler:
    """The state of all tasks somebody wants, in one event loop; ``sharing`` speaks for it with those of others.

    ``post(call, *args)`` makes a call in this scheduler's loop, from any thread; ``gone()`` says whether that
    loop will never run again.
    """

    def __init__(
        self, hub: Hub, post: Callable[..., object] = lambda call, *args: call(*args), gone: Callable[[], bool] = bool
    ) -> None:
        self.nodes: dict[Task, Node] = {}
        self.checks: deque[Node] = deque()
        self.delivered: deque[Demand] = deque()
        self.cancels: deque[Node] = deque()
        self.settled: deque[Demand] = deque()
        self.finals: deque[Node] = deque()
        self.rests: deque[Node] = deque()
        self.sharing = Sharing(self, hub, post, gone)
        self.followers = Followers()
        self._places = Places(self.sharing.may_run)
        self._leaving = Leaving(self.sharing, self._places, self.forget)
        self._unverified: deque[Demand] = deque()
        self._successors: dict[Node, Node] = {}  # wanted again while the old body is being stopped
        self._stopping = 0  # bodies that are being stopped

    # Wanting -----------------------------------------------------------------------------------------

    def open(self, build: Build) -> Demand:
        """Take a build in; name its roots with ``want``, then call ``asked``."""
        self.adopt(build)
        build.root = Demand(build)
        return build.root

    def adopt(self, build: Build) -> None:
        """Take a build in whose demand is there already."""
        build.home = self
        self._places.adopt(build)

    @property
    def builds(self) -> dict[Build, None]:
        """The builds that have not been closed."""
        return self._places.builds

    def next(self) -> Node | Demand | None:
        """The next thing there is a place for: a node to start, or a demand to answer. It has its place."""
        if self._leaving.orphans:
            self._leaving.hand_over()
        step = self._places.next()
        if step is None and self.sharing.told:
            self.sharing.told = False
            step = self._places.next()  # a body that was told of a ring goes on, in a build passed over already
        while step is None and self._places.holding and self._break_hold():
            step = self._places.next()
        return step

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do but what ``next`` gives."""
        return not (
            self.checks or self.delivered or self.cancels or self.settled or self.finals or self.rests
        ) and not (self._unverified or self._leaving.orphans or self._places.rated)

    @property
    def queued(self) -> bool:
        """Whether something may wait for a place."""
        return self._places.queued

    def suspend(self, node: Node) -> Demand:
        """The body of ``node`` waits for more tasks: name them with ``want``, then call ``asked``.

        It gives its place back with the first outstanding demand, and takes one again after the last.
        """
        demand = Demand(node.build, node)
        if node.children is NONE:
            node.children = []
        node.children.append(demand)
        node.outstanding += 1
        if node.state == RUNNING:
            self._places.give_back(node, suspended=True)
            node.state = SUSPENDED
        return demand

    def want(self, demand: Demand, task: Task) -> None:
        """``task`` is one of the roots of ``demand``."""
        node = self._node(task, demand, demand.build)
        node.wanted += 1
        demand.roots.append(node)
        if self.followers.of and demand.parent is not None:
            self.followers.inherit(demand.parent, node)
        if node.state < FINAL:
            demand.remaining += 1
            if node.roots_of is NONE:
                node.roots_of = {}
            node.roots_of[demand] = node.roots_of.get(demand, 0) + 1

    def asked(self, demand: Demand) -> None:
        """Every root of ``demand`` has been named."""
        self._planned(demand)

    def _node(self, task: Task, demand: Demand, build: Build) -> Node:
        table = self.nodes if build.table is None else build.table
        node = table.get(task)
        old = None
        if node is not None:
            if node.state < FINAL and node.flags & CANCELLING:
                old, node = node, self._successors.get(node)
            if node is not None and (
                node.state < FINAL
                or (node.state != CANCELLED and (node.build is build or node in build.joined))
                or (node.state == SUCCEEDED and node.output is None)  # its value is all there is of it
            ):
                if node.build is not build:
                    build.joined.add(node)
                    if build.listening:
                        self.followers.add(build, node)
                return node
        node = Node(task, demand, build, self.sharing.hub.now)
        build.nodes.append(node)
        build.times.extend(_NO_TIMES)
        demand.unplanned += 1
        demand.fresh.append(node)
        if old is None:
            table[task] = node
            self.checks.append(node)
        else:
            self._successors[old] = node  # looked at when the old body has ended
        return node

    # Planning: the answers to a check ----------------------------------------------------------------

    def complete(self, node: Node) -> None:
        """The task's output is there."""
        self._found(node, COMPLETE if node.state == NEW else graph.ADOPTED)

    def absent(self, node: Node) -> None:
        """The task is external, and its output is not there."""
        self._found(node, MISSING)

    def unknown(self, node: Node, error: BaseException) -> None:
        """Whether the task is complete cannot be established, because of ``error``."""
        node.error = error
        self._found(node, UNKNOWN)

    def invalid(self, node: Node, problem: BaseException) -> None:
        """The task cannot be planned: its ``requires`` or ``output`` is wrong."""
        if node.state < FINAL:
            node.demand.problems.append((node, problem))
            node.state = WAITING
            self._planned(node.demand)

    def _found(self, node: Node, state: int) -> None:
        if node.state in (NEW, LOCKING):  # else it was dropped meanwhile, or has been answered
            planning = node.state == NEW
            self._finish(node, state)
            if planning:
                self._planned(node.demand)

    def missing(self, node: Node) -> None:
        """The output is not there: name the dependencies with ``depend``, then call ``expanded``."""
        if node.state == LOCKING:  # it was locked out, and looked again
            self._places.queue(node, first=True)
        if node.state != NEW:
            return
        node.state = EXPANDING
        if node.options is not DEFAULTS:
            node.priority = node.options.priority if node.priority <= 0 else max(node.priority, node.options.priority)
            runs = node.options.pooled and not node.build.dry and not node.flags & (EXCLUDED | WRAPPER)
            if runs and (problem := impossible(node)) is not None:
                node.demand.problems.append((node, problem))
        if node.keys:
            for other in self.sharing.hub.claim(node):
                if other.build is node.build and other.task != node.task and not other.flags & CANCELLING:
                    both = f"{other.task!r} and {node.task!r} would both make {node.output!r}"
                    problem = PlanError(f"{both}; give each task a target of its own")
                    node.demand.problems.append((node, problem))
                    break

    def depend(self, node: Node, task: Task) -> bool:
        """``node`` requires ``task``. False when nobody wants ``node`` any more: stop naming."""
        if node.state != EXPANDING:
            return False
        dep = self._node(task, node.demand, node.build)
        dep.wanted += 1
        if node.deps is NONE:
            node.deps = []
        node.deps.append(dep)
        if self.followers.of:
            self.followers.inherit(node, dep)
        if dep.state < FINAL:
            node.waiting += 1
            if dep.dependents is NONE:
                dep.dependents = []
            dep.dependents.append(node)
        else:
            _count(node, dep)
        return True

    def expanded(self, node: Node) -> None:
        """Every dependency of ``node`` has been named."""
        if node.state == EXPANDING:
            node.state = WAITING
            self._planned(node.demand)

    def _planned(self, demand: Demand) -> None:
        demand.unplanned -= 1
        if not demand.unplanned:
            self._unverified.append(demand)

    def verify(self) -> Iterator[None]:
        """Check the plans that are whole and let their nodes run; pauses at each ``yield``."""
        while self._unverified:
            yield from self.followers.spread()
            demand = self._unverified[0]
            found: list[list[Node]] = []
            order: list[Node] = []
            yield from find_cycles(demand, found, order, self.sharing.hub)
            yield from rank(order, self._places.queue)
            self._unverified.popleft()
            demand.problems += [
                (None if path[0] is demand.parent else path[0], CycleError(tasks_of(path))) for path in found
            ]
            self._release(demand)
            yield

    @property
    def unverified(self) -> bool:
        """Whether a plan waits for ``verify``."""
        return bool(self._unverified)

    @property
    def rated(self) -> bool:
        """Whether starts are counted by the clock, so that ``tick`` has to be called in every turn."""
        return self._places.rated

    def tick(self, now: float) -> None:
        """It is ``now`` (seconds, by any clock): rates may have units again."""
        self._places.tick(now)

    def due(self) -> float | None:
        """The next time that is worth a ``tick``; None if nobody waits for one."""
        return self._places.due()

    def _release(self, demand: Demand) -> None:
        if demand.state == PLANNING:
            demand.state = GOING
            if demand.problems or demand.build.dry:
                self._settle(demand)
            if demand.problems:
                self._leaving.unwant(demand)  # nothing of it is executed, unless another demand wants it too
        if demand.parent is not None:
            for root in demand.roots:
                raise_priority(root, demand.parent.priority, self._places.queue)
        for node, problem in demand.problems:
            if node is not None and node.state < FINAL:
                node.error = problem
                self._finish(node, FAILED)
                if node.waiting:
                    self._leaving.let_go(node)
        fresh, demand.fresh = demand.fresh, []
        if demand.build.dry:
            return
        for node in fresh:
            node.flags |= VERIFIED
            if node.state == WAITING and not node.waiting and (state := self._start_or_end(node)):
                self._finish(node, state)
        if demand.state == GOING and not demand.remaining:
            self._settle(demand)

    def _start_or_end(self, node: Node) -> int:
        """Nothing ``node`` waits for is left: the final state it has without running; 0 if it is to run."""
        if node.flags & EXCLUDED:
            return COMPLETE if node.flags & BYPASSED else MISSING  # whatever it requires: it would not be run
        if node.cause is not None:
            return BLOCKED
        if node.flags & WRAPPER and not node.flags & INPUT_RAN:
            return COMPLETE
        self._places.queue(node)
        return 0

    def answer(self, demand: Demand) -> None:
        """The body that waits for ``demand`` gets its problems, and goes on; nothing more is done for it."""
        self._settle(demand)
        self._leaving.unwant(demand)

    def look_again(self, node: Node) -> None:
        """Has somebody else made what ``node``, which is LOCKING, would make?"""
        self.checks.append(node)

    def share(self, node: Node, state: int) -> None:
        """``node``, which was LOCKING, has its end: what came of the flight it has joined."""
        if state == BLOCKED:  # by something that failed there
            self._alarm(node)
        waiting = node.waiting
        self._finish(node, state)
        if waiting:
            self._leaving.let_go(node)

    # Ends --------------------------------------------------------------------------------------------

    def succeeded(self, node: Node, value: Any, *, adopted: bool = False) -> None:
        """The body ended, and the outputs are there; ``adopted``: somebody else has made them."""
        node.value = value
        node.error = None
        self._ended(node, graph.ADOPTED if adopted else SUCCEEDED)

    def failed(self, node: Node, error: BaseException) -> None:
        """The body raised ``error``, or did not make its output."""
        node.error = error
        if self._may_retry(node, error):
            self._drop_children(node)
            if node.state == RUNNING:
                self._places.give_back(node)
            else:
                self._places.forgo(node)
            times = node.build.times[2 * node.index : 2 * node.index + 2]
            node.build.failures.setdefault(node, []).append((times[0], times[1], error))
            node.state = SUSPENDED  # it keeps its claims: to others it is the same flight
            node.flags |= RESTING
            self.rests.append(node)
        else:
            self._ended(node, FAILED)

    def _may_retry(self, node: Node, error: BaseException) -> bool:
        retries = node.build.retries if node.options.retries is None else node.options.retries
        if not retries or node.flags & CANCELLING or len(node.build.failures.get(node, ())) >= retries:
            return False
        try:
            return node.options.retries_on(error)
        except BaseException as wrong:
            node.error = wrong_option(node.task, "retry_on", wrong)
            return False

    def hopeless(self, node: Node, error: BaseException) -> None:
        """``node`` was to be tried again, but nothing says when."""
        if node.flags & RESTING and not node.flags & CANCELLING:
            node.flags &= ~RESTING
            node.error = error
            self._ended(node, FAILED)

    def again(self, node: Node) -> None:
        """The delay of ``node`` is over: another attempt, as soon as there is a place for it."""
        if node.flags & RESTING and not node.flags & CANCELLING:
            node.flags = (node.flags & ~RESTING) | RETRYING
            self._places.queue_retry(node)

    def blocked(self, node: Node, error: BaseException) -> None:
        """The body ended with the failure of a task it waited for."""
        node.error = error
        self._ended(node, BLOCKED)

    def cancelled(self, node: Node) -> None:
        """The body has been stopped, or given up on."""
        self._ended(node, CANCELLED)

    def _ended(self, node: Node, state: int) -> None:
        if node.state == RUNNING:
            self._places.give_back(node)
        if node.children:
            self._drop_children(node)
        if not node.flags & CANCELLING:
            self._finish(node, state)
        else:
            self._finish(node, CANCELLED)
            self._stopping -= 1
            successor = self._successors.pop(node, None)
            self._remove(node)
            if successor is not None and successor.state < FINAL:
                self._table(successor)[node.task] = successor
                successor.met = self.sharing.hub.now
                self.checks.append(successor)

    def _drop_children(self, node: Node) -> None:
        """The body has ended: what it had left waiting is not waited for any more."""
        node.outstanding = 0
        for demand in node.children:
            if demand.state < DELIVERED:
                demand.state = LEFT
                self._leaving.unwant(demand)

    def _table(self, node: Node) -> dict[Task, Node]:
        return self.nodes if node.build.table is None else node.build.table

    def _remove(self, node: Node) -> None:
        table = self._table(node)
        if table.get(node.task) is node:
            del table[node.task]

    def _finish(self, node: Node, state: int) -> None:
        """Give ``node`` its final ``state`` and pass the news on, as far as it goes, without recursion."""
        stack = [(node, state)]
        while stack:
            node, state = stack.pop()
            was_at_work = RUNNING <= node.state <= SUSPENDED
            node.state = state
            if node.options.pooled:
                self._places.forgo(node)
            if node.holder is not None:
                self.sharing.leave(node)
            if node.keys:
                self.sharing.end(node, was_at_work)
                node.keys = NONE
            build = node.build
            if build.listening or node in self.followers.of:
                self.finals.append(node)
            if state in (FAILED, MISSING, UNKNOWN):
                self._alarm(node)
            dependents, node.dependents = node.dependents, NONE
            for other in dependents:
                other.waiting -= 1
                if state == SUCCEEDED:
                    other.flags |= INPUT_RAN
                else:
                    _count(other, node)
                if not other.waiting and other.state == WAITING and other.flags & VERIFIED:
                    final = self._start_or_end(other)
                    if final:
                        stack.append((other, final))
            if not node.roots_of:
                continue
            demands, node.roots_of = node.roots_of, NONE
            for demand, times in demands.items():
                demand.remaining -= times
                if not demand.remaining and demand.state == GOING:
                    self._settle(demand)

    def _alarm(self, node: Node) -> None:
        """``node`` went wrong: the ``fail_fast`` builds that want it start nothing more, and get what they have."""
        if not any(build.fail_fast for build in self.builds):
            return
        # Whoever pays for it: a build may share what another has begun.
        for other in (node, *above(node)):
            for demand in other.roots_of:
                if demand.parent is None and demand.build.fail_fast:
                    demand.build.fail_fast = False
                    demand.build.stopped = True
                    if demand.state < SETTLED:
                        self._settle(demand)

    def _break_hold(self) -> bool:
        """Nothing can run. If that is because bodies hold on to what others need, something is done about it."""
        for build in self._places.idle():
            if self._places.overtake(build):
                return True
            nodes = stuck(self.builds)
            found = self._places.waiting(build, nodes) if nodes else None
            if found is None:
                continue
            item, node, pool = found
            holder = next((other for other in above(node) if other in pool.held), None)
            waits = "it" if holder is not None else "what cannot run either"
            holder = holder or next((other for other in pool.held if other is not node), node)
            error = PlanError(
                f"{node.task!r} needs {node.options.resources[pool.name]} of the resource {pool.name!r}, which "
                f"{holder.task!r} holds while it waits for {waits}: take {pool.name!r} out of its `hold`"
            )
            if isinstance(item, Demand):  # its body is told where it waits, and goes on without
                item.problems.append((None, error))
                self._places.let_go_on(item, node)
            else:
                node.error = error
                self._ended(node, FAILED)
            return True
        return False

    def _settle(self, demand: Demand) -> None:
        demand.state = SETTLED
        node = demand.parent
        if node is None:
            self.settled.append(demand)
        elif node.outstanding > 1:
            self._places.deliver(demand)  # the body goes on waiting for something else: it needs no place yet
            self.delivered.append(demand)
        else:
            self._places.queue_answer(demand, node)

    # Leaving -----------------------------------------------------------------------------------------

    def leave(self, demand: Demand) -> None:
        """A body stops waiting for ``demand``; it goes on at once, place or not."""
        if demand.state >= DELIVERED:
            return
        demand.state = LEFT
        node = demand.parent
        assert node is not None
        if node.state == SUSPENDED:
            node.outstanding -= 1
            self._places.withdraw(demand)
            if not node.outstanding:
                self._places.take(node)
        self._leaving.unwant(demand)

    def close(self, demand: Demand) -> None:
        """A build has got what it will get, or leaves: drop its demand. What only it wanted is cancelled."""
        build = demand.build
        if build.closed:
            return
        build.closed = True
        self._places.dismiss(build)
        whole = demand.state == SETTLED and not demand.problems and not build.stopped
        if whole and not self.builds and not self._stopping:
            # The last one out, and every node has its end: no need to go from node to node.
            self.nodes.clear()
            if build.table is not None:
                build.table.clear()
            self._leaving.orphans.clear()
            self.followers.clear()
            build.root = build.table = None
            return
        demand.state = LEFT
        self._leaving.unwant(demand)
        self._leaving.orphan(build)

    def bury(self) -> None:
        """This scheduler's loop is gone: what its nodes claim is free, and those who wait for them are told."""
        for build in self.builds:
            for node in build.nodes:
                if node.state < FINAL:
                    self.sharing.bury(node)

    def forget(self, node: Node) -> None:
        """Nobody wants ``node`` any more."""
        if node.state in (RUNNING, SUSPENDED):
            node.flags |= CANCELLING
            self._stopping += 1
            self.cancels.append(node)
            return  # it stays in the table until its body has ended
        if node.state < FINAL:
            planning = node.state in (NEW, EXPANDING)
            self._finish(node, CANCELLED)
            if planning:
                self._planned(node.demand)
        self._remove(node)


def _count(node: Node, dep: Node) -> None:
    """``dep``, which ``node`` requires, has its final state."""
    if dep.state > THERE:
        if node.cause is None:
            node.cause = dep
    elif dep.state == SUCCEEDED:
        node.flags |= INPUT_RAN
