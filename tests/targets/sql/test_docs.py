"""The guide to tables and rows does what it says."""

from __future__ import annotations

import datetime
import re
from pathlib import Path
from typing import Any

import pytest

from asyncflow import Task, build
from asyncflow.targets._sql import engine, marker, server, turns
from asyncflow.targets.sql import MarkerTarget, RowError, RowTarget, TableTarget

ROOT = Path(__file__).parents[3]
GUIDE = ROOT / "docs" / "sql.md"
DAY = datetime.date(2026, 1, 2)


@pytest.fixture
def guide(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Its names, with ``URL`` as it stands there, and with the other database."""
    monkeypatch.chdir(tmp_path)
    space: dict[str, Any] = {"__name__": "guide"}
    [block] = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    if url.startswith("postgres"):
        block = block.replace('"sqlite:///shop.db"', repr(url))
    exec(compile(block, str(GUIDE), "exec", dont_inherit=True), space)
    return space


async def test_orders_and_totals(guide: dict[str, Any]) -> None:
    totals = guide["Totals"](day=DAY)
    assert (await build(totals)).counts == {"succeeded": 3}
    assert (await build(totals)).counts == {"complete": 1}
    assert await RowTarget(guide["URL"], "totals", {"customer": "customer 3"}).exists()
    async with TableTarget(guide["URL"], "totals", "any").rows() as rows:
        assert len([row async for row in rows]) == 10
    async with guide["Orders"](day=DAY).output().rows() as rows:
        assert (await anext(rows))[:2] == (DAY, "customer 0")


async def test_the_totals_of_several_days_at_once(guide: dict[str, Any]) -> None:
    days = [DAY + datetime.timedelta(days=n) for n in range(5)]
    result = await build([guide["Totals"](day=day) for day in days])
    result.raise_for_failure()
    assert result.counts == {"succeeded": 11}


async def test_what_the_guide_says_of_force(guide: dict[str, Any]) -> None:
    orders = guide["Orders"](day=DAY)
    (await build(orders)).raise_for_failure()
    [error] = (await build(orders, force=True)).errors()
    assert "remove what it wrote, and its marker" in str(error.__cause__)

    class Again(Task):
        def output(self) -> MarkerTarget:
            return MarkerTarget(guide["URL"], "again")

        async def run(self) -> None:
            async with self.output().transaction() as connection:
                await connection.exec_driver_sql("DELETE FROM orders")
                await connection.exec_driver_sql("DELETE FROM table_updates WHERE update_id = 'again'")

    for _ in range(2):
        assert (await build(Again(), force=True)).counts == {"succeeded": 1}


async def test_what_the_guide_says_of_a_row(guide: dict[str, Any]) -> None:
    rows = [(DAY, "a", 1.0)] * 500 + [(DAY, "b", "much")]
    if not guide["URL"].startswith("postgres"):
        return  # SQLite takes any value in any column
    with pytest.raises(RowError) as failure:
        await TableTarget(guide["URL"], "orders", "u", guide["Orders"].columns).write(rows)
    said = str(failure.value)
    assert said.startswith("orders: row 501, column 'amount': a value of str does not fit: ")
    assert said.split("fit: ", maxsplit=1)[0] in GUIDE.read_text(encoding="utf-8")


def test_the_figures_of_the_guide() -> None:
    assert turns.PLACES == {"write": 5, "read": 3, "ask": 2}
    assert (server.PING, engine.CONNECT, engine.ANSWER) == (5, 10, 60)
    assert (engine.BUSY, marker.COMMIT, engine.MORE, turns.SILENCE) == (60, 15, 40, 60)
