"""This machine as a cluster of its own, in processes of its own: Ray has one token for each."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import pytest

from alto_exec import tune
from alto_policy.events import ExecutorDown
from alto_runs.result import Result
from alto_runs.study import load_study
from tests.style.sources import ROOT
from tests.tune.same import assert_same_outcome
from tests.tune.small_study import STUDY, write_study

COMMAND = "import alto_cli, sys; sys.exit(alto_cli.main())"
# Nothing more is decided until it is told to go on, however late whoever looks for that is.
AT_A_REPORT = f"""
import os, signal
from alto_policy.events import LossReported
from tests.tune.cut import at_moments
at_moments([LossReported], lambda: os.kill(os.getpid(), signal.SIGSTOP))
{COMMAND}
"""
SECONDS = 60.0  # for what has lost its parent to notice
LOOK = """
import json, os, psutil, sys, time
from contextlib import suppress
from alto_exec.ray_cluster import local
is_light = "torch" not in sys.modules
own = local.made()
from alto_exec.ray_cluster.own_node import for_this_machine
import ray
from ray._private import ray_constants
with for_this_machine():
    ray.init(address=own.address, log_to_driver=False, logging_level="ERROR")
me = psutil.Process()
ours = [me, *me.children(recursive=True)]
addresses, lines, theirs = set(), [], []
for each in ours:
    with suppress(psutil.NoSuchProcess):  # Ray asks others by commands
        found = each.net_connections("inet")
        addresses |= {line.laddr.ip for line in found if line.status == "LISTEN"}
        lines.append(" ".join(each.cmdline()))
        theirs += [each] * (each.name() in ("gcs_server", "raylet"))
nice = ray.get(ray.remote(lambda: os.nice(0)).remote())
with own.paused():
    end = time.monotonic() + 60
    while {each.status() for each in theirs} != {"stopped"} and time.monotonic() < end:
        time.sleep(0.01)
    stopped = [each.status() for each in theirs]
ours += me.children(recursive=True)
local.end()
ray.shutdown()
gone, alive = psutil.wait_procs([each for each in ours if each != me], timeout=60)
left = [each.pid for each in alive]
is_several = ray_constants.ENABLE_RAY_CLUSTER
print(json.dumps([sorted(addresses), lines, nice, is_several, is_light, stopped, left]))
"""


def test_its_ports_are_for_this_machine_and_its_processes_few() -> None:
    command = [sys.executable, "-c", LOOK]
    told = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    addresses, lines, nice, is_as_before, is_light, stopped, left = json.loads(
        told.stdout.splitlines()[-1]
    )
    assert addresses
    assert {each.removeprefix("::ffff:") for each in addresses} == {"127.0.0.1"}
    assert any("raylet" in line for line in lines)
    unused = ("log_monitor", "monitor.py", "dashboard.py", "ray::IDLE")
    assert not [line for line in lines if any(name in line for name in unused)]
    assert (nice, is_as_before, is_light) == (0, True, True)
    assert stopped == ["stopped"] * 2, "while threads are timed, nobody else has the cores"
    assert left == []


@pytest.mark.parametrize("seconds", [0.7, 2.5, None])
def test_a_command_that_is_killed_leaves_no_process(tmp_path: Path, seconds: float | None) -> None:
    """While its imports run, while Ray's processes come up, when they are there."""
    study = write_study(tmp_path, STUDY)
    with _begun(study, tmp_path / "out") as command:
        if seconds is None:
            _await(lambda: (tmp_path / "out" / "run.jsonl").exists(), 4 * SECONDS)
        else:
            time.sleep(seconds)
        command.send_signal(signal.SIGKILL)
    assert left_in(tmp_path) == []


def test_a_mistake_that_is_found_early_leaves_no_process(tmp_path: Path) -> None:
    study = write_study(tmp_path, STUDY)
    out = tmp_path / "out"
    out.mkdir()
    (out / "something").touch()
    with _begun(study, out) as command:
        assert command.wait() == 2
    assert left_in(tmp_path) == []


def test_what_forks_executors_is_killed_and_the_run_ends_as_if_nothing_had_happened(
    tmp_path: Path,
) -> None:
    """No nursery is there before; executors come from one after."""
    study = write_study(tmp_path, STUDY)
    out = tmp_path / "out"
    with _begun(study, out, AT_A_REPORT) as command:
        head = psutil.Process(command.pid)
        _await(lambda: head.status() == psutil.STATUS_STOPPED, 4 * SECONDS)
        line = head.cmdline()
        ours = [each for each in named(tmp_path) if each.cmdline() == line]
        forked = [each for each in ours if each.pid != command.pid]
        executors = [each for each in forked if each.name().startswith("alto-rank")]
        (zygote,) = [each for each in forked if each not in executors]
        assert [each.ppid() for each in executors] == [zygote.pid]
        assert "ray::Nursery" not in _lines_of(tmp_path)
        zygote.kill()
        command.send_signal(signal.SIGCONT)
        assert command.wait(4 * SECONDS) == 0
    result = Result(out)
    assert sum(isinstance(entry.event, ExecutorDown) for entry in result.log.entries) >= 2
    assert_same_outcome(result, tune(load_study(study), tmp_path / "alone"))
    assert left_in(tmp_path) == []


HOLD = """
import time
from alto_exec.ray_cluster import local
local.made()
print("there", flush=True)
time.sleep(600)
"""


def test_what_killed_commands_have_left_is_swept_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not what is of others, or has a living process."""
    with TemporaryDirectory(dir="/tmp") as folder:  # sockets have short names
        monkeypatch.setenv("RAY_TMPDIR", folder)
        monkeypatch.setenv("ALTO_TEST", str(tmp_path))
        there = Path(folder, "ray")
        others, orphaned = there / "session_others", there / "session_orphaned"
        others.mkdir(parents=True)
        orphaned.mkdir()
        (orphaned / "alto").touch()
        line = [sys.executable, "-c", "import time; time.sleep(600)", f"--session_dir={orphaned}"]
        begun: list[subprocess.Popen[str]] = [subprocess.Popen(line, text=True)]

        def begin() -> Path:
            before = set(there.glob("session_2*"))
            command = [sys.executable, "-c", HOLD]
            process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
            begun.append(process)
            assert process.stdout is not None
            assert process.stdout.readline() == "there\n"
            (session,) = set(there.glob("session_2*")) - before
            _await(lambda: (session / "alto").exists())
            return session

        try:
            killed, living = begin(), begin()
            with (living / "alto").open() as file, pytest.raises(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            begun[1].kill()
            _await(lambda: str(killed) not in "".join(_lines_of(tmp_path)))
            assert begin().is_dir()
            _await(lambda: not killed.exists())
            assert (living.is_dir(), others.is_dir(), orphaned.is_dir()) == (True, True, True)
        finally:
            for process in begun:
                process.kill()
                process.communicate()
        assert left_in(tmp_path) == []


def _await(holds: Callable[[], bool], seconds: float = SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _begun(study: Path, out: Path, program: str = COMMAND) -> "subprocess.Popen[str]":
    """Its processes are known by a variable that they all inherit."""
    command = [sys.executable, "-c", program, "tune", str(study), "--out", str(out)]
    environment = os.environ | {"ALTO_TEST": str(out.parent)}
    return subprocess.Popen(
        [*command, "--cluster", "local"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=ROOT,
        env=environment,
    )


def left_in(folder: Path) -> list[str]:
    """Lines of commands that are there after a while."""
    deadline = time.monotonic() + SECONDS
    while (left := _lines_of(folder)) and time.monotonic() < deadline:
        time.sleep(0.2)
    return left


def _lines_of(folder: Path) -> list[str]:
    found = []
    for process in named(folder):
        if line := line_of(process):
            found.append(line)
    return found


def line_of(process: psutil.Process) -> str:
    """Nothing of one that has ended."""
    with suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""


def named(folder: Path) -> list[psutil.Process]:
    """All that were begun for a test with this folder."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get("ALTO_TEST") == str(folder):
                found.append(process)
    return found
