"""This machine as a cluster of its own, in a process of its own: Ray has one token for each."""

import json
import subprocess
import sys

import pytest

from tests.style.sources import ROOT

LOOK = """
import json, os, psutil
from alto_exec.ray_cluster import local
local.begin()
import ray
from ray._private import ray_constants
me = psutil.Process()
ours = [me, *me.children(recursive=True)]
ports = [line for each in ours for line in each.net_connections("inet") if line.status == "LISTEN"]
addresses = sorted({line.laddr.ip for line in ports})
lines = [" ".join(each.cmdline()) for each in ours]
nice = ray.get(ray.remote(lambda: os.nice(0)).remote())
ray.shutdown()
print(json.dumps([addresses, lines, nice, ray_constants.ENABLE_RAY_CLUSTER]))
"""


@pytest.mark.timeout(120)
def test_its_ports_are_for_this_machine_and_its_processes_few() -> None:
    command = [sys.executable, "-c", LOOK]
    told = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    addresses, lines, nice, is_as_before = json.loads(told.stdout.splitlines()[-1])
    assert addresses
    assert {each.removeprefix("::ffff:") for each in addresses} == {"127.0.0.1"}
    assert any("raylet" in line for line in lines)
    assert not any("log_monitor" in line or "ray::IDLE" in line for line in lines)
    assert (nice, is_as_before) == (0, True)
