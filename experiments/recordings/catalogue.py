"""Which searches are recorded in `traces`, the most valuable first: what a time limit cuts is last.

The seconds are makespans on one H100, as recorded or, of what never was, expected. They say which
search begins first and which no longer fits.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

__all__ = [
    "COMBINED_FACT",
    "COSMOSQA",
    "LARGE_BATCHES",
    "PREFERENCES",
    "QUESTION_GENERATION",
    "RECORDINGS",
    "ROPES",
    "SMALL_BATCHES",
    "Policy",
    "Recording",
    "RecordingData",
    "in_order",
    "that_fit",
]

SMALL_BATCHES, LARGE_BATCHES = (1, 2, 4, 8), (16, 32, 64)
MODEL = "SmolLM2-135M"
_AROUND = 35.0  # seconds of a search's process that are not its makespan: start, answers


class Policy(StrEnum):
    ALTO = "alto"
    ALTO_PLUS = "alto+"
    FIFO = "fifo"  # every job to its end
    SEQUENTIAL = "sequential"  # one after another


@dataclass(frozen=True, slots=True)
class RecordingData:
    name: str  # begins the names of the recordings
    folder: str  # of the data; preferences and the demo are in `examples`
    train: int | None  # records, evenly from all of them; None: those of the study
    validation: int | None


COMBINED_FACT = RecordingData("qasc-combined-fact", "examples/demo/data", 4000, 256)
QUESTION_GENERATION = RecordingData(
    "qasc-question-generation-1000", "qasc_question_generation", 1000, 128
)
FEWER_QUESTIONS = RecordingData("qasc-question-generation", "qasc_question_generation", 600, 128)
COSMOSQA = RecordingData("cosmosqa", "cosmosqa_answer_generation", 1000, 96)
FEW_QUESTIONS = RecordingData("qasc-question-generation-250", "qasc_question_generation", 250, 128)
MORE_QUESTIONS = RecordingData(
    "qasc-question-generation-2000", "qasc_question_generation", 2000, 128
)
SPEED_QUESTIONS = RecordingData("speed", "qasc_question_generation", 64, 16)
ROPES = RecordingData("ropes", "ropes_answer_generation", 600, 64)
PREFERENCES = RecordingData("qasc-preferences", "examples/preferences", None, None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    data: RecordingData
    policy: Policy
    makespan: float  # seconds on one H100
    seed: int = 0
    folder: str = "recorded"  # in `traces`
    batch_sizes: Sequence[int] = SMALL_BATCHES
    layers: int | None = None  # of a slice of the backbone; None: all of them
    shape: str | None = None  # of random weights, for their speed; None: the trained model
    peft_steps: int = 0  # of each kind of job, by PEFT, to tell what it would take

    @property
    def name(self) -> str:
        """Of the folder, the study and its task."""
        first = self.data.name if self.shape is None else self.shape.lower()
        backbone = "" if self.layers is None else f"-{self.layers}-layers"
        seed = f"-seed{self.seed}" if self.seed else ""
        policy = self.policy.replace("+", "-plus")
        return f"{first}{backbone}-{policy}{seed}"

    @property
    def made_backbone(self) -> str | None:
        """The name of the folder in which a slice or a random model is made first."""
        if self.layers is not None:
            return f"{self.layers}-layers-of-{MODEL}"
        return None if self.shape is None else f"{self.shape}-of-random-weights"

    @property
    def path(self) -> str:
        """Below `traces`."""
        return f"{self.folder}/{self.name}"

    @property
    def seconds(self) -> float:
        """That it takes a GPU, all in all."""
        return self.makespan + _AROUND


def _grid(
    data: RecordingData, fifo: float, alto: float, seed: int = 0, peft_steps: int = 0
) -> tuple[Recording, Recording]:
    return (
        Recording(data=data, policy=Policy.FIFO, makespan=fifo, seed=seed),
        Recording(data=data, policy=Policy.ALTO, makespan=alto, seed=seed, peft_steps=peft_steps),
    )


def _sliced(layers: int, makespan: float, policy: Policy = Policy.FIFO) -> Recording:
    """On the data of the shortest samples."""
    return Recording(
        data=QUESTION_GENERATION,
        policy=policy,
        makespan=makespan,
        layers=layers,
        folder="slices",
    )


def _larger(data: RecordingData, makespan: float) -> Recording:
    return Recording(
        data=data,
        policy=Policy.FIFO,
        makespan=makespan,
        folder="batches",
        batch_sizes=LARGE_BATCHES,
    )


def _sized(data: RecordingData, makespan: float, seed: int = 0) -> Recording:
    """With every batch size: does the best one depend on how much data there is?"""
    return Recording(
        data=data,
        policy=Policy.FIFO,
        makespan=makespan,
        seed=seed,
        folder="sizes",
        batch_sizes=(*SMALL_BATCHES, *LARGE_BATCHES),
    )


def _plus(data: RecordingData, makespan: float, seed: int = 0) -> Recording:
    """By our own rules: they were chosen on the grids that stand in `recorded`."""
    return Recording(
        data=data, policy=Policy.ALTO_PLUS, makespan=makespan, seed=seed, folder="plus"
    )


def _random(shape: str, makespan: float, policy: Policy = Policy.FIFO) -> Recording:
    """Speed alone is told: such a backbone learns nothing of use. With exits as well, so that each
    can be told by the times of the others."""
    return Recording(
        data=SPEED_QUESTIONS, policy=policy, makespan=makespan, folder="speed", shape=shape
    )


RECORDINGS: tuple[Recording, ...] = (
    *_grid(COMBINED_FACT, 274, 70, peft_steps=10),
    *_grid(QUESTION_GENERATION, 76, 28),
    *_grid(COSMOSQA, 123, 36),
    *_grid(ROPES, 151, 45),
    *_grid(PREFERENCES, 55, 27),
    *_grid(QUESTION_GENERATION, 78, 30, seed=1),
    _sliced(10, 40),
    _sliced(10, 18, Policy.ALTO),
    _random("Llama-3.2-1B", 35),
    _random("Llama-3.1-8B", 168),
    *_grid(COSMOSQA, 130, 38, seed=1),
    *_grid(ROPES, 160, 47, seed=1),
    _larger(QUESTION_GENERATION, 72),
    _sized(FEW_QUESTIONS, 50),
    _sized(FEW_QUESTIONS, 50, seed=1),
    _plus(COMBINED_FACT, 55),
    _plus(QUESTION_GENERATION, 25),
    _plus(COSMOSQA, 30),
    _plus(ROPES, 40),
    *_grid(PREFERENCES, 56, 31, seed=1),
    *_grid(COMBINED_FACT, 274, 68, seed=1),
    _larger(COSMOSQA, 120),
    _sliced(20, 60),
    _sliced(20, 22, Policy.ALTO),
    Recording(data=FEWER_QUESTIONS, policy=Policy.ALTO, makespan=26),
    _random("Llama-3.2-1B", 15, Policy.ALTO),
    _random("Llama-3.1-8B", 60, Policy.ALTO),
    _larger(ROPES, 150),
    _sized(MORE_QUESTIONS, 390),
    _plus(PREFERENCES, 25),
    _sliced(10, 15, Policy.ALTO_PLUS),
    _random("Llama-3.2-1B", 15, Policy.ALTO_PLUS),
    _random("Llama-3.1-8B", 60, Policy.ALTO_PLUS),
    Recording(data=PREFERENCES, policy=Policy.SEQUENTIAL, makespan=100, folder="sequential"),
)
"""In order of value: each data set with one seed, preferences, second seeds, other backbones, other
batches and amounts of data."""


def in_order(recordings: Sequence[Recording], gpus: int, seconds: float) -> list[Recording]:
    """As they are begun: those that fit into the time, the longest first, then the others. One GPU
    takes them as they come, since with any order it is done at the same time."""
    if gpus == 1:
        return list(recordings)
    kept = that_fit(recordings, gpus, seconds)
    rest = [one for one in recordings if one not in kept]
    return sorted(kept, key=lambda one: -one.seconds) + rest


def that_fit(recordings: Sequence[Recording], gpus: int, seconds: float) -> list[Recording]:
    """By their value, those that GPUs side by side come to the end of; what is too long for the
    time that is left is passed over."""
    kept: list[Recording] = []
    for one in recordings:
        if _side_by_side([*kept, one], gpus) <= seconds:
            kept.append(one)
    return kept


def _side_by_side(recordings: Iterable[Recording], gpus: int) -> float:
    """Seconds until the last one is done, the longest begun first."""
    busy = [0.0] * gpus
    for seconds in sorted((one.seconds for one in recordings), reverse=True):
        busy[busy.index(min(busy))] += seconds
    return max(busy)
