import json
import math
from dataclasses import fields, is_dataclass, replace
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alto_policy.codec import LEFT_OUT, codec_of
from alto_policy.decisions import Decision, ExitReason, Stop
from alto_policy.events import Event, LossReported, TaskArrived, TimerFired
from alto_policy.memory import MeasuredPasses, MemoryModel
from alto_policy.policies import SETTINGS
from alto_policy.runlog import (
    CorruptLogError,
    Entry,
    Header,
    RunLog,
    dump_entry,
    dump_header,
    load,
)
from alto_policy.types import Gpu, GpuId, Hyperparameters, Job, JobId, Task
from tests.policy.cases import job, task

SETTINGS_OBJECTS = st.sampled_from([settings() for settings in SETTINGS.values()])

st.register_type_strategy(Hyperparameters, st.builds(Hyperparameters, seed=st.integers(0, 9)))
st.register_type_strategy(
    Job,
    st.builds(
        Job,
        id=st.text(),
        hyperparameters=st.from_type(Hyperparameters),
        steps=st.integers(5, 9),
        reports=st.integers(1, 5),
    ),
)
st.register_type_strategy(
    MemoryModel,
    st.builds(
        MemoryModel,
        max_jobs=st.none() | st.integers(1),
        passes=st.none() | st.from_type(MeasuredPasses),
        **dict.fromkeys(
            ("capacity", "fixed", "per_rank", "per_token", "per_rank_token"), st.integers(0)
        ),
    ),
)
st.register_type_strategy(
    Task,
    st.builds(
        Task,
        id=st.text(),
        jobs=st.lists(st.from_type(Job), min_size=1, max_size=3, unique_by=lambda job: job.id).map(
            tuple
        ),
        max_length=st.integers(1),
        num_gpus=st.integers(1),
    ),
)
EVENTS = st.one_of(*map(st.from_type, get_args(Event)))
DECISIONS = st.one_of(*map(st.from_type, get_args(Decision)))
ENTRIES = st.builds(
    Entry,
    event=st.one_of(*map(st.from_type, get_args(Event))).filter(
        lambda event: math.isfinite(event.t)
    ),
    decisions=st.lists(st.one_of(*map(st.from_type, get_args(Decision))), max_size=3).map(tuple),
)
HEADERS = st.builds(
    Header,
    version=st.just(1),
    policy=SETTINGS_OBJECTS,
    gpus=st.lists(st.builds(Gpu, id=st.integers())).map(tuple),
    made_by=st.lists(st.tuples(st.text(), st.text())).map(tuple),
)

REPORT = (
    '{"event":{"kind":"LossReported","t":1.0,"job":"a","step":2,"train_loss":3.0,"val_loss":4.0},'
    '"decisions":[]}'
)
TIMER = '{"event":{"kind":"TimerFired","t":1.0},"decisions":[]}'
UP = (
    '{"event":{"kind":"ExecutorUp","t":0.0,"task":"t","memory":{"capacity":1,"fixed":0,"per_rank":0,'
    '"per_token":0,"per_rank_token":0,"max_jobs":null,"passes":null}},"decisions":[]}'
)
LEFT = '{"event":{"kind":"JobLeft","t":1.0,"job":"a","how":"paused"},"decisions":[]}'


@given(header=HEADERS, entries=st.lists(ENTRIES, max_size=4))
def test_what_is_written_is_read_again(header: Header, entries: list[Entry]) -> None:
    lines = [dump_header(header), *map(dump_entry, entries)]
    log = load(lines)
    assert log.header == header
    assert log.torn is None
    # equal lines and not equal values: NaN is not equal to itself
    assert list(map(dump_entry, log.entries)) == lines[1:]
    assert not any("\n" in line for line in lines)


def plainly(value: Any, *, in_union: bool) -> Any:
    """What a line says of a value, told slowly: dataclasses of a union carry their names."""
    if is_dataclass(value):
        parts = {
            field.name: plainly(
                getattr(value, field.name), in_union=field.name in ("event", "decisions")
            )
            for field in fields(value)
            if field.metadata != LEFT_OUT or getattr(value, field.name) != field.default
        }
        return {"kind": type(value).__name__, **parts} if in_union else parts
    if isinstance(value, tuple):
        return [plainly(part, in_union=in_union) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


@given(entry=ENTRIES)
def test_a_line_is_what_json_would_write(entry: Entry) -> None:
    record = plainly(entry, in_union=False)
    assert dump_entry(entry) == json.dumps(record, separators=(",", ":"), allow_nan=False)


def test_a_field_that_is_left_out_is_written_where_it_says_something() -> None:
    plain = task("t", [job("t0")])
    told = replace(plain, kinds=("a", "b"), speeds=(1.0, 0.5))
    lines = [dump_entry(Entry(TaskArrived(0.0, each), ())) for each in (plain, told)]
    assert '"kinds":null}' in lines[0]
    assert '"kinds":["a","b"],"speeds":[1.0,0.5]}' in lines[1]
    assert [entry.event for entry in load(lines).entries] == [
        TaskArrived(0.0, each) for each in (plain, told)
    ]
    with pytest.raises(CorruptLogError, match="speeds must be one for each of"):
        load([lines[1].replace("[1.0,0.5]", "[1.0]")])


@pytest.mark.parametrize(
    ("text", "value"), [("nan", math.nan), ("inf", math.inf), ("-inf", -math.inf)]
)
def test_a_loss_that_json_cannot_write_is_a_string(text: str, value: float) -> None:
    line = REPORT.replace("4.0", f'"{text}"')
    (entry,) = load([line]).entries
    assert isinstance(entry.event, LossReported)
    assert str(entry.event.val_loss) == str(value)
    assert dump_entry(entry) == line


def test_a_whole_number_is_a_float_where_one_is_due() -> None:
    (entry,) = load([TIMER.replace("1.0", "1")]).entries
    assert dump_entry(entry) == dump_entry(Entry(TimerFired(1), ())) == TIMER


def test_a_trace_needs_no_header() -> None:
    assert load([TIMER, LEFT]).header is None


@pytest.mark.parametrize("length", [1, 20, len(REPORT) - 1])
def test_a_torn_last_line_is_reported_and_dropped(length: int) -> None:
    torn = REPORT[:length]
    log = load([f"{TIMER}\n", torn])
    assert (log.entries, log.torn) == (load([TIMER]).entries, torn)


def test_a_torn_header_is_all_of_the_log() -> None:
    assert load(['{"header":{"ver']) == RunLog(None, (), '{"header":{"ver')


def test_blank_lines_are_nothing() -> None:
    assert load(["\n", TIMER, "", REPORT[:9], "\n"]).torn == REPORT[:9]


HEADER = '{"header":{"version":1,"policy":{"kind":"FifoSettings"},"gpus":[],"made_by":[]}}'


@pytest.mark.parametrize(
    ("line", "message"),
    [
        pytest.param("{", "not JSON: Expecting property name", id="torn in the middle"),
        pytest.param("[]", r"expected an object, got \[\]", id="not an object"),
        pytest.param("[" * 100_000, "recursion", id="bottomless"),
        pytest.param(TIMER.replace("1.0", "NaN"), "NaN is not JSON", id="NaN literal"),
        pytest.param(TIMER.replace("1.0", '"nan"'), "t must be finite, got nan", id="no time"),
        pytest.param(TIMER.replace("1.0", '"1"'), "event.t: expected a float, got '1'", id="text"),
        pytest.param(TIMER.replace("1.0", "true"), "event.t: expected a float", id="bool as float"),
        pytest.param(TIMER.replace("1.0", "9" * 400), "event.t: expected a float", id="too large"),
        pytest.param(TIMER.replace("TimerFired", "Bang"), "got kind 'Bang'", id="unknown kind"),
        pytest.param(TIMER.replace('"kind":"TimerFired",', ""), "got no kind", id="no kind"),
        pytest.param(TIMER.replace('"t":1.0', '"u":1.0'), "no field 'u'", id="unknown field"),
        pytest.param(REPORT.replace('"step":2,', ""), "needs the field 'step'", id="missing field"),
        pytest.param(REPORT.replace(":2,", ":2.0,"), "event.step: expected int", id="float as int"),
        pytest.param(REPORT.replace(":2,", ":true,"), "event.step: expected int", id="bool as int"),
        pytest.param(REPORT.replace('"a"', "7"), "event.job: expected str, got 7", id="int"),
        pytest.param(REPORT.replace('"step"', '"t":1.0,"step"'), "'t' stands twice", id="repeated"),
        pytest.param(LEFT.replace("paused", "bored"), "event.how: expected one of", id="enum"),
        pytest.param(TIMER.replace("[]", "{}"), "decisions: expected a list", id="no list"),
        pytest.param(
            TIMER.replace("[]", '[{"kind":"Pause"}]'),
            r"decisions\[0\]: Pause needs the field 'job'",
            id="bad decision",
        ),
        pytest.param(
            UP.replace("null", "0", 1), "event.memory: max_jobs must be", id="out of range"
        ),
        pytest.param(
            UP.replace("null", '""', 1), "event.memory.max_jobs: expected int", id="option"
        ),
        pytest.param(HEADER, "Entry has no field 'header'", id="header not at the head"),
        pytest.param('{"prompt":"a"}', "expected an entry of a run log or trace", id="no log"),
    ],
)
def test_a_corrupt_line_is_named_with_its_fault(line: str, message: str) -> None:
    with pytest.raises(CorruptLogError, match=rf"^line 2: .*{message}"):
        load([TIMER, line, TIMER])


def test_what_was_written_before_a_field_with_a_default_is_read() -> None:
    written = codec_of(Hyperparameters).encode(Hyperparameters(rank=3))
    del written["dpo_beta"]
    assert codec_of(Hyperparameters).decode(written) == Hyperparameters(rank=3)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"version":1', '"version":2', "header: version must be 1, got 2"),
        ("FifoSettings", "Oracle", "header.policy: expected a kind of"),
        ('"made_by":[]', '"made_by":[["commit"]]', r"made_by\[0\]: expected 2 values, got 1"),
    ],
)
def test_a_corrupt_header_is_named_with_its_fault(old: str, new: str, message: str) -> None:
    with pytest.raises(CorruptLogError, match=f"^line 1: .*{message}"):
        load([HEADER.replace(old, new), TIMER])


def test_every_field_is_written() -> None:
    header = Header(policy=SETTINGS["alto"](), gpus=(Gpu(id=GpuId(0), kind="cpu"),))
    line = dump_header(header)
    for part in (header, header.policy, header.gpus[0]):
        assert all(f'"{field.name}":' in line for field in fields(part))


def test_line_format() -> None:
    line = TIMER.replace("[]", '[{"kind":"Stop","job":"a","reason":"diverged"}]')
    entry = Entry(TimerFired(1.0), (Stop(JobId("a"), ExitReason.DIVERGED),))
    assert dump_entry(entry) == line
    assert load([line]).entries == (entry,)
