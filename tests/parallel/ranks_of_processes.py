"""Ranks as processes of this machine."""

import os
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

from alto_exec.parallel.ranks import Ranks, join_ranks
from tests.forked import forked

__all__ = ["Scene", "begin", "outcomes", "said"]

Scene = Callable[[Ranks, Path], Any]  # what a rank does, with a folder that all of them see
_SECONDS = 240  # so that nothing hangs


def begin(scene: Scene, size: int, folder: Path, kind: str = "cpu") -> Sequence[BaseProcess]:
    """Processes that play the scene, each on a device of this kind."""
    folder.mkdir(parents=True, exist_ok=True)
    ranks = [forked(_play, scene, rank, size, folder, kind) for rank in range(size)]
    for process in ranks:
        process.start()
    return ranks


def outcomes(scene: Scene, size: int, folder: Path, kind: str = "cpu") -> list[Any]:
    """What the scene gave on each rank."""
    ranks = begin(scene, size, folder, kind)
    try:
        for process in ranks:
            process.join(_SECONDS)
            assert process.exitcode == 0, [said(folder, each) for each in range(size)]
    finally:
        for process in ranks:
            process.kill()
    return [torch.load(folder / f"found-{rank}", weights_only=False) for rank in range(size)]


def said(folder: Path, rank: int) -> Sequence[str]:
    """Lines that the rank wrote to its standard error."""
    return (folder / f"stderr-{rank}").read_text().splitlines()


def _play(scene: Scene, rank: int, size: int, folder: Path, kind: str) -> None:
    torch.set_num_threads(1)
    os.dup2(os.open(folder / f"stderr-{rank}", os.O_WRONLY | os.O_CREAT), 2)
    device = torch.device(f"cuda:{rank}" if kind == "cuda" else kind)
    ranks = join_ranks(rank, size, f"file://{folder}/meeting", device)
    found = scene(ranks, folder)
    ranks.leave()
    torch.save(found, folder / f"found-{rank}")
