"""Weather reports over HTTP: answered when they are made, or made in runs that can be watched and cancelled.

uvicorn --app-dir examples/fastapi_service service:app --timeout-graceful-shutdown 2
"""

from __future__ import annotations

import asyncio
import datetime
import json
import logging
import os
import sys
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import anyio
from fastapi import Depends, FastAPI, Header, HTTPException, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel, Field
from reports import Available, Months, Report

from asyncflow import AsyncflowError, ConfigError, EventReader, Flow, FlowClosed, Run, RunStatus, TaskCancelled

OUT = Path(os.environ.get("WEATHER_OUT", "output/service"))
REFRESH = float(os.environ.get("WEATHER_REFRESH", "3600"))  # seconds

T = TypeVar("T")

log = logging.getLogger("weather.service")


# What lives as long as the service ------------------------------------------------------------------------


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
    # Threads that compute take turns with the loop on one core, so more than two would make nothing sooner and every
    # answer later; and turns of 1 ms, not 5 as Python has it, so that an answer does not wait long for each of its own.
    sys.setswitchinterval(0.001)
    # At the end what is at work has three seconds, then it is cancelled.
    async with Flow(threads=2, drain=3.0) as flow:
        months = await flow.run(Available())
        refreshing = asyncio.create_task(refresh(flow, months))
        try:
            yield {"flow": flow, "months": months}  # as request.state
        finally:
            refreshing.cancel()


async def refresh(flow: Flow, months: Months) -> None:
    """Make the latest report of each city anew, again and again: its measurements may have changed."""
    while True:
        await asyncio.sleep(REFRESH)
        latest = [report(months, city, max(months[city])) for city in months]
        try:
            result = await flow.start(latest, force="upstream", tags={"by": "refresh"})
            log.info("refreshed: %s", result.status)
        except AsyncflowError as error:
            log.error("not refreshed: %s", error)


app = FastAPI(title="Weather reports", lifespan=lifespan)


# What a request names -------------------------------------------------------------------------------------

City = Literal["seattle", "san-francisco"]
Month = Annotated[str, Field(pattern=r"^\d{4}-\d{2}$", examples=["2015-12"])]


class Wanted(BaseModel):
    """One month of one city."""

    city: City
    month: Month
    pause: float = Field(default=0.0, ge=0, le=60, description="seconds to spend on it, so that there is time to look")


class WantedRun(BaseModel):
    """A month of a city, or all there are."""

    city: City
    month: Month | None = None
    pause: float = Field(default=0.0, ge=0, le=60)
    again: bool = Field(default=False, description="make also what is there")
    tags: dict[str, str] = {}


def report(months: Months, city: str, month: str, pause: float = 0.0) -> Report:
    """The task for a month of a city; 404 if nothing was measured then."""
    source = months[city].get(month)
    if source is None:
        known = ", ".join(sorted({name[:4] for name in months[city]}))
        raise HTTPException(404, f"no measurements of {city} in {month}: there are those of {known}")
    return Report(source=source, month=datetime.date.fromisoformat(f"{month}-01"), out=OUT, pause=pause)


async def known_run(run_id: str, request: Request) -> Run:
    """The run that the path names; 404 if there is none."""
    run: Run | None = request.state.flow.get(run_id)
    if run is None:
        raise HTTPException(404, f"there is no run {run_id}, or it ended long ago")
    return run


KnownRun = Annotated[Run, Depends(known_run)]


# Reports: who asks waits ----------------------------------------------------------------------------------


@app.post("/reports")
async def make_report(wanted: Wanted, request: Request) -> Response:
    """The report, made if it is not there. All who ask for one at the same time wait for one run of it."""
    flow: Flow = request.state.flow
    task = report(request.state.months, wanted.city, wanted.month, wanted.pause)
    target = await unless_gone(request, flow.run(task))
    async with target.open() as file:
        return Response(await file.read(), media_type="application/json")


@app.get("/reports")
def list_reports() -> list[str]:  # a plain def, which FastAPI calls in a thread: it reads a directory
    """The reports that are there."""
    # Not `*.json`: pathlib would match hidden files too, and what is not whole yet is hidden.
    return sorted(path.stem for path in OUT.glob("reports/[!.]*.json"))


async def unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """What `work` gives. If the client goes before, it is cancelled: the server alone would let it go on."""
    with anyio.CancelScope() as scope:
        watching = asyncio.create_task(cancel_when_gone(request, scope))
        try:
            return await work
        finally:
            watching.cancel()
    raise HTTPException(499, "the client has gone")  # for the log: nobody is left to read it


async def cancel_when_gone(request: Request, scope: anyio.CancelScope) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
    scope.cancel()


# Runs: who asks looks in again ----------------------------------------------------------------------------


@app.post("/runs", status_code=202)
async def start_run(wanted: WantedRun, request: Request, response: Response) -> dict[str, Any]:
    """Start a run. It goes on by itself, whatever becomes of who has asked."""
    flow: Flow = request.state.flow
    months = request.state.months
    names = sorted(months[wanted.city]) if wanted.month is None else [wanted.month]
    tasks = [report(months, wanted.city, name, wanted.pause) for name in names]
    run = flow.start(tasks, force="upstream" if wanted.again else False, tags=wanted.tags)
    response.headers["Location"] = f"/runs/{run.run_id}"
    return brief(run)


@app.get("/runs")
async def list_runs(request: Request, status: RunStatus | None = None) -> list[dict[str, Any]]:
    """The runs, the last first."""
    return [brief(run) for run in request.state.flow.runs(status)]


@app.get("/runs/{run_id}")
async def show_run(run: KnownRun) -> dict[str, Any]:
    """What the run looks like now: how many tasks have which status, what is at work and how far."""
    return run.snapshot().to_dict()


@app.delete("/runs/{run_id}")
async def cancel_run(run: KnownRun) -> dict[str, Any]:
    """Stop the run, if it has not ended. When this answers, nothing that only it wanted is at work."""
    if not run.done:
        run.cancel("cancelled by a client")
        await run
    return run.snapshot().to_dict()


@app.get("/runs/{run_id}/events")
async def watch_run(run: KnownRun, last_event_id: Annotated[int, Header(ge=0)] = 0) -> StreamingResponse:
    """What happens in the run, as server-sent events. A browser whose stream broke off goes on where it was."""
    try:
        reader = run.events(since=last_event_id)
    except ConfigError as error:  # a number this run has not come to
        raise HTTPException(400, str(error)) from None
    return StreamingResponse(messages(reader), media_type="text/event-stream", headers={"Cache-Control": "no-store"})


async def messages(reader: EventReader) -> AsyncIterator[str]:
    async for event in reader:
        yield f"id: {event.seq}\ndata: {json.dumps(event.to_dict())}\n\n"


def brief(run: Run) -> dict[str, Any]:
    """A run in a list."""
    links = {"self": f"/runs/{run.run_id}", "events": f"/runs/{run.run_id}/events"}
    return {"run_id": run.run_id, "status": run.status, "tags": dict(run.tags), "links": links}


# Besides --------------------------------------------------------------------------------------------------


@app.get("/health")
async def health(request: Request) -> dict[str, Any]:
    """Answers at once, whatever is being made."""
    return {"status": "ok", "running": len(request.state.flow.runs("running"))}


@app.exception_handler(FlowClosed)
@app.exception_handler(TaskCancelled)
async def closing(request: Request, error: Exception) -> JSONResponse:
    """The flow was closed while this one waited, or before it came."""
    return JSONResponse({"detail": str(error)}, 503, headers={"Retry-After": "5"})


@app.exception_handler(AsyncflowError)
async def failed(request: Request, error: Exception) -> JSONResponse:
    """A task failed, or its input is missing: the message says which."""
    return JSONResponse({"detail": str(error)}, 500)
