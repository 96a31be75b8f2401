"""What a task is called, tasks that write files, a WrapperTask that groups them, and build()."""

from __future__ import annotations

import asyncflow
from asyncflow import LocalTarget, Parameter, Task, WrapperTask


class MyTask(Task):
    my_param = Parameter()
    task_namespace = "my_namespace"


class DynamicTask(Task):
    filename = Parameter()

    def output(self) -> LocalTarget:
        return LocalTarget(self.filename)

    # Luigi's text leaves run() out, and Luigi calls that a success. Here a run() that does not make its
    # output() has failed, and the error (IncompleteOutput) names the file.
    def run(self) -> None:
        with self.output().open("w") as f:
            f.write(f"I am {self.filename}\n")


class FileTask(Task):
    def output(self) -> LocalTarget:
        return LocalTarget("output/from_luigi/output.txt")

    def run(self) -> None:
        with self.output().open("w") as f:
            f.write("Hello, Luigi!")


class ParentTask(WrapperTask):
    def requires(self) -> list[Task]:
        return [DynamicTask(filename="output/from_luigi/dynamic.txt"), FileTask()]


def show_names() -> None:
    my_task = MyTask(my_param="hello")
    print(my_task)  # --> my_namespace.MyTask(my_param=hello)

    print(my_task.get_task_namespace())  # --> my_namespace
    print(my_task.get_task_family())  # --> my_namespace.MyTask
    print(my_task.task_id)  # --> my_namespace.MyTask_hello_890907e7ce, the id it has in Luigi

    print(MyTask.get_task_namespace())  # --> my_namespace
    print(MyTask.get_task_family())  # --> my_namespace.MyTask
    try:
        print(MyTask.task_id)  # --> Error!
    except AttributeError as error:
        print(f"Error: {error}")


if __name__ == "__main__":
    show_names()
    result = asyncflow.run([ParentTask()])  # in an event loop: await asyncflow.build([ParentTask()])
    print("ParentTask:", result.status)
