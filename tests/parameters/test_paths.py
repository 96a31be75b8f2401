from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncflow.errors import ParameterError
from asyncflow.parameters import OptionalPathParameter, PathParameter

from .standin import Task


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
def test_paths_round_trip(text: str) -> None:
    parameter = PathParameter()
    normal = parameter.normalize(text)
    assert isinstance(normal, Path)
    assert parameter.parse(parameter.serialize(normal)) == normal == parameter.normalize(normal)


@pytest.mark.parametrize("value", [3, None, b"x"])
def test_other_values_are_no_path(value: object) -> None:
    with pytest.raises(ValueError, match=r"^expected a path"):
        PathParameter().normalize(value)


def test_absolute_and_exists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert PathParameter(absolute=True).normalize("a") == tmp_path / "a"
    with pytest.raises(ValueError, match=r"^expected a path that exists$"):
        PathParameter(exists=True).normalize("a")
    (tmp_path / "a").touch()
    assert PathParameter(exists=True).normalize("a") == Path("a")


def test_a_default_that_has_to_exist_is_looked_for_when_it_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    class T(Task):
        source = PathParameter(default="a", exists=True)
        other = OptionalPathParameter(default=Path("a"), exists=True)

    with pytest.raises(ParameterError, match=r"T: source='a' is not valid: expected a path that exists"):
        T()
    (tmp_path / "a").touch()
    assert (T().source, T().other) == (Path("a"), Path("a"))


def test_a_default_as_text_becomes_a_path() -> None:
    class T(Task):
        source = PathParameter(default="a")

    assert T().source == Path("a")
