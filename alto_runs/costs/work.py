"""What a fused training pass has to do, in FLOPs and bytes, and at the ceilings of a card.

Each term is the time that one kind of work takes at the card's measured ceilings, so that the
coefficients fitted to it are plain factors: 1 is the physical limit, and the same factors serve a
card with other ceilings. Only the host's launches are in layers, with a coefficient in seconds.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache

from alto_policy.types import Job
from alto_runs.costs.recording import most_recorded_tokens
from alto_runs.costs.storage import PLAIN, Storage
from alto_runs.profile import ModelShape

__all__ = [
    "BYTE_TERMS",
    "EVALUATED_AT_ONCE",
    "FORWARD_SHARES",
    "OWN_KERNELS",
    "PRODUCTS",
    "SECOND_TERMS",
    "Ceilings",
    "Crew",
    "PassWork",
    "Term",
    "blocks_seconds",
    "byte_terms",
    "crew_of",
    "evaluation_seconds",
    "is_recorded",
    "second_terms",
    "work_of",
]

_WEIGHT_STATE_BYTES = 10  # of an adapter's weight: bfloat16 copy, float32 master and gradient
_WEIGHT_STEP_BYTES = 14  # read and written of them by one AdamW step; moments are both
EVALUATED_AT_ONCE = 16_384  # tokens in one forward pass of an evaluation on a GPU
_STEP_WIDTH = 5000  # that doubles the time of a replayed layer; measured
_AGAIN = 1.6  # the launches of a layer that is computed again; measured
_TILE = (128, 256)  # rows and columns
_PROCESSORS = 132  # of an H100; other large cards have 108 to 148
OWN_KERNELS = "alto-triton"


@dataclass(frozen=True, slots=True)
class Term:
    """A kind of work: the factor expected before anything is measured, and how unsure that is."""

    name: str
    factor: float
    spread: float  # standard deviation of the factor's logarithm
    on_host: bool = False


SECOND_TERMS = (
    Term("launches", 2e-3, 1.0, on_host=True),  # seconds of the host for a layer
    Term("products", 1.1, 0.15),  # GEMMs reach 0.95 to 1.0 of cuBLAS; frozen runs tell the rest
    Term("elementwise", 1.5, 0.7),
    Term("logits", 4.0, 0.7),  # passes over them
    Term("attention", 2.5, 0.4),
    Term("adapters", 1.5, 0.8),
    Term("optimizer", 1.5, 0.5),
    Term("replays", 2e-4, 0.7, on_host=True),  # seconds for a narrow layer with hardly any rows
)

PRODUCTS = [term.name for term in SECOND_TERMS].index("products")
# What a forward pass has of each term of a training pass.
FORWARD_SHARES = (1 / 3, 1 / 2, 1 / 3, 1 / 3, 2 / 7, 1 / 3, 0.0, 1 / 3)

BYTE_TERMS = (
    Term("weights", 1.02, 0.02),
    Term("workspace", 1.0, 0.7),  # of a gigabyte
    Term("activations", 0.8, 0.4),
    Term("logits", 4.0, 0.7),  # copies of them
    Term("adapters", 2.0, 0.8),  # of the activations that adapters keep
    Term("state", 1.0, 0.2),
)


@dataclass(frozen=True, slots=True)
class Ceilings:
    flops_per_second: float
    bytes_per_second: float


@dataclass(frozen=True, slots=True)
class PassWork:
    """One fused pass of jobs on one GPU; a rank of 0 is a frozen backbone."""

    shape: ModelShape
    jobs: int
    tokens: int
    length: int
    ranks: int  # summed over the jobs
    rank_tokens: int  # rank times tokens, summed over the jobs
    recompute: bool = False
    weight_bytes: int = 2
    is_recorded: bool = False  # replayed, not launched
    is_tiled: bool = False  # the linears by our own products
    storage: Storage = PLAIN

    @property
    def mean_rank(self) -> float:
        """As a token sees it."""
        return self.rank_tokens / self.tokens


@dataclass(frozen=True, slots=True)
class Crew:
    """Jobs that train together, as far as time and memory can tell them from others."""

    jobs: int
    rows: int  # sequences in one pass
    ranks: int  # summed over the jobs
    rank_rows: int  # rank times sequences, summed over the jobs


def crew_of(jobs: Iterable[Job]) -> Crew:
    """In one loop: a simulator asks for it at every change of a GPU's jobs."""
    count = rows = ranks = rank_rows = 0
    for job in jobs:
        chosen = job.hyperparameters
        count += 1
        rows += chosen.batch_size
        ranks += chosen.rank
        rank_rows += chosen.rank * chosen.batch_size
    return Crew(count, rows, ranks, rank_rows)


def is_recorded(kernels: str, shape: ModelShape, tokens: int, *, recompute: bool) -> bool:
    """Whether the executor replays passes of so many tokens by these kernels."""
    return kernels == OWN_KERNELS and not recompute and tokens <= _most_recorded(shape)


def work_of(
    crew: Crew,
    shape: ModelShape,
    length: int,
    *,
    kernels: str,
    recompute: bool,
    storage: Storage = PLAIN,
) -> PassWork:
    """The pass of these jobs, every sequence of full length. Layers that are packed take turns in
    one memory, and are not recorded."""
    can_record = storage.packed_bytes is None
    return PassWork(
        shape=shape,
        jobs=crew.jobs,
        tokens=length * crew.rows,
        length=length,
        ranks=crew.ranks,
        rank_tokens=length * crew.rank_rows,
        recompute=recompute,
        is_recorded=can_record
        and is_recorded(kernels, shape, length * crew.rows, recompute=recompute),
        is_tiled=kernels == OWN_KERNELS,
        storage=storage,
    )


def second_terms(work: PassWork, ceilings: Ceilings) -> tuple[float, ...]:
    """The work of each of SECOND_TERMS at the ceilings."""
    shape, tokens = work.shape, work.tokens
    passes = 3 if work.recompute else 2  # a frozen layer has no gradient of its weights
    attention = (4.5 if work.recompute else 3.5) * 2 * work.length * tokens * _queries(shape)
    return (
        0.0 if work.is_recorded else shape.layers * (_AGAIN if work.recompute else 1.0),
        blocks_seconds(work, ceilings) + 2 * _head_seconds(work, ceilings),
        _elementwise_bytes(work, passes) / ceilings.bytes_per_second,
        2 * tokens * shape.vocabulary / ceilings.bytes_per_second,
        shape.layers * attention / ceilings.flops_per_second,
        _adapter_seconds(work, ceilings),
        _step_bytes(work) * _adapter(shape) * work.ranks / ceilings.bytes_per_second,
        _replay_work(shape) if work.is_recorded else 0.0,
    )


def byte_terms(work: PassWork) -> tuple[float, ...]:
    """The bytes of each of BYTE_TERMS."""
    shape, tokens = work.shape, work.tokens
    kept = 2 * (5 * shape.hidden + 3 * shape.intermediate)  # of a token, by one block
    layers = shape.layers * 2 * shape.hidden + kept if work.recompute else shape.layers * kept
    state = _WEIGHT_STATE_BYTES + work.storage.moment_bytes
    return (
        _frozen_bytes(work),
        1e9,
        tokens * layers,
        2 * tokens * shape.vocabulary,
        2 * len(shape.linears) * work.rank_tokens * (1 if work.recompute else shape.layers),
        state * shape.adapter_parameters * work.ranks,
    )


def evaluation_seconds(
    work: PassWork, sequences: int, factors: tuple[float, ...], ceilings: Ceilings
) -> float:
    """Forward passes over validation sequences by the factors of training; replayed where training
    of as many tokens is, and never computed again."""
    tokens = sequences * work.length
    at_once = min(tokens, EVALUATED_AT_ONCE)
    one = replace(
        work,
        tokens=at_once,
        rank_tokens=at_once * work.rank_tokens // work.tokens,
        recompute=False,
        is_recorded=work.is_tiled and at_once <= _most_recorded(work.shape),
    )
    terms = second_terms(one, ceilings)
    parts = [f * t * s for f, t, s in zip(factors, terms, FORWARD_SHARES, strict=True)]
    host = math.fsum(part for part, term in zip(parts, SECOND_TERMS, strict=True) if term.on_host)
    return tokens / at_once * max(host, math.fsum(parts) - host)


@cache
def _most_recorded(shape: ModelShape) -> int:
    return most_recorded_tokens(shape.groups)


@cache
def _linears(shape: ModelShape) -> tuple[tuple[int, int], ...]:
    return shape.linears


@cache
def _groups(shape: ModelShape) -> tuple[tuple[int, int], ...]:
    return shape.groups


@cache
def _adapter(shape: ModelShape) -> int:
    return shape.adapter_parameters


def blocks_seconds(work: PassWork, ceilings: Ceilings, slices: int = 1) -> float:
    """The products of all blocks, forward and backward, and forward once more if recomputed; with
    one of so many slices of every linear's outputs."""
    linears = _groups(work.shape) if work.is_tiled else _linears(work.shape)
    forward = math.fsum(_product(work, i, -(-o // slices), ceilings) for i, o in linears)
    backward = math.fsum(_product(work, -(-o // slices), i, ceilings) for i, o in linears)
    return work.shape.layers * ((2 if work.recompute else 1) * forward + backward)


def _head_seconds(work: PassWork, ceilings: Ceilings) -> float:
    return _product(work, work.shape.hidden, work.shape.vocabulary, ceilings)


def _product(work: PassWork, inputs: int, outputs: int, ceilings: Ceilings) -> float:
    """Bound by arithmetic, or, with few tokens, by the reading of the weights.

    Our own product has one tile for each multiprocessor at a time, so it takes whole rounds.
    """
    flops = 2 * work.tokens * inputs * outputs
    if work.is_tiled:
        tiles = math.ceil(work.tokens / _TILE[0]) * math.ceil(outputs / _TILE[1])
        rounds = math.ceil(tiles / _PROCESSORS)
        flops = 2 * rounds * _PROCESSORS * _TILE[0] * _TILE[1] * inputs
    moved = work.weight_bytes * (inputs * outputs + work.tokens * (inputs + outputs))
    return max(flops / ceilings.flops_per_second, moved / ceilings.bytes_per_second)


def _frozen_bytes(work: PassWork) -> float:
    """Where layers are packed, one of them is there whole besides."""
    shape, packed = work.shape, work.storage.packed_bytes
    if packed is None:
        return work.weight_bytes * shape.parameters
    others = shape.parameters - shape.block_parameters
    whole = shape.block_parameters / shape.layers
    return packed * shape.block_parameters + work.weight_bytes * (others + whole)


def _elementwise_bytes(work: PassWork, passes: int) -> float:
    """Of norms, sums, rotation and gate; and of unpacking, forward and back, which writes a weight,
    reads it and writes it where it is used."""
    shape, packed = work.shape, work.storage.packed_bytes
    moved = work.tokens * shape.layers * _block_bytes(shape) * passes * 1.5
    if packed is None:
        return moved
    return moved + 2 * (packed + 3 * work.weight_bytes) * shape.block_parameters


def _step_bytes(work: PassWork) -> float:
    """Moved for an adapter's weight by one AdamW step."""
    return _WEIGHT_STEP_BYTES + 2 * work.storage.moment_bytes


def _block_bytes(shape: ModelShape) -> int:
    """Moved for a token by the norms, sums, rotation and gate of one block, forward."""
    return 25 * shape.hidden + 6 * shape.intermediate


def _adapter_seconds(work: PassWork, ceilings: Ceilings) -> float:
    """What stays when the expand hides under the product: passes over inputs and gradients."""
    if work.ranks == 0:
        return 0.0
    queries = _queries(work.shape)
    inputs = 2 * work.shape.hidden + queries + work.shape.intermediate  # q, k, v share; gate, up
    outputs = sum(outputs for _, outputs in _linears(work.shape))
    moved = 2 * work.tokens * (2 * inputs + outputs) * work.shape.layers
    flops = 6 * work.rank_tokens * _adapter(work.shape)
    return moved / ceilings.bytes_per_second + flops / ceilings.flops_per_second


def _replay_work(shape: ModelShape) -> float:
    """Layers, the wide ones more: with few rows a kernel goes through the width step by step."""
    return shape.layers * (1 + (shape.hidden + shape.intermediate) / _STEP_WIDTH)


def _queries(shape: ModelShape) -> int:
    return shape.heads * shape.head_size
