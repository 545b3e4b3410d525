"""What the passes of jobs need that train on samples whose lengths are known."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from alto_policy.types import Job
from alto_runs.files.data_lengths import SampleLengths
from alto_runs.sample_order import epoch_order

__all__ = ["PassNeeds", "needs_of"]

Counts = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class PassNeeds:
    """All of a batch that decides whether a recorded pass has room for it."""

    rows: int
    targets: int
    sequences: int
    longest: int
    adapters: int
    most_of_adapter: int  # rows
    rank: int  # the highest
    pairs: int = 0
    frozen_pairs: int = 0  # that the frozen model has not yet seen


def needs_of(
    jobs: Sequence[Job],
    done: Sequence[int],
    count: int,
    lengths: SampleLengths,
    seen: Mapping[int, int],
) -> tuple[list[PassNeeds], dict[int, int]]:
    """Of the next `count` passes of jobs that have done so many; and how far into the samples of
    each seed the frozen model has seen, of which `seen` tells it before."""
    alike = Counter(
        (job.hyperparameters.seed, job.hyperparameters.batch_size, first)
        for job, first in zip(jobs, done, strict=True)
    )
    rows, targets, longest, most = (np.zeros(count, dtype=np.int64) for _ in range(4))
    reach: dict[int, list[tuple[int, int]]] = {}  # batch sizes and passes done, by seed
    for (seed, size, first), number in alike.items():
        stream = _stream(lengths, seed, -(-(first + count) * size // len(lengths.tokens)))
        of_passes = stream[:, first * size : (first + count) * size].reshape(3, count, size)
        of_job = of_passes[0].sum(axis=1)
        rows += number * of_job
        targets += number * of_passes[1].sum(axis=1)
        np.maximum(longest, of_passes[2].max(axis=1), out=longest)
        np.maximum(most, of_job, out=most)
        reach.setdefault(seed, []).append((size, first))
    samples = sum(size * number for (_, size, _), number in alike.items())
    frozen = np.zeros(count, dtype=np.int64)
    later = dict(seen)
    if lengths.sequences > 1:
        for seed, parts in reach.items():
            news = _news(lengths, seed, parts, count, later.get(seed, 0))
            rows, targets, frozen = rows + news[0], targets + news[1], frozen + news[2]
            ends = [(first + count) * size for size, first in parts]
            later[seed] = max(later.get(seed, 0), *ends)
    pairs = samples if lengths.sequences > 1 else 0
    rank = max(job.hyperparameters.rank for job in jobs)
    columns = zip(*(c.tolist() for c in (rows, targets, longest, most, frozen)), strict=True)
    return [
        PassNeeds(
            rows=r,
            targets=t,
            sequences=lengths.sequences * (samples + f),
            longest=long,
            adapters=len(jobs),
            most_of_adapter=m,
            rank=rank,
            pairs=pairs,
            frozen_pairs=f,
        )
        for r, t, long, m, f in columns
    ], later


def _news(
    lengths: SampleLengths, seed: int, parts: Sequence[tuple[int, int]], count: int, seen: int
) -> Counts:
    """(3, passes): tokens, targets and number of the pairs that the frozen model has to see. The
    next pass is laid out while it still looks at those of the one under way."""
    epoch = _stream(lengths, seed, 1)[:2]
    news = np.zeros((3, count), dtype=np.int64)
    known = [seen]  # by each pass when it was laid out: samples from the first on
    for index in range(count):
        if known[max(0, index - 1)] >= epoch.shape[1]:
            break
        places: set[int] = set()
        for size, first in parts:
            start = (first + index) * size
            places.update(range(max(start, known[max(0, index - 1)]), start + size))
        new = [place for place in sorted(places) if place < epoch.shape[1]]
        news[:2, index] = epoch[:, new].sum(axis=1)
        news[2, index] = len(new)
        known.append(max(known[-1], *((first + index + 1) * size for size, first in parts)))
    return news


@lru_cache(maxsize=32)
def _stream(lengths: SampleLengths, seed: int, epochs: int) -> Counts:
    """(3, samples): tokens, targets and longest sequences, as jobs of the seed come to them."""
    told = np.array([lengths.tokens, lengths.targets, lengths.longest], dtype=np.int64)
    orders = [epoch_order(seed, epoch, told.shape[1]) for epoch in range(epochs)]
    return told[:, np.concatenate(orders)]
