from collections.abc import Sequence
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from alto_exec.data.samples import Sample, encode
from alto_runs.data_records import Chat, Completion, Message, Single, Text
from alto_runs.errors import UserError
from tests.exec.tiny_models import CHATML, CHATML_MARKED, byte_tokenizer, decode, tiny_tokenizer

SYSTEM = "<|im_start|>system\nBe brief.<|im_end|>\n"


def chat(*contents: str, completion_from: int | None = None, system: str | None = None) -> Chat:
    roles = ["user", "assistant"] * len(contents)
    turns = [Message(role, content) for role, content in zip(roles, contents, strict=False)]
    first = [] if system is None else [Message("system", system)]
    return Chat((*first, *turns), completion_from)


def targets(sample: Sample, tokenizer: PreTrainedTokenizerFast) -> list[str]:
    """The runs of target tokens, as text."""
    runs: list[list[int]] = [[]]
    for token, is_target in zip(sample.tokens, sample.is_target, strict=True):
        if is_target:
            runs[-1].append(token)
        elif runs[-1]:
            runs.append([])
    return [decode(tokenizer, run) for run in runs if run]


def as_dicts(messages: Sequence[Message]) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in messages]


CHATS = {
    "one answer under the template's own system turn": (chat("hi", "you"), ["you<|im_end|>"]),
    "the record's system turn": (chat("hi", "you", system="Be long."), ["you<|im_end|>"]),
    "every answer of several": (
        chat("hi", "one", "and", "two", "then", "three"),
        ["one<|im_end|>", "two<|im_end|>", "three<|im_end|>"],
    ),
    "a question after the last answer": (chat("hi", "one", "and"), ["one<|im_end|>"]),
    "only the completion of a chat": (
        chat("hi", "one", "and", "two", completion_from=3),
        ["two<|im_end|>"],
    ),
    "letters of several bytes": (chat("Où ?", "à Zürich 🏔"), ["à Zürich 🏔<|im_end|>"]),
    "the same words asked and answered": (chat("you", "you"), ["you<|im_end|>"]),
    "an answer that ends in a blank line": (chat("hi", "you\n\n"), ["you\n\n<|im_end|>"]),
    "the answer first": (
        Chat(
            (Message("assistant", "Ask."), Message("user", "hi"), Message("assistant", "A.")), None
        ),
        ["Ask.<|im_end|>", "A.<|im_end|>"],
    ),
    "prompt and completion": (Completion("hi", "you"), ["you<|im_end|>"]),
}


@pytest.mark.parametrize("template", [CHATML, CHATML_MARKED], ids=["unmarked", "marked"])
@pytest.mark.parametrize(("record", "expected"), CHATS.values(), ids=CHATS)
def test_answers_of_a_chat_are_the_targets(
    record: Single, expected: list[str], template: str
) -> None:
    tokenizer = byte_tokenizer(template)
    assert targets(encode(record, tokenizer, completion_only=True), tokenizer) == expected


@pytest.mark.parametrize(
    "record",
    [
        pytest.param(record, id=name)
        for name, (record, _) in CHATS.items()
        if isinstance(record, Chat)
    ],
)
def test_tokens_and_targets_are_those_of_transformers(record: Chat) -> None:
    theirs: Any = byte_tokenizer(CHATML_MARKED).apply_chat_template(
        as_dicts(record.messages), return_dict=True, return_assistant_tokens_mask=True
    )
    ours = encode(Chat(record.messages, None), byte_tokenizer(CHATML), completion_only=True)
    assert list(ours.tokens) == theirs["input_ids"]
    assert [int(is_target) for is_target in ours.is_target] == theirs["assistant_masks"]


def test_blank_space_after_the_last_special_token_is_no_target() -> None:
    tokenizer = byte_tokenizer()
    sample = encode(chat("hi", "you"), tokenizer, completion_only=True)
    assert decode(tokenizer, sample.tokens[-2:]) == "<|im_end|>\n"
    assert sample.is_target[-2:] == (True, False)


def test_a_template_without_an_end_token_trains_the_end_of_the_line() -> None:
    template = "{% for m in messages %}{{ m.role + ': ' + m.content + '\\n' }}{% endfor %}"
    prompt = "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
    tokenizer = byte_tokenizer(template + prompt)
    sample = encode(chat("hi", "you"), tokenizer, completion_only=True)
    assert targets(sample, tokenizer) == ["you\n"]


@pytest.mark.parametrize(
    ("record", "text"),
    [
        (chat("hi", "you"), SYSTEM + "<|im_start|>user\nhi<|im_end|>\n"),
        (Completion("hi", "you"), SYSTEM + "<|im_start|>user\nhi<|im_end|>\n"),
    ],
    ids=["chat", "prompt and completion"],
)
def test_without_completion_only_all_but_the_first_token_are_targets(
    record: Single, text: str
) -> None:
    tokenizer = byte_tokenizer()
    sample = encode(record, tokenizer, completion_only=False)
    assert decode(tokenizer, sample.tokens).startswith(text)
    assert sample.is_target == (False, *[True] * (len(sample.tokens) - 1))


PLAIN = {
    "completion": (Completion("hi ", "you"), True, "hi you<|im_end|>", ["you<|im_end|>"]),
    "completion, all of it": (Completion("a", "b"), False, "ab<|im_end|>", ["b<|im_end|>"]),
    "no prompt": (Completion("", "you"), True, "you<|im_end|>", ["ou<|im_end|>"]),
    "text": (Text("hi you"), True, "hi you<|im_end|>", ["i you<|im_end|>"]),
    "blank completion": (Completion("hi", " \n"), True, "hi \n<|im_end|>", []),
    "blank text": (Text(""), True, "<|im_end|>", []),
}


@pytest.mark.parametrize(("record", "only", "text", "expected"), PLAIN.values(), ids=PLAIN)
def test_without_a_chat_template_the_end_token_closes_the_text(
    record: Single, only: bool, text: str, expected: list[str]
) -> None:
    tokenizer = tiny_tokenizer(chat_template=None)
    sample = encode(record, tokenizer, completion_only=only)
    assert decode(tokenizer, sample.tokens) == text
    assert targets(sample, tokenizer) == expected


def test_a_token_on_both_sides_of_the_border_is_a_target() -> None:
    tokenizer = byte_tokenizer(chat_template=None)
    [the] = tokenizer("the")["input_ids"]
    sample = encode(Completion("t", "he"), tokenizer, completion_only=True)
    assert sample == Sample((the, tokenizer.eos_token_id), (False, True))
    sample = encode(Completion("Paris.t", "he"), tokenizer, completion_only=True)
    assert targets(sample, tokenizer) == ["the<|im_end|>"]


def test_special_tokens_that_a_tokenizer_adds_are_kept_and_not_doubled() -> None:
    from tokenizers.processors import TemplateProcessing

    tokenizer = tiny_tokenizer(chat_template=None)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|im_start|> $A <|im_end|>",
        special_tokens=[("<|im_start|>", 1), ("<|im_end|>", 2)],
    )
    sample = encode(Completion("a", "b"), tokenizer, completion_only=True)
    assert decode(tokenizer, sample.tokens) == "<|im_start|>ab<|im_end|>"
    assert sample.is_target == (False, False, True, True)


@pytest.mark.parametrize(
    "record",
    [
        chat("hi", " "),
        chat("hi"),
        Completion("hi", "\n"),
        chat("a", "b", "c", "", completion_from=3),
    ],
    ids=["blank answer", "no answer", "blank completion", "blank completion of a chat"],
)
@pytest.mark.parametrize("only", [True, False], ids=["completion", "all"])
@pytest.mark.parametrize("template", [CHATML, CHATML_MARKED], ids=["unmarked", "marked"])
def test_a_record_without_an_answer_has_no_targets(
    record: Single, only: bool, template: str
) -> None:
    assert not any(encode(record, byte_tokenizer(template), only).is_target)


THINKING = """\
{%- for m in messages %}{{ '<|im_start|>' + m.role + '\\n' }}
{%- if m.role == 'assistant' and loop.last %}{{ '<think>\\n' }}{% endif %}
{{- m.content + '<|im_end|>\\n' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""


def test_what_a_template_adds_to_the_last_answer_is_a_target() -> None:
    tokenizer = byte_tokenizer(THINKING)
    sample = encode(chat("hi", "you"), tokenizer, completion_only=True)
    assert targets(sample, tokenizer) == ["<think>\nyou<|im_end|>"]


@pytest.mark.parametrize(
    ("record", "template", "message"),
    [
        (
            chat("hi", "one", "and", "two"),
            THINKING,
            "renders turns differently when others follow, so where answer 2 of 4 begins",
        ),
        (
            chat("hi", "one"),
            "{{ raise_exception('roles must alternate') }}",
            "chat template refuses this chat: roles must alternate",
        ),
        (chat("hi", "one"), None, "the model has no chat template, which chat messages need"),
    ],
    ids=["template that rewrites the past", "template that refuses", "no template"],
)
def test_mistakes_are_told(record: Single, template: str | None, message: str) -> None:
    with pytest.raises(UserError, match=message):
        encode(record, byte_tokenizer(template), completion_only=True)


def test_a_tokenizer_without_an_end_is_told() -> None:
    tokenizer = tiny_tokenizer(chat_template=None)
    tokenizer.eos_token = None
    with pytest.raises(UserError, match="has no end-of-text token"):
        encode(Text("hi"), tokenizer, completion_only=True)
