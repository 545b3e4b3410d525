"""The HTTP side: it checks and stores, and never trains."""

import logging
import sqlite3
from collections.abc import Mapping
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware

from alto_runs.errors import UserError
from alto_runs.versions import own_version
from alto_service.api import Failure
from alto_service.body_limit import BodyLimit
from alto_service.front import Front
from alto_service.routes import router
from alto_service.watching import Watch

__all__ = ["create_app"]

log = logging.getLogger(__name__)

_MOST_BYTES = 4_000_000  # of a request: escapes make a document longer
_BODY_SECONDS = 30.0
_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
_FAILURES = (400, 401, 403, 404, 408, 409, 413, 429, 503)


def create_app(front: Front) -> FastAPI:
    app = FastAPI(
        title="ALTO",
        summary="Tunes LoRA adapters for many tenants on one machine.",
        version=own_version(),
        docs_url=None,  # their pages load scripts from elsewhere
        redoc_url=None,
        responses={status: {"model": Failure} for status in _FAILURES},
    )
    app.state.front = front
    app.state.watch = Watch(front.store)
    app.add_middleware(BodyLimit, most_bytes=_MOST_BYTES, seconds=_BODY_SECONDS)
    if front.tokens is None:  # a name that resolves to this machine is not this machine
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=[*_LOOPBACK], www_redirect=False)
    app.include_router(router)
    app.add_exception_handler(UserError, _mistake)
    app.add_exception_handler(RequestValidationError, _misfit)
    app.add_exception_handler(HTTPException, _refusal)
    app.add_exception_handler(sqlite3.OperationalError, _no_store)
    return app


def _mistake(request: Request, error: Exception) -> JSONResponse:
    return _failure(400, str(error))


def _misfit(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"][1:] or first["loc"])
    given = first.get("input")
    value = f"value {given!r:.60}: " if isinstance(given, str | int | float) else ""
    return _failure(400, f"{where}: {value}{first['msg'].removeprefix('Value error, ')}")


def _refusal(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    line = str(error.detail)
    if line == HTTPStatus.NOT_FOUND.phrase:  # the router's
        line = f"{request.url.path[:80]}: nothing is there"
    return _failure(error.status_code, line, error.headers)


def _no_store(request: Request, error: Exception) -> JSONResponse:
    log.error("the store cannot answer: %s", error)
    return _failure(503, "the store cannot answer now, try again")


def _failure(status: int, line: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """Every failure is one line of JSON."""
    line = " ".join(line.encode("utf-8", "replace").decode().split())
    return JSONResponse({"error": line}, status, headers)
