"""Parameters: the arguments of tasks, their kinds, and the constructors compiled from them."""

from __future__ import annotations

from .base import MISSING, Parameter, ParameterOptions, Visibility
from .choices import ChoiceParameter, EnumParameter
from .collect import collect_parameters
from .constructor import compile_constructor
from .containers import DictParameter, ListParameter, TupleParameter
from .dates import (
    DateHourParameter,
    DateMinuteParameter,
    DateParameter,
    DateSecondParameter,
    DateTimeParameter,
    MonthParameter,
)
from .defaults import override, parse_value, resolve_default
from .frozen import FrozenDict
from .numeric import BoolParameter, FloatParameter, IntParameter
from .optional import (
    OptionalBoolParameter,
    OptionalChoiceParameter,
    OptionalDateParameter,
    OptionalDictParameter,
    OptionalFloatParameter,
    OptionalIntParameter,
    OptionalListParameter,
    OptionalParameter,
    OptionalPathParameter,
    OptionalStrParameter,
    OptionalTupleParameter,
)
from .paths import PathParameter
from .spec import ParameterSpec, param
from .tasks import TaskInstanceParameter, TaskParameter, parameters_of
from .text import StrParameter
from .timedelta import TimeDeltaParameter

__all__ = [
    "MISSING",
    "BoolParameter",
    "ChoiceParameter",
    "DateHourParameter",
    "DateMinuteParameter",
    "DateParameter",
    "DateSecondParameter",
    "DateTimeParameter",
    "DictParameter",
    "EnumParameter",
    "FloatParameter",
    "FrozenDict",
    "IntParameter",
    "ListParameter",
    "MonthParameter",
    "OptionalBoolParameter",
    "OptionalChoiceParameter",
    "OptionalDateParameter",
    "OptionalDictParameter",
    "OptionalFloatParameter",
    "OptionalIntParameter",
    "OptionalListParameter",
    "OptionalParameter",
    "OptionalPathParameter",
    "OptionalStrParameter",
    "OptionalTupleParameter",
    "Parameter",
    "ParameterOptions",
    "ParameterSpec",
    "PathParameter",
    "StrParameter",
    "TaskInstanceParameter",
    "TaskParameter",
    "TimeDeltaParameter",
    "TupleParameter",
    "Visibility",
    "collect_parameters",
    "compile_constructor",
    "override",
    "param",
    "parameters_of",
    "parse_value",
    "resolve_default",
]
