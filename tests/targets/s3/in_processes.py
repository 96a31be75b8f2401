"""Tasks for worker processes: they have to be in a module that can be imported there."""

from __future__ import annotations

import pickle

from asyncflow import Task
from asyncflow.targets.s3 import S3Target


class MakeInProcess(Task):
    """Makes an object, on the loop of a worker."""

    url: str
    store: str
    runner = "process"

    def output(self) -> S3Target:
        return S3Target(self.url, store=pickle.loads(bytes.fromhex(self.store)))

    async def run(self) -> None:
        async with self.output().open("w") as file:
            await file.write("made there")


class MakeInSyncBody(MakeInProcess):
    """The same in a sync body."""

    def run(self) -> None:  # type: ignore[override]
        assert not self.output().exists()
        with self.output().open("w") as file:
            file.write("made there")
