"""Chats as the model's template renders them, and where in the text the answers stand."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from alto_runs.data_records import Message
from alto_runs.errors import UserError

if TYPE_CHECKING:
    from transformers import BatchEncoding, PreTrainedTokenizerFast

__all__ = ["Span", "answer_span", "marks_answers", "render", "tokenize_marked"]

Span = tuple[int, int]  # first character, and the one after the last

_MARKER = re.compile(r"\{%-?\s*generation\s*-?%\}")


def render(
    messages: Sequence[Message], tokenizer: "PreTrainedTokenizerFast", *, then_answer: bool = False
) -> str:
    """The chat's text; with `then_answer` up to where the model would begin to write."""
    from jinja2 import TemplateError

    try:
        text = tokenizer.apply_chat_template(
            _turns(messages), tokenize=False, add_generation_prompt=then_answer
        )
    except TemplateError as error:
        raise UserError(f"the model's chat template refuses this chat: {error}") from error
    return cast(str, text)


def marks_answers(tokenizer: "PreTrainedTokenizerFast") -> bool:
    """Whether the template's author marked the answers with {% generation %}."""
    return _MARKER.search(tokenizer.get_chat_template()) is not None


def tokenize_marked(
    messages: Sequence[Message], tokenizer: "PreTrainedTokenizerFast"
) -> "BatchEncoding":
    """Fields input_ids, offset_mapping and assistant_masks, by the template's own marks."""
    encoding = tokenizer.apply_chat_template(
        _turns(messages),
        return_dict=True,
        return_assistant_tokens_mask=True,
        tokenizer_kwargs={"return_offsets_mapping": True},
    )
    return cast("BatchEncoding", encoding)


def answer_span(
    messages: Sequence[Message], turn: int, text: str, tokenizer: "PreTrainedTokenizerFast"
) -> Span:
    """Where in `text`, the rendered chat, the model writes turn number `turn`.

    It begins where the chat before it, rendered alone and asking for an answer, ends; it includes
    the token that ends the turn. Raises UserError if the template renders the beginning of a
    chat otherwise than the whole.
    """
    if turn == 0:
        before = _until_content(messages, text, tokenizer)
    else:
        before = render(messages[:turn], tokenizer, then_answer=True)
    is_last = turn == len(messages) - 1
    through = text if is_last else render(messages[: turn + 1], tokenizer)
    if not (text.startswith(before) and text.startswith(through) and len(before) < len(through)):
        raise UserError(
            f"the model's chat template renders turns differently when others follow, so where "
            f"answer {turn + 1} of {len(messages)} begins and ends cannot be told; add "
            "{% generation %} marks to the template, or set data.completion_only to false"
        )
    return len(before), max(len(before), _turn_end(through, tokenizer))


def _turns(messages: Sequence[Message]) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in messages]


def _until_content(
    messages: Sequence[Message], text: str, tokenizer: "PreTrainedTokenizerFast"
) -> str:
    """What stands before the content of the first turn: the same whatever that content is."""
    first = messages[0]
    other = "B" if first.content.strip().startswith("A") else "A"
    changed = render((Message(first.role, other), *messages[1:]), tokenizer)
    pairs = enumerate(zip(text, changed, strict=False))
    return text[: next((place for place, (a, b) in pairs if a != b), 0)]


def _turn_end(through: str, tokenizer: "PreTrainedTokenizerFast") -> int:
    """Characters of `through` without the blank space that the template puts after the turn's
    last special token: the model stops at that token and never writes more."""
    special = tuple(str(t) for t in tokenizer.added_tokens_decoder.values() if t.special)
    written = through.rstrip()
    return len(written) if written.endswith(special) else len(through)
