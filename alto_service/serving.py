"""A running service: this process answers, one checks what comes, one trains it."""

import ipaddress
import logging
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path

from alto_runs.directory import read_run_log
from alto_runs.errors import UserError
from alto_runs.publishing import Shelf
from alto_service.admission import Admission
from alto_service.folder import ServiceDirectory
from alto_service.settings import ServiceSettings
from alto_service.tokens import Tokens

__all__ = ["PRELOADED", "Crew", "serve"]

log = logging.getLogger(__name__)

_LEAST_SECONDS = 0.5  # between two starts of a process that ends at once
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

    Raises UserError.
    """
    import uvicorn

    from alto_service.app import create_app
    from alto_service.front import Front
    from alto_service.store import Store

    if tokens is None and not _is_loopback(host):
        raise UserError(f"--host: value {host!r}: others can reach it, so --tokens is needed")
    known = None if tokens is None else Tokens(tokens)
    admission = Admission.of(roots, settings.policy)
    directory = ServiceDirectory.open(path)
    with directory.held():
        _check_policy(directory, settings)
        if settings.publish is not None:
            Shelf.at(settings.publish, "publish")
        store = Store(directory.store_path)
        crew = Crew((directory.path, settings, admission.roots, cluster))
        crew.start()
        log.warning("serving at http://%s:%d, results in %s", host, port, directory.path)
        try:
            app = create_app(Front(directory, store, admission, known, crew.alive))
            uvicorn.run(
                app,
                host=host,
                port=port,
                log_level="warning",
                server_header=False,
                timeout_graceful_shutdown=_GRACE_SECONDS,
            )
        except KeyboardInterrupt:
            log.info("interrupted; what was begun goes on when the service is started again")
        finally:
            crew.stop()
            store.close()


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _check_policy(directory: ServiceDirectory, settings: ServiceSettings) -> None:
    """A log has one policy from its beginning to its end. Raises UserError."""
    path = directory.run.log_path
    header = read_run_log(path).header if path.exists() else None
    if header is not None and header.policy != settings.policy:
        raise UserError(
            f"{path}: the service was begun with another policy, {header.policy}; go on with that "
            "one, or begin another folder"
        )


Orders = tuple[Path, ServiceSettings, tuple[Path, ...], str | None]


class Crew:
    """The processes that check and train. Each may die, and is started again; they die with us."""

    def __init__(self, orders: Orders) -> None:
        self._orders = orders
        self._processes: dict[str, BaseProcess] = {}
        self._is_ending = threading.Event()
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(PRELOADED)
        self._threads = [
            threading.Thread(target=self._keep, args=(name, work), daemon=True)
            for name, work in (("checker", _check), ("trainer", _train))
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

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

    def _keep(self, name: str, work: Callable[..., None]) -> None:
        has_failed = False
        while not self._is_ending.is_set():
            begun = time.monotonic()
            process = self._context.Process(
                target=work, args=(*self._orders, has_failed), name=name
            )
            try:
                process.start()
            except (EOFError, OSError):  # the process that forks was killed; the next try has one
                self._is_ending.wait(_LEAST_SECONDS)
                continue
            self._processes[name] = process
            if self._is_ending.is_set():
                process.kill()
            process.join()
            if self._is_ending.is_set():
                return
            log.warning(
                "the %s has ended with status %s; it is started again", name, process.exitcode
            )
            has_failed = process.exitcode is not None and process.exitcode > 0
            self._is_ending.wait(max(0.0, begun + _LEAST_SECONDS - time.monotonic()))


def _check(
    path: Path, settings: ServiceSettings, roots: tuple[Path, ...], _: str | None, __: bool
) -> None:
    from alto_service.checker import check_submissions

    _die_with_parent()
    check_submissions(path, settings, roots)


def _train(
    path: Path,
    settings: ServiceSettings,
    roots: tuple[Path, ...],
    cluster: str | None,
    has_failed: bool,
) -> None:
    from alto_service.trainer import train_studies

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
