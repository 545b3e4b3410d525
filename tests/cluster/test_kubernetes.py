"""What KubeRay would run of the recipe, on nodes that are none of Kubernetes."""

import os
import shlex
import shutil
import signal
import sys
from collections.abc import Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import yaml

import alto_cli
from alto_runs.result import Result
from tests.cluster.test_recipes import FOLDER
from tests.cluster.trouble import PATIENCE_SECONDS, free_gpus, study_of
from tests.forked import forked
from tests.tune.cut import Moment, at_moments
from tests.tune.same import assert_same_outcome


def say(words: Sequence[str], address: str, *kills: Moment) -> None:
    os.environ["RAY_ADDRESS"] = address  # as KubeRay tells every pod
    at_moments(kills, lambda: os.kill(os.getpid(), signal.SIGKILL))
    sys.exit(alto_cli.main(words))


def said(words: Sequence[str], nodes: Any, *kills: Moment) -> BaseProcess:
    process = forked(say, words, nodes.address, *kills)
    process.start()
    process.join(PATIENCE_SECONDS)
    return process


@pytest.mark.parametrize("store", [None, "local://{}/there"], ids=["a shared disk", "a store"])
def test_its_job_is_begun_again_and_ends_as_if_nothing_had_happened(
    store: str | None, nodes: Any, expected: Result, tmp_path: Path
) -> None:
    """The same words each time. With a store the disk of the pod that said them is gone by then."""
    study_of(tmp_path)
    job = yaml.safe_load((FOLDER / "kuberay.yaml").read_text())
    program, *words = shlex.split(job["spec"]["entrypoint"].replace("/shared", str(tmp_path)))
    assert program == "alto"
    if store is not None:
        words += ["--artifacts", store.format(tmp_path)]
    out = Path(words[words.index("--out") + 1])
    assert said(words, nodes, len(expected.log.entries) // 2).exitcode == -signal.SIGKILL
    assert not (out / "leaderboard.json").exists()
    if store is not None:
        shutil.rmtree(out)
    assert said(words, nodes).exitcode == 0
    assert_same_outcome(Result(out), expected)
    assert (out / "best" / "trouble" / "adapter_model.safetensors").is_file()
    free, total = free_gpus(nodes)
    assert free == total
