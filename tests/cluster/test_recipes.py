"""Recipes: what can be checked of them without Slurm and Kubernetes."""

import re
import shlex
import subprocess
from importlib.metadata import version

import pytest
import yaml

import alto_cli
from tests.style.sources import ROOT

FOLDER = ROOT / "examples" / "cluster"


def commands(text: str) -> list[str]:
    """Every `alto tune` in it, to the end of its line or quotation."""
    return [command.strip() for command in re.findall(r"alto tune [^`\n]*", text)]


@pytest.mark.parametrize("name", ["README.md", "slurm.sbatch", "kuberay.yaml"])
def test_its_command_is_one_that_there_is(name: str) -> None:
    found = [c for c in commands((FOLDER / name).read_text()) if "--out" in c]
    assert found
    for command in found:
        options = alto_cli._parser().parse_args(shlex.split(command)[1:])
        assert options.cluster is not None


def test_the_script_of_slurm_is_one_of_bash() -> None:
    checked = subprocess.run(
        ["bash", "-n", str(FOLDER / "slurm.sbatch")], capture_output=True, text=True, check=False
    )
    assert (checked.returncode, checked.stderr) == (0, "")


def test_the_job_of_kubernetes_mounts_one_volume_everywhere() -> None:
    job = yaml.safe_load((FOLDER / "kuberay.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    cluster = job["spec"]["rayClusterSpec"]
    assert cluster["rayVersion"] == version("ray")
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
