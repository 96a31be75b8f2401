"""The queue before the places."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncflow.queues import Queue


@given(st.lists(st.one_of(st.none(), st.tuples(st.integers(0, 3), st.booleans()))))
def test_smallest_key_first_and_among_equals_first_come(moves: list[tuple[int, bool] | None]) -> None:
    queue = Queue()
    model: list[tuple[int, int]] = []  # key and number, in order
    for n, move in enumerate(moves):
        if move is not None:
            key, first = move
            queue.push((key, 0, 0), n, first=first)
            place = next(
                (i for i, (other, _) in enumerate(model) if other > key or (first and other == key)), len(model)
            )
            model.insert(place, (key, n))
        elif model:
            key, item = model.pop(0)
            assert queue.keys[0] == (key, 0, 0)
            assert queue.peek() == item
            assert queue.pop() == item
        assert bool(queue.keys) == bool(model)


def test_an_empty_queue_has_no_first() -> None:
    queue = Queue()
    for ask in (queue.pop, queue.peek):
        with pytest.raises(IndexError):
            ask()
