"""The training and validation samples of a task, from the files that its study names."""

import hashlib
import json
import logging
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from alto_exec.data.samples import Example, Pair, Sample, encode, encode_pair
from alto_runs.data_records import (
    Chat,
    Completion,
    Preference,
    Record,
    Text,
    evenly,
    read_records,
)
from alto_runs.errors import UserError
from alto_runs.files.data_lengths import SampleLengths

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from alto_runs.study import DataSpec, Objective

__all__ = ["Dataset", "Dropped", "load_dataset"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Dropped:
    """Records of which nothing is left to train on."""

    too_long: int  # no target within the length limit
    without_target: int  # blank or missing answer


@dataclass(frozen=True, slots=True)
class Dataset:
    """Examples in the order of their files, the lost records, and the records on both sides.

    All of them are samples, or all of them are pairs.
    """

    train: tuple[Example, ...]
    validation: tuple[Example, ...]
    dropped: Dropped
    num_shared: int

    @property
    def lengths(self) -> SampleLengths:
        """Of the training side."""
        parts = [example.samples for example in self.train]
        return SampleLengths(
            tokens=tuple(sum(len(sample.tokens) for sample in part) for part in parts),
            targets=tuple(sum(sample.num_targets for sample in part) for part in parts),
            longest=tuple(max(len(sample.tokens) for sample in part) for part in parts),
            sequences=max(map(len, parts)),
        )


def load_dataset(
    spec: "DataSpec",
    tokenizer: "PreTrainedTokenizerFast",
    objective: "Objective" = "sft",
    *,
    whose: str = "",
) -> Dataset:
    """Read, split, limit, encode and cut the records of a study's `data`.

    Raises UserError where a side is left empty. Limits count records before any is dropped.
    Warnings begin with `whose` they are.
    """
    train, validation = _sides(spec)
    for side, records in (("train", train), ("validation", validation)):
        _check_kind(records, side, objective)
    shared = {_digest(record) for record in train} & {_digest(record) for record in validation}
    train = evenly(train, spec.train_limit)
    validation = evenly(validation, spec.validation_limit)
    train_samples, train_dropped = _encode_all(train, "train", spec, tokenizer, whose)
    validation_samples, validation_dropped = _encode_all(
        validation, "validation", spec, tokenizer, whose
    )
    if shared:
        log.warning(
            "%sdata: %d records stand in both train and validation; validation losses will flatter",
            whose,
            len(shared),
        )
    return Dataset(
        train_samples,
        validation_samples,
        Dropped(
            train_dropped.too_long + validation_dropped.too_long,
            train_dropped.without_target + validation_dropped.without_target,
        ),
        len(shared),
    )


def _sides(spec: "DataSpec") -> tuple[list[Record], list[Record]]:
    records = list(read_records(Path(spec.train), "data.train"))
    if spec.validation is not None:
        return records, list(read_records(Path(spec.validation), "data.validation"))
    held_out = _held_out(records, spec.validation_fraction)
    sides: tuple[list[Record], list[Record]] = ([], [])
    for record in records:
        sides[_digest(record) in held_out].append(record)
    for side, name in zip(sides, ("training", "validation"), strict=True):
        if not side:
            raise UserError(
                f"data.validation_fraction: {spec.validation_fraction!r} of the {len(records)} "
                f"records in {str(spec.train)!r} leaves no {name} record; name a validation file"
            )
    return sides


def _check_kind(records: Sequence[Record], side: str, objective: "Objective") -> None:
    """A file's records are all of one kind."""
    if isinstance(records[0], Preference) and objective == "sft":
        raise UserError(f"data.{side}: its records are preferences, expected 'objective: dpo'")
    if not isinstance(records[0], Preference) and objective == "dpo":
        raise UserError(
            f"data.{side}: objective 'dpo' needs the fields prompt, chosen and rejected"
        )


def _held_out(records: Sequence[Record], fraction: float) -> set[str]:
    """Digests of the validation records: the smallest ones, up to the fraction wished for.

    So equal records are never parted, and the order of the file does not matter.
    """
    digests = sorted({_digest(record) for record in records})
    return set(digests[: math.ceil(len(digests) * fraction)])


def _digest(record: Record) -> str:
    content = json.dumps(asdict(record), sort_keys=True)
    return hashlib.sha256(f"{type(record).__name__} {content}".encode()).hexdigest()


def _encode_all(
    records: Sequence[Record],
    side: str,
    spec: "DataSpec",
    tokenizer: "PreTrainedTokenizerFast",
    whose: str,
) -> tuple[tuple[Example, ...], Dropped]:
    encoded = [_encode(record, side, spec, tokenizer) for record in records]
    with_target = [one for one in encoded if all(any(s.is_target) for s in one.samples)]
    cut = [_cut(example, spec.max_length) for example in with_target]
    samples = tuple(example for example in cut if example is not None)
    dropped = Dropped(len(with_target) - len(samples), len(encoded) - len(with_target))
    if not samples:
        raise UserError(
            f"data.{side}: none of its {len(records)} records can be used: {dropped.too_long} have "
            f"no answer within data.max_length {spec.max_length!r}, {dropped.without_target} have "
            "no answer at all"
        )
    if dropped != Dropped(0, 0):
        log.warning(
            "%sdata.%s: %d of %d records dropped: %d without an answer within %d tokens, "
            "%d without any answer",
            *(whose, side, len(records) - len(samples), len(records)),
            *(dropped.too_long, spec.max_length, dropped.without_target),
        )
    return samples, dropped


def _encode(
    record: Record, side: str, spec: "DataSpec", tokenizer: "PreTrainedTokenizerFast"
) -> Example:
    try:
        if isinstance(record, Preference):
            return encode_pair(record, tokenizer)
        return encode(record, tokenizer, spec.completion_only)
    except UserError as error:
        raise UserError(f"data.{side}: {error}; a record begins {_first(record)[:60]!r}") from error


def _first(record: Record) -> str:
    """Text of a record, by which it can be found in its file."""
    match record:
        case Chat(messages=messages):
            return messages[0].content if messages else ""
        case Completion(prompt=prompt):
            return prompt
        case Text(text=text):
            return text
        case Preference(chosen=chosen):
            return _first(chosen)


def _cut(example: Example, max_length: int) -> Example | None:
    """Nothing where a sequence has no target within the limit."""
    if isinstance(example, Sample):
        return _cut_sample(example, max_length)
    chosen, rejected = (_cut_sample(answer, max_length) for answer in example.samples)
    return Pair(chosen, rejected) if chosen and rejected else None


def _cut_sample(sample: Sample, max_length: int) -> Sample | None:
    """The sample up to its last target within the limit: what follows teaches nothing."""
    targets = [i for i, is_target in enumerate(sample.is_target[:max_length]) if is_target]
    if not targets:
        return None
    end = targets[-1] + 1
    return Sample(sample.tokens[:end], sample.is_target[:end])
