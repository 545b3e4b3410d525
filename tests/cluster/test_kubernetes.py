"""What KubeRay would run of the recipe, on nodes that are none of Kubernetes."""

import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from alto_runs.result import Result
from tests.cluster.test_recipes import FOLDER
from tests.cluster.trouble import free_gpus, study_of, undisturbed
from tests.style.sources import ROOT
from tests.tune.cut import num_lines_of
from tests.tune.same import assert_same_outcome

SECONDS = 120


@pytest.mark.parametrize("store", [None, "local://{}/there"], ids=["a shared disk", "a store"])
def test_its_job_is_begun_again_and_ends_as_if_nothing_had_happened(
    store: str | None, nodes: Any, tmp_path: Path
) -> None:
    """The same words each time. With a store the disk of the pod that said them is gone by then."""
    study = study_of(tmp_path, samples=192)
    expected = undisturbed(study, tmp_path / "alone")
    job = yaml.safe_load((FOLDER / "kuberay.yaml").read_text())
    words = shlex.split(job["spec"]["entrypoint"].replace("/shared", str(tmp_path)))
    assert words[0] == "alto"
    command = [sys.executable, "-m", "alto_cli", *words[1:]]
    if store is not None:
        command += ["--artifacts", store.format(tmp_path)]
    out = Path(words[words.index("--out") + 1])
    environment = os.environ | {  # the second as KubeRay tells it to every pod
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "kernels")]),
        "RAY_ADDRESS": nodes.address,
    }
    with subprocess.Popen(command, env=environment) as first:
        while num_lines_of(out / "run.jsonl") < len(expected.log.entries) // 2:
            assert first.poll() is None
            time.sleep(0.01)
        first.kill()
    assert not (out / "leaderboard.json").exists()
    if store is not None:
        shutil.rmtree(out)
    assert subprocess.run(command, env=environment, timeout=SECONDS, check=False).returncode == 0
    assert_same_outcome(Result(out), expected)
    assert (out / "best" / "trouble" / "adapter_model.safetensors").is_file()
    free, total = free_gpus(nodes.address)
    assert free == total
