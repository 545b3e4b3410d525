"""What can be asked of the service."""

import json
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.responses import HTMLResponse, StreamingResponse
from starlette.exceptions import HTTPException

from alto_service.api import Health, LogPage, StudyList, StudyStatus, SubmissionBody
from alto_service.database import State
from alto_service.front import Front
from alto_service.openapi_page import openapi_page
from alto_service.streaming import EntryStream
from alto_service.tokens import Caller

__all__ = [
    "cancel",
    "events",
    "health",
    "leaderboard",
    "log",
    "page",
    "router",
    "status",
    "studies",
    "submit",
]

_LONGEST_KEY = 200

router = APIRouter()


def _front_of(request: Request) -> Front:
    front: Front = request.app.state.front
    return front


Desk = Annotated[Front, Depends(_front_of)]


def _caller_of(front: Desk, authorization: Annotated[str | None, Header()] = None) -> Caller:
    return front.caller(authorization)


Known = Annotated[Caller, Depends(_caller_of)]
Limit = Annotated[int, Query(ge=1, le=1000)]
After = Annotated[int, Query(ge=-1, le=2**62)]
Key = Annotated[str | None, Header(max_length=_LONGEST_KEY)]


@router.post("/studies", status_code=201, tags=["studies"])
def submit(
    body: SubmissionBody,
    response: Response,
    front: Desk,
    caller: Known,
    idempotency_key: Key = None,
) -> StudyStatus:
    """Hand in a study. With an Idempotency-Key it is taken once; a second time is answered 200."""
    row, is_new = front.submit(caller, body, idempotency_key)
    response.status_code = 201 if is_new else 200
    return front.status(row)


@router.get("/studies", tags=["studies"])
def studies(
    front: Desk,
    caller: Known,
    tenant: str | None = None,
    state: State | None = None,
    after: After = 0,
    limit: Limit = 100,
) -> StudyList:
    """Studies in the order of submission: one's own, or for the operator those of all."""
    named = tenant if caller.tenant is None else front.tenant(caller, tenant)
    rows = front.store.studies(tenant=named, state=state, after=after, limit=limit + 1)
    shown = rows[:limit]
    more = shown[-1].number if len(rows) > limit else None
    return StudyList(studies=[front.status(row) for row in shown], after=more)


@router.get("/studies/{study}", tags=["studies"])
def status(study: str, front: Desk, caller: Known) -> StudyStatus:
    """How far it has come."""
    return front.status(front.row(caller, study))


@router.post("/studies/{study}/cancel", status_code=202, tags=["studies"])
def cancel(study: str, front: Desk, caller: Known) -> StudyStatus:
    """Ask that it be ended; its state tells when it is. One that has ended stays as it is."""
    row = front.row(caller, study)
    if not row.state.is_final:
        front.store.cancel(row.number)
    return front.status(front.row(caller, study))


@router.get("/studies/{study}/leaderboard", tags=["progress"])
def leaderboard(study: str, front: Desk, caller: Known) -> list[dict[str, object]]:
    """Its jobs, best first, once it has ended."""
    row = front.row(caller, study)
    path = front.directory.study(row.number).leaderboard_path
    if not row.state.is_final or not path.is_file():
        raise HTTPException(409, f"study {study} has no leaderboard: it is {row.state.value}")
    ranked: list[dict[str, object]] = json.loads(path.read_text(encoding="utf-8"))
    return ranked


@router.get("/studies/{study}/log", tags=["progress"])
def log(study: str, front: Desk, caller: Known, after: After = -1, limit: Limit = 500) -> LogPage:
    """Events of the study and decisions on it, as the run log has them."""
    row = front.row(caller, study)
    found = front.store.entries(row.number, after=after, limit=limit)
    last = found[-1][0] if found else after
    return LogPage(entries=[json.loads(line) for _, line in found], after=last)


@router.get("/studies/{study}/events", tags=["progress"], response_class=StreamingResponse)
def events(
    request: Request,
    study: str,
    front: Desk,
    caller: Known,
    last_event_id: Annotated[int, Header(ge=-1, le=2**62)] = -1,
) -> EntryStream:
    """The same as server-sent events while it grows; the last one holds the status."""
    row = front.row(caller, study)
    watch = request.app.state.watch
    return EntryStream(front, watch, caller.tenant, row.number, last_event_id)


@router.get("/health", tags=["service"])
def health(front: Desk) -> Health:
    """Whether the processes that check and train are up."""
    alive = front.is_alive()
    return Health(status="ok" if all(alive.values()) else "restarting", **alive)


@router.get("/", include_in_schema=False)
def page(request: Request) -> HTMLResponse:
    return HTMLResponse(openapi_page(request.app.openapi()))
