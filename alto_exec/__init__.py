"""The real executors: models, data, training, checkpoints."""

from alto_exec.tuning import tune

__all__ = ["tune"]
