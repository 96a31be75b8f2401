from __future__ import annotations

import enum
from typing import Any

import pytest

from asyncflow.errors import TaskDefinitionError
from asyncflow.parameters import ChoiceParameter, EnumParameter


class Color(enum.Enum):
    RED = 1
    BLUE = 2
    CRIMSON = 1  # noqa: PIE796


class Mode(enum.Flag):
    READ = 1
    WRITE = 2


@pytest.mark.parametrize("member", list(Color))
def test_members_are_written_by_name(member: Color) -> None:
    parameter = EnumParameter(enum=Color)
    assert parameter.serialize(member) == member.name
    assert parameter.parse(member.name) is parameter.normalize(member) is member


def test_an_alias_is_its_member() -> None:
    assert EnumParameter(enum=Color).parse("CRIMSON") is Color.RED


@pytest.mark.parametrize("text", ["red", "", "GREEN"])
def test_other_names_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^expected a member of Color: RED, BLUE, CRIMSON$"):
        EnumParameter(enum=Color).parse(text)


@pytest.mark.parametrize("value", ["RED", 1, None, Mode.READ])
def test_other_values_are_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"expected a member of Color"):
        EnumParameter(enum=Color).normalize(value)


def test_a_combination_of_flags_has_no_name() -> None:
    parameter = EnumParameter(enum=Mode)
    assert parameter.normalize(Mode.READ) is Mode.READ
    for value in (Mode.READ | Mode.WRITE, Mode(0)):
        with pytest.raises(ValueError, match=r"expected a member of Mode"):
            parameter.normalize(value)


@pytest.mark.parametrize("bad", [int, "Color", enum.Enum])
def test_enum_has_to_be_one(bad: Any) -> None:
    with pytest.raises(TaskDefinitionError, match=r"expected an Enum class"):
        EnumParameter(enum=bad)


@pytest.mark.parametrize(
    ("choices", "var_type"),
    [(["eu", "us"], str), ([1, 2], int), ([0.5, 2.0], float), ([True, False], bool)],
)
def test_choices_round_trip(choices: list[Any], var_type: type) -> None:
    parameter = ChoiceParameter(choices=choices, var_type=var_type)
    for choice in choices:
        assert parameter.parse(parameter.serialize(choice)) == parameter.normalize(choice) == choice
        assert parameter.from_json(parameter.to_json(choice)) == choice


def test_other_choices_are_refused() -> None:
    parameter = ChoiceParameter(choices=["eu", "us"])
    for attempt in (parameter.parse, parameter.normalize, parameter.from_json):
        with pytest.raises(ValueError, match=r"^expected one of 'eu', 'us'$"):
            attempt("fr")
    with pytest.raises(ValueError, match=r"^expected one of 1, 2$"):
        ChoiceParameter(choices=[1, 2], var_type=int).parse("one")


def test_true_is_not_one() -> None:
    with pytest.raises(ValueError, match=r"expected one of 1, 2"):
        ChoiceParameter(choices=[1, 2], var_type=int).normalize(True)
    normal = ChoiceParameter(choices=[1, 2], var_type=int).normalize(1.0)
    assert type(normal) is int


def test_the_order_of_a_set_is_settled() -> None:
    assert ChoiceParameter(choices={"c", "a", "b"}).choices == ("a", "b", "c")
    assert ChoiceParameter(choices=["c", "a", "c"]).choices == ("c", "a")


def test_choices_have_to_be_there_and_readable() -> None:
    with pytest.raises(TaskDefinitionError, match=r"at least one choice"):
        ChoiceParameter(choices=[])
    with pytest.raises(TaskDefinitionError, match=r"var_type=str does not read the choice 1 back.*var_type=int"):
        ChoiceParameter(choices=[1, 2])
    with pytest.raises(TaskDefinitionError, match=r"does not read the choice 'a' back"):
        ChoiceParameter(choices=["a"], var_type=int)  # type: ignore[arg-type]
