"""The constructor of a task class, compiled once per class as dataclasses do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..errors import ParameterError
from . import problems
from .base import MISSING, Parameter
from .defaults import checked, find_default, overrides

__all__ = ["compile_constructor"]


def compile_constructor(cls: type, parameters: Mapping[str, Parameter[Any]]) -> Callable[..., None]:
    """A function ``construct(self, *args, **kwargs)`` that sets the parameters of a new task.

    It binds and checks the arguments, fills in defaults and sets, past any ``__setattr__``, one attribute
    for each parameter, and ``_key`` (the significant values in declared order; the text of those that are
    compared by it) and ``_hash`` (of class and key).

    The function raises ParameterError for arguments that are unknown, missing, too many, given twice or
    not valid.
    """
    return _Compiler(cls, parameters).compile()


class _Compiler:
    """Writes the source of one constructor.

    For ``class Report(Task): date: datetime.date; n: int = 3`` it is, shortened::

        def construct(_self, /, *_args, date=_M, n=_M, **_unknown):
            if _unknown:
                raise _no_such(_unknown)
            if _args:
                ...  # date = _args[0]; n = _args[1]
            if date is _M:
                date = _find(0, (date, n))
            elif _type(date) is not _type_0:
                date = _check(_cls, _parameter_0, date)
            if n is _M:
                n = _default_1 if _overrides() is None else _find(1, (date, n))
            elif _type(n) is not _type_1:
                n = _check(_cls, _parameter_1, n)
            _set(_self, "date", date)
            _set(_self, "n", n)
            _key = (
                date,
                n,
            )
            ...

    All arguments are keywords to Python and positions are dealt out by hand: so nothing can raise Python's
    own TypeError, which would have to be caught and translated around every call. Names of parameters do
    not start with an underscore, so with one in front no helper (nor ``len``) can meet a parameter's name.
    """

    def __init__(self, cls: type, parameters: Mapping[str, Parameter[Any]]) -> None:
        self.cls = cls
        self.parameters = dict(parameters)
        self.names = tuple(parameters)
        self.scope: dict[str, Any] = {
            "_M": MISSING,
            "_len": len,
            "_type": type,
            "_hash": hash,
            "_TypeError": TypeError,
            "_cls": cls,
            "_set": object.__setattr__,
            "_check": checked,
            "_overrides": overrides.get,
            "_find": self.find,
            "_no_such": self.no_such,
            "_too_many": self.too_many,
            "_twice": self.twice,
            "_unhashable": self.unhashable,
        }

    def compile(self) -> Callable[..., None]:
        arguments = "".join(f"{name}=_M, " for name in self.names)
        lines = [f"def construct(_self, /, *_args, {arguments}**_unknown):"]
        lines += ["    if _unknown: raise _no_such(_unknown)"]
        lines += self.positions()
        for index, parameter in enumerate(self.parameters.values()):
            lines += self.value(index, parameter)
        lines += [f"    _set(_self, {name!r}, {name})" for name in self.names]
        lines += self.identity()
        exec("\n".join(lines), self.scope)
        construct: Callable[..., None] = self.scope.pop("construct")
        construct.__qualname__ = f"{self.cls.__qualname__}.construct"
        construct.__module__ = self.cls.__module__
        return construct

    @property
    def positional(self) -> tuple[str, ...]:
        return tuple(name for name, parameter in self.parameters.items() if parameter.positional)

    @property
    def everything(self) -> str:
        """The source of a tuple with the values as they are known so far."""
        return f"({''.join(f'{name}, ' for name in self.names)})"

    def positions(self) -> list[str]:
        lines = ["    if _args:", "        _n = _len(_args)"]
        lines += [f"        if _n > {len(self.positional)}: raise _too_many(_n)"]
        for index, name in enumerate(self.positional):
            lines += [f"        if _n > {index}:"]
            lines += [f"            if {name} is not _M: raise _twice({name!r})"]
            lines += [f"            {name} = _args[{index}]"]
        return lines

    def value(self, index: int, parameter: Parameter[Any]) -> list[str]:
        """Lines that leave the checked value of one parameter in the variable of its name."""
        name = parameter.name
        self.scope[f"_parameter_{index}"] = parameter
        find = f"_find({index}, {self.everything})"
        if parameter.default is not MISSING and parameter.env is None and not parameter.volatile:
            self.scope[f"_default_{index}"] = parameter.default  # checked when the class was created
            find = f"_default_{index} if _overrides() is None else {find}"
        otherwise = "else"
        if parameter.exact is not None:
            self.scope[f"_type_{index}"] = parameter.exact
            otherwise = f"elif _type({name}) is not _type_{index}"
        return [
            f"    if {name} is _M: {name} = {find}",
            f"    {otherwise}: {name} = _check(_cls, _parameter_{index}, {name})",
        ]

    def identity(self) -> list[str]:
        parts = [
            f"_parameter_{index}.serialize({name}), " if parameter.by_text else f"{name}, "
            for index, (name, parameter) in enumerate(self.parameters.items())
            if parameter.significant
        ]
        return [
            f"    _key = ({''.join(parts)})",
            "    try: _number = _hash((_cls, _key))",
            f"    except _TypeError: raise _unhashable({self.everything}) from None",
            "    _set(_self, '_key', _key)",
            "    _set(_self, '_hash', _number)",
        ]

    # ----------------------------------------------------------------------- called by the compiled function

    def find(self, index: int, given: tuple[object, ...]) -> Any:
        """The default of one parameter; if there is none, an error that names all that are missing."""
        value = find_default(self.cls, self.parameters[self.names[index]])
        if value is not MISSING:
            return value
        absent = [
            name
            for name, item in zip(self.names, given, strict=True)
            if item is MISSING and find_default(self.cls, self.parameters[name]) is MISSING
        ]
        raise problems.missing(self.cls, self.parameters, absent)

    def no_such(self, arguments: Mapping[str, object]) -> ParameterError:
        return problems.unknown(self.cls, self.parameters, arguments)

    def too_many(self, count: int) -> ParameterError:
        return problems.too_many(self.cls, self.positional, count)

    def twice(self, name: str) -> ParameterError:
        return problems.given_twice(self.cls, name)

    def unhashable(self, values: tuple[object, ...]) -> ParameterError:
        pairs = zip(self.parameters.values(), values, strict=True)
        return problems.unhashable(self.cls, [(p, value) for p, value in pairs if p.significant])
