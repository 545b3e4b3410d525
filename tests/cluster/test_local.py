"""This machine as a cluster of its own, in processes of its own: Ray has one token for each."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.style.sources import ROOT
from tests.tune.small_study import STUDY, write_study

SECONDS = 20.0  # for what has lost its parent to notice
LOOK = """
import json, os, psutil, sys, time
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
ports = [line for each in ours for line in each.net_connections("inet") if line.status == "LISTEN"]
addresses = sorted({line.laddr.ip for line in ports})
lines = [" ".join(each.cmdline()) for each in ours]
nice = ray.get(ray.remote(lambda: os.nice(0)).remote())
with own.paused():
    time.sleep(0.2)
    stopped = [each.status() for each in ours if each.name() in ("gcs_server", "raylet")]
ours += me.children(recursive=True)
local.end()
ray.shutdown()
gone, alive = psutil.wait_procs([each for each in ours if each != me], timeout=20)
left = [each.name() for each in alive]
is_several = ray_constants.ENABLE_RAY_CLUSTER
print(json.dumps([addresses, lines, nice, is_several, is_light, stopped, left]))
"""


@pytest.mark.timeout(120)
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


@pytest.mark.timeout(120)
@pytest.mark.parametrize("seconds", [0.7, 2.5, None])
def test_a_command_that_is_killed_leaves_no_process(tmp_path: Path, seconds: float | None) -> None:
    """While its imports run, while Ray's processes come up, when they are there."""
    study = write_study(tmp_path, STUDY)
    with _begun(study, tmp_path / "out") as command:
        if seconds is None:
            while not (tmp_path / "out" / "run.jsonl").exists():
                assert command.poll() is None
                time.sleep(0.02)
        else:
            time.sleep(seconds)
        command.send_signal(signal.SIGKILL)
    assert _left(tmp_path) == []


@pytest.mark.timeout(120)
def test_a_mistake_that_is_found_early_leaves_no_process(tmp_path: Path) -> None:
    study = write_study(tmp_path, STUDY)
    out = tmp_path / "out"
    out.mkdir()
    (out / "something").touch()
    with _begun(study, out) as command:
        assert command.wait() == 2
    assert _left(tmp_path) == []


def _begun(study: Path, out: Path) -> "subprocess.Popen[str]":
    """Its processes are known by a variable that they all inherit."""
    command = [sys.executable, "-m", "alto_cli", "tune", str(study), "--out", str(out)]
    environment = os.environ | {"ALTO_TEST": str(out.parent)}
    return subprocess.Popen(
        [*command, "--cluster", "local"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=ROOT,
        env=environment,
    )


def _left(folder: Path) -> list[str]:
    deadline = time.monotonic() + SECONDS
    while (left := _named(folder)) and time.monotonic() < deadline:
        time.sleep(0.2)
    return left


def _named(folder: Path) -> list[str]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("ALTO_TEST") == str(folder):
                found.append(" ".join(process.cmdline()))
        except psutil.Error:
            continue
    return found
