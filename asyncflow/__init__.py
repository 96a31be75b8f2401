"""asyncflow: tasks that say what they require and what they make, built on asyncio.

A ``Task`` says what it ``requires()``, its ``output()``, and how to ``run()``; ``await build([Task()])`` makes
whatever is missing, each thing once, as concurrently as the graph allows.
"""

from __future__ import annotations

from ._build import build, gather, plan, run, value
from ._function import task
from ._plan import Plan, PlanItem
from ._run import Run, start
from ._task import ExternalTask, Task, WrapperTask
from ._version import __version__
from .errors import (
    AmbiguousTask,
    AsyncflowError,
    BuildFailed,
    ConfigError,
    CycleError,
    FlowClosed,
    IncompleteOutput,
    MissingInput,
    ParameterError,
    PlanError,
    TargetStateUnknown,
    TaskCancelled,
    TaskDefinitionError,
    TaskFailed,
    TaskNotFound,
    UpstreamFailed,
    WorkerDied,
)
from .events import (
    Abandoned,
    BuildFinished,
    BuildStarted,
    Event,
    Lagged,
    LoopBlocked,
    TaskFinished,
    TaskLog,
    TaskProgress,
    TaskRetry,
    TaskStarted,
)
from .feed import EventReader
from .flow import Flow
from .parameters import (
    BoolParameter,
    ChoiceParameter,
    DateHourParameter,
    DateMinuteParameter,
    DateParameter,
    DateSecondParameter,
    DateTimeParameter,
    DictParameter,
    EnumParameter,
    FloatParameter,
    IntParameter,
    ListParameter,
    MonthParameter,
    OptionalParameter,
    Parameter,
    PathParameter,
    StrParameter,
    TaskInstanceParameter,
    TaskParameter,
    TimeDeltaParameter,
    TupleParameter,
    Visibility,
    param,
)
from .registry import get_task_class, namespace
from .result import AttemptResult, BuildResult, TaskResult
from .snapshot import RunSnapshot, RunStatus, TaskAtWork
from .target import Target
from .targets._file import FileTarget
from .targets.local import LocalTarget
from .targets.memory import MemoryTarget
from .targets.together import together
from .targets.urls import target_for

__all__ = [
    "Abandoned",
    "AmbiguousTask",
    "AsyncflowError",
    "AttemptResult",
    "BoolParameter",
    "BuildFailed",
    "BuildFinished",
    "BuildResult",
    "BuildStarted",
    "ChoiceParameter",
    "ConfigError",
    "CycleError",
    "DateHourParameter",
    "DateMinuteParameter",
    "DateParameter",
    "DateSecondParameter",
    "DateTimeParameter",
    "DictParameter",
    "EnumParameter",
    "Event",
    "EventReader",
    "ExternalTask",
    "FileTarget",
    "FloatParameter",
    "Flow",
    "FlowClosed",
    "IncompleteOutput",
    "IntParameter",
    "Lagged",
    "ListParameter",
    "LocalTarget",
    "LoopBlocked",
    "MemoryTarget",
    "MissingInput",
    "MonthParameter",
    "OptionalParameter",
    "Parameter",
    "ParameterError",
    "PathParameter",
    "Plan",
    "PlanError",
    "PlanItem",
    "Run",
    "RunSnapshot",
    "RunStatus",
    "StrParameter",
    "Target",
    "TargetStateUnknown",
    "Task",
    "TaskAtWork",
    "TaskCancelled",
    "TaskDefinitionError",
    "TaskFailed",
    "TaskFinished",
    "TaskInstanceParameter",
    "TaskLog",
    "TaskNotFound",
    "TaskParameter",
    "TaskProgress",
    "TaskResult",
    "TaskRetry",
    "TaskStarted",
    "TimeDeltaParameter",
    "TupleParameter",
    "UpstreamFailed",
    "Visibility",
    "WorkerDied",
    "WrapperTask",
    "__version__",
    "build",
    "gather",
    "get_task_class",
    "namespace",
    "param",
    "plan",
    "run",
    "start",
    "target_for",
    "task",
    "together",
    "value",
]
