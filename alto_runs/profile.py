"""Measured step times and memory of one machine: a JSONL file, one row a measurement.

A row is whole by itself: it carries the machine, the versions and the shape that it was taken with,
so that files of several machines can be joined with `cat`. The same codec as the run log's writes
them, and refuses unknown or missing fields.
"""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from alto_policy.codec import MalformedError, codec_of
from alto_runs.errors import UserError

__all__ = [
    "JOB_SIZES",
    "CopyRow",
    "Direction",
    "EvaluationRow",
    "GangRow",
    "GemmRow",
    "KernelRow",
    "Machine",
    "ModelShape",
    "OperationRow",
    "Row",
    "StepRow",
    "Trained",
    "dump_rows",
    "read_profile",
    "read_profiles",
    "shipped_profile",
]

# Sequences and their length, that one job brings to a pass: ours and the peers' are measured over.
JOB_SIZES = ((1, 128), (1, 512), (2, 512), (4, 512), (8, 512), (16, 512))


class Trained(StrEnum):
    NONE = "none"  # forward and backward through the frozen backbone alone
    LORA = "lora"  # an adapter on every linear layer of the blocks, stepped by its optimizer


class Direction(StrEnum):
    FORWARD = "forward"
    BACKWARD = "backward"
    BOTH = "both"


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What a measurement was taken on; None where it is not known."""

    gpu: str  # as its driver names it
    driver: str | None
    cuda: str | None
    torch: str | None
    triton: str | None
    commit: str | None
    date: str | None  # 2026-11-25
    source: str  # how it was measured

    def __post_init__(self) -> None:
        _require(bool(self.gpu.strip()), "gpu", self.gpu, "the name of a GPU")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape:
    """A decoder of gated blocks, as its configuration file tells it."""

    name: str
    layers: int
    hidden: int
    intermediate: int
    heads: int
    key_value_heads: int
    head_size: int
    vocabulary: int
    tied: bool  # the head is the embedding

    def __post_init__(self) -> None:
        _require(bool(self.name.strip()), "name", self.name, "the name of a model")
        _require_positive(
            layers=self.layers,
            hidden=self.hidden,
            intermediate=self.intermediate,
            heads=self.heads,
            key_value_heads=self.key_value_heads,
            head_size=self.head_size,
            vocabulary=self.vocabulary,
        )

    @property
    def linears(self) -> tuple[tuple[int, int], ...]:
        """Inputs and outputs of the linear layers of one block: q, k, v, o, gate, up, down."""
        queries, keys = self.heads * self.head_size, self.key_value_heads * self.head_size
        return (
            (self.hidden, queries),
            (self.hidden, keys),
            (self.hidden, keys),
            (queries, self.hidden),
            (self.hidden, self.intermediate),
            (self.hidden, self.intermediate),
            (self.intermediate, self.hidden),
        )

    @property
    def groups(self) -> tuple[tuple[int, int], ...]:
        """The same with those of one input as one: q, k and v; o; gate and up; down."""
        queries, keys = self.heads * self.head_size, self.key_value_heads * self.head_size
        return (
            (self.hidden, queries + 2 * keys),
            (queries, self.hidden),
            (self.hidden, 2 * self.intermediate),
            (self.intermediate, self.hidden),
        )

    @property
    def block_parameters(self) -> int:
        """Weights of the linear layers of all blocks."""
        return self.layers * sum(inputs * outputs for inputs, outputs in self.linears)

    @property
    def parameters(self) -> int:
        """All weights but those of the norms, which are too few to count."""
        return self.block_parameters + (1 if self.tied else 2) * self.vocabulary * self.hidden

    @property
    def adapter_parameters(self) -> int:
        """Weights of adapters on all linear layers, for one unit of rank."""
        return self.layers * sum(inputs + outputs for inputs, outputs in self.linears)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRow:
    """One fused training pass of equal jobs, with their optimizers' step where they train."""

    machine: Machine
    model: ModelShape
    dtype: str  # of the backbone: bfloat16, float16, float32
    kernels: str  # what ran: alto-triton, peft, frozen-liger; peft-alone is beside alto-triton
    trained: Trained
    recompute: bool  # activations are computed again in the backward pass
    jobs: int
    rank: int  # 0 where nothing is trained
    batch_size: int  # sequences of one job
    length: int  # tokens of one sequence
    seconds: float  # median
    peak_bytes: int | None

    def __post_init__(self) -> None:
        _require_positive(
            jobs=self.jobs, batch_size=self.batch_size, length=self.length, seconds=self.seconds
        )
        if self.trained is Trained.LORA:
            _require(self.rank >= 1, "rank", self.rank, "at least 1 where adapters are trained")
        else:
            _require(self.rank == 0, "rank", self.rank, "0 where nothing is trained")
        if self.peak_bytes is not None:
            _require_positive(peak_bytes=self.peak_bytes)

    @property
    def tokens(self) -> int:
        return self.jobs * self.batch_size * self.length


@dataclass(frozen=True, slots=True, kw_only=True)
class GangRow:
    """One optimizer step of equal jobs on several GPUs of one machine, by one of the ways there."""

    machine: Machine
    model: ModelShape
    dtype: str
    # adapter-parallel goes the cheapest way in each pass, gathered, copied and travelling this one
    # always, the same with -launched without recordings; copies, fsdp2-peft, ddp-peft;
    # one-gpu leaves the others idle
    method: str
    gpus: int
    jobs: int
    rank: int
    batch_size: int
    length: int
    seconds: float  # median, of the slowest GPU
    peak_bytes: int | None  # most of any GPU
    received_bytes: int | None = None  # by one GPU from the others
    exposed_seconds: float | None = None  # by which a step that receives nothing is shorter
    ways: str | None = None  # that passes went, with + between; before they were told: gathered
    is_replayed: bool = False  # they had been recorded

    def __post_init__(self) -> None:
        _require_positive(
            gpus=self.gpus,
            jobs=self.jobs,
            rank=self.rank,
            batch_size=self.batch_size,
            length=self.length,
            seconds=self.seconds,
        )

    @property
    def tokens_per_second(self) -> float:
        """Of those that the jobs asked for."""
        return self.jobs * self.batch_size * self.length / self.seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationRow:
    """Forward passes of one or more jobs over validation sequences."""

    machine: Machine
    model: ModelShape
    dtype: str
    kernels: str
    jobs: int
    rank: int
    sequences: int  # of each job
    length: int
    seconds: float  # of all jobs together

    def __post_init__(self) -> None:
        _require_positive(
            jobs=self.jobs,
            rank=self.rank,
            sequences=self.sequences,
            length=self.length,
            seconds=self.seconds,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelRow:
    """Linear layers of one input with adapters, beside the frozen layers alone."""

    machine: Machine
    op: str  # lora-linear, and the layers if they are several: lora-linear qkv
    kernels: str
    dtype: str
    direction: Direction
    inputs: int
    outputs: int  # of all layers
    tokens: int
    jobs: int
    rank: int  # the mean of the jobs
    seconds: float
    base_seconds: float  # the frozen layer alone, in the same run

    def __post_init__(self) -> None:
        _require_positive(
            inputs=self.inputs,
            outputs=self.outputs,
            tokens=self.tokens,
            jobs=self.jobs,
            rank=self.rank,
            seconds=self.seconds,
            base_seconds=self.base_seconds,
        )

    @property
    def ratio(self) -> float:
        return self.seconds / self.base_seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationRow:
    """What stands around the linear layers, forward and backward, beside PyTorch's own."""

    machine: Machine
    op: str  # rms-norm, swiglu, rope, attention, linear-cross-entropy, adamw
    kernels: str
    tokens: int
    seconds: float
    base_seconds: float  # PyTorch's, in the same run

    def __post_init__(self) -> None:
        _require_positive(tokens=self.tokens, seconds=self.seconds, base_seconds=self.base_seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyRow:
    """The ceiling of what is bound by memory: a copy on the device, reads and writes counted."""

    machine: Machine
    bytes_per_second: float

    def __post_init__(self) -> None:
        _require_positive(bytes_per_second=self.bytes_per_second)


@dataclass(frozen=True, slots=True, kw_only=True)
class GemmRow:
    """The ceiling of what is bound by arithmetic: the vendor's matrix product."""

    machine: Machine
    dtype: str
    tokens: int
    inputs: int
    outputs: int
    seconds: float

    def __post_init__(self) -> None:
        _require_positive(
            tokens=self.tokens, inputs=self.inputs, outputs=self.outputs, seconds=self.seconds
        )

    @property
    def flops_per_second(self) -> float:
        return 2 * self.tokens * self.inputs * self.outputs / self.seconds


Row = StepRow | GangRow | EvaluationRow | KernelRow | OperationRow | CopyRow | GemmRow


def read_profile(path: Path) -> tuple[Row, ...]:
    """The rows of a file, in order; raises UserError with the line and field at fault."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not a profile: {error.reason}") from error
    except OSError as error:
        raise UserError(f"{path}: cannot read this profile: {error.strerror}") from error
    rows = [_row(path, number, line) for number, line in enumerate(lines, 1) if line.strip()]
    if not rows:
        raise UserError(f"{path}: the profile is empty, expected at least one row")
    return tuple(rows)


def shipped_profile(name: str = "h100.jsonl") -> Path:
    """Rows that come with the package, or with a checkout of it: of one H100, or `h100x4.jsonl`."""
    packaged = Path(__file__).with_name("profiles") / name
    checkout = Path(__file__).parents[1] / "kernels" / "profiles" / name
    return packaged if packaged.is_file() else checkout


def read_profiles(paths: Iterable[Path]) -> tuple[Row, ...]:
    return tuple(row for path in paths for row in read_profile(path))


def dump_rows(rows: Sequence[Row]) -> str:
    """The text of a profile, a line for each row."""
    codec = codec_of(Row)
    return "".join(json.dumps(codec.encode(row), allow_nan=False) + "\n" for row in rows)


def _row(path: Path, number: int, line: str) -> Row:
    try:
        row: Row = codec_of(Row).read(line)
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: line {number}: not JSON: {error.msg}") from error
    except (MalformedError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: line {number}: {error}") from error
    return row


def _require(holds: bool, field: str, value: object, what: str) -> None:
    if not holds:
        raise ValueError(f"{field} must be {what}, got {value!r}")


def _require_positive(**values: float) -> None:
    for field, value in values.items():
        _require(0 < value < math.inf, field, value, "above 0")
