"""The example of a policy of one's own runs as its text says."""

import os
import re
import subprocess
import sys
from pathlib import Path

from alto_policy.cluster import Cluster
from alto_policy.controller import Controller, run
from alto_policy.decisions import StartExecutor
from alto_policy.runlog import Entry
from alto_sim.backend import SimBackend
from alto_sim.hardware import gpus_of
from alto_sim.load import load_workload

EXAMPLE = Path("examples/policy")


def test_it_runs_beside_a_built_in_policy() -> None:
    trace = "traces/gavel/physical_small_test.csv.gz"
    command = [sys.executable, str(EXAMPLE / "compare.py"), trace, "8"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    mine, sjf = done.stdout.splitlines()
    assert mine.startswith("widest first")
    assert sjf.startswith("sjf")
    assert " 0.0 h" not in done.stdout


def test_it_is_as_short_as_promised() -> None:
    lines = (EXAMPLE / "widest_first.py").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 50


TRACE = """\
job_id,submit_s,duration_s,num_gpus,tenant,model,batch_size,iterations
first,0,100,4,,,,
wide,1,100,4,,,,
narrow,2,100,1,,,,
middle,3,100,2,,,,
"""


def test_the_one_of_the_readme_starts_narrow_tasks_first(tmp_path: Path) -> None:
    readme = Path("README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n([^`]*Dispatch[^`]*)```", readme)
    names: dict[str, type] = {}
    exec(code, names)
    path = tmp_path / "trace.csv"
    path.write_text(TRACE)
    gpus, log = gpus_of(4), list[Entry]()
    backend = SimBackend(load_workload(path).workload, gpus)
    run(Controller(names["NarrowestFirst"](), Cluster(gpus), log.append), backend)
    decisions = (decision for entry in log for decision in entry.decisions)
    starts = [each.task for each in decisions if isinstance(each, StartExecutor)]
    assert starts == ["first", "narrow", "middle", "wide"]
