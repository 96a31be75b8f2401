"""From an annotation in a task class to the parameter it declares."""

from __future__ import annotations

import collections.abc
import datetime
import enum
import sys
import types
import typing
from collections.abc import Callable, Set
from typing import Annotated, Any, ClassVar, Literal, Union, get_args, get_origin

from ..errors import TaskDefinitionError
from .base import MISSING, Parameter
from .choices import ChoiceParameter, EnumParameter
from .containers import DictParameter, ListParameter, TupleParameter
from .dates import DateParameter, DateTimeParameter
from .numeric import BoolParameter, FloatParameter, IntParameter
from .optional import OptionalParameter
from .paths import PathParameter
from .spec import ParameterSpec
from .tasks import TaskInstanceParameter, TaskParameter, is_task_class
from .text import StrParameter
from .timedelta import TimeDeltaParameter

__all__ = ["is_class_var", "parameter_for", "resolve"]

_SUPPORTED = (
    "write one of str, int, float, bool, datetime.date, datetime.datetime, datetime.timedelta, pathlib.Path, "
    "an Enum class, Literal[...], list[...], tuple[...], dict[...], a Task class, type[Task], or any of them "
    "with `| None`; or say how to read and write it: Annotated[..., SomeParameter()]; "
    "ClassVar[...] or a name starting with _ for an attribute that is no parameter"
)

_PLAIN: dict[object, Callable[[], Parameter[Any]]] = {
    str: StrParameter,
    int: IntParameter,
    float: FloatParameter,
    # Unlike a bare Luigi-style BoolParameter(), an annotation without default has to be given.
    bool: lambda: BoolParameter(parsing=BoolParameter.parsing).replace(default=MISSING),
    datetime.date: DateParameter,
    datetime.datetime: DateTimeParameter,
    datetime.timedelta: TimeDeltaParameter,
}

_SEQUENCES = (list, collections.abc.Sequence)
_MAPPINGS = (dict, collections.abc.Mapping)


class _Unsupported(Exception):
    """An annotation, or a part of one, that no parameter stands for; the text says which and why."""


def is_class_var(annotation: object) -> bool:
    """Whether an annotation, possibly still a string, is ``ClassVar`` (and so declares no parameter)."""
    if isinstance(annotation, str):
        # Read as text, as dataclasses do: what is inside may be importable for type checkers only.
        return annotation.partition("[")[0].rpartition(".")[2].strip() == "ClassVar"
    return annotation is ClassVar or get_origin(annotation) is ClassVar


def resolve(cls: type, name: str, annotation: object, not_names: Set[str]) -> object:
    """``annotation`` with strings in it evaluated, in the module of ``cls`` and among its attributes.

    ``not_names`` are attributes that do not count, because they are parameters: the ``date`` that
    ``date: "date" = DateParameter()`` is annotated with is the type.

    Raises:
        TaskDefinitionError: a name in it is not known there.
    """
    if isinstance(annotation, type) and get_origin(annotation) is None:
        return annotation
    module = sys.modules.get(cls.__module__)
    names = {key: value for key, value in vars(cls).items() if key not in not_names}
    # get_type_hints also reaches strings inside, as in list["Part"]; it reads them from some object.
    holder = types.SimpleNamespace(__annotations__={name: annotation})
    try:
        hints = typing.get_type_hints(
            holder, vars(module) if module else {}, {cls.__name__: cls, **names}, include_extras=True
        )
    except Exception as error:
        raise TaskDefinitionError(
            f"{cls.__name__}.{name}: the annotation {annotation!r} cannot be resolved in module "
            f"{cls.__module__} ({type(error).__name__}: {error}); its names have to be imported at run time "
            "(not under TYPE_CHECKING) and defined at module level or in the class"
        ) from error
    return hints[name]


def parameter_for(cls: type, name: str, annotation: object) -> Parameter[Any]:
    """The parameter an annotation declares, without a default (unless ``Annotated`` brings one).

    Raises:
        TaskDefinitionError: no parameter stands for the annotation; names class, attribute and annotation,
            and says what to write instead.
    """
    try:
        parameter = _build(annotation)
    except _Unsupported as error:
        shown = _show(annotation)
        about = "" if str(error) == shown else f" ({error})"
        raise TaskDefinitionError(
            f"{cls.__name__}.{name}: no parameter for the annotation {shown}{about}; {_SUPPORTED}"
        ) from None
    except TaskDefinitionError as error:
        raise TaskDefinitionError(f"{cls.__name__}.{name}: {error}") from error
    return parameter.replace(name=name)


def _build(annotation: Any) -> Parameter[Any]:
    while (inner := _unalias(annotation)) is not annotation:
        annotation = inner
    try:
        plain = _PLAIN.get(annotation)
    except TypeError:  # not hashable: Literal[[1]], Annotated with a list
        plain = None
    if plain is not None:
        return plain()
    origin = get_origin(annotation) or annotation
    if origin is Annotated:
        return _annotated(annotation)
    if origin is Union or origin is types.UnionType:
        return _union(annotation)
    if origin is Literal:
        return _literal(get_args(annotation), annotation)
    if origin is type:
        return _task_class(annotation)
    return _class(origin, annotation)


def _unalias(annotation: Any) -> Any:
    """What ``type X = ...`` (Python 3.12) or a NewType stands for, else the annotation itself."""
    if isinstance(annotation, typing.NewType):
        return annotation.__supertype__
    if type(annotation).__name__ == "TypeAliasType":
        return annotation.__value__
    return annotation


def _class(origin: Any, annotation: Any) -> Parameter[Any]:
    """Containers, and classes that are recognised by what they inherit from."""
    args = get_args(annotation)
    if origin in _SEQUENCES:
        return ListParameter(_build(args[0])) if args else ListParameter()
    if origin in _MAPPINGS:
        return DictParameter(_build(args[1]), key=_build(args[0])) if args else DictParameter()
    if origin is tuple:
        return _tuple(annotation)
    if not isinstance(annotation, type):
        raise _Unsupported(_show(annotation))
    if issubclass(annotation, enum.Enum):
        return EnumParameter(enum=annotation)
    if is_task_class(annotation):
        return TaskInstanceParameter(task=annotation)
    # Without pathlib loaded nobody can have named a Path; loading it costs 4 ms.
    pathlib = sys.modules.get("pathlib")
    if pathlib is not None and annotation in (pathlib.Path, pathlib.PurePath):
        return PathParameter()
    if issubclass(annotation, Parameter):
        raise _Unsupported(f"a parameter is a value, not an annotation: name = {annotation.__name__}()")
    raise _Unsupported(_show(annotation))


def _tuple(annotation: Any) -> Parameter[Any]:
    args = get_args(annotation)
    if not args:
        # tuple[()] has an origin and no arguments, a bare tuple has neither (typing.Tuple is a third form).
        return TupleParameter(()) if isinstance(annotation, types.GenericAlias) else TupleParameter()
    if len(args) == 2 and args[1] is ...:
        return TupleParameter(_build(args[0]))
    return TupleParameter([_build(arg) for arg in args])


def _union(annotation: Any) -> Parameter[Any]:
    members = [arg for arg in get_args(annotation) if arg is not type(None)]
    if len(members) != 1 or len(members) == len(get_args(annotation)):
        raise _Unsupported("a union may only be of one kind and None, or a text could mean several values")
    return OptionalParameter(_build(members[0]), default=MISSING)


def _literal(values: tuple[Any, ...], annotation: Any) -> Parameter[Any]:
    given = tuple(value for value in values if value is not None)
    kinds = {type(value) for value in given}
    if len(kinds) != 1 or not kinds <= {str, int, bool}:
        raise _Unsupported(f"the values of {_show(annotation)} have to be all str, all int or all bool")
    parameter: Parameter[Any] = ChoiceParameter(choices=given, var_type=kinds.pop())
    return parameter if len(given) == len(values) else OptionalParameter(parameter, default=MISSING)


def _task_class(annotation: Any) -> Parameter[Any]:
    args = get_args(annotation)
    if len(args) != 1 or not is_task_class(args[0]):
        raise _Unsupported("of classes only tasks can be values: type[Task]")
    return TaskParameter(base=args[0])


def _annotated(annotation: Any) -> Parameter[Any]:
    """The last Parameter among the metadata, or the annotated type's; then the options in their order."""
    metadata = annotation.__metadata__
    for item in metadata:
        if isinstance(item, type) and issubclass(item, Parameter):
            raise _Unsupported(f"write {item.__name__}() with parentheses inside Annotated")
    own = [item for item in metadata if isinstance(item, Parameter)]
    parameter = own[-1] if own else _build(annotation.__origin__)
    for item in metadata:
        if isinstance(item, ParameterSpec):
            parameter = item.apply(parameter)
    return parameter


def _show(annotation: Any) -> str:
    if isinstance(annotation, type) and get_origin(annotation) is None:
        return annotation.__qualname__
    return str(annotation)
