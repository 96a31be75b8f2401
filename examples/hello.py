import asyncio

from asyncflow import Task, build


class Square(Task):
    n: int

    async def run(self) -> int:
        return self.n**2


class Total(Task):
    upto: int = 10

    async def run(self) -> int:
        return sum(await asyncio.gather(*[Square(n=i) for i in range(self.upto)]))  # found, and made, at run time


if __name__ == "__main__":
    print(asyncio.run(build(Total(upto=4)))[Total(upto=4)])  # 14
