"""Parameters whose value is a task class or a task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar, Unpack

from ..errors import TaskDefinitionError
from .base import MISSING, Parameter, ParameterOptions

if TYPE_CHECKING:
    from .._task import Task

    C = TypeVar("C", bound=Task)
else:
    C = TypeVar("C")

__all__ = ["TaskInstanceParameter", "TaskParameter", "is_task_class", "parameters_of"]


def is_task_class(value: object) -> bool:
    """Whether ``value`` is a task class. Told by its family: the module of ``Task`` imports this one."""
    return isinstance(value, type) and callable(getattr(value, "get_task_family", None))


def parameters_of(cls: type) -> Mapping[str, Parameter[Any]]:
    """The parameters of a task class by name, in declared order, as ``collect_parameters`` found them."""
    result: Mapping[str, Parameter[Any]] = getattr(cls, "_collected_parameters", {})
    return result


def _look_up(family: str) -> type[Any]:
    from ..registry import get_task_class

    cls: type[Any] = get_task_class(family)
    return cls


class TaskParameter(Parameter[type[C]]):
    """A task *class*, written as its family; ``base`` asks for a subclass of that class."""

    expected = "a task class"
    exact = None
    native = False

    def __init__(
        self,
        default: type[C] = MISSING,
        *,
        base: type[C] | None = None,
        **options: Unpack[ParameterOptions],
    ) -> None:
        """Declare a task class; TaskDefinitionError if ``base`` is none."""
        super().__init__(default, **options)
        if base is not None:
            if not is_task_class(base):
                raise TaskDefinitionError(f"TaskParameter(base={base!r}): expected a task class")
            self.expected = f"a task class: {base.__name__} or a subclass of it"
        self.base = base

    def parse(self, text: str) -> type[C]:
        """The class of that family.

        Raises:
            TaskNotFound: no task has that name.
            AmbiguousTask: several have.
            ValueError: it is no subclass of ``base``.
        """
        return self.normalize(_look_up(text))

    def serialize(self, value: type[C]) -> str:
        family: str = value.get_task_family()
        return family

    def normalize(self, value: Any) -> type[C]:
        """A task class (a subclass of ``base``, if there is one); otherwise ValueError."""
        if is_task_class(value) and (self.base is None or issubclass(value, self.base)):
            return value  # type: ignore[no-any-return]
        raise self.mismatch()


class TaskInstanceParameter(Parameter[C]):
    """A task, written as JSON: ``{"family":"Extract","params":{"part":"3"}}``.

    Only significant public values are written: equal tasks must have the same text, whatever their other
    values, and hidden values must not get into the id of the task that holds them. Read back, the others
    have their defaults. A value equal to its ``compat_default`` is left out, as it is from the task's own id.
    """

    exact = None
    native = False

    def __init__(self, default: C = MISSING, *, task: type[C], **options: Unpack[ParameterOptions]) -> None:
        """Declare an instance of the class ``task`` or a subclass; else TaskDefinitionError."""
        super().__init__(default, **options)
        if not is_task_class(task):
            raise TaskDefinitionError(f"TaskInstanceParameter(task={task!r}): expected a task class")
        self.task = task
        self.expected = f"a task: an instance of {task.__name__}"

    def parse(self, text: str) -> C:
        """The task written in ``text``.

        Raises:
            TaskNotFound: no task has that name.
            AmbiguousTask: several have.
            ValueError: the text is no such JSON, a value in it is wrong (also as ParameterError), or the
                task is of another class.
        """
        import json

        family, texts, well_formed = "", {}, False
        try:
            document = json.loads(text)
            family, texts = document["family"], document["params"]
            well_formed = isinstance(family, str) and all(isinstance(item, str) for item in texts.values())
        except (ValueError, TypeError, LookupError, AttributeError):
            pass
        if not well_formed:
            raise ValueError(f'expected {self.expected}, as JSON {{"family": "Name", "params": {{"name": "text"}}}}')
        cls = _look_up(family)
        if not issubclass(cls, self.task):
            raise self.mismatch()
        task: C = cls(**self._read(parameters_of(cls), texts))
        return task

    def _read(self, parameters: Mapping[str, Parameter[Any]], texts: Mapping[str, str]) -> dict[str, Any]:
        # A name the task does not have stays in, for the constructor to report with its suggestions.
        values: dict[str, Any] = {
            name: parameters[name].parse(text) if name in parameters else text for name, text in texts.items()
        }
        for name, parameter in parameters.items():
            if name not in texts and _written(parameter) and parameter.compat_default is not MISSING:
                values[name] = parameter.compat_default
        return values

    def serialize(self, value: C) -> str:
        import json

        params = {
            name: parameter.serialize(item)
            for name, parameter in parameters_of(type(value)).items()
            if _written(parameter) and (item := getattr(value, name)) != parameter.compat_default
        }
        document = {"family": value.get_task_family(), "params": params}
        return json.dumps(document, sort_keys=True, separators=(",", ":"))

    def normalize(self, value: object) -> C:
        """A task of the class; otherwise ValueError."""
        if isinstance(value, self.task):
            return value
        hint = f", not the class itself: write {value.__name__}(...)" if isinstance(value, type) else ""
        raise ValueError(f"expected {self.expected}{hint}")


def _written(parameter: Parameter[Any]) -> bool:
    return parameter.significant and not parameter.hidden
