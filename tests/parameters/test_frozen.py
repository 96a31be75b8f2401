from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest

from asyncflow.parameters import FrozenDict


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.__setitem__("a", 2),
        lambda d: d.__delitem__("a"),
        lambda d: d.__ior__({"b": 1}),
        lambda d: d.clear(),
        lambda d: d.pop("a"),
        lambda d: d.popitem(),
        lambda d: d.setdefault("b", 1),
        lambda d: d.update(b=1),
    ],
)
def test_nothing_changes_it(change: Callable[[Any], object]) -> None:
    value = FrozenDict({"a": 1})
    with pytest.raises(TypeError, match=r"cannot be changed; change a copy: dict\(value\)"):
        change(value)
    assert value == {"a": 1}


def test_equality_and_hash_ignore_the_order() -> None:
    one, other = FrozenDict({"a": 1, "b": 2}), FrozenDict({"b": 2, "a": 1})
    assert one == other
    assert hash(one) == hash(other)
    assert one != FrozenDict({"a": 1})


def test_copies() -> None:
    value = FrozenDict({"a": (1,)})
    for clone in (pickle.loads(pickle.dumps(value)), copy.copy(value), copy.deepcopy(value)):
        assert clone == value
        assert type(clone) is FrozenDict
        assert hash(clone) == hash(value)
    assert type(value.copy()) is dict
    assert repr(value) == "FrozenDict({'a': (1,)})"
