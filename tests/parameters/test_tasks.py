from __future__ import annotations

import json
from typing import Any

import pytest

from asyncflow.errors import ParameterError, TaskDefinitionError, TaskNotFound
from asyncflow.parameters import (
    IntParameter,
    Parameter,
    TaskInstanceParameter,
    TaskParameter,
    Visibility,
    parameters_of,
)

from .standin import Task, register


class Extract(Task):
    part = IntParameter()
    name = Parameter(default="x")
    workers = IntParameter(default=1, significant=False)
    token = Parameter(default="t0ken", visibility=Visibility.PRIVATE)
    added = IntParameter(default=0, compat_default=0)


class Special(Extract):
    pass


class Other(Task):
    pass


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, Extract, Special, Other)


def test_parameters_of_a_class() -> None:
    assert list(parameters_of(Special)) == ["part", "name", "workers", "token", "added"]


def test_a_task_class_is_written_as_its_family() -> None:
    parameter = TaskParameter[Any]()
    assert parameter.serialize(Extract) == "Extract"
    assert parameter.parse("Extract") is parameter.normalize(Extract) is Extract
    with pytest.raises(TaskNotFound, match=r"no task named 'Missing'"):
        parameter.parse("Missing")
    for value in ("Extract", Extract(part=1), int):
        with pytest.raises(ValueError, match=r"^expected a task class$"):
            parameter.normalize(value)


def test_a_base_limits_the_classes() -> None:
    parameter = TaskParameter[Any](base=Extract)
    assert parameter.parse("Special") is Special
    with pytest.raises(ValueError, match=r"expected a task class: Extract or a subclass"):
        parameter.parse("Other")
    with pytest.raises(ValueError, match=r"expected a task class: Extract or a subclass"):
        parameter.normalize(Other)
    with pytest.raises(TaskDefinitionError, match=r"expected a task class"):
        TaskParameter(base=int)  # type: ignore[type-var]


def test_a_task_is_written_as_compact_sorted_json() -> None:
    parameter = TaskInstanceParameter[Any](task=Extract)
    text = parameter.serialize(Special(part=3))
    assert text == '{"family":"Special","params":{"name":"x","part":"3"}}'
    assert parameter.parse(text) == Special(part=3)
    assert parameter.normalize(Special(part=3)) == Special(part=3)


def test_equal_tasks_have_equal_text_and_hidden_values_are_not_in_it() -> None:
    parameter = TaskInstanceParameter[Any](task=Extract)
    assert parameter.serialize(Extract(part=1, workers=8)) == parameter.serialize(Extract(part=1))
    assert "s3cret" not in parameter.serialize(Extract(part=1, token="s3cret"))


def test_compat_defaults_are_left_out_and_come_back() -> None:
    class Later(Task):
        n = IntParameter(default=5, compat_default=3)

    parameter = TaskInstanceParameter[Any](task=Later)
    with pytest.MonkeyPatch.context() as patch:
        register(patch, Later)
        for n in (3, 4, 5):
            assert parameter.parse(parameter.serialize(Later(n=n))) == Later(n=n)
    assert json.loads(parameter.serialize(Later(n=3)))["params"] == {}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "3",
        "[]",
        '{"family": "Extract"}',
        '{"family": 3, "params": {}}',
        '{"family": "E", "params": {"a": 1}}',
    ],
)
def test_other_text_is_no_task(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected a task: an instance of Extract, as JSON"):
        TaskInstanceParameter[Any](task=Extract).parse(text)


def test_errors_inside_of_a_task_name_it() -> None:
    parameter = TaskInstanceParameter[Any](task=Extract)
    with pytest.raises(ParameterError, match=r"Extract: no parameter 'prt' \(did you mean 'part'\?\)"):
        parameter.parse('{"family": "Extract", "params": {"prt": "3"}}')
    with pytest.raises(ValueError, match=r"expected a task: an instance of Extract"):
        parameter.parse('{"family": "Other", "params": {}}')


def test_other_values_are_no_task() -> None:
    parameter = TaskInstanceParameter[Any](task=Extract)
    with pytest.raises(ValueError, match=r"expected a task: an instance of Extract$"):
        parameter.normalize(Other())
    with pytest.raises(ValueError, match=r"not the class itself: write Extract\(\.\.\.\)"):
        parameter.normalize(Extract)
    with pytest.raises(TaskDefinitionError, match=r"expected a task class"):
        TaskInstanceParameter(task=int)  # type: ignore[type-var]
