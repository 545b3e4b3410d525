"""Which samples a job trains on: a function of its seed and its step, and of nothing else."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

__all__ = ["batch_indices", "epoch_order"]


def batch_indices(seed: int, step: int, samples_per_step: int, num_samples: int) -> list[int]:
    """Samples of a job's step, counted from 0, in a stream of epochs without end.

    Each epoch holds every sample once. The stream does not depend on `samples_per_step`.
    """
    first = step * samples_per_step
    indices = []
    for place in range(first, first + samples_per_step):
        epoch, offset = divmod(place, num_samples)
        indices.append(int(epoch_order(seed, epoch, num_samples)[offset]))
    return indices


@lru_cache(maxsize=64)  # about the number of jobs in training, each in an epoch of its own
def epoch_order(seed: int, epoch: int, num_samples: int) -> NDArray[np.int64]:
    """All samples, as a job of the seed comes to them."""
    # numpy keeps the raw stream of a bit generator the same in all its versions, but not what
    # `Generator.permutation` makes of it: a run may be resumed with another numpy.
    draws = np.random.Philox(np.random.SeedSequence((seed, epoch))).random_raw(num_samples)
    order = np.argsort(draws, kind="stable")
    order.flags.writeable = False
    return order
