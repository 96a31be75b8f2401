"""``run``, ``plan`` and ``list``: from the arguments to an exit code."""

from __future__ import annotations

import asyncio
import inspect
import json
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .. import _build, opening
from .._task import Task
from ..errors import AmbiguousTask, BuildFailed, PlanError, TaskNotFound
from ..events import Event, FinalStatus, TaskFinished, TaskRetry
from ..parameters import override
from ..registry import get_task_class, suggestion
from ..result import BuildResult
from . import report
from .arguments import (
    HELP,
    OptionParser,
    Options,
    TaskParser,
    as_typed,
    option_parser,
    parse_overrides,
    wants_full_traceback,
    wants_json,
)
from .errors import USAGE, CommandError
from .frames import user_frames
from .interrupts import Interrupts, run_to_end
from .loading import Reference, find_task, import_path, load_module, tasks_of
from .sources import tasks_here
from .terminal import BLOCKED, CannotWrite, Line, Styled, Terminal, escape

__all__ = ["dispatch"]

ENGINE = 4
_COMMANDS = ("run", "plan", "list")


def dispatch(terminal: Terminal, arguments: Sequence[str]) -> int:
    """Carry out one command line. Whatever goes wrong is told, and is an exit code."""
    options = Options()
    # Asked of the text first: an error may be in what comes before the option.
    options.json_errors, options.full_traceback = wants_json(arguments), wants_full_traceback(arguments)
    try:
        with import_path():
            return _dispatch(terminal, arguments, options)
    except CommandError as error:
        return _tell(terminal, error, options)
    except CannotWrite as error:
        options.json_errors = False  # nor could this be told there
        return _tell(terminal, CommandError(str(error), exit_code=ENGINE), options)
    except KeyboardInterrupt:  # before the build: during an import, say
        return _tell(terminal, CommandError("interrupted", code="interrupted", exit_code=130), options)
    except Exception as error:
        terminal.say(*report.traceback_lines(error) if options.full_traceback else report.unexpected_lines(error))
        hint = "this is a mistake in asyncflow; --full-traceback shows where"
        wrapped = CommandError("unexpected " + type(error).__name__, hint=hint, code="internal", exit_code=ENGINE)
        return _tell(terminal, wrapped, options)


def _dispatch(terminal: Terminal, arguments: Sequence[str], options: Options) -> int:
    first = arguments[0] if arguments else ""
    if first in ("", "-h", "--help", "help"):
        if first:
            terminal.data(HELP)
            return 0
        terminal.say(*((line,) for line in HELP.splitlines()))
        return USAGE
    if first not in _COMMANDS:
        what = "option" if first.startswith("-") else "command"
        near = suggestion(first, _COMMANDS) or ("; expected a task after `run`" if ":" in first else "")
        raise CommandError(f"no such {what}: {first}{near}", hint=f"asyncflow {', '.join(_COMMANDS)}, or --help")
    parser = option_parser(first)
    _, unknown = parser.parse_known_args(list(arguments[1:]), options)
    if unknown:
        error = parser.unknown(unknown[0])
        if first != "list" and unknown[0].startswith("--") and "did you mean" not in (error.hint or ""):
            error.hint = f"a task's parameters come after it: asyncflow {first} MODULE:Task {unknown[0]} ..."
        raise error
    if options.help and (first == "list" or options.reference is None):
        _help(terminal, parser)
        return 0
    if first == "list":
        return _list(terminal, options)
    return _work(terminal, first, options)


def _work(terminal: Terminal, command: str, options: Options) -> int:
    """``run`` and ``plan``."""
    if options.reference is None:
        raise CommandError(
            f"which task? expected asyncflow {command} MODULE:Task or FILE.py:Task",
            hint="asyncflow list names the tasks in this directory",
        )
    reference = Reference(options.reference)
    parser = TaskParser(command, reference.text, find_task(load_module(reference), reference))
    texts = parser.read(options.rest, options)
    options.json_errors = options.json  # the task may have a parameter of that name
    if options.help:
        _help(terminal, parser)
        return 0
    # In force while the build runs, too: bodies make tasks.
    with override(parse_overrides(options.overrides)):
        task = _construct(parser, texts)
        if command == "plan" or options.dry_run:
            return _plan(terminal, task, options)
        again = as_typed(command, reference.text, options, parser.typed(texts))
        return _run(terminal, task, options, again)


def _construct(parser: TaskParser, texts: Mapping[str, str]) -> Task:
    try:
        return parser.task(texts)
    except CommandError:
        raise
    except Exception as error:  # an __init__ of the user's own
        where = "".join(f" ({frame})" for frame in user_frames(error, parser.cls.__module__)[-1:])
        message = f"{parser.cls.__name__} cannot be made: {type(error).__name__}: {error}{where}"
        raise CommandError(message, code="parameter") from error


def _help(terminal: Terminal, parser: OptionParser) -> None:
    terminal.data("\n".join(escape(line) for line in parser.format_help().rstrip().splitlines()))


# run -------------------------------------------------------------------------------------------------------


class _Watch:
    """Remembers how tasks ended: a build that is cancelled has no result."""

    def __init__(self, terminal: Terminal, options: Options) -> None:
        self._say = (lambda *lines: None) if options.quiet else terminal.say
        self._retries = options.retries
        self.started = time.monotonic()
        self.counts: Counter[FinalStatus] = Counter()
        self.failures: list[report.Failure] = []

    def __call__(self, event: Event) -> None:
        if isinstance(event, TaskFinished):
            self.counts[event.status] += 1
            if event.status in ("failed", "unknown"):
                self.failures.append(report.Failure(event.task, event.status, event.error, event.duration))
        elif isinstance(event, TaskRetry):
            self._say(report.retry_line(event, self._retries))


def _run(terminal: Terminal, task: Task, options: Options, again: str) -> int:
    watch = _Watch(terminal, options)
    building = _build.build(
        task,
        concurrency=options.jobs or opening.CONCURRENCY,
        threads=options.threads or opening.THREADS,
        processes=options.processes or opening.PROCESSES,
        grace=opening.GRACE if options.grace is None else options.grace,
        timeout=options.timeout,
        retries=options.retries,
        resources=dict(options.resources),
        rate=dict(options.rates),
        fail_fast=options.fail_fast,
        force=options.force,
        only=_only(options),
        on_event=watch,
    )
    with Interrupts(terminal) as interrupts:
        try:
            result = run_to_end(terminal, interrupts, building)
        except asyncio.CancelledError:
            return _cancelled(terminal, watch, interrupts.received, options, again)
        except PlanError as error:
            return _refused(terminal, error, options)
        except SystemExit as error:  # in a child task of a body's own: asyncio stops the loop for it
            message = f"a task raised SystemExit({error.code!r}) in an asyncio task of its own, which ends the loop"
            raise CommandError(message, hint="raise another exception", code="system_exit", exit_code=1) from error
        _finished(terminal, result, options, again)
        return result.exit_code if interrupts.received is None else 128 + interrupts.received


def _only(options: Options) -> list[type[Task]] | None:
    """The classes ``--only`` names; None if it was not given."""
    try:
        return [get_task_class(family) for family in options.only] or None
    except TaskNotFound as error:
        raise CommandError(f"--only: {error}", hint="asyncflow list names the tasks", code="task_not_found") from error
    except AmbiguousTask as error:
        raise CommandError(f"--only: {error}", code="ambiguous_task") from error


def _finished(terminal: Terminal, result: BuildResult, options: Options, again: str) -> None:
    if not result.ok:
        failures = report.failures_of(result)
        terminal.say(*report.failure_lines(failures, full=options.full_traceback))
        if result.why is not None:
            terminal.say((BLOCKED, f" stopped: {result.why}"), (Styled("hint:", "cyan"), f" to go on: {again}"))
        elif not failures:
            terminal.say(*_reasons(result))
    if not (result.ok and options.quiet):
        terminal.say(report.counts_line(result.counts, result.duration, ok=result.ok))
    if options.json:
        _json(terminal, result.to_dict())


def _reasons(result: BuildResult) -> Iterable[Line]:
    """Why a build without a failure did not succeed: a body cancelled itself, say."""
    try:
        result.raise_for_failure()
    except BuildFailed as group:
        for error in group.exceptions:
            yield (Styled("error:", "red"), f" {error}")


def _cancelled(terminal: Terminal, watch: _Watch, signal: int | None, options: Options, again: str) -> int:
    terminal.say(*report.failure_lines(watch.failures, full=options.full_traceback))
    counts = watch.counts
    done = counts["succeeded"] + counts["complete"] + counts["adopted"]
    left = counts.total() - done - counts["failed"] - counts["unknown"]
    parts = [f"{done:,} done", *(f"{counts[word]:,} {word}" for word in ("failed", "unknown") if counts[word])]
    word = "interrupted" if signal is not None else "cancelled"
    summary = f"{word}: {', '.join(parts)}, {left:,} not finished"
    terminal.say((BLOCKED, f" {summary}   ", Styled(report.seconds(time.monotonic() - watch.started), "dim")))
    error = CommandError(summary, hint=f"to go on: {again}", code=word, exit_code=128 + signal if signal else 1)
    terminal.say(_hint(error))
    if options.json:
        _json(terminal, _as_dict(error))
    return error.exit_code


# plan, list ------------------------------------------------------------------------------------------------


def _plan(terminal: Terminal, task: Task, options: Options) -> int:
    only = _only(options)
    with Interrupts(terminal) as interrupts:
        try:
            plan = run_to_end(terminal, interrupts, _build.plan(task, force=options.force, only=only))
        except asyncio.CancelledError:
            code = 128 + (interrupts.received or 0)
            raise CommandError("interrupted", code="interrupted", exit_code=code) from None
        except PlanError as error:
            return _refused(terminal, error, options)
    if options.json:
        _json(terminal, plan.to_dict())
    else:
        terminal.data(report.plan_text(plan))
    return 0


def _refused(terminal: Terminal, error: PlanError, options: Options) -> int:
    """The graph cannot be built."""
    terminal.say(*report.problem_lines(error, full=options.full_traceback))
    if options.json:
        _json(terminal, _as_dict(CommandError(str(error), hint="nothing was executed", code="plan")))
    return error.exit_code


def _list(terminal: Terminal, options: Options) -> int:
    if options.reference is None:
        found = [{"reference": ref, "summary": text} for ref, text in tasks_here()]
        column = "reference"
        nothing = "no tasks in the Python files of this directory; asyncflow list MODULE looks elsewhere"
    else:
        reference = Reference(options.reference)
        if reference.task:
            raise CommandError(
                f"{options.reference!r} is a task: expected a module or a file",
                hint=f"asyncflow run {options.reference} --help tells of the task",
            )
        found = [
            {"reference": f"{reference.place}:{family}", "family": family, "summary": _summary(cls)}
            for cls in tasks_of(load_module(reference))
            for family in (cls.get_task_family(),)
        ]
        column = "family"
        nothing = f"no tasks in {reference.place}"
    if options.json:
        _json(terminal, {"schema": 1, "tasks": found})
    elif found:
        width = min(max(len(escape(item[column])) for item in found), 40)
        lines = (f"{escape(item[column]):<{width}}  {escape(item['summary'])}".rstrip() for item in found)
        terminal.data("\n".join(lines))
    else:
        terminal.say((nothing,))
    return 0


def _summary(cls: type[Task]) -> str:
    # The class's own: an inherited docstring speaks of another task.
    return inspect.cleandoc(vars(cls).get("__doc__") or "").strip().partition("\n")[0]


# Errors, JSON ----------------------------------------------------------------------------------------------


def _tell(terminal: Terminal, error: CommandError, options: Options) -> int:
    terminal.say((Styled("error:", "red"), " ", error.message))
    if options.full_traceback and error.__cause__ is not None:
        terminal.say(*report.traceback_lines(error.__cause__))
    if error.hint:
        terminal.say(_hint(error))
    if options.json_errors:
        try:
            _json(terminal, _as_dict(error))
        except CannotWrite as problem:
            terminal.say((Styled("error:", "red"), f" {problem}"))
    return error.exit_code


def _hint(error: CommandError) -> Line:
    return (Styled("hint:", "cyan"), f" {error.hint}")


def _as_dict(error: CommandError) -> dict[str, Any]:
    return {"schema": 1, "error": {"code": error.code, "message": error.message, "hint": error.hint}}


def _json(terminal: Terminal, document: Mapping[str, Any]) -> None:
    # ASCII: whatever is in a parameter or a message, the document is safe to show.
    terminal.data(json.dumps(document, indent=2))
