"""What counts as the same: the one tolerance of these tests."""

import torch
from safetensors.torch import load_file
from torch import Tensor

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
            weights = [
                load_file(r.directory.path / ours.adapter / "adapter_model.safetensors")
                for r in (result, expected)
            ]
            for name, tensor in weights[0].items():
                assert_same_values(tensor, weights[1][name])
    assert not list(result.directory.path.glob("checkpoints/*"))
