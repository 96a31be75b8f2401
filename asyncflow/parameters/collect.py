"""Which parameters a task class has."""

from __future__ import annotations

import inspect
import keyword
from collections.abc import Iterator, Mapping
from typing import Any

from ..errors import TaskDefinitionError
from . import problems
from .annotations import is_class_var, parameter_for, resolve
from .base import MISSING, Parameter
from .spec import ParameterSpec

__all__ = ["collect_parameters"]

_OWN = "_own_parameters"
_ALL = "_collected_parameters"


def collect_parameters(cls: type, reserved: Mapping[str, str] = {}) -> dict[str, Parameter[Any]]:
    """The parameters of a task class by name, in declared order; called once, when the class is created.

    Base classes come first, and a parameter declared again keeps its first place. A plain assignment over
    an inherited parameter (``n = 5``) gives it another default. Mixins that are no tasks count as well.
    The class gets every parameter as an attribute, with its default checked and frozen.

    Args:
        cls: the class.
        reserved: names no parameter may have, with the advice for whoever uses one.

    Raises:
        TaskDefinitionError: a name, an annotation or a default cannot be used; names class and parameter.
    """
    result: dict[str, Parameter[Any]] = {}
    for base in reversed(cls.__mro__[1:]):
        if "get_task_family" in vars(base) and _OWN not in vars(base):
            continue  # Task itself: what it annotates are its own attributes
        own = vars(base).get(_OWN)
        result.update(_settled(cls, _declared(base, result, {})) if own is None else own)
    own = _settled(cls, _declared(cls, result, reserved))
    result.update(own)
    for name, parameter in result.items():
        if name in reserved:
            raise TaskDefinitionError(f"{cls.__name__}.{name}: {reserved[name]}")
        if getattr(cls, name, None) is not parameter:
            # What a mixin declares is set here too: the mixin itself is left as it is.
            own[name] = parameter
            setattr(cls, name, parameter)
    setattr(cls, _OWN, own)
    setattr(cls, _ALL, result)
    return result


def _declared(
    cls: type, inherited: Mapping[str, Parameter[Any]], reserved: Mapping[str, str]
) -> dict[str, Parameter[Any]]:
    """What the body of ``cls`` itself declares or changes."""
    annotations = _annotations(cls)
    body = vars(cls)
    shadowed = {*annotations, *(name for name, value in body.items() if isinstance(value, Parameter))}
    found: dict[str, Parameter[Any]] = {}
    for name in _body_order(annotations, body):
        value = body.get(name, MISSING)
        if name in annotations:
            if name in reserved:
                raise TaskDefinitionError(f"{cls.__name__}.{name}: {reserved[name]}")
            annotation = resolve(cls, name, annotations[name], shadowed)
            if is_class_var(annotation):  # by another name than ClassVar
                continue
            found[name] = _annotated(cls, name, annotation, value, inherited.get(name))
        elif isinstance(value, Parameter):
            found[name] = value if value.name == name else value.replace(name=name)
        elif name in inherited:
            found[name] = _overridden(inherited[name], value)
        else:
            _refuse_lookalike(cls, name, value)
    for name in found:
        if name.startswith("_") or not name.isidentifier() or keyword.iskeyword(name):
            raise TaskDefinitionError(
                f"{cls.__name__}.{name}: a parameter's name has to be a Python name without _ at its start"
            )
    return found


def _annotations(cls: type) -> dict[str, object]:
    """Those annotations of the class's own body that may declare parameters."""
    try:
        own = inspect.get_annotations(cls)
    except NameError as error:  # Python 3.14 evaluates them only now
        raise TaskDefinitionError(
            f"{cls.__name__}: an annotation cannot be resolved ({error}); names in annotations have to be "
            "imported at run time (not under TYPE_CHECKING)"
        ) from error
    return {name: item for name, item in own.items() if not name.startswith("_") and not is_class_var(item)}


def _body_order(annotations: Mapping[str, object], body: Mapping[str, object]) -> Iterator[str]:
    """The names of both in the order of the class body, as far as it is known.

    Python keeps the order of the annotated names and the order of the assigned ones; where that leaves a
    choice (a bare annotation next to a Luigi-style declaration) the bare annotation comes first.
    """
    waiting = list(annotations)
    for name in list(body):
        while waiting and waiting[0] not in body:
            yield waiting.pop(0)
        if name in annotations:
            while waiting and waiting[0] != name and name in waiting:
                yield waiting.pop(0)
            if name in waiting:
                waiting.remove(name)
                yield name
        else:
            yield name
    yield from waiting


def _annotated(
    cls: type, name: str, annotation: object, value: object, inherited: Parameter[Any] | None
) -> Parameter[Any]:
    """The parameter of ``name: annotation = value``."""
    if isinstance(value, Parameter):
        return value if value.name == name else value.replace(name=name)
    _refuse_lookalike(cls, name, value, annotated=True)
    parameter = parameter_for(cls, name, annotation)
    if isinstance(value, ParameterSpec):
        parameter = value.apply(parameter)
    elif value is not MISSING:
        return parameter.replace(default=value)
    if inherited is not None and parameter.default is MISSING:
        # As in dataclasses: an inherited default stays when only the type is declared again.
        return parameter.replace(default=inherited.default)
    return parameter


def _overridden(inherited: Parameter[Any], value: Any) -> Parameter[Any]:
    """An inherited parameter after ``n = value`` in a subclass."""
    if isinstance(value, ParameterSpec):
        return value.apply(inherited)
    return inherited.replace(default=value)


def _refuse_lookalike(cls: type, name: str, value: object, annotated: bool = False) -> None:
    """Slips that would silently declare nothing."""
    if isinstance(value, type) and issubclass(value, Parameter) and value.__name__ != name:
        raise TaskDefinitionError(f"{cls.__name__}.{name}: write {value.__name__}() with parentheses")
    if isinstance(value, ParameterSpec) and not annotated:
        raise TaskDefinitionError(f"{cls.__name__}.{name}: param() needs an annotation, e.g. {name}: int = param(...)")


def _settled(cls: type, parameters: Mapping[str, Parameter[Any]]) -> dict[str, Parameter[Any]]:
    """``parameters`` with their defaults checked and frozen."""
    return {name: _with_checked_defaults(cls, parameter) for name, parameter in parameters.items()}


def _with_checked_defaults(cls: type, parameter: Parameter[Any]) -> Parameter[Any]:
    """``parameter`` itself if its defaults are in their normal form, else a copy in which they are."""
    changes: dict[str, Any] = {}
    for option in ("default", "compat_default"):
        value = getattr(parameter, option)
        if value is MISSING or (parameter.volatile and option == "default"):
            continue
        try:
            normal = parameter.normalize(value)
        except (TypeError, ValueError) as error:
            raise problems.invalid_default(cls, parameter, value, error, option) from None
        if normal is not value:
            changes[option] = normal
    return parameter.replace(**changes) if changes else parameter
