"""PrintNumbers and SquaredNumbers: a file, and a file made from it.

PrintNumbers is Luigi's word for word, and runs in a thread. SquaredNumbers has become `async def`.
"""

from __future__ import annotations

import asyncflow
from asyncflow import LocalTarget, Task


class PrintNumbers(Task):
    def output(self) -> LocalTarget:
        return LocalTarget("output/from_luigi/numbers_upto_10")

    def run(self) -> None:
        with self.output().open("w") as f:
            for i in range(1, 11):
                f.write(f"{i}\n")


class SquaredNumbers(Task):
    def requires(self) -> list[Task]:
        return [PrintNumbers()]

    def output(self) -> LocalTarget:
        return LocalTarget("output/from_luigi/squares.txt")

    async def run(self) -> None:
        async with self.input()[0].open() as fin, self.output().open("w") as fout:
            async for line in fin:
                n = int(line.strip())
                await fout.write(f"{n}: {n * n}\n")


if __name__ == "__main__":
    result = asyncflow.run(SquaredNumbers())
    with result[SquaredNumbers()].open() as squares:  # the target; had the task failed, its error
        print(squares.read(), end="")
