"""Every error asyncflow raises, as one tree.

The class says whose fault it is, the message says the next step, and ``exit_code`` is what the command
line answers with::

    AsyncflowError                      4   the engine, or something it could not establish
    ├── TaskDefinitionError             2   a task or target class is written wrongly   (a TypeError)
    ├── ParameterError                  2   a parameter's value is missing or wrong     (a ValueError)
    ├── ConfigError                     2   an option, environment value or file is wrong (a ValueError)
    ├── TaskNotFound                    2   no task of that name                        (a LookupError)
    ├── AmbiguousTask                   2   two unrelated classes share a name          (a LookupError)
    ├── PlanError                       2   the graph cannot be built; nothing was executed
    │   └── CycleError                  2   tasks that wait for each other
    ├── TaskFailed                      1   run() raised; the original is ``__cause__``
    │   └── UpstreamFailed              1   a dependency failed, so this task never ran
    ├── TaskCancelled                   1   the task was cancelled before it ended
    ├── IncompleteOutput                1   run() ended and its output is not there
    ├── WorkerDied                      1   the process a body ran in has ended under it
    ├── MissingInput                    3   an ExternalTask whose output nobody has made
    ├── FlowClosed                      4   a flow that has been closed starts nothing more (a RuntimeError)
    ├── TargetStateUnknown              4   whether a target exists could not be established
    └── BuildFailed                     *   everything that went wrong in one build  (an ExceptionGroup)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._task import Task

__all__ = [
    "AmbiguousTask",
    "AsyncflowError",
    "BuildFailed",
    "ConfigError",
    "CycleError",
    "FlowClosed",
    "IncompleteOutput",
    "MissingInput",
    "ParameterError",
    "PlanError",
    "TargetStateUnknown",
    "TaskCancelled",
    "TaskDefinitionError",
    "TaskFailed",
    "TaskNotFound",
    "UpstreamFailed",
    "WorkerDied",
]


class AsyncflowError(Exception):
    """Base of every error asyncflow raises on purpose."""

    exit_code = 4
    """What ``asyncflow run`` exits with when this is the worst thing that happened."""


class TaskDefinitionError(AsyncflowError, TypeError):
    """A task or target class is written in a way that cannot work; raised when the class is created."""

    exit_code = 2


class ParameterError(AsyncflowError, ValueError):
    """A parameter is missing, unknown, or has a value of the wrong kind."""

    exit_code = 2


class ConfigError(AsyncflowError, ValueError):
    """An option of a build, an environment value or a configuration file is wrong."""

    exit_code = 2


class TaskNotFound(AsyncflowError, LookupError):
    """No task has the name asked for."""

    exit_code = 2


class AmbiguousTask(AsyncflowError, LookupError):
    """Two unrelated task classes have the name asked for."""

    exit_code = 2


class PlanError(AsyncflowError):
    """The graph cannot be built. Raised before the first ``run()``: nothing was executed.

    ``problems`` holds every problem found, each an exception of its own, in the order they were met.
    """

    exit_code = 2

    def __init__(self, message: str, problems: Sequence[BaseException] = ()) -> None:
        super().__init__(message)
        self.problems: tuple[BaseException, ...] = tuple(problems)

    @classmethod
    def of(cls, problems: Sequence[BaseException]) -> PlanError:
        """One error for all ``problems``; a single ``PlanError`` among them is returned as it is."""
        if len(problems) == 1 and isinstance(problems[0], PlanError):
            return problems[0]
        lines = [f"{len(problems)} problems in the graph; nothing was executed"] if len(problems) > 1 else []
        lines += [str(problem) or type(problem).__name__ for problem in problems]
        error = cls("\n".join(lines), problems)
        if len(problems) == 1:
            error.__cause__ = problems[0].__cause__ or problems[0]
        return error


class CycleError(PlanError):
    """Tasks that wait for each other. ``path`` holds them in order, the first one again at the end."""

    def __init__(self, path: Iterable[Task]) -> None:
        self.path: tuple[Task, ...] = tuple(path)
        arrows = " -> ".join(map(repr, self.path))
        super().__init__(f"these tasks wait for each other: {arrows}; remove one of the dependencies")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path,), self.__dict__


class TaskFailed(AsyncflowError):
    """A task's ``run()`` failed. ``task`` is the task, ``__cause__`` what its body raised."""

    exit_code = 1

    def __init__(self, task: Task, message: str) -> None:
        super().__init__(message)
        self.task = task

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.task, str(self)), self.__dict__


class UpstreamFailed(TaskFailed):
    """A task did not run because a dependency failed. ``__cause__`` is the failure at the root."""


class TaskCancelled(AsyncflowError):
    """A task that was being waited for was cancelled. ``task`` is the task."""

    exit_code = 1

    def __init__(self, task: Task) -> None:
        super().__init__(f"{task!r} was cancelled before it ended")
        self.task = task

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.task,), self.__dict__


class IncompleteOutput(AsyncflowError):
    """``run()`` ended without an error, and an output it promised does not exist."""

    exit_code = 1


class WorkerDied(AsyncflowError):
    """The worker process of a body ended in the middle of it; ``code`` is its exit code, negative for a signal."""

    exit_code = 1

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.code), self.__dict__


class MissingInput(AsyncflowError):
    """The output of an ``ExternalTask`` is not there, and no task can make it."""

    exit_code = 3


class FlowClosed(AsyncflowError, RuntimeError):
    """A flow that has been closed was asked for something: the service is going down."""


class TargetStateUnknown(AsyncflowError):
    """Whether a target exists could not be established; it is neither made nor called done."""


class BuildFailed(AsyncflowError, ExceptionGroup[Exception]):
    """What ``BuildResult.raise_for_failure()`` raises: the root causes of one build, dependents left out."""

    def __new__(cls, message: str, errors: Sequence[Exception]) -> BuildFailed:
        self = super().__new__(cls, message, errors)
        codes = [error.exit_code for error in errors if isinstance(error, AsyncflowError)]
        # 1 (a task failed) before 4 (unknown) before 3 (an input is missing): the order of semantics.md.
        self.exit_code = next((code for code in (1, 4, 3) if code in codes), 1)
        return self

    def derive(self, errors: Sequence[Any], /) -> BuildFailed:  # type: ignore[override]  # holds Exceptions only
        """What ``split`` and ``except*`` make their parts with: the same kind, with an exit code of its own."""
        return BuildFailed(self.message, errors)


def describe(error: BaseException | None) -> str:
    """``ValueError: row 17``, on one line; of a group, what is in it."""
    if error is None:
        return "no reason known"
    if isinstance(error, BaseExceptionGroup):
        inner = "; ".join(map(describe, error.exceptions[:3])) + ("; ..." if len(error.exceptions) > 3 else "")
        return f"{type(error).__name__}: {error.message} ({inner})"
    try:
        text = " ".join(str(error).split())
    except Exception:  # a class of the user's own
        text = "its message cannot be read"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
