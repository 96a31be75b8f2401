"""Task classes by name."""

from __future__ import annotations

import gc
import threading
import weakref
from typing import Any

import pytest

from asyncflow import AmbiguousTask, Task, TaskNotFound, get_task_class
from asyncflow.registry import suggestion, task_classes


@pytest.fixture(autouse=True)
def _none_of_the_test_before() -> None:
    gc.collect()  # a class is part of a cycle


def define(module: str, name: str = "RegistryTask", bases: tuple[type, ...] = (Task,), **body: Any) -> type[Task]:
    return type(name, bases, {"__module__": module, "__qualname__": name, **body})


def test_a_class_is_found_by_its_family() -> None:
    plain = define("shop")
    spaced = define("shop", task_namespace="eu.daily")
    assert get_task_class("RegistryTask") is plain
    assert get_task_class("eu.daily.RegistryTask") is spaced


@pytest.mark.parametrize("name", ["RegistryTsk", "registrytask", "RegistryTasks"])
def test_a_name_that_is_nearly_right(name: str) -> None:
    kept = define("shop")
    with pytest.raises(TaskNotFound, match=rf"no task is called '{name}'; did you mean 'RegistryTask'\?"):
        get_task_class(name)
    del kept


@pytest.mark.parametrize("name", ["", "zzzzzzzzzzzz"])
def test_a_name_like_no_other(name: str) -> None:
    with pytest.raises(TaskNotFound) as caught:
        get_task_class(name)
    assert str(caught.value) == f"no task is called {name!r}"
    assert isinstance(caught.value, LookupError)


def test_two_unrelated_classes_are_ambiguous_when_asked_for() -> None:
    kept = [define("shop.eu"), define("shop.us"), define("shop.us", "RegistryOther")]
    with pytest.raises(
        AmbiguousTask,
        match=r"2 task classes are called 'RegistryTask': shop\.eu\.RegistryTask, shop\.us\.RegistryTask; "
        "set task_namespace in one",
    ):
        get_task_class("RegistryTask")
    assert get_task_class("RegistryOther") is kept[2]
    kept.pop(0)
    gc.collect()
    assert get_task_class("RegistryTask") is kept[0], "no longer ambiguous"


def test_a_subclass_of_the_same_family_stands_for_both() -> None:
    base = define("shop.base")
    child = define("shop.child", bases=(base,))
    assert get_task_class("RegistryTask") is child
    grandchild = define("shop.grandchild", bases=(child,))
    assert get_task_class("RegistryTask") is grandchild
    other = define("shop.other", bases=(base,))
    with pytest.raises(AmbiguousTask, match=r"2 task classes .*shop\.grandchild\.RegistryTask, shop\.other"):
        get_task_class("RegistryTask")
    del other


def test_a_definition_again_in_the_same_place_replaces_the_first() -> None:
    first = define("notebook")
    second = define("notebook", n=3)
    assert get_task_class("RegistryTask") is second is not first
    assert [cls for cls in task_classes("notebook")] == [second]  # noqa: C416


def test_classes_made_in_a_function_are_freed() -> None:
    def use() -> weakref.ref[type[Task]]:
        class RegistryLocal(Task):
            n: int = 1

            def requires(self) -> Any:
                return []

            async def complete(self) -> bool:
                return True

        assert get_task_class("RegistryLocal") is RegistryLocal
        assert RegistryLocal() == RegistryLocal(n=1)
        return weakref.ref(RegistryLocal)

    reference = use()
    gc.collect()
    assert reference() is None
    with pytest.raises(TaskNotFound):
        get_task_class("RegistryLocal")


def test_a_class_that_was_built_is_freed() -> None:
    import asyncflow

    def use() -> weakref.ref[type[Task]]:
        class RegistryBuilt(Task):
            async def run(self) -> int:
                return 1

        assert asyncflow.run(RegistryBuilt())[RegistryBuilt()] == 1
        return weakref.ref(RegistryBuilt)

    reference = use()
    gc.collect()
    assert reference() is None


def test_task_classes_of_one_module_in_order() -> None:
    kept = [define("shop", "RegistryB"), define("shop", "RegistryA"), define("shopping", "RegistryC")]
    assert [cls.__name__ for cls in task_classes("shop")] == ["RegistryA", "RegistryB"]
    assert set(kept) <= set(task_classes())


def test_a_suggestion_needs_something_near() -> None:
    assert suggestion("Reprot", ["Report", "Clean"]) == "; did you mean 'Report'?"
    assert suggestion("Reprot", ["Clean"]) == suggestion("Reprot", []) == ""


def test_threads_define_and_ask_at_the_same_time() -> None:
    errors: list[BaseException] = []
    stop = threading.Event()

    def work(step: Any) -> None:
        count = 0
        try:
            while not stop.is_set():
                count += 1
                step(count)
        except BaseException as error:
            errors.append(error)
            stop.set()

    kept: dict[int, type[Task]] = {}

    def defines(count: int) -> None:
        number = count % 50
        kept[number] = define(f"thread.{threading.get_ident()}", f"Registry{number}")

    def asks(count: int) -> None:
        task_classes()
        with pytest.raises(TaskNotFound):
            get_task_class("RegistryNone")

    threads = [threading.Thread(target=work, args=(step,)) for step in (defines, defines, asks, asks)]
    for thread in threads:
        thread.start()
    stop.wait(0.7)
    stop.set()
    for thread in threads:
        thread.join()
    assert not errors
