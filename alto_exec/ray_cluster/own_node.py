"""Ray's processes for this machine alone, in the hands of one process that does nothing else.

    python -P .../own_node.py PID    # of whoever it is for

It says in a line where they are, or what went wrong. When it is told to end, or whoever it is for
has ended, as the kernel sees to, it kills all that came of it first. It imports nothing of ours, so
that it need not wait for what we import.
"""

import contextlib
import ctypes
import fcntl
import json
import logging
import os
import shutil
import signal
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

__all__ = ["for_this_machine", "main"]

_SIGNAL_OF_PARENTS_DEATH, _ADOPT_ORPHANS = 1, 36  # PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER
_STORE_BYTES = 256 * 2**20  # of shared memory, for the tasks' samples on their way to executors
# They take from the cores that train.
_SYSTEM = {
    "worker_niceness": 0,  # Ray's 15 puts executors behind whatever else runs on this machine
    "memory_monitor_refresh_ms": 0,  # it ends berths where memory is short, and not who takes it
    # What nobody looks at here, and processes for tasks that nobody asks for.
    "prestart_worker_first_driver": False,
    "enable_metrics_collection": False,
    "event_stats": False,
    "task_events_report_interval_ms": 0,
    "debug_dump_period_milliseconds": 0,
    "raylet_check_gc_period_milliseconds": 10_000,
    "kill_idle_workers_interval_ms": 10_000,
    "object_manager_timer_freq_ms": 1_000,
}
_HOLD = "alto"  # a file in the folder of a session
# Processes that look for lines, for machines to rent, and for numbers to send to Ray's makers.
_UNUSED = ("log_monitor", "monitor", "dashboard")


def main() -> None:
    """Ray does with signals as it likes, so that it is in a process below this one, which waits for
    them: one comes for each thread of a parent that is killed."""
    awaited = {signal.SIGTERM, signal.SIGCHLD}
    signal.pthread_sigmask(signal.SIG_BLOCK, awaited)
    libc = ctypes.CDLL(None)
    libc.prctl(_ADOPT_ORPHANS, 1)
    libc.prctl(_SIGNAL_OF_PARENTS_DEATH, signal.SIGTERM)
    if os.getppid() != int(sys.argv[1]):
        return
    made = os.fork()
    if made == 0:
        os.setpgid(0, 0)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, awaited)
        _hold()
        os._exit(1)
    while signal.sigwait(awaited) == signal.SIGCHLD and os.waitpid(made, os.WNOHANG) == (0, 0):
        pass
    _kill_all()


def _hold() -> None:
    try:
        address, session = _begin()
        _tell({"address": address, "environment": _authentication(), "group": os.getpgrp()})
    except (OSError, ValueError, RuntimeError, ImportError) as error:
        _tell({"error": f"{type(error).__name__}: {error}"})
        return
    with contextlib.suppress(OSError):  # they take room, and nothing else
        _hold_session(session)
        _sweep_sessions(session.parent)
    while True:
        signal.pause()


def _kill_all() -> None:
    """Workers too, which look for a raylet that has ended for a while. Children of those who are
    killed become ours."""
    while children := _children():
        for pid in children:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def _children() -> list[int]:
    tasks = Path("/proc/self/task").iterdir()
    return [int(pid) for task in tasks for pid in (task / "children").read_text().split()]


def _tell(told: Mapping[str, Any]) -> None:
    sys.stdout.write(json.dumps(told) + "\n")
    sys.stdout.flush()


def _hold_session(session: Path) -> None:
    """By a lock on a file in its folder, for as long as this process lives."""
    file = os.open(session / f"{_HOLD}.new", os.O_WRONLY | os.O_CREAT, 0o600)
    fcntl.flock(file, fcntl.LOCK_SH)
    os.rename(session / f"{_HOLD}.new", session / _HOLD)  # nobody sees it before it is held


def _sweep_sessions(folder: Path) -> None:
    """Remove logs and sockets of those like this one that are no more, with all their processes."""
    held = [path for path in folder.glob(f"session_*/{_HOLD}") if not path.parent.is_symlink()]
    lines = b"".join(_command_lines()) if held else b""
    for path in held:
        with contextlib.suppress(OSError), path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fsencode(path.parent) not in lines:
                shutil.rmtree(path.parent, ignore_errors=True)


def _command_lines() -> Iterator[bytes]:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it has ended
            yield path.read_bytes()


def _begin() -> tuple[str, Path]:
    """Its address, and the folder of its logs and sockets."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray
    from ray._private import worker

    with for_this_machine():
        ray.init(
            address="local",
            include_dashboard=False,
            object_store_memory=_STORE_BYTES,
            log_to_driver=False,
            logging_level=logging.ERROR,
            _system_config=_SYSTEM,
        )
    node: Any = worker._global_node
    address, session = str(node.gcs_address), Path(node.get_session_dir_path())
    for name in _UNUSED:
        getattr(node, f"kill_{name}")(check_alive=False)
    worker._global_node = None  # or the next line would end it
    ray.shutdown()
    return address, session


@contextlib.contextmanager
def for_this_machine() -> Iterator[None]:
    """Ray takes an address that others reach in place of a loopback one, and so lends its ports to
    them, unless it is for systems on which it makes no clusters of several machines."""
    from ray._private import ray_constants

    before, ray_constants.ENABLE_RAY_CLUSTER = ray_constants.ENABLE_RAY_CLUSTER, False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


def _authentication() -> dict[str, str]:
    """What Ray wants to be told by whoever joins: whether it asks for this machine's token."""
    name = "RAY_AUTH_MODE"
    return {name: os.environ[name]} if name in os.environ else {}


if __name__ == "__main__":
    main()
