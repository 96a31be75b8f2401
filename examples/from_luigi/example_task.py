"""MyExampleTask: one task, the task it requires, and a date that says which report this is."""

from __future__ import annotations

import datetime

import asyncflow
from asyncflow import DateParameter, LocalTarget, Task


class MyUpstreamTask(Task):
    report_date = DateParameter()

    def output(self) -> LocalTarget:
        return LocalTarget(f"output/from_luigi/my-upstream-task-{self.report_date}")

    def run(self) -> None:
        with self.output().open("w") as f:
            f.write(f"the figures of {self.report_date}\n")


class MyExampleTask(Task):
    # Example parameter for our task: a date for which a report should be run. Luigi's spelling works as it is;
    # `report_date: datetime.date` says the same, and lets a type checker see the wrong values.
    report_date = DateParameter(default=datetime.date(2026, 1, 1))

    def requires(self) -> list[Task]:
        """Which other tasks need to be complete before this task can start?"""
        return [MyUpstreamTask(self.report_date)]

    def output(self) -> LocalTarget:
        """When this task is complete, where will it produce output?

        The date is in the name: in Luigi's text it was not, so that the first day's report stood for every day's.
        """
        return LocalTarget(f"output/from_luigi/my-example-task-{self.report_date}")

    # `async def` runs on the event loop, thousands at a time. A plain `def`, as above, runs in a thread.
    async def run(self) -> None:
        async with self.input()[0].open() as fin, self.output().open("w") as fout:
            await fout.write("A report on " + await fin.read())


if __name__ == "__main__":
    task = MyExampleTask()
    with asyncflow.run(task)[task].open() as report:
        print(report.read(), end="")
