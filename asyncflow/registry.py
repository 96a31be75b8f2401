"""Task classes by family: how a name on the command line or in a parameter becomes a class.

Luigi's rules: a family is ``namespace.ClassName``; two unrelated classes of one family are ambiguous, which
is an error when somebody asks for it; a subclass of the same family stands for both. Defining a class again
in its own place (a notebook cell, a reloaded module) replaces the first one.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from types import NoneType
from typing import TYPE_CHECKING

from .errors import AmbiguousTask, TaskNotFound

if TYPE_CHECKING:
    from ._task import Task

__all__ = ["get_task_class", "namespace", "register", "suggestion", "task_classes"]

# By family and place. Weak: a class made in a function goes when its last user does.
_classes: weakref.WeakValueDictionary[tuple[str, str, str], type[Task]] = weakref.WeakValueDictionary()
_namespaces: dict[str, str] = {}
_BASES = ("asyncflow._task", "asyncflow._function")  # what tasks are derived from is nobody's task


def namespace(name: str | None = None, scope: str = "") -> None:
    """Give the task classes defined from now on in ``scope`` (a module and those below it) a namespace.

    Luigi's function: without a scope it holds everywhere, without a name it is taken back. A class's own
    ``task_namespace`` comes first.

    Raises ``TypeError`` for a name or scope that is not a string.
    """
    if not isinstance(name, (str, NoneType)) or not isinstance(scope, str):
        raise TypeError(f"namespace({name!r}, scope={scope!r}): both are strings")
    if name is None:
        _namespaces.pop(scope, None)
    else:
        _namespaces[scope] = name


def namespace_of(module: str) -> str:
    """The namespace ``namespace()`` gave to ``module``: the one of the longest matching scope."""
    scope = module
    while scope not in _namespaces:
        if not scope:
            return ""
        scope = scope.rpartition(".")[0]
    return _namespaces[scope]


def register(cls: type[Task]) -> None:
    """Make ``cls`` known under its family."""
    if cls.__module__ not in _BASES:
        _classes[cls.get_task_family(), cls.__module__, cls.__qualname__] = cls


def task_classes(module: str | None = None) -> list[type[Task]]:
    """Every known task class, or those defined in one module, sorted by family."""
    # valuerefs() is a list, made at once: other threads may go on defining classes.
    classes = [cls for reference in _classes.valuerefs() if (cls := reference()) is not None]
    found = [cls for cls in classes if module is None or cls.__module__ == module]
    return sorted(found, key=lambda cls: (cls.get_task_family(), cls.__module__, cls.__qualname__))


def get_task_class(name: str) -> type[Task]:
    """The task class of family ``name``.

    Raises ``TaskNotFound`` (with the nearest names) and ``AmbiguousTask`` (with the places).
    """
    found = [cls for cls in task_classes() if cls.get_task_family() == name]
    # A subclass stands for its base of the same family.
    found = [cls for cls in found if not any(other is not cls and issubclass(other, cls) for other in found)]
    if len(found) > 1:
        places = ", ".join(f"{cls.__module__}.{cls.__qualname__}" for cls in found)
        raise AmbiguousTask(f"{len(found)} task classes are called {name!r}: {places}; set task_namespace in one")
    if not found:
        known = [cls.get_task_family() for cls in task_classes()]
        raise TaskNotFound(f"no task is called {name!r}{suggestion(name, known)}")
    return found[0]


def suggestion(name: str, known: Iterable[str]) -> str:
    """``"; did you mean 'Report'?"`` if one of ``known`` is near ``name``, else nothing."""
    import difflib

    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
