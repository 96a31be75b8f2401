from __future__ import annotations

import itertools
from collections import OrderedDict, namedtuple
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncflow.tree import leaves, map_leaves, settle

Pair = namedtuple("Pair", "left right")

plain_leaves = st.integers() | st.text(max_size=3) | st.binary(max_size=3)
structures = st.recursive(
    plain_leaves | st.none(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(st.text(max_size=2), inner, max_size=4)
        | st.tuples(inner, inner).map(lambda both: Pair(*both))
    ),
    max_leaves=20,
)


def model(structure: Any) -> list[Any]:
    """What `leaves` means, said by recursion."""
    if structure is None:
        return []
    if isinstance(structure, dict):
        structure = list(structure.values())
    if isinstance(structure, (list, tuple)):
        return [leaf for item in structure for leaf in model(item)]
    return [structure]


@given(structures)
def test_leaves_are_those_of_the_model(structure: Any) -> None:
    assert list(leaves(structure)) == model(structure)


@given(structures)
def test_mapping_with_the_identity_changes_nothing(structure: Any) -> None:
    mapped = map_leaves(structure, lambda leaf: leaf)
    assert mapped == structure
    assert type(mapped) is type(structure)


@given(structures)
def test_the_leaves_of_a_mapped_structure_are_the_mapped_leaves(structure: Any) -> None:
    mapped = map_leaves(structure, lambda leaf: ("leaf", leaf).__repr__())
    assert list(leaves(mapped)) == [repr(("leaf", leaf)) for leaf in model(structure)]


@given(structures)
def test_settling_what_is_settled_gives_the_thing_itself(structure: Any) -> None:
    assert settle(structure) is structure


def one_time(structure: Any) -> Any:
    """`structure` with every list in it a generator."""
    if isinstance(structure, list):
        return (one_time(item) for item in structure)
    if isinstance(structure, Pair):
        return Pair(*map(one_time, structure))
    if isinstance(structure, tuple):
        return tuple(map(one_time, structure))
    if isinstance(structure, dict):
        return {key: one_time(value) for key, value in structure.items()}
    return structure


@given(structures)
def test_settling_reads_every_generator_once_and_for_all(structure: Any) -> None:
    settled = settle(one_time(structure))
    assert settled == structure
    assert list(leaves(settled)) == list(leaves(settled)) == model(structure)


def test_leaves_do_not_recurse() -> None:
    deep: Any = "leaf"
    for _ in range(100_000):
        deep = [deep]
    assert list(leaves(deep)) == ["leaf"]


def test_leaves_are_lazy() -> None:
    assert list(itertools.islice(leaves(itertools.count()), 3)) == [0, 1, 2]


@pytest.mark.parametrize("kind", ["list", "dict"])
def test_a_structure_that_holds_itself_is_an_error(kind: str) -> None:
    knot: Any = [] if kind == "list" else {}
    if kind == "list":
        knot.append(knot)
    else:
        knot["again"] = knot
    with pytest.raises(ValueError, match="itself"):
        list(leaves(knot))


def test_what_counts_as_a_collection() -> None:
    class Custom:
        def __iter__(self) -> Iterator[str]:
            return iter("ab")

    class Mine(Mapping[str, int]):
        def __getitem__(self, key: str) -> int:
            return {"x": 1, "y": 2}[key]

        def __iter__(self) -> Iterator[str]:
            return iter("xy")

        def __len__(self) -> int:
            return 2

    assert list(leaves("abc")) == ["abc"]
    assert list(leaves(b"abc")) == [b"abc"]
    assert list(leaves(None)) == []
    assert list(leaves([None, [None], ()])) == []
    assert list(leaves(Custom())) == ["a", "b"]
    assert list(leaves(Mine())) == [1, 2]
    assert list(leaves({3, 4})) == [3, 4]
    assert map_leaves(Custom(), str.upper) == ["A", "B"]
    assert map_leaves(Mine(), str) == {"x": "1", "y": "2"}
    assert map_leaves(OrderedDict(b=1, a=2), str) == {"b": "1", "a": "2"}
    assert map_leaves(Pair(1, [2]), str) == Pair("1", ["2"])


def test_nothing_is_changed_in_place() -> None:
    inner = [1, 2]
    structure = {"a": inner, "b": (3, None)}
    assert map_leaves(structure, str) == {"a": ["1", "2"], "b": ("3", None)}
    assert structure == {"a": [1, 2], "b": (3, None)}
    assert inner == [1, 2]
