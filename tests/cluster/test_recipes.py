"""Recipes: what can be checked of them without Slurm and Kubernetes."""

import os
import re
import shlex
import signal
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml

import alto_cli
from alto_runs.result import Result
from tests.ports import FIRST_PORT, free_port
from tests.style.sources import ROOT
from tests.tune.small_study import write_study

FOLDER = ROOT / "examples" / "cluster"
SRUN = """\
#!/usr/bin/env bash
if [[ $* == *--exclude* ]]; then
  until [ "$(grep -c 1 "$COUNTS")" -gt 1 ]; do sleep 0.1; done
fi
while [[ $1 == --* ]]; do shift; done
echo "$RAY_AUTH_MODE ${#RAY_AUTH_TOKEN}" >> "$STEPS"
exec "$@"
"""
# Writes down how many nodes were told of; the second one comes when that was asked in vain twice.
RAY_COMMAND = """\
#!/usr/bin/env bash
if [[ $1 != status ]]; then exec "$REAL_RAY" "$@"; fi
"$REAL_RAY" "$@" | tee >(grep -c ' node_' >> "$COUNTS")
"""
SCONTROL = """\
#!/usr/bin/env bash
echo 127.0.0.1
sleep 0.2
echo another
"""


def commands(text: str) -> list[str]:
    """Every `alto tune` in it, to the end of its line or quotation, but for what a script is given
    to hand on."""
    text = text.replace('"$@"', "")
    return [command.strip() for command in re.findall(r"alto tune [^`\n]*", text)]


@pytest.mark.parametrize("name", ["README.md", "slurm.sbatch", "kuberay.yaml"])
def test_its_command_is_one_that_there_is(name: str) -> None:
    found = [c for c in commands((FOLDER / name).read_text()) if "--out" in c]
    assert found
    for command in found:
        options = alto_cli._parser().parse_args(shlex.split(command)[1:])
        assert options.cluster is not None


def test_the_script_of_slurm_trains_on_two_nodes(tmp_path: Path) -> None:
    """Both of them this machine, the second one late; steps begin as Slurm would begin them. What
    jobs write is in a store, from which the run goes on where its folder is lost."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL), ("ray", RAY_COMMAND)):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    study, out, steps = write_study(tmp_path / "study"), tmp_path / "run", tmp_path / "steps"
    counts = tmp_path / "counts"
    counts.touch()
    environment = os.environ | {
        "PATH": os.pathsep.join(
            [str(programs), str(Path(sys.executable).parent), os.environ["PATH"]]
        ),
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "kernels")]),
        "SLURM_JOB_ID": str(free_port() - FIRST_PORT),
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_JOB_NODELIST": "both",
        "STEPS": str(steps),
        "COUNTS": str(counts),
        "REAL_RAY": str(Path(sys.executable).with_name("ray")),
    }
    there = tmp_path / "there"
    command = ["bash", str(FOLDER / "slurm.sbatch"), str(study), str(out)]
    command += ["--artifacts", f"local://{there}"]
    script = subprocess.Popen(command, env=environment, cwd=tmp_path, start_new_session=True)
    try:
        assert script.wait(300) == 0
    finally:
        os.killpg(script.pid, signal.SIGKILL)  # as Slurm ends the steps of a job that is over
    header = Result(out).log.header
    assert header is not None
    assert len({gpu.node for gpu in header.gpus}) == 2
    assert (out / "best" / "small" / "adapter_model.safetensors").is_file()
    assert steps.read_text().splitlines() == ["token 64"] * 3
    assert not (out / "jobs").exists()
    assert (there / "jobs").is_dir()


def test_the_job_of_kubernetes_mounts_one_volume_everywhere() -> None:
    job = yaml.safe_load((FOLDER / "kuberay.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    cluster = job["spec"]["rayClusterSpec"]
    assert cluster["rayVersion"] == version("ray")
    assert cluster["authOptions"] == {"mode": "token"}
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    out = shlex.split(job["spec"]["entrypoint"])[4]
    for group in groups:
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        (mount,) = container["volumeMounts"]
        assert out.startswith(mount["mountPath"] + "/")
        assert [volume["name"] for volume in pod["volumes"]] == [mount["name"]]
        assert container["resources"]["requests"] == container["resources"]["limits"]
    gpus = [g["template"]["spec"]["containers"][0]["resources"]["limits"] for g in groups[1:]]
    assert all(int(limits["nvidia.com/gpu"]) >= 1 for limits in gpus)
