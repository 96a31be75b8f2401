"""What a parameter is: how its value is written, read and checked, and who may see it."""

from __future__ import annotations

import copy
import itertools
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final, Generic, TypedDict, cast, overload

from ..errors import TaskDefinitionError

if TYPE_CHECKING:
    from typing import Self

    from typing_extensions import TypeVar

    # The default makes a bare ``name = Parameter()`` a string to type checkers, as it is at run time.
    T = TypeVar("T", default=str)
else:
    from typing import TypeVar

    T = TypeVar("T")

__all__ = ["MISSING", "Parameter", "ParameterOptions", "Visibility"]


class Missing:
    """The type of :data:`MISSING`."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "MISSING"

    def __reduce__(self) -> str:
        return "MISSING"  # pickled and copied by name: there is only one


MISSING: Final[Any] = Missing()
"""Stands for "no value": a parameter whose ``default`` is this must be given."""


class Visibility(IntEnum):
    """Who may see a parameter's value. The numbers are Luigi's ``ParameterVisibility``."""

    PUBLIC = 0
    """Shown everywhere, and part of the task's id if significant."""
    HIDDEN = 1
    """Never shown to people (messages, page) and not part of the id."""
    PRIVATE = 2
    """Never leaves the process in any form."""


class ParameterOptions(TypedDict, total=False):
    """The keyword arguments every :class:`Parameter` takes besides ``default``; meanings there."""

    significant: bool
    help: str | None
    description: str | None
    positional: bool
    visibility: Visibility | int
    env: str | None
    compat_default: Any


_creation_counter = itertools.count()


class Parameter(Generic[T]):
    """One constructor argument of a task; this base class takes any string.

    A kind of one's own is a subclass that overrides :meth:`parse` and :meth:`serialize`, and
    :meth:`normalize` where constructor arguments need a check. On a task class the attribute is this
    object, on a task instance it is the value.
    """

    expected: str = "a string"
    """What a good value looks like; ends the sentence "expected ..." in error messages."""

    exact: type | None = str
    """Values of exactly this type need no :meth:`normalize`; None: every value goes through it."""

    native: bool = True
    """Whether a value stands for itself inside JSON; otherwise :meth:`serialize` writes it as a string."""

    volatile: bool = False
    """Whether :meth:`normalize` looks at the outside world, so that a default is checked at each use."""

    by_text: bool = False
    """Whether tasks are compared by this value's text. For kinds whose values can be equal in Python and yet
    have different text (``[1]``, ``[1.0]`` and ``[True]``), or cannot be hashed."""

    name: str = "?"
    """The attribute's name in the task class; set when the class is created."""

    def __init__(
        self,
        default: T = MISSING,
        *,
        significant: bool = True,
        help: str | None = None,
        description: str | None = None,
        positional: bool = True,
        visibility: Visibility | int = Visibility.PUBLIC,
        env: str | None = None,
        compat_default: Any = MISSING,
    ) -> None:
        """Declare a parameter.

        Args:
            default: the value when none is given; checked when the task class is created.
            significant: whether two tasks that differ in this value are different tasks.
            help: one sentence for the command line and the page (``description`` in Luigi).
            description: Luigi's word for ``help``.
            positional: whether the value may be given by position.
            visibility: who may see the value; a member of :class:`Visibility` or its number.
            env: name of an environment variable that supplies the default.
            compat_default: while the parameter has this value, a task's id leaves it out, so that adding
                the parameter to an existing task keeps the ids of its past runs.

        Raises:
            TaskDefinitionError: ``visibility`` or ``env`` is not usable.
        """
        self.default: T = default
        self.significant = significant
        self.help = help if help is not None else description
        self.positional = positional
        self.env = env
        self.compat_default = compat_default
        self.counter = next(_creation_counter)
        """Position among all parameters created in this process; Luigi orders by it."""
        try:
            self.visibility = Visibility(visibility)
        except ValueError:
            raise TaskDefinitionError(
                f"visibility={visibility!r}: expected Visibility.PUBLIC, HIDDEN or PRIVATE"
            ) from None
        if env is not None and (not isinstance(env, str) or not env or "=" in env):
            raise TaskDefinitionError(f"env={env!r}: expected the name of an environment variable")

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        own = vars(cls)
        # A shortcut holds for the methods it was stated for: a subclass that brings its own methods and
        # says nothing about the shortcut must not be bypassed by the one it inherits.
        if "exact" not in own and ("normalize" in own or "parse" in own):
            cls.exact = None
        if "native" not in own and ("parse" in own or "serialize" in own):
            cls.native = False
        if "expected" not in own and "parse" in own:
            cls.expected = f"a value that {cls.__name__} accepts"

    # ------------------------------------------------------------------ what a kind of one's own overrides

    def parse(self, text: str) -> T:
        """Read a value from ``text``, as :meth:`serialize` writes it or a person types it.

        Raises:
            ValueError: the text is no such value; the message starts with "expected".
        """
        return cast("T", str(text))

    def serialize(self, value: T) -> str:
        """Write ``value`` so that :meth:`parse` gives an equal one. Equal values give equal text."""
        return str(value)

    def normalize(self, value: Any) -> T:
        """Check a constructor argument and bring it to its one hashable form. Applying it twice is once.

        Raises:
            ValueError: the value cannot be used; the message starts with "expected".
            TypeError: the same, for a value of the wrong type.
        """
        # A subclass with its own parse has values of its own kind, which only it can check (Luigi's
        # custom parameters usually override parse and serialize alone).
        if type(self).parse is not Parameter.parse:
            return cast("T", value)
        if isinstance(value, str):
            return cast("T", str.__str__(value))  # a str subclass may compare or print differently
        raise self.mismatch()

    # --------------------------------------------------------------------------------- inside of containers

    def to_json(self, value: T) -> object:
        """``value`` as a JSON document, for containers: itself if :attr:`native`, else its text."""
        return value if self.native else self.serialize(value)

    def from_json(self, document: object) -> T:
        """The value that :meth:`to_json` wrote, checked.

        Raises:
            ValueError, TypeError: the document is no such value.
        """
        if self.native:
            return self.normalize(document)
        if not isinstance(document, str):
            raise self.mismatch()
        return self.normalize(self.parse(document))

    # ------------------------------------------------------------------------------------------------ tools

    def mismatch(self) -> ValueError:
        """The usual error for a value that does not fit: "expected ..."."""
        return ValueError(f"expected {self.expected}")

    def replace(self, **changes: Any) -> Self:
        """A copy with other attributes, for example ``replace(default=3)``."""
        clone = copy.copy(self)
        vars(clone).update(changes)
        return clone

    @property
    def hidden(self) -> bool:
        """Whether the value must not be shown."""
        return self.visibility is not Visibility.PUBLIC

    def __set_name__(self, owner: type[Any], name: str) -> None:
        self.name = name

    @overload
    def __get__(self, instance: None, owner: type[Any]) -> Self: ...
    @overload
    def __get__(self, instance: object, owner: type[Any] | None = None) -> T: ...
    def __get__(self, instance: object | None, owner: type[Any] | None = None) -> Self | T:
        if instance is None:
            return self
        # Reached only while the instance has no attribute of that name: its own attributes come first.
        raise AttributeError(
            f"{type(instance).__name__}.{self.name} has no value yet: call super().__init__(...) first"
        )

    def __repr__(self) -> str:
        if self.default is MISSING:
            return f"{type(self).__name__}()"
        return f"{type(self).__name__}(default={'***' if self.hidden else repr(self.default)})"
