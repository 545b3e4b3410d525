"""How many tokens a study's data has, told from its characters: the simulator has no tokenizer."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from alto_policy.types import TokenCounts
from alto_runs.data_records import Chat, Completion, Preference, Record, Text, evenly, read_records

if TYPE_CHECKING:
    from alto_runs.study import DataSpec

__all__ = ["BY_CHARACTERS", "DataSize", "estimated_size"]

# The data sets of `traces/recorded` have 52.7 to 259.3 tokens a record by SmolLM2's tokenizer and
# chat template: with these within 8 %.
_CHARACTERS_PER_TOKEN = 4.5
_TOKENS_OF_TEMPLATE = 30

BY_CHARACTERS = f"estimated, {_CHARACTERS_PER_TOKEN} characters a token"


@dataclass(frozen=True, slots=True)
class DataSize:
    samples: int  # of the training set
    longest: int  # tokens that one sample, of either set, can take of a pass
    tokens: TokenCounts


def estimated_size(spec: "DataSpec") -> DataSize:
    """As `alto tune` would count it after reading, cutting off and limiting. Raises UserError."""
    train = [
        _sequences(record, spec.max_length) for record in read_records(spec.train, "data.train")
    ]
    if spec.validation is not None:
        records = read_records(spec.validation, "data.validation")
        validation = [_sequences(record, spec.max_length) for record in records]
    else:
        held_out = math.ceil(len(train) * spec.validation_fraction)
        train, validation = train[held_out:] or train, train[:held_out]
    train = evenly(train, spec.train_limit)
    validation = evenly(validation, spec.validation_limit)
    longest = max(_most_of_a_pass(sample) for sample in (*train, *validation))
    tokens = TokenCounts(per_sample=fmean(map(sum, train)), validation=sum(map(sum, validation)))
    return DataSize(len(train), longest, tokens)


def _sequences(record: Record, max_length: int) -> tuple[int, ...]:
    """Tokens of each sequence of a record: one, or a pair's two."""
    parts = (record.chosen, record.rejected) if isinstance(record, Preference) else (record,)
    marks = 0 if isinstance(record, Text) else _TOKENS_OF_TEMPLATE
    told = (marks + math.ceil(_characters(part) / _CHARACTERS_PER_TOKEN) for part in parts)
    return tuple(min(max_length, tokens) for tokens in told)


def _characters(record: Chat | Completion | Text) -> int:
    match record:
        case Chat(messages=messages):
            return sum(len(message.content) for message in messages)
        case Completion(prompt=prompt, completion=completion):
            return len(prompt) + len(completion)
        case Text(text=text):
            return len(text)


def _most_of_a_pass(sample: Sequence[int]) -> int:
    """A pair may be seen by the frozen model too."""
    return sum(sample) if len(sample) == 1 else 2 * sum(sample)
