import json
import logging
from pathlib import Path

import pytest

from alto_exec.data.dataset import Dataset, Dropped, load_dataset
from alto_exec.data.samples import Example, Pair
from alto_runs.errors import UserError
from alto_runs.study import DataSpec
from tests.exec.tiny_models import decode, tiny_tokenizer

TOKENIZER = tiny_tokenizer(chat_template=None)  # one token a character, and one for the end


def write(path: Path, *completions: str) -> Path:
    rows = [json.dumps({"prompt": "", "completion": completion}) for completion in completions]
    path.write_text("\n".join(rows), encoding="utf-8")
    return path


def load(
    train: Path, validation: Path | None = None, fields: dict[str, object] | None = None
) -> Dataset:
    spec = DataSpec.model_validate({"train": train, "validation": validation} | (fields or {}))
    return load_dataset(spec, TOKENIZER)


def texts(examples: tuple[Example, ...]) -> list[str]:
    samples = [sample for example in examples for sample in example.samples]
    return [decode(TOKENIZER, sample.tokens).removesuffix("<|im_end|>") for sample in samples]


NAMES = [f"record {number}" for number in range(40)]


def test_samples_keep_the_order_of_their_files(tmp_path: Path) -> None:
    train, validation = write(tmp_path / "t.jsonl", "b", "a"), write(tmp_path / "v.jsonl", "d", "c")
    dataset = load(train, validation)
    assert (texts(dataset.train), texts(dataset.validation)) == (["b", "a"], ["d", "c"])
    assert (dataset.dropped, dataset.num_shared) == (Dropped(0, 0), 0)


def test_a_split_holds_every_record_on_one_side(tmp_path: Path) -> None:
    dataset = load(write(tmp_path / "t.jsonl", *NAMES), fields={"validation_fraction": 0.25})
    train, validation = texts(dataset.train), texts(dataset.validation)
    assert sorted(train + validation) == sorted(NAMES)
    assert len(validation) == 10


def test_a_split_does_not_depend_on_the_order_of_the_file(tmp_path: Path) -> None:
    forward = load(write(tmp_path / "f.jsonl", *NAMES), fields={"validation_fraction": 0.2})
    backward = load(
        write(tmp_path / "b.jsonl", *reversed(NAMES)), fields={"validation_fraction": 0.2}
    )
    assert texts(forward.validation) == texts(backward.validation)[::-1]


def test_a_split_never_parts_equal_records(tmp_path: Path) -> None:
    dataset = load(
        write(tmp_path / "t.jsonl", *NAMES, *NAMES, *NAMES), fields={"validation_fraction": 0.3}
    )
    assert not set(texts(dataset.train)) & set(texts(dataset.validation))
    assert len(dataset.validation) == 36


def test_records_on_both_sides_are_counted_in_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train = write(tmp_path / "t.jsonl", "a", "b", "b", "c")
    validation = write(tmp_path / "v.jsonl", "b", "c", "d")
    assert load(train, validation).num_shared == 2
    [warning] = caplog.messages
    assert warning.startswith("data: 2 records stand in both train and validation")


LIMITS = {
    "fewer": (4, ["record 0", "record 10", "record 20", "record 30"]),
    "one": (1, ["record 0"]),
    "as many": (40, NAMES),
    "more": (50, NAMES),
    "no limit": (None, NAMES),
}


@pytest.mark.parametrize(("limit", "expected"), LIMITS.values(), ids=LIMITS)
@pytest.mark.parametrize("side", ["train", "validation"])
def test_a_limit_takes_records_from_all_over_the_file(
    tmp_path: Path, side: str, limit: int | None, expected: list[str]
) -> None:
    few, many = write(tmp_path / "few.jsonl", "x"), write(tmp_path / "many.jsonl", *NAMES)
    files = (many, few) if side == "train" else (few, many)
    dataset = load(*files, {f"{side}_limit": limit})
    assert texts(dataset.train if side == "train" else dataset.validation) == expected


LENGTHS = {
    "shorter": ("hi ", "you", 8, "hi you<|im_end|>"),
    "just fits": ("hi ", "you", 7, "hi you<|im_end|>"),
    "loses its end": ("hi ", "you", 6, "hi you"),
    "keeps one target": ("hi ", "you", 4, "hi y"),
    "keeps none": ("hi ", "you", 3, None),
}


@pytest.mark.parametrize(("prompt", "completion", "limit", "kept"), LENGTHS.values(), ids=LENGTHS)
def test_long_sequences_are_cut_where_a_target_remains(
    tmp_path: Path, prompt: str, completion: str, limit: int, kept: str | None
) -> None:
    rows = [
        {"prompt": prompt, "completion": completion},
        {"prompt": "", "completion": "ab"},
    ]
    file = tmp_path / "t.jsonl"
    file.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    dataset = load(file, write(tmp_path / "v.jsonl", "cd"), {"max_length": limit})
    decoded = [decode(TOKENIZER, one.tokens) for e in dataset.train for one in e.samples]
    assert decoded == ([] if kept is None else [kept]) + ["ab<|im_end|>"]
    assert dataset.dropped == Dropped(too_long=int(kept is None), without_target=0)


def test_what_follows_the_last_target_is_left_out(tmp_path: Path) -> None:
    messages = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "you"},
        {"role": "user", "content": "and"},
    ]
    file = tmp_path / "t.jsonl"
    file.write_text(json.dumps({"messages": messages}), encoding="utf-8")
    spec = DataSpec.model_validate({"train": file, "validation": file})
    [example] = load_dataset(spec, tiny_tokenizer()).train
    [sample] = example.samples
    assert decode(TOKENIZER, sample.tokens).endswith("you<|im_end|>")
    assert sample.is_target[-5:] == (False, True, True, True, True)


def test_dropped_records_are_counted_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train = write(tmp_path / "t.jsonl", "a", " ", "b", "")
    dataset = load(train, write(tmp_path / "v.jsonl", "c", "\n"))
    assert dataset.dropped == Dropped(too_long=0, without_target=3)
    assert caplog.record_tuples == [
        (
            "alto_exec.data.dataset",
            logging.WARNING,
            f"data.{side}: {lost} of {of} records dropped: 0 without an answer within 1024 "
            f"tokens, {lost} without any answer",
        )
        for side, lost, of in (("train", 2, 4), ("validation", 1, 2))
    ]


def preferences(path: Path, *rows: tuple[str, str, str]) -> Path:
    names = ("prompt", "chosen", "rejected")
    lines = [json.dumps(dict(zip(names, row, strict=True))) for row in rows]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def load_pairs(file: Path, max_length: int = 1024) -> Dataset:
    fields = {"train": file, "validation": file, "max_length": max_length}
    return load_dataset(DataSpec.model_validate(fields), TOKENIZER, "dpo")


def test_a_preference_is_a_pair_whose_answers_are_targets(tmp_path: Path) -> None:
    [pair] = load_pairs(preferences(tmp_path / "p.jsonl", ("hi ", "you", "me"))).train
    assert isinstance(pair, Pair)
    for answer, text in ((pair.chosen, "you"), (pair.rejected, "me")):
        assert decode(TOKENIZER, answer.tokens) == f"hi {text}<|im_end|>"
        assert answer.is_target == (False,) * 3 + (True,) * (len(text) + 1)
    assert pair.most_tokens == 2 * (7 + 6)


def test_a_pair_is_dropped_where_one_answer_is_lost(tmp_path: Path) -> None:
    rows = [("", "a", "b"), ("", "a", " "), ("four", "x", "y")]
    dataset = load_pairs(preferences(tmp_path / "p.jsonl", *rows), max_length=4)
    assert texts(dataset.train) == ["a", "b"]
    assert dataset.dropped == Dropped(too_long=2, without_target=2)


def test_an_objective_that_does_not_fit_the_records_is_refused(tmp_path: Path) -> None:
    pairs = preferences(tmp_path / "p.jsonl", ("a", "b", "c"))
    with pytest.raises(UserError, match=r"data\.train: its records are preferences"):
        load(pairs, pairs)
    plain = write(tmp_path / "t.jsonl", "a")
    with pytest.raises(UserError, match=r"data\.train: objective 'dpo' needs the fields prompt"):
        load_pairs(plain)


MISTAKES = {
    "one record to be split": (
        ["a long prompt"],
        None,
        {"validation_fraction": 0.5},
        "leaves no training record",
    ),
    "no record within the limit": (
        ["abc", "abcd"],
        ["x"],
        {"max_length": 1},
        "data.train: none of its 2 records can be used: 2 have no answer within data.max_length 1",
    ),
    "nothing but blank answers": (
        ["a"],
        [" "],
        {},
        "data.validation: none of its 1 records can be used: .*, 1 have no answer at all",
    ),
    "nothing to hold out": (
        ["a", "a", "a"],
        None,
        {"validation_fraction": 0.1},
        r"data.validation_fraction: 0.1 of the 3 records in '.*t.jsonl' leaves no training record",
    ),
}


@pytest.mark.parametrize(
    ("train", "validation", "fields", "message"), MISTAKES.values(), ids=MISTAKES
)
def test_mistakes_are_told(
    tmp_path: Path,
    train: list[str],
    validation: list[str] | None,
    fields: dict[str, object],
    message: str,
) -> None:
    held_out = None if validation is None else write(tmp_path / "v.jsonl", *validation)
    with pytest.raises(UserError, match=message):
        load(write(tmp_path / "t.jsonl", *train), held_out, fields)


def test_a_record_that_the_template_refuses_is_quoted(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer("{{ raise_exception('no system turn') }}")
    file = tmp_path / "t.jsonl"
    file.write_text('{"prompt": "say a", "completion": "a"}')
    spec = DataSpec.model_validate({"train": file, "validation": file})
    told = r"data.train: .*refuses this chat: no system turn; a record begins 'say a'"
    with pytest.raises(UserError, match=told):
        load_dataset(spec, tokenizer)
