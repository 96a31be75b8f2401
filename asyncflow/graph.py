"""The scheduler's records: nodes, the demands on them, and the builds that pay for them."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any, cast

from ._options import DEFAULTS, Options
from .events import FinalStatus, Status
from .queues import Pool, Queue

if TYPE_CHECKING:
    from ._task import Task
    from .attempt import Attempt

__all__ = ["Budget", "Build", "Demand", "Node", "status"]

# States of a node, in the order it goes through them; everything from SUCCEEDED on is final.
NEW, EXPANDING, WAITING, READY, LOCKING, RUNNING, SUSPENDED = range(7)
SUCCEEDED, COMPLETE, ADOPTED, FAILED, BLOCKED, MISSING, UNKNOWN, CANCELLED = range(7, 15)
FINAL = SUCCEEDED
THERE = ADOPTED  # the last of the final states in which the task's output is there

_STATUS: tuple[Status, ...] = (
    *("pending", "pending", "pending", "ready", "locking", "running", "suspended"),
    *("succeeded", "complete", "adopted", "failed", "blocked", "missing", "unknown", "cancelled"),
)

# Flags of a node.
VERIFIED = 1  # on no cycle, its graph whole: may run
ON_PATH = 2  # on the path the cycle check is walking
INPUT_RAN = 4  # one of its dependencies ran in this build
CANCELLING = 8  # nobody wants it any more, its body is being stopped
WRAPPER = 16  # is complete when its dependencies are
FORCED = 32  # runs also if it is complete
RESTING = 64  # its last attempt has failed, and the time for another has not come
RETRYING = 128  # that time has come: it waits for a place
EXCLUDED = 256  # not to be run by this build
BYPASSED = 512  # that, and forced: it is complete, and what it requires is looked at all the same
UNCONFIRMED = 1024  # its body has ended well, and the look for its outputs has failed: another attempt looks first

# States of a demand.
PLANNING, GOING, SETTLED, DELIVERED, LEFT = range(5)

NONE: Any = ()  # shared by all nodes that have none of something: a list each would cost 56 bytes


def status(state: int) -> Status:
    """The public word for a node's state."""
    return _STATUS[state]


def final_status(state: int) -> FinalStatus:
    """The public word for a final state."""
    return cast(FinalStatus, _STATUS[state])


class Budget:
    """What may be in use at once: places, and units of pools. One build's, or that of all builds of a flow.

    ``lanes`` are the places for bodies of each kind: the loop's, the threads', the processes'.
    """

    __slots__ = ("__weakref__", "concurrency", "lanes", "pools", "rates", "running", "seated", "shared", "table")

    def __init__(
        self,
        concurrency: int,
        lanes: tuple[int, ...],
        pools: dict[str, Pool] | None = None,
        rates: dict[str, Pool] | None = None,
    ) -> None:
        self.concurrency = concurrency
        self.lanes = lanes
        self.running = 0
        self.seated = [0] * len(lanes)  # of those, in each lane
        self.pools = {} if pools is None else pools  # resources
        self.rates = {} if rates is None else rates
        self.shared = False  # it is a flow's, and outlives builds
        # Plans for those who share it. None: the scheduler's, for all whose limits are the usual ones.
        self.table: dict[Task, Node] | None = {} if pools or rates else None

    def pool(self, name: str) -> Pool:
        """The resource called ``name``. One that nobody has given a capacity has a single unit, as in Luigi."""
        pool = self.pools.get(name)
        if pool is None:
            pool = self.pools[name] = Pool(name, 1)
        return pool


class Build:
    """The account of one ``build()``: what it may use, what waits for that, and the books of what ran."""

    __slots__ = (
        *("budget", "closed", "dry", "fail_fast", "failures", "guest", "home", "joined", "listening"),
        *("nodes", "owner", "queues", "retries", "root", "stopped", "table", "times"),
    )

    def __init__(self, budget: Budget, *, dry: bool = False) -> None:
        self.budget = budget
        self.queues = tuple(Queue() for _ in budget.lanes)  # of each lane: nodes to start, demands to answer
        self.retries = 0  # of a task that does not say
        self.fail_fast = False
        self.stopped = False  # by its first failure: starts nothing more
        self.nodes: list[Node] = []  # made for this build, in the order they were met
        self.times = array("d")  # seconds: started and finished, two entries a node
        self.failures: dict[
            Node, list[tuple[float, float, BaseException]]
        ] = {}  # of attempts that were followed by more
        self.table = budget.table  # or one of its own, where other things are complete for it, or may run
        self.joined: set[Node] = set()  # nodes it has asked for that were made for another build
        self.dry = dry  # plan only: never release anything
        self.listening = False  # somebody wants to hear of every final status
        self.closed = False
        self.guest = False  # goes on for builds of other loops, when its own has left
        self.home: Any = None  # the scheduler it belongs to
        self.root: Demand | None = None  # its own demand
        self.owner: Any = None  # the executor's own record


class Demand:
    """Somebody wants the tasks in ``roots``: a build, or (with a parent) a body that waits for them.

    While it plans, ``unplanned`` counts the nodes met through it whose dependencies are not known yet, one
    more until every root has been named, and ``fresh`` holds all nodes met through it.
    """

    __slots__ = ("build", "depth", "fresh", "parent", "problems", "remaining", "reply", "roots", "state", "unplanned")

    def __init__(self, build: Build, parent: Node | None = None) -> None:
        self.build = build
        self.parent = parent
        self.depth: int = 0 if parent is None else parent.demand.depth + 1  # bodies that wait for it, one in another
        self.roots: list[Node] = []
        self.state = PLANNING
        self.unplanned = 1
        self.remaining = 0  # roots without a final state
        self.fresh: list[Node] = []
        self.problems: list[tuple[Node | None, BaseException]] = []
        self.reply: Callable[[Demand], object] | None = None  # how its body gets the answer


class Node:
    """One task somebody wants, and what is known of it."""

    __slots__ = (
        *("task", "state", "flags", "build", "index", "demand", "met"),
        *("deps", "dependents", "waiting", "wanted", "roots_of", "children", "outstanding"),
        *("structure", "output", "keys", "holder", "lane", "reason", "value", "error", "cause", "attempt"),
        *("options", "priority", "rank"),
    )

    def __init__(self, task: Task, demand: Demand, build: Build, met: int = 0) -> None:
        self.task = task
        self.state = NEW
        self.flags = 0
        self.demand = demand  # the one whose planning met it
        self.build = build  # whose places it takes
        self.index = len(build.nodes)
        self.met = met  # when, by the hub's clock; it is looked at after that
        self.deps: list[Node] = NONE  # static dependencies
        self.dependents: list[Node] = NONE  # nodes that wait for it statically
        self.waiting = 0  # static dependencies without a final state
        self.wanted = 0  # demands it is a root of, and wanted nodes that depend on it
        self.roots_of: dict[Demand, int] = NONE  # demands that wait for it, and how often each has named it
        self.children: list[Demand] = NONE  # what its body asked for
        self.outstanding = 0  # engine awaits of its body that have not been answered
        self.structure: Any = None  # what requires() gave
        self.output: Any = None  # what output() gave, frozen; None: a computed task
        self.keys: tuple[Hashable, ...] = NONE  # what it claims: the keys of its targets, or its task
        self.holder: Node | None = None  # the node it waits for while it is LOCKING
        self.lane = 0
        self.reason: str | None = None
        self.value: Any = None
        self.error: BaseException | None = None
        self.cause: Node | None = None  # the dependency that blocks it
        self.attempt: Attempt | None = None
        self.options: Options = DEFAULTS
        self.priority = 0.0  # its own, or that of something that waits for it
        self.rank = 0  # the longest way from it to a root of its plan

    def __repr__(self) -> str:
        return f"<{self.task!r} {_STATUS[self.state]}>"
