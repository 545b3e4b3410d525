"""The example of a policy of one's own runs as its text says."""

import os
import subprocess
import sys
from pathlib import Path

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
