"""From a record to its tokens, and to those among them that are to be predicted."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from alto_exec.data.chat import Span, answer_span, marks_answers, render, tokenize_marked
from alto_runs.data_records import Chat, Completion, Message, Preference, Single, Text
from alto_runs.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

__all__ = ["Example", "Pair", "Sample", "encode", "encode_pair", "encode_prompt"]

_ASSISTANT = "assistant"


@dataclass(frozen=True, slots=True)
class Sample:
    """One sequence; token i is a target if it is to be predicted from those before it."""

    tokens: tuple[int, ...]
    is_target: tuple[bool, ...]
    # The same as arrays: batches are put together of them, a thousand a second.
    token_array: NDArray[np.int64] = field(init=False, repr=False, compare=False)
    target_places: NDArray[np.int64] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        assert len(self.tokens) == len(self.is_target)
        assert not any(self.is_target[:1]), "nothing stands before the first token"
        object.__setattr__(self, "token_array", np.asarray(self.tokens, dtype=np.int64))
        object.__setattr__(self, "target_places", np.flatnonzero(self.is_target))

    @property
    def num_targets(self) -> int:
        return len(self.target_places)

    @property
    def samples(self) -> "tuple[Sample, ...]":
        return (self,)

    @property
    def num_tokens(self) -> int:
        return len(self.tokens)

    @property
    def most_tokens(self) -> int:
        """That it can take of a pass."""
        return self.num_tokens


@dataclass(frozen=True, slots=True)
class Pair:
    """Two answers to one prompt; the targets of each are its own tokens."""

    chosen: Sample
    rejected: Sample

    @property
    def samples(self) -> tuple[Sample, ...]:
        return (self.chosen, self.rejected)

    @property
    def num_tokens(self) -> int:
        return len(self.chosen.tokens) + len(self.rejected.tokens)

    @property
    def most_tokens(self) -> int:
        """That it can take of a pass, in which the frozen model may have to see it too."""
        return 2 * self.num_tokens


Example = Sample | Pair
"""What a job draws from its data set."""


def encode(record: Single, tokenizer: "PreTrainedTokenizerFast", completion_only: bool) -> Sample:
    """Tokens and targets of a record; without `completion_only` every token is a target.

    Where all answers are blank there are no targets. Raises UserError if the chat template
    refuses the record or does not show where its answers begin.
    """
    if isinstance(record, Completion) and tokenizer.chat_template is not None:
        turns = (Message("user", record.prompt), Message(_ASSISTANT, record.completion))
        record = Chat(turns, completion_from=1)
    match record:
        case Chat():
            return _encode_chat(record, tokenizer, completion_only)
        case Completion(prompt, completion):
            first = len(prompt) if completion_only else 0
            return _encode_plain(prompt + completion, first, completion, tokenizer)
        case Text(text):
            return _encode_plain(text, 0, text, tokenizer)


def encode_pair(record: Preference, tokenizer: "PreTrainedTokenizerFast") -> Pair:
    """Raises UserError as `encode` does."""
    chosen, rejected = (
        encode(answer, tokenizer, completion_only=True)
        for answer in (record.chosen, record.rejected)
    )
    return Pair(chosen, rejected)


def encode_prompt(prompt: str, tokenizer: "PreTrainedTokenizerFast") -> tuple[int, ...]:
    """Tokens after which the model begins to answer, as in training on `prompt` and completion."""
    if tokenizer.chat_template is None:
        return tuple(tokenizer(prompt).input_ids)
    text = render([Message("user", prompt)], tokenizer, then_answer=True)
    return tuple(tokenizer(text, add_special_tokens=False).input_ids)


def _encode_plain(
    text: str, first: int, answer: str, tokenizer: "PreTrainedTokenizerFast"
) -> Sample:
    """`text` and an end-of-text token; targets from character `first` on."""
    end = tokenizer.eos_token_id
    if end is None:
        raise UserError("the model's tokenizer has no end-of-text token")
    encoding = tokenizer(text, return_offsets_mapping=True)
    tokens, offsets = encoding.input_ids, encoding.offset_mapping
    if tokens[-1:] != [end]:  # some tokenizers end a text by themselves
        tokens, offsets = [*tokens, end], [*offsets, (len(text), len(text))]
    is_target = [*_overlaps(offsets[:-1], [(first, len(text))]), True]
    return _sample(tokens, is_target if answer.strip() else [False] * len(tokens))


def _encode_chat(chat: Chat, tokenizer: "PreTrainedTokenizerFast", completion_only: bool) -> Sample:
    if tokenizer.chat_template is None:
        raise UserError(
            "the model has no chat template, which chat messages need; choose a chat model, "
            "or give the data as prompt and completion"
        )
    text = render(chat.messages, tokenizer)
    assistant = [i for i, message in enumerate(chat.messages) if message.role == _ASSISTANT]
    answers = [turn for turn in assistant if turn >= (chat.completion_from or 0)]
    spans: list[Span] = []
    if any(chat.messages[turn].content.strip() for turn in answers):
        if not completion_only:
            spans = [(0, len(text))]
        elif not marks_answers(tokenizer):
            spans = [answer_span(chat.messages, turn, text, tokenizer) for turn in answers]
        else:
            whole = answers == assistant
            first = 0 if whole else answer_span(chat.messages, answers[0], text, tokenizer)[0]
            return _encode_marked(chat, first, tokenizer)
    encoding = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    return _sample(encoding.input_ids, _overlaps(encoding.offset_mapping, spans))


def _encode_marked(chat: Chat, first: int, tokenizer: "PreTrainedTokenizerFast") -> Sample:
    """Targets by the template's own marks, from character `first` on."""
    encoding = tokenize_marked(chat.messages, tokenizer)
    offsets, marks = encoding.offset_mapping, encoding.assistant_masks
    is_target = [
        bool(marked) and end > first for marked, (_, end) in zip(marks, offsets, strict=True)
    ]
    return _sample(encoding.input_ids, is_target)


def _overlaps(offsets: Sequence[Span], spans: Sequence[Span]) -> list[bool]:
    """Whether each token has a character in one of the spans."""
    return [any(start < last and end > first for first, last in spans) for start, end in offsets]


def _sample(tokens: Sequence[int], is_target: Sequence[bool]) -> Sample:
    return Sample(tuple(tokens), (False, *is_target[1:]) if tokens else ())
