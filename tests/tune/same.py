"""What counts as the same: the one tolerance of these tests."""

import torch
from safetensors.torch import load_file
from torch import Tensor

from alto_policy.types import JobId
from alto_runs.files.tensor_header import told_with
from alto_runs.outcomes.leaderboard import ADAPTER_STEP, ADAPTER_WEIGHTS
from alto_runs.result import Result

__all__ = ["assert_same_outcome", "assert_same_values"]

_RELATIVE = 1e-6  # of the largest value: fp32 sums in another order, in another packing


def assert_same_values(ours: Tensor | float, theirs: Tensor | float) -> None:
    a, b = (torch.as_tensor(value, dtype=torch.float64) for value in (ours, theirs))
    assert a.shape == b.shape
    assert (a - b).abs().max() <= _RELATIVE * b.abs().max()


def assert_same_outcome(result: Result, expected: Result) -> None:
    for ours, theirs in zip(result.leaderboard, expected.leaderboard, strict=True):
        same = ("job", "status", "reason", "steps", "adapter")
        assert [getattr(ours, name) for name in same] == [getattr(theirs, name) for name in same]
        assert (ours.best_val_loss is None) == (theirs.best_val_loss is None)
        if ours.best_val_loss is not None and theirs.best_val_loss is not None:
            assert_same_values(ours.best_val_loss, theirs.best_val_loss)
        if ours.adapter is not None:
            (found, step), (known, known_step) = (_adapter(r, ours.job) for r in (result, expected))
            assert step == known_step
            for name, tensor in found.items():
                assert_same_values(tensor, known[name])
    assert not result.directory.checkpoints.names()


def _adapter(result: Result, job: JobId) -> tuple[dict[str, Tensor], str]:
    """Its weights, and which step of the job they tell of."""
    file = result.directory.adapter(job) / ADAPTER_WEIGHTS
    with file.fetched() as path:
        return load_file(path), told_with(file)[ADAPTER_STEP]
