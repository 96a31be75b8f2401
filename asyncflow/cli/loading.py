"""From ``MODULE:Task`` or ``FILE.py:Task`` to a task class."""

from __future__ import annotations

import contextlib
import difflib
import importlib
import importlib.util
import os
import sys
from collections.abc import Iterable, Iterator
from types import ModuleType
from typing import Any

from .. import registry
from .._task import Task
from .errors import CommandError
from .frames import shown_path, user_frames

__all__ = ["Reference", "find_task", "import_path", "load_module", "tasks_of"]

_SHOWN = 8  # names in a hint


class Reference:
    """``pipelines.report:Report``, taken apart. ``task`` is empty if only a module was named."""

    def __init__(self, text: str) -> None:
        self.text = text
        place, colon, task = text.rpartition(":")
        if not colon or task.endswith(".py") or os.sep in task or "/" in task:  # C:\pipelines.py
            place, task = text, ""
        self.place = place
        self.task = task

    @property
    def is_file(self) -> bool:
        """Whether the place is a file rather than a module."""
        return self.place.endswith(".py") or os.sep in self.place or "/" in self.place


@contextlib.contextmanager
def import_path() -> Iterator[None]:
    """Inside, the current directory comes first on ``sys.path``, as with ``python -m``."""
    before = list(sys.path)
    sys.path.insert(0, os.getcwd())
    try:
        yield
    finally:
        sys.path[:] = before


def load_module(reference: Reference) -> ModuleType:
    """Import the module or file.

    Raises ``CommandError`` if there is none, or if importing it fails.
    """
    place = reference.place
    if not reference.is_file:
        if not place or not all(part.isidentifier() for part in place.split(".")):
            raise CommandError(
                f"{reference.text!r} is no task: expected MODULE:Task or FILE.py:Task",
                hint="e.g. asyncflow run pipelines.report:Report, or asyncflow run report.py:Report",
            )
        try:
            return importlib.import_module(place)
        except ModuleNotFoundError as error:
            if error.name is not None and (place == error.name or place.startswith(error.name + ".")):
                raise _no_such_module(reference, error.name) from error
            raise _import_failed(place, error) from error
        except (Exception, SystemExit) as error:
            raise _import_failed(place, error) from error
    return _load_file(place)


def _load_file(place: str) -> ModuleType:
    path = os.path.abspath(place)
    folder, file = os.path.split(path)
    if not os.path.isfile(path):
        near = _near(file, _entries(folder))
        hint = f"did you mean {os.path.join(os.path.dirname(place), near)!r}?" if near else None
        what = "is a directory, not a Python file" if os.path.isdir(path) else "there is no such file"
        raise CommandError(f"{place}: {what}", hint=hint, code="file_not_found")
    name = file.removesuffix(".py")
    known = sys.modules.get(name)
    if known is not None:
        if getattr(known, "__file__", None) == path:
            return known
        raise CommandError(
            f"{place}: a module {name!r} is loaded already, and would be hidden by this file",
            hint="give the file another name",
            code="import_failed",
        )
    # As `python file.py` does, and for as long: a body may import its neighbours when it runs.
    sys.path.insert(0, folder)
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise CommandError(f"{place}: expected a Python file, with a name that ends in .py", code="file_not_found")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        if isinstance(error, (Exception, SystemExit)):
            raise _import_failed(place, error) from error
        raise
    return module


def _no_such_module(reference: Reference, missing: str) -> CommandError:
    parent, _, last = missing.rpartition(".")
    folders = getattr(sys.modules.get(parent), "__path__", None) if parent else [os.getcwd()]
    names = [entry.removesuffix(".py") for folder in folders or () for entry in _entries(folder)]
    near = _near(last, names)
    if near is not None:
        rest = reference.text[len(missing) :]
        hint = f"did you mean '{f'{parent}.' if parent else ''}{near}{rest}'?"
    elif os.path.isfile(f"{reference.place.replace('.', os.sep)}.py"):
        hint = "a package it is in cannot be imported"
    else:
        hint = "expected MODULE:Task or FILE.py:Task; modules are looked for in this directory and where Python looks"
    return CommandError(f"no module named {missing!r}", hint=hint, code="module_not_found")


def _import_failed(place: str, error: BaseException) -> CommandError:
    frames = user_frames(error)
    where = f" ({shown_path(frames[-1].path)}:{frames[-1].line})" if frames else ""
    text = error.msg if isinstance(error, SyntaxError) else " ".join(str(error).split())
    if isinstance(error, SystemExit):
        text = f"{text}: it exits when it is imported"
    hint = None
    if isinstance(error, ImportError) and "relative import" in text:
        hint = "the file belongs to a package: name it as a module, e.g. package.module:Task"
    elif isinstance(error, SystemExit):
        hint = 'put what should only happen to the script under `if __name__ == "__main__":`'
    elif frames and frames[-1].source:
        hint = f"the line is: {frames[-1].source}"
    name = type(error).__name__
    return CommandError(
        f"cannot import {place}: {f'{name}: {text}' if text else name}{where}", hint=hint, code="import_failed"
    )


# The tasks in a module -----------------------------------------------------------------------------------


def tasks_of(module: ModuleType) -> list[type[Task]]:
    """The task classes one can name in ``module``: what it and its submodules define, and what it imports."""
    name = module.__name__
    found: list[type[Task]] = [
        cls for cls in registry.task_classes() if cls.__module__ == name or cls.__module__.startswith(f"{name}.")
    ]
    found += [value for key, value in vars(module).items() if not key.startswith("_") and _is_task_class(value)]
    return sorted(dict.fromkeys(found), key=lambda cls: (cls.get_task_family(), cls.__module__, cls.__qualname__))


def find_task(module: ModuleType, reference: Reference) -> type[Task]:
    """The class that ``reference`` names: by its name in the module, or by its family.

    Raises ``CommandError`` if there is none, or more than one.
    """
    name, classes = reference.task, tasks_of(module)
    families = [cls.get_task_family() for cls in classes]
    if not name:
        hint = f"its tasks: {_listing(families)}" if families else "it has no tasks"
        raise CommandError(f"{reference.place}: which task? expected {reference.place}:Task", hint=hint)
    attribute: Any = vars(module).get(name)
    own = [cls for cls in classes if cls.__module__ == module.__name__]
    found = [cls for cls in classes if cls.get_task_family() == name]
    found = found or [cls for cls in own if name in (cls.__name__, cls.__qualname__)]
    if _is_task_class(attribute) and all(cls.get_task_family() == attribute.get_task_family() for cls in found):
        return attribute  # type: ignore[no-any-return]
    found = [cls for cls in found if not any(other is not cls and issubclass(other, cls) for other in found)]
    if len(found) == 1:
        return found[0]
    if found:
        names = [cls.get_task_family() for cls in found]
        places = names if len(set(names)) == len(names) else [f"{c.__module__}.{c.__qualname__}" for c in found]
        raise CommandError(
            f"{len(found)} tasks in {reference.place} are called {name!r}: {', '.join(places)}",
            hint="name one by its family, or set task_namespace in one of them",
            code="ambiguous_task",
        )
    if attribute is not None and not name.startswith("_"):
        kind = "a class that does not derive from Task" if isinstance(attribute, type) else f"{attribute!r:.80}"
        raise CommandError(f"{name!r} in {reference.place} is no task: it is {kind}", code="task_not_found")
    near = _near(name, [*families, *(cls.__name__ for cls in own)])
    hint = f"did you mean {near!r}? its tasks: " if near else "its tasks: "
    hint = hint + _listing(families) if families else "it has no tasks"
    raise CommandError(f"no task named {name!r} in {reference.place}", hint=hint, code="task_not_found")


def _is_task_class(value: Any) -> bool:
    # The base classes of the package are no tasks of anybody's.
    return isinstance(value, type) and issubclass(value, Task) and not value.__module__.startswith("asyncflow.")


def _listing(names: list[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _near(name: str, known: Iterable[str]) -> str | None:
    by_lower = {item.lower(): item for item in known}
    near = difflib.get_close_matches(name.lower(), by_lower, n=1)
    return by_lower[near[0]] if near else None


def _entries(folder: str) -> list[str]:
    """The Python files and folders in ``folder``."""
    try:
        with os.scandir(folder or os.curdir) as entries:
            return [
                item.name for item in entries if item.name.endswith(".py") or (item.is_dir() and "." not in item.name)
            ]
    except OSError:
        return []
