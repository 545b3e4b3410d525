"""On a CPU whose products would be other bits beside other rows, as those without AVX-512 are."""

import os
from pathlib import Path

from rich.console import Console

from alto_exec import tune
from alto_runs.study import Study
from tests.forked import forked
from tests.tune.cut import begun_and_hardly_kept
from tests.tune.same import assert_same_outcome
from tests.tune.small_study import small_study

QUIET = Console(quiet=True)


def train_and_go_on(study: Study, folder: Path) -> None:
    """MKL looks at the variables when this process multiplies for the first time."""
    os.environ.pop("MKL_CBWR", None)
    os.environ["MKL_ENABLE_INSTRUCTIONS"] = "AVX2"
    whole = tune(study, folder / "whole", console=QUIET)
    begun_and_hardly_kept(whole, folder / "run")
    assert_same_outcome(tune(study, folder / "run", resume=True, console=QUIET), whole)


def test_what_is_trained_again_beside_others_ends_the_same(
    tmp_path: Path,
) -> None:
    process = forked(train_and_go_on, small_study(tmp_path), tmp_path)
    process.start()
    process.join()
    assert process.exitcode == 0
