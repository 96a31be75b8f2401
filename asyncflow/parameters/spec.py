"""``param()``: options for an annotated parameter."""

from __future__ import annotations

from typing import Any, TypeVar

from .base import MISSING, Parameter, Visibility

__all__ = ["ParameterSpec", "param"]

P = TypeVar("P", bound=Parameter[Any])


class ParameterSpec:
    """What :func:`param` returns: options that wait for the annotation to say the kind.

    ``changes`` holds the attributes to set, only those that were stated, so that one specification can be
    laid over another (``Annotated[int, param(help=...)] = param(default=3)``).
    """

    __slots__ = ("changes",)

    def __init__(self, changes: dict[str, Any]) -> None:
        self.changes = changes

    def apply(self, parameter: P) -> P:
        """A copy of ``parameter`` with these options."""
        return parameter.replace(**self.changes)

    def __repr__(self) -> str:
        return f"param({', '.join(self.changes)})"  # no values: the parameter may be a hidden one


def param(
    *,
    default: Any = MISSING,
    help: str | None = None,
    significant: bool = True,
    visibility: Visibility | int = Visibility.PUBLIC,
    env: str | None = None,
    positional: bool = True,
    compat_default: Any = MISSING,
) -> Any:
    """Options for an annotated parameter: ``n: int = param(default=3, help="number of parts")``.

    Also inside ``Annotated``: ``quiet: Annotated[bool, param(significant=False)] = False``.

    Args:
        default: the value when none is given; left out or ``...``, the parameter must be given (or come
            from ``env``, or the command line).
        help: one sentence for the command line and the page.
        significant: whether two tasks that differ in this value are different tasks.
        visibility: who may see the value.
        env: name of an environment variable that supplies the default.
        positional: whether the value may be given by position.
        compat_default: while the parameter has this value, a task's id leaves it out.

    Raises:
        TaskDefinitionError: ``visibility`` or ``env`` is not usable.
    """
    options = Parameter[Any](
        MISSING if default is ... else default,
        help=help,
        significant=significant,
        visibility=visibility,
        env=env,
        positional=positional,
        compat_default=compat_default,
    )
    return ParameterSpec(
        {name: vars(options)[name] for name in _OPTIONS if getattr(options, name) is not getattr(_UNSTATED, name)}
    )


_UNSTATED = Parameter[Any]()
_OPTIONS = ("default", "help", "significant", "visibility", "env", "positional", "compat_default")
