"""A running service: this process answers, one checks what comes, one trains it."""

import ipaddress
import logging
import multiprocessing
import os
import socket
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

from alto_runs.errors import UserError
from alto_runs.files.directory import read_run_log
from alto_runs.files.lines import check_plain
from alto_runs.files.publishing import Shelf
from alto_service.admission import Admission
from alto_service.folder import ServiceDirectory
from alto_service.settings import ServiceSettings
from alto_service.tokens import Tokens

__all__ = ["PRELOADED", "Crew", "serve"]

log = logging.getLogger(__name__)

_LEAST_SECONDS = 0.5  # between two starts of a process that ends at once
_MISTAKE_SECONDS = 10.0  # the same where it cannot begin: a cluster may come back
_GRACE_SECONDS = 2

# Loaded once, in the process that the others are forked from: they are ready at once.
PRELOADED = [
    "alto_service.checker",
    "alto_service.trainer",
    "transformers.modeling_utils",
    "transformers.models.auto.tokenization_auto",
]


def serve(
    path: Path,
    roots: Sequence[Path],
    *,
    host: str,
    port: int,
    tokens: Path | None,
    settings: ServiceSettings,
    cluster: str | None = None,
) -> None:
    """Serve until interrupted, training here or on the Ray cluster at an address.

    Raises UserError, also for what only the first process that trains finds out.
    """
    import uvicorn

    from alto_service.app import create_app
    from alto_service.connections import TimedConnection, allow_many
    from alto_service.front import Front
    from alto_service.store import Store

    if tokens is None and not _is_loopback(host):
        raise UserError(f"--host: value {host!r}: others can reach it, so --tokens is needed")
    known = None if tokens is None else Tokens(tokens)
    admission = Admission.of(roots, settings.policy)
    directory = ServiceDirectory.open(path)
    allow_many()
    with directory.held():
        _check_policy(directory, settings)
        if settings.publish is not None:
            Shelf.at(settings.publish, "publish")
        settings.stored_at()
        with _listening(host, port) as listening:
            store = Store(directory.store_path)
            crew = Crew((directory.path, settings, admission.roots, cluster))
            app = create_app(Front(directory, store, admission, known, crew.alive))
            server = uvicorn.Server(
                uvicorn.Config(
                    app,
                    http=TimedConnection,
                    log_level="warning",
                    server_header=False,
                    timeout_graceful_shutdown=_GRACE_SECONDS,
                )
            )
            crew.start(on_mistake=partial(setattr, server, "should_exit", True))
            told = "[" + host + "]" if ":" in host else host
            port = listening.getsockname()[1]
            log.warning("serving at http://%s:%d, results in %s", told, port, directory.path)
            try:
                server.run(sockets=[listening])
            except KeyboardInterrupt:
                log.info("interrupted; what was begun goes on when the service is started again")
            finally:
                crew.stop()
                store.close()
            if crew.mistake is not None:
                raise UserError(crew.mistake)


def _listening(host: str, port: int) -> socket.socket:
    """Before anything is begun that would have to be ended. Raises UserError."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise UserError(
            f"--host, --port: value {host}:{port}: cannot listen there: {error.strerror}"
        ) from error


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _check_policy(directory: ServiceDirectory, settings: ServiceSettings) -> None:
    """A log has one policy from its beginning to its end. Raises UserError."""
    path = directory.run.log_path
    check_plain(path)
    header = read_run_log(path).header if path.exists() else None
    if header is not None and header.policy != settings.policy:
        raise UserError(
            f"{path}: the service was begun with another policy, {header.policy}; go on with that "
            "one, or begin another folder"
        )


Orders = tuple[Path, ServiceSettings, tuple[Path, ...], str | None]


class Crew:
    """The processes that check and train. Each may die, and is started again; they die with us.

    What the first one of a kind cannot begin with is a mistake of the user: `mistake` tells it, and
    it is not tried again. Later ones may find out what passes, and are.
    """

    def __init__(self, orders: Orders) -> None:
        self._orders = orders
        self._processes: dict[str, BaseProcess] = {}
        self._is_ending = threading.Event()
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(PRELOADED)
        self._threads: list[threading.Thread] = []
        self.mistake: str | None = None

    def start(self, on_mistake: Callable[[], None]) -> None:
        for name, work in (("checker", _check), ("trainer", _train)):
            thread = threading.Thread(target=self._keep, args=(name, work, on_mistake), daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        self._is_ending.set()
        for process in tuple(self._processes.values()):
            process.kill()  # they are made to be killed
        for thread in self._threads:
            thread.join()

    def alive(self) -> dict[str, bool]:
        return {
            name: name in self._processes and self._processes[name].is_alive()
            for name in ("checker", "trainer")
        }

    def _keep(self, name: str, work: Callable[..., None], on_mistake: Callable[[], None]) -> None:
        has_failed, is_first = False, True
        while not self._is_ending.is_set():
            begun = time.monotonic()
            told, telling = self._context.Pipe(duplex=False)
            process = self._context.Process(
                target=_begin, args=(work, self._orders, has_failed, telling), name=name
            )
            try:
                process.start()
            except (EOFError, OSError):  # the process that forks was killed; the next try has one
                told.close()
                self._is_ending.wait(_LEAST_SECONDS)
                continue
            finally:
                telling.close()
            self._processes[name] = process
            if self._is_ending.is_set():
                process.kill()
            process.join()
            if self._is_ending.is_set():
                return
            mistake = _said(told)
            if mistake is not None and is_first:
                self.mistake = mistake
                on_mistake()
                return
            is_first = False
            ended = f"has ended with status {process.exitcode}" if mistake is None else mistake
            log.warning("the %s: %s; it is started again", name, ended)
            has_failed = mistake is None and (process.exitcode or 0) > 0
            pause = _LEAST_SECONDS if mistake is None else _MISTAKE_SECONDS
            self._is_ending.wait(max(0.0, begun + pause - time.monotonic()))


def _said(told: "Connection[str, str]") -> str | None:
    """What the process that has ended could not begin with, if it said so."""
    try:
        with told:
            return told.recv()
    except EOFError:
        return None


def _begin(
    work: Callable[[Orders, bool], None],
    orders: Orders,
    has_failed: bool,
    telling: "Connection[str, str]",
) -> None:
    """In a process of its own."""
    try:
        work(orders, has_failed)
    except UserError as error:
        telling.send(str(error))


def _check(orders: Orders, has_failed: bool) -> None:
    from alto_service.checker import check_submissions

    path, settings, roots, _ = orders
    _die_with_parent()
    check_submissions(path, settings, roots)


def _train(orders: Orders, has_failed: bool) -> None:
    from alto_service.trainer import train_studies

    path, settings, roots, cluster = orders
    if cluster == "local":
        from alto_exec.ray_cluster.local import begin_ahead

        begin_ahead()  # while this process has no other thread
    _die_with_parent()
    train_studies(path, settings, roots, has_failed=has_failed, cluster=cluster)


def _die_with_parent() -> None:
    """At once and without a word: a killed process is what the whole design reckons with."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()
