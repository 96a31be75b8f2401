"""``together``: several outputs published at one moment, as far as their stores allow."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack, ExitStack
from typing import Any

from .. import healing, journal
from ..attempt import Attempt, current
from ..shield import finish
from ._hops import in_thread
from ._remote_writing import RemoteWriting
from ._writing import Writing

__all__ = ["together"]


class together:
    """Publish several outputs, or none: ``async with together(one.open("w"), two.open("wb")) as (first, second):``.

    When the block ends normally all of them are stored, complete and checked, before the first is published; then
    they are, one right after the other, and no cancel comes between. If the process is killed in that moment, the
    next one that builds does the rest before it looks at what is there: no body runs again for it. When the block does
    not end normally, or one of them cannot be stored, none is published.

    In a sync body ``with``. Raises what the handles raise. An error between the first publish and the last (a rename
    that is refused) does not undo the first. Raises ``TypeError`` for what is no block that writes, ``ValueError`` for
    two of one target.
    """

    def __init__(self, *blocks: Any) -> None:
        keys = set()
        for block in blocks:
            if not isinstance(block, (Writing, RemoteWriting)):
                raise TypeError(f'together({block!r}): expected what open("w") or open("wb") of a target gives')
            if block.key in keys:
                raise ValueError(f"together: {block.key} is given twice, and can only have one content")
            keys.add(block.key)
        self._blocks = blocks
        self._handles: list[Any] = []

    async def __aenter__(self) -> Sequence[Any]:
        self._begin()
        async with AsyncExitStack() as opened:
            for block in self._blocks:
                self._handles.append(await opened.enter_async_context(block))
            opened.pop_all()  # what comes of them is decided in one place
        return tuple(self._handles)

    async def __aexit__(self, kind: type[BaseException] | None, *raised: object) -> None:
        try:
            if kind is None:
                steps = [await handle.prepare() for handle in self._handles]
                await finish(self._publish(steps))
        finally:
            await finish(self._close())

    async def _close(self) -> None:
        for handle in self._handles:
            await handle.close()

    async def _publish(self, steps: list[Any]) -> None:
        attempt = current.get()
        with _Group(attempt) as group:
            if place := _place(steps):
                await in_thread(journal.note, healing.TOGETHER, place)
            for handle in self._handles:
                try:
                    await handle.publish()
                except Exception as error:
                    group.failed(error)
            if place:
                await in_thread(journal.done, healing.TOGETHER, place)

    def _begin(self) -> None:
        if self._handles:
            raise RuntimeError("this block has been entered before: call together(...) again")

    def __enter__(self) -> Sequence[Any]:
        self._begin()
        with ExitStack() as opened:
            for block in self._blocks:
                self._handles.append(opened.enter_context(block))
            opened.pop_all()
        return tuple(self._handles)

    def __exit__(self, kind: type[BaseException] | None, *raised: object) -> None:
        try:
            if kind is None:
                steps = [handle.prepare() for handle in self._handles]
                with _Group(current.get()) as group:
                    if place := _place(steps):
                        journal.note(healing.TOGETHER, place)
                    for handle in self._handles:
                        try:
                            handle.publish()
                        except BaseException as error:  # Ctrl-C, too, comes after the last of them
                            group.failed(error)
                    if place:
                        journal.done(healing.TOGETHER, place)
        finally:
            for handle in self._handles:
                handle.close()


def _place(steps: list[Any]) -> str:
    """What another process has to do if this one is killed now; nothing where it could not do all of it."""
    if len(steps) < 2 or None in steps:
        return ""
    import json

    return json.dumps(steps)


class _Group:
    """The publishes of one attempt as one: a fence comes before the first of them, or after the last."""

    def __init__(self, attempt: Attempt | None) -> None:
        self._attempt = attempt
        self._errors: list[BaseException] = []

    def failed(self, error: BaseException) -> None:
        """One was refused: the others are published all the same, and then it is raised."""
        self._errors.append(error)

    def __enter__(self) -> _Group:
        if self._attempt is not None:
            self._attempt.begin_together()
        return self

    def __exit__(self, kind: type[BaseException] | None, *raised: object) -> None:
        if self._attempt is not None:
            self._attempt.end_together()
        if kind is None and self._errors:
            first, *others = self._errors
            for other in others:
                first.add_note(f"and also: {other}")
            raise first
