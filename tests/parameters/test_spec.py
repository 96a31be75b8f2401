from __future__ import annotations

import pytest

from asyncflow.errors import TaskDefinitionError
from asyncflow.parameters import MISSING, IntParameter, ParameterSpec, Visibility, param

from .standin import Task


def test_every_option_arrives() -> None:
    class T(Task):
        n: int = param(
            default=3,
            help="how many",
            significant=False,
            visibility=Visibility.HIDDEN,
            env="N",
            positional=False,
            compat_default=4,
        )

    parameter: IntParameter = T.n  # type: ignore[assignment]
    assert isinstance(parameter, IntParameter)
    assert (parameter.default, parameter.help, parameter.env, parameter.compat_default) == (
        3,
        "how many",
        "N",
        4,
    )
    assert (parameter.significant, parameter.visibility, parameter.positional) == (
        False,
        Visibility.HIDDEN,
        False,
    )


def test_without_default_or_with_an_ellipsis_it_is_required() -> None:
    class T(Task):
        a: int = param()
        b: int = param(default=..., env="SOME_VARIABLE")

    assert T.a.default is MISSING  # type: ignore[attr-defined]
    assert T.b.default is MISSING  # type: ignore[attr-defined]


def test_options_that_were_not_stated_leave_the_kinds_own() -> None:
    spec = param(help="h")
    assert isinstance(spec, ParameterSpec)
    applied = spec.apply(IntParameter(default=3, significant=False, env="E"))
    assert (applied.default, applied.significant, applied.env, applied.help) == (3, False, "E", "h")


def test_bad_options_are_refused_where_they_are_written() -> None:
    with pytest.raises(TaskDefinitionError, match=r"visibility=7"):
        param(visibility=7)
    with pytest.raises(TaskDefinitionError, match=r"env=''"):
        param(env="")


def test_its_repr_shows_no_values() -> None:
    assert repr(param(default="s3cret", visibility=2)) == "param(default, visibility)"
