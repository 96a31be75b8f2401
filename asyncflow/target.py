"""``Target``: something in the world that is there or is not; and the answer to whether it is."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextvars import copy_context
from typing import Any, ClassVar, Literal

from .bridge import Bridge, on_loop
from .errors import TaskDefinitionError
from .threads import files

__all__ = ["Answer", "Target", "ask", "check_answer", "check_answers", "guard_async"]

How = Literal["inline", "thread", "loop"]


class Answer:
    """A yes or no that has to be waited for: what ``exists()`` and ``complete()`` give.

    ``await`` it on the event loop. In a sync body (a worker thread) and in a plain script its truth value
    waits for the answer, so ``if target.exists():`` is right there. On a running loop the truth value is a
    ``TypeError``: a forgotten ``await`` never reads as "yes".
    """

    __slots__ = ("_ask", "_at_once", "_question")

    def __init__(
        self,
        question: str,
        ask: Callable[[], Awaitable[bool]],
        at_once: Callable[[], bool] | None = None,
    ) -> None:
        self._question = question
        self._ask = ask
        self._at_once = at_once  # answers without a loop, if the target can

    def __await__(self) -> Generator[Any, None, bool]:
        return self._ask().__await__()

    def __bool__(self) -> bool:
        if self._at_once is not None and not on_loop():
            return self._at_once()
        bridge = Bridge(f"{self._question} has to be awaited on the event loop: write `await {self._question}`")
        try:
            return bridge.run(self._answer())
        finally:
            bridge.close()

    async def _answer(self) -> bool:
        return await self._ask()

    def __repr__(self) -> str:
        return f"<the answer to {self._question}: await it>"


def guard_async(cls: type, name: str, own: Any = None) -> Callable[..., Any] | None:
    """Wrap ``cls``'s own ``async def name(self)`` so that a call gives an ``Answer``; return the raw one."""
    raw: Callable[..., Any] | None = own or cls.__dict__.get(name)
    if raw is None or not inspect.iscoroutinefunction(raw):
        return None

    def guarded(self: Any) -> Answer:
        return Answer(f"{type(self).__name__}.{name}()", lambda: raw(self))

    guarded.__name__, guarded.__qualname__, guarded.__doc__ = name, f"{cls.__qualname__}.{name}", raw.__doc__
    setattr(cls, name, guarded)
    return raw


class Target:
    """Something a task makes. A subclass needs ``exists`` alone, as ``def`` or as ``async def``.

    ``exists`` says whether the thing is there, whole. It must return a ``bool``, and must raise where it
    cannot know: an unknown answer is never taken for "absent". A plain ``def`` runs in a thread of its own,
    so it may block; an ``async def`` runs on the loop, and a call of it gives an ``Answer``.

    A store that answers many questions as easily as one may offer ``exists_many(targets)`` beside it, as a class
    or static method, ``def`` or ``async def``. It is asked about two or more targets of the class, and returns a
    list with one answer for each, in their order: a ``bool``, or an exception for one it cannot know.

    Targets are small values: make them hashable and picklable, and keep clients out of them.
    """

    __slots__ = ()

    _leaf: ClassVar[bool] = True  # of structures of targets

    key: str | None = None
    """Names the thing in the world (``file:///abs/path``), so that two tasks making it are found out.

    A target without a key is locked by its task.
    """

    in_process: ClassVar[bool] = False
    """Whether it is in the memory of one process, where the others cannot reach it."""

    _how: ClassVar[How] = "thread"  # where it calls it
    _many: ClassVar[Callable[[Sequence[Any]], Any] | None] = None  # the class's exists_many(), where it is to be used

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        owner = next(base for base in cls.__mro__ if "exists" in base.__dict__)
        if (owner is cls or not issubclass(owner, Target)) and "_exists" not in cls.__dict__:  # its own, or a mixin's
            exists = owner.__dict__["exists"]
            if not callable(exists):
                raise TaskDefinitionError(
                    f"{cls.__qualname__}.exists is {exists!r}; write `def exists(self) -> bool` "
                    "or `async def exists(self) -> bool`"
                )
            raw = guard_async(cls, "exists", exists)
            cls._exists = raw or exists
            cls._how = "loop" if raw else "thread"
        many = _offered(cls)
        cls._many = None if cls._how == "inline" else many  # one that need not wait is not made to

    def exists(self) -> bool | Awaitable[bool]:
        """Whether the thing is there, whole. Raises where that cannot be established."""
        raise TypeError(f"{type(self).__name__} has no exists(); write `def exists(self) -> bool`")

    _exists: ClassVar[Callable[..., Any]] = exists  # what the engine calls: exists() without the guard


def _offered(cls: type[Target]) -> Callable[[Sequence[Any]], Any] | None:
    """The ``exists_many`` that answers for ``cls``, if there is one."""
    for base in cls.__mro__:
        if "exists_many" in base.__dict__:
            offered = base.__dict__["exists_many"]
            if offered is None:  # a subclass does without
                return None
            if not isinstance(offered, (classmethod, staticmethod)) or not callable(offered.__func__):
                raise TaskDefinitionError(
                    f"{cls.__qualname__}.exists_many is {offered!r}; write `@classmethod` above "
                    "`def exists_many(cls, targets)` or `async def exists_many(cls, targets)`"
                )
            many: Callable[[Sequence[Any]], Any] = offered.__get__(None, cls)
            return many
        if "exists" in base.__dict__:
            return None  # what is offered further up knows nothing of this exists()
    return None


async def ask(target: Target) -> bool:
    """Whether ``target`` exists, asked in the way its class wants it. Raises what the target raises."""
    if target._how == "loop":
        answer = await target._exists()
    elif target._how == "inline":
        answer = target._exists()
    else:
        answer = await asyncio.get_running_loop().run_in_executor(files, copy_context().run, target._exists)
        if inspect.isawaitable(answer):
            answer = await answer
    return check_answer(target, "exists", answer)


def check_answer(owner: object, hook: str, answer: Any) -> bool:
    """``answer`` if it is a bool, else a ``TypeError`` naming the class whose ``hook`` gave it."""
    if answer is True or answer is False:
        return answer
    raise TypeError(
        f"{type(owner).__name__}.{hook}() returned {answer!r} ({type(answer).__name__}); it must return a bool"
    )


def check_answers(kind: type[Target], targets: Sequence[Target], answers: Any) -> list[bool | BaseException]:
    """What ``kind.exists_many(targets)`` gave: for each target a bool, or the exception that says why there is none.

    Raises ``TypeError`` for what is no sequence, ``ValueError`` for one that is too short or too long.
    """
    must = "it must return a list with one bool for each target"
    if not isinstance(answers, Sequence) or isinstance(answers, (str, bytes)):
        raise TypeError(f"{kind.__name__}.exists_many() returned {_what(answers)}; {must}")
    if len(answers) != len(targets):
        raise ValueError(
            f"{kind.__name__}.exists_many() gave {len(answers):,} answers to {len(targets):,} targets; {must}"
        )
    return [
        answer if answer is True or answer is False or isinstance(answer, BaseException) else _wrong(target, answer)
        for target, answer in zip(targets, answers, strict=True)
    ]


def _what(value: object) -> str:
    return "None" if value is None else f"a {type(value).__name__}"


def _wrong(target: Target, answer: object) -> TypeError:
    return TypeError(
        f"{type(target).__name__}.exists_many() answered {answer!r} ({type(answer).__name__}) for {target!r}; "
        "an answer is a bool, or an exception where it cannot be known"
    )
