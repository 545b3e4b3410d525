"""A rank that dies is noticed by all others: each exits with one line, and none waits for ever."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from alto_exec.parallel.ranks import LOST_RANK_STATUS, Ranks
from tests.parallel.ranks_of_processes import begin, said

SECONDS = 240


def talk(ranks: Ranks, folder: Path) -> None:
    while True:
        ranks.most(1)
        (folder / f"ready-{ranks.rank}").touch()


def wait_for_a_device(ranks: Ranks, folder: Path) -> None:
    """As one whose GPU waits for a collective: nothing of Python's runs."""
    ranks.most(1)
    (folder / f"ready-{ranks.rank}").touch()
    time.sleep(10 * SECONDS)


@pytest.mark.parametrize("scene", [talk, wait_for_a_device])
def test_the_others_exit_with_one_line(
    scene: Callable[[Ranks, Path], None], tmp_path: Path
) -> None:
    folder = tmp_path / "ranks"
    ranks = begin(scene, 3, folder)
    try:
        await_files([folder / f"ready-{rank}" for rank in range(3)])
        ranks[1].kill()
        for number in (0, 2):
            ranks[number].join(SECONDS)
            assert ranks[number].exitcode == LOST_RANK_STATUS
            (line,) = said(folder, number)
            assert line.startswith(f"alto: rank {number} of 3 stops, since another is gone")
    finally:
        for process in ranks:
            process.kill()


def await_files(paths: list[Path]) -> None:
    end = time.monotonic() + SECONDS
    while not all(path.exists() for path in paths):
        assert time.monotonic() < end
        time.sleep(0.01)
