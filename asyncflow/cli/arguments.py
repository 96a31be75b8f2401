"""The command line: the options of each command, and a task's parameters as flags."""

from __future__ import annotations

import argparse
import difflib
import inspect
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NoReturn

from .. import registry
from .._options import per_second
from .._task import Task
from ..errors import ConfigError, ParameterError, TaskNotFound
from ..parameters import MISSING, BoolParameter, Parameter, parameters_of, parse_value
from ..parameters.defaults import find_default
from .errors import CommandError

__all__ = [
    "HELP",
    "OptionParser",
    "Options",
    "TaskParser",
    "as_typed",
    "option_parser",
    "parse_overrides",
    "wants_full_traceback",
    "wants_json",
]

HELP = """\
usage: asyncflow {run,plan,list} ...

  asyncflow run hello.py:Total                          make a task of a file, and all it requires
  asyncflow run pipelines.report:Report --n 5           a task of a module, with a parameter
  asyncflow run report.py:Report --help                 which parameters it has
  asyncflow plan report.py:Report --date 2026-01-31     what would run, and why
  asyncflow list report.py                              the tasks in a file or module

commands:
  run        make what is missing
  plan       show what run would do; nothing is executed
  list       name the tasks in a file, a module, or this directory

  -h, --help      this text; after a command, its options
  --version       the version

exit codes: 0 done, 1 a task failed, 2 wrong call, module or graph, 3 an external input is missing,
            4 cannot tell whether something exists, 130 SIGINT, 143 SIGTERM"""

_EXAMPLES = {
    "run": """\
  asyncflow run hello.py:Total
  asyncflow run hello.py:Total --upto 4
  asyncflow run -j 8 pipelines.report:Report --date 2026-01-31
  asyncflow run report.py:Report --set Clean.part=3 --only Clean --force=upstream
  asyncflow run report.py:Report --json > result.json""",
    "plan": """\
  asyncflow plan report.py:Report --date 2026-01-31
  asyncflow plan report.py:Report --json""",
    "list": """\
  asyncflow list
  asyncflow list report.py
  asyncflow list pipelines.report --json""",
}
_WHAT = {
    "run": "Make the task, and whatever it requires that is missing.",
    "plan": "Show what run would do, and why. Nothing is executed.",
    "list": "Name the tasks in a module or file; without one, those in the Python files of this directory.",
}


class Options(argparse.Namespace):
    """What was asked for; a field the command has no option for keeps its default."""

    reference: str | None
    rest: list[str]
    overrides: list[str]
    jobs: int | None
    threads: int | None
    processes: int | None
    fail_fast: bool
    force: bool | Literal["upstream"]
    only: list[str]
    retries: int
    timeout: float | None
    grace: float | None
    resources: list[tuple[str, int]]
    rates: list[tuple[str, str]]
    dry_run: bool
    json: bool
    quiet: bool
    full_traceback: bool
    help: bool
    json_errors: bool
    """Whether an error is told as JSON, too; known before the arguments have been understood."""

    def __init__(self) -> None:
        super().__init__(reference=None, rest=[], retries=0, timeout=None, grace=None)
        self.jobs = self.threads = self.processes = None
        self.overrides, self.only, self.resources, self.rates = [], [], [], []
        self.fail_fast = self.force = False
        self.dry_run = self.json = self.quiet = self.full_traceback = self.help = self.json_errors = False

    def add(self, found: Mapping[str, Any]) -> None:
        """Take over what was given after the task; what may be given several times is added to."""
        for name, value in found.items():
            setattr(self, name, [*getattr(self, name), *value] if isinstance(value, list) else value)


class OptionParser(argparse.ArgumentParser):
    """Raises ``CommandError`` where argparse would exit."""

    def __init__(self, prog: str, **options: Any) -> None:
        super().__init__(
            prog=prog,
            add_help=False,
            allow_abbrev=False,
            argument_default=argparse.SUPPRESS,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            **options,
        )

    def _parse_optional(self, arg_string: str) -> Any:
        action = self._option_string_actions.get(arg_string)
        # Its value stands behind a "=": what comes after it is the task.
        bare = action is not None and action.dest == "force"
        return super()._parse_optional(f"{arg_string}=targets" if bare else arg_string)

    def error(self, message: str) -> NoReturn:
        message = message.removeprefix("argument ")
        hint = f"{self.prog} --help"
        if message.endswith("expected one argument"):
            flag = message.partition(":")[0].split(", ")[0].split("/")[-1]
            message = f"{flag}: expected a value"
            hint = f"a value that begins with - is written {flag}=VALUE"
        raise CommandError(message, hint=hint)

    def unknown(self, argument: str) -> CommandError:
        """The error for an argument this parser does not know."""
        flag = argument.partition("=")[0]
        if not flag.startswith("-") or flag == "--":
            return CommandError(
                f"unexpected argument {argument!r}", hint="a task's parameters are given by name: --name value"
            )
        known = [name for name in self._option_string_actions if name.startswith("--")]
        near = difflib.get_close_matches(flag, known, n=1, cutoff=0.75) or [
            name for name in known if name.startswith(flag)
        ]
        hint = f"did you mean {near[0]}?" if near and flag.startswith("--") else f"{self.prog} --help lists the options"
        return CommandError(f"no such option: {flag}", hint=hint)


def option_parser(command: str) -> OptionParser:
    """The parser of what stands before the task, and the task itself; what follows is ``rest``."""
    argument = "[MODULE|FILE.py]" if command == "list" else "MODULE:Task|FILE.py:Task [--parameter value ...]"
    parser = OptionParser(
        f"asyncflow {command}",
        usage=f"asyncflow {command} [options] {argument}\n\n{_EXAMPLES[command]}",
        description=_WHAT[command],
    )
    parser.add_argument("reference", nargs="?", help=argparse.SUPPRESS)
    if command != "list":
        parser.add_argument("rest", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    _add_options(parser, command)
    return parser


def _add_options(parser: OptionParser, command: str, taken: frozenset[str] = frozenset()) -> None:
    """The options of ``command``, without those whose name the task has a parameter of."""

    def add(*names: str, **options: Any) -> None:
        free = [name for name in names if name not in taken]
        if free:
            group.add_argument(*free, **options)

    group = parser.add_argument_group("options")
    if command == "run":
        add("-j", "--jobs", type=_count, metavar="N", help="bodies at work at once (default: 1,000)")
        add("--threads", type=_count, metavar="N", help="how many of them may be sync bodies (default: 32)")
        add("--processes", type=_count, metavar="N", help="how many may be in worker processes (default: the cores)")
        add("-x", "--fail-fast", action="store_true", dest="fail_fast", help="stop at the first failure")
        add("-k", "--keep-going", action="store_false", dest="fail_fast", help="make what can be made (the default)")
        add("--retries", type=_retries, metavar="N", help="attempts after a failed one, for tasks that do not say")
        add("--timeout", type=_seconds, metavar="SECONDS", help="stop the build after so long")
        add("--grace", type=_seconds, metavar="SECONDS", help="what bodies have for stopping (default: 1)")
        units = {"action": "append", "dest": "resources", "type": _resource, "metavar": "NAME=N"}
        add("--resource", help="units there are of what tasks share, e.g. db=4", **units)
        starts = {"action": "append", "dest": "rates", "type": _rate, "metavar": "NAME=N/TIME"}
        add("--rate", help="starts in how much time, e.g. api=10/s", **starts)
        add("-n", "--dry-run", action="store_true", dest="dry_run", help="only show the plan; nothing is executed")
        add("-q", "--quiet", action="store_true", help="say nothing but errors")
    if command != "list":
        add(
            "--force",
            nargs="?",
            type=_force,
            metavar="=upstream",
            help="run the task although it is complete; with =upstream, all it requires as well",
        )
        add("--only", action="append", metavar="FAMILY", help="run no other tasks; may be given several times")
        add(
            "--set",
            action="append",
            dest="overrides",
            metavar="FAMILY.PARAM=VALUE",
            help="the default of a parameter of any task",
        )
    add("--json", action="store_true", help="one JSON document on standard output")
    add("--full-traceback", action="store_true", dest="full_traceback", help="show errors with all their frames")
    add("-h", "--help", action="store_true", help="this text")


def _count(text: str) -> int:
    try:
        count = int(text)
    except ValueError:
        count = 0
    if count < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not valid: expected a whole number of at least 1")
    return count


def _retries(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not valid: expected a whole number, 0 or more")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not valid: expected a number of seconds, 0 or more, e.g. 30")
    return seconds


def _force(text: str) -> bool | Literal["upstream"]:
    if text not in ("targets", "upstream"):
        raise argparse.ArgumentTypeError(f"{text!r} is not valid: expected --force, or --force=upstream")
    return True if text == "targets" else "upstream"


def _resource(text: str) -> tuple[str, int]:
    name, _, count = text.partition("=")
    if not name or not count.isdecimal() or not int(count):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not valid: expected NAME=N with a whole number of at least 1, e.g. db=4"
        )
    return name, int(count)


def _rate(text: str) -> tuple[str, str]:
    name, _, rate = text.partition("=")
    try:
        per_second(rate if name else "", "--rate")
    except ConfigError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not valid: expected NAME=N/TIME, e.g. api=10/s, api=100/min, api=3/10s"
        ) from None
    return name, rate


class TaskParser(OptionParser):
    """The parser of what stands after the task: its parameters, and the options of the command.

    Where a parameter and an option have one name, the parameter has it here; the option can still be given
    before the task.
    """

    def __init__(self, command: str, reference: str, cls: type[Task]) -> None:
        super().__init__(f"asyncflow {command} {reference}", description=_documentation(cls))
        self.cls = cls
        self.parameters = parameters_of(cls)
        self._flags = {name: _flag(name) for name in self.parameters}
        required = [name for name, parameter in self.parameters.items() if not _has_default(cls, parameter)]
        needs = "".join(f" {self._flags[name]} {_metavar(name)}" for name in required)
        self.usage = f"{_percent(self.prog)}{needs} [options]"
        group = self.add_argument_group(f"parameters of {cls.get_task_family()}")
        for name, parameter in self.parameters.items():
            argument = _argument(parameter, name in required)
            for spelling in self._names(name):
                group.add_argument(spelling, **argument)
                argument["help"] = argparse.SUPPRESS
        _add_options(self, command, frozenset(option for name in self.parameters for option in self._names(name)))

    def _names(self, name: str) -> list[str]:
        return list(dict.fromkeys([self._flags[name], f"--{name}"]))

    def read(self, arguments: Sequence[str], options: Options) -> dict[str, Any]:
        """The parameters given in ``arguments``; ``options`` gets what is there of the command's own.

        Raises ``CommandError`` for what is unknown, missing or wrong.
        """
        given = argparse.Namespace()
        _, extra = self.parse_known_args(list(arguments), given)
        if extra:
            raise self.unknown(next((item for item in extra if item.startswith("-")), extra[0]))
        found = vars(given)
        texts = {name: found.pop(_dest(name)) for name in self.parameters if _dest(name) in found}
        options.add(found)
        return texts

    def task(self, texts: Mapping[str, str]) -> Task:
        """The task with the parameters ``texts``. Raises ``CommandError`` if they are missing or wrong."""
        values = {
            name: _value(self.cls, self.parameters[name], text, self._flags[name]) for name, text in texts.items()
        }
        try:
            absent = [n for n, p in self.parameters.items() if n not in values and not _has_default(self.cls, p)]
            if absent:
                first = self.parameters[absent[0]]
                expected = f"expected {first.expected}" if len(absent) == 1 else f"{self.prog} --help tells more"
                flags = ", ".join(self._flags[name] for name in absent)
                raise CommandError(f"{self.cls.__name__} needs {flags}", hint=expected, code="parameter")
            return self.cls(**values)
        except ParameterError as error:
            raise CommandError(str(error), code="parameter") from error

    def typed(self, texts: Mapping[str, str]) -> list[str]:
        """The parameters as one would type them again; hidden values are not told."""
        words = []
        for name, text in texts.items():
            shown = "***" if self.parameters[name].hidden else text
            words += [f"{self._flags[name]}={shown}"] if shown.startswith("-") else [self._flags[name], shown]
        return words


def _has_default(cls: type[Task], parameter: Parameter[Any]) -> bool:
    try:
        return find_default(cls, parameter) is not MISSING
    except ParameterError:  # there is one, and it is wrong: the constructor says so
        return True


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _dest(name: str) -> str:
    return f"parameter {name}"  # no option of the command's own can have this name


def _metavar(name: str) -> str:
    return name.upper()


def _argument(parameter: Parameter[Any], required: bool) -> dict[str, Any]:
    argument: dict[str, Any] = {"dest": _dest(parameter.name), "metavar": _metavar(parameter.name)}
    parts = [parameter.help] if parameter.help else []
    parts.append(parameter.expected)
    if required:
        parts.append("required")
    elif parameter.hidden:
        parts.append("default: ***")
    elif parameter.default is not MISSING:
        text = parameter.serialize(parameter.default)
        parts.append(f"default: {text if text else repr(parameter.default)}")
    if parameter.env is not None:
        parts.append(f"environment: {parameter.env}")
    argument["help"] = _percent("; ".join(parts))
    if isinstance(parameter, BoolParameter) and parameter.default is False and parameter.parsing == "implicit":
        argument |= {"nargs": "?", "const": "true"}
    return argument


def _percent(text: str) -> str:
    return text.replace("%", "%%")  # argparse formats with it


def _documentation(cls: type[Task]) -> str:
    # The class's own: an inherited docstring speaks of another task.
    return _percent(inspect.cleandoc(vars(cls).get("__doc__") or "").strip())


def _value(cls: type[Task], parameter: Parameter[Any], text: str, flag: str) -> Any:
    try:
        return parse_value(cls, parameter, text)
    except ParameterError as error:
        message = str(error).removeprefix(f"{cls.__name__}: {parameter.name}=")
        raise CommandError(f"{flag}: {message}", code="parameter") from error
    except Exception as error:  # a parse() of the user's own: the mistake is in it, or in the value
        shown, words = ("***", "") if parameter.hidden else (repr(text), f": {error}")
        raise CommandError(f"{flag}: {shown} is not valid: {type(error).__name__}{words}", code="parameter") from (
            None if parameter.hidden else error
        )


def parse_overrides(items: Sequence[str]) -> dict[tuple[str, str], str]:
    """``["Clean.part=3"]`` as what ``override`` takes, checked.

    Raises ``CommandError`` for a task, a parameter or a value that is none.
    """
    found: dict[tuple[str, str], str] = {}
    for cls, parameter, text in _overridden(items):
        _value(cls, parameter, text, f"--set {cls.get_task_family()}.{parameter.name}")
        found[cls.get_task_family(), parameter.name] = text
    return found


def _overridden(items: Sequence[str]) -> Iterator[tuple[type[Task], Parameter[Any], str]]:
    for item in items:
        target, equals, text = item.partition("=")
        family, dot, name = target.rpartition(".")
        if not equals or not dot or not family or not name:
            raise CommandError(f"--set {target}: expected FAMILY.PARAMETER=VALUE, e.g. --set Clean.part=3")
        try:
            cls = registry.get_task_class(family)
        except TaskNotFound as error:
            raise CommandError(f"--set {target}: {error}", code="task_not_found") from error
        except LookupError as error:
            raise CommandError(f"--set {target}: {error}", code="ambiguous_task") from error
        parameters = parameters_of(cls)
        name = name.replace("-", "_")
        if name not in parameters:
            near = registry.suggestion(name, parameters)
            its = f"its parameters: {', '.join(parameters)}" if parameters else "it has no parameters"
            raise CommandError(f"--set {target}: {family} has no parameter {name!r}{near}", hint=its, code="parameter")
        yield cls, parameters[name], text


def as_typed(command: str, reference: str, options: Options, parameters: Sequence[str]) -> str:
    """The command that does the same again, ready for a shell. No hidden value is in it."""
    words = ["asyncflow", command]
    for flag, number in (
        *(("--jobs", options.jobs), ("--threads", options.threads), ("--processes", options.processes)),
        ("--retries", options.retries or None),
        *(("--timeout", options.timeout), ("--grace", options.grace)),
    ):
        words += [] if number is None else [flag, f"{number:g}"]
    for flag, given in (("--resource", options.resources), ("--rate", options.rates)):
        words += [word for name, amount in given for word in (flag, f"{name}={amount}")]
    words += [word for family in options.only for word in ("--only", family)]
    words += ["--force" if options.force is True else "--force=upstream"] if options.force else []
    switches = (("--fail-fast", options.fail_fast), ("--quiet", options.quiet), ("--json", options.json))
    words += [flag for flag, on in switches if on]
    for cls, parameter, text in _overridden(options.overrides):
        shown = "***" if parameter.hidden else text
        words += ["--set", f"{cls.get_task_family()}.{parameter.name}={shown}"]
    return shlex.join([*words, reference, *parameters])


def wants_json(arguments: Sequence[str]) -> bool:
    """Whether even an error is to be told as JSON: asked before the arguments have been understood."""
    return "--json" in arguments


def wants_full_traceback(arguments: Sequence[str]) -> bool:
    """Whether errors are shown with all their frames."""
    return "--full-traceback" in arguments or os.environ.get("ASYNCFLOW_FULL_TRACEBACK", "0") not in ("", "0")
