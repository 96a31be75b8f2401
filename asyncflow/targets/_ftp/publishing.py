"""The one step that makes an upload visible: a rename, by whoever takes it.

Most servers rename over what is there. Those that do not (IIS, say) answer as they do where a rename is not allowed,
so the file that is there is never deleted for it: it is renamed too, and gets its name back where that was in vain.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from ...errors import TargetStateUnknown
from .connection import Connection, Reply
from .lookup import is_file, is_there, modified, size_of

__all__ = ["TEMPORARY", "Publication", "state_of"]

TEMPORARY = ".part"
"""What the names of temporaries end with."""

ASIDE = ".old"
"""What it is replaced by, for the file that was there before."""

IN_USE = (550, 553)
"""What a server may mean by it that does not rename to a name in use."""


class Publication:
    """The rename of ``temp``, which has ``size`` bytes, to ``path``, called ``key`` in errors.

    It may take several connections. A command whose answer was lost with one of them may still be carried out at any
    moment, so what has become of it is looked up, and the file that was there is never renamed twice.
    ``before_moving`` is awaited before it is renamed at all; then ``settle`` has to be called in the end.
    """

    def __init__(
        self, temp: str, path: str, key: str, size: int | None, before_moving: Callable[[], Awaitable[object]]
    ) -> None:
        self.aside = temp.removesuffix(TEMPORARY) + ASIDE
        self.moved = False
        """Whether the file that was there may be called ``aside`` now."""
        self._temp = temp
        self._path = path
        self._key = key
        self._size = size
        self._before_moving = before_moving
        self._asked = False  # the server has been told to rename the temporary
        self._done = False

    async def publish(self, connection: Connection) -> None:
        """Rename it, over what is there. Raises ``OSError``: it is not visible; where the connection was lost, it may
        be, and this may be called again with another one.
        """
        refused = await self._rename(connection, self._temp, self._path)
        if refused is not None:
            try:
                await self._refused(connection, refused)
            except TargetStateUnknown as unknown:
                raise refused.error(f"{self._key} cannot be published") from unknown
        self._done = True

    async def settle(self, connection: Connection) -> bool:
        """Remove the file that was there before, or, where nothing has been published, give it its name back.

        False where it is not called ``aside``: the command for that may have been lost, or may be on its way, and then
        it must not be removed. Raises ``OSError``, ``TargetStateUnknown``: it may still be called so.
        """
        if not self.moved:
            return True
        if not await is_there(connection, self.aside):
            return False
        # It has been renamed, and what is there now has come later.
        if self._done or await is_there(connection, self._path):
            reply = await connection.ask(f"DELE {self.aside}")
            if not reply.good and await is_there(connection, self.aside):
                raise reply.error(f"{self.aside} cannot be removed")
        else:
            refused = await self._rename(connection, self.aside, self._path)
            if refused is not None and await is_there(connection, self.aside):
                raise refused.error(f"{self.aside} cannot be renamed to {self._path}, as it was called")
        self.moved = False
        return True

    async def _refused(self, connection: Connection, refused: Reply) -> None:
        """What can be done about it. Raises ``OSError`` where that is nothing."""
        if await self._carried_out(connection):
            return
        possible = not self.moved and refused.code in IN_USE and await is_there(connection, self._temp)
        if possible and await is_file(connection, self._path):
            await self._replace(connection)
            return
        if self.moved and await is_there(connection, self._path):
            raise ConnectionResetError(
                f"{self._key} cannot be published: the connection was lost as the file that is there was to be renamed "
                f"to {self.aside}, which may not have been done yet ({refused.error('after that').args[-1]})"
            )
        raise refused.error(f"{self._key} cannot be published")

    async def _replace(self, connection: Connection) -> None:
        """Give the file that is there another name first. Where that is refused as well, nothing has happened."""
        await self._before_moving()
        self.moved = True
        if await self._rename(connection, self._path, self.aside) is not None:
            self.moved = False
        refused = await self._rename(connection, self._temp, self._path)
        if refused is not None and not await self._carried_out(connection):
            raise refused.error(f"{self._key} cannot be published")

    async def _carried_out(self, connection: Connection) -> bool:
        """Whether the temporary has been renamed although the server says no, or has said nothing: it was asked before,
        took its time, and has done it meanwhile.
        """
        if not self._asked or await is_there(connection, self._temp):
            return False
        return await size_of(connection, self._path) in (self._size, None) and await is_there(connection, self._path)

    async def _rename(self, connection: Connection, name: str, to: str) -> Reply | None:
        """None where that is done; else why not."""
        reply = await connection.ask(f"RNFR {name}")
        if reply.code == 350:
            self._asked = self._asked or name == self._temp
            reply = await connection.ask(f"RNTO {to}")
            return None if reply.good else reply
        if reply.good:
            raise reply.error(f"{self._key} cannot be published")
        return reply


async def state_of(connection: Connection, path: str) -> list[int | str | None]:
    """What can be told of the file without reading it: whether another one has come since. Raises ``OSError``."""
    return [await size_of(connection, path), await modified(connection, path)]
