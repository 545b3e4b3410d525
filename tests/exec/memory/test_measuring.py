"""What a device holds, measured in a few passes and predicted for all others."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from alto_exec.adapters.bank import AdapterBank, Slot
from alto_exec.backbones.decoder import Decoder
from alto_exec.data.samples import Sample
from alto_exec.jobs.residence import Resident
from alto_exec.memory import measuring, probing
from alto_exec.memory.probing import PROBE_RANK, Probe, Prober
from alto_exec.passes.batch import PackedBatch, Share, pack
from alto_exec.passes.cuda_graphs import PassShape
from alto_exec.passes.weighing import FixedWeights
from alto_exec.profiling.synthetic import equal_jobs
from alto_kernels.lora_linear.tables import TILE_ROWS
from alto_policy.memory import SPARE, MemoryModel
from alto_policy.types import Job, JobId, Task, TaskId
from tests.exec.tiny_models import tiny_llama

CPU = torch.device("cpu")
VOCABULARY, LAYERS, LINEARS, ITEM_BYTES = 8_000, 2, 7, 4
RECORDED_TOKENS, MOST_TARGETS = 6_000, 2_560
# As an H100 holds them of SmolLM2-135M, in proportion to the logits of a target.
TARGET_BYTES = ITEM_BYTES * VOCABULARY
ROW_BYTES, LIBRARIES, RANK_BYTES = 5 * TARGET_BYTES, 1_100 * TARGET_BYTES, 56 * TARGET_BYTES
SHARE_OF_TARGETS = 0.75


def sample_of(length: int) -> Sample:
    targets = int(SHARE_OF_TARGETS * length)
    return Sample((3,) * length, tuple(place >= length - targets for place in range(length)))


def batch_of(ranks: list[int], batch_size: int, length: int) -> PackedBatch:
    samples = (sample_of(length),) * batch_size
    starts = [sum(ranks[:number]) for number in range(len(ranks))]
    slots = [Slot(first, rank) for first, rank in zip(starts, ranks, strict=True)]
    return pack([Share(samples, slot) for slot in slots], CPU)


def held(batch: PackedBatch) -> int:
    """By a pass, with all that its recording has room for: rows and their adapters' blocks in each
    layer, logits of as many targets as go through the head at once."""
    tables = batch.plan.tables(CPU)
    rows, targets = len(batch.tokens_T), len(batch.targets_N)
    pairs, width = tables.num_pairs, tables.rank_width
    if rows <= RECORDED_TOKENS:
        shape = PassShape.around(batch, FixedWeights.none(batch), SPARE)
        rows, targets, pairs = shape.rows, shape.targets, shape.tables.num_pairs
    blocks = ITEM_BYTES * LINEARS * LAYERS * pairs * TILE_ROWS * width
    logits = TARGET_BYTES * min(targets, MOST_TARGETS)
    return LIBRARIES + ROW_BYTES * rows + blocks + logits


def probes(length: int, most: int) -> Iterator[Probe]:
    """As many jobs as are probed side by side, until a pass has so many tokens."""
    count, tokens = 1, 0
    while tokens < most:
        jobs = min(count, 8)
        batch = batch_of([PROBE_RANK] * jobs, count // jobs, length)
        tokens = len(batch.tokens_T)
        yield Probe(tokens, held(batch))
        count *= 2


def model_of(
    length: int, most: int, monkeypatch: pytest.MonkeyPatch, jobs: Sequence[Job] = ()
) -> MemoryModel:
    """As an executor of a task with samples of so many tokens measures them; it has one job, or
    these."""
    monkeypatch.setattr(Prober, "sizes", lambda *_, **__: probes(length, most))
    return measured_as_it_is(length, most, monkeypatch, jobs)


def measured_as_it_is(
    length: int, most: int, monkeypatch: pytest.MonkeyPatch, jobs: Sequence[Job]
) -> MemoryModel:
    config = LlamaConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=VOCABULARY,
    )
    backbone = Decoder(LlamaForCausalLM(config).requires_grad_(False))
    monkeypatch.setattr(Decoder, "most_recorded_tokens", RECORDED_TOKENS)
    monkeypatch.setattr(measuring, "chunk_rows", lambda _: MOST_TARGETS)
    monkeypatch.setattr(Prober, "evaluation_bytes", lambda _: 0)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: 0)
    bank = AdapterBank(backbone.shapes, CPU, rows=0)
    jobs = jobs or equal_jobs(1, rank=PROBE_RANK, batch_size=-(-most // length))
    task = Task(id=TaskId("t"), jobs=tuple(jobs), backbone="b", max_length=length)
    return measuring.measured_memory_model(
        backbone, bank, [sample_of(length)], task, recompute=False, capacity=1 << 40
    )


def over(model: MemoryModel, jobs: int, rank: int, batch_size: int, length: int) -> float:
    """By how much of what a pass holds, with its adapters' own state, more is predicted."""
    passes = model.bytes(equal_jobs(jobs, rank=rank, batch_size=batch_size), length)
    passes -= model.fixed + jobs * rank * model.per_rank
    states = jobs * rank * RANK_BYTES
    return (passes + states) / (held(batch_of([rank] * jobs, batch_size, length)) + states) - 1


@pytest.mark.parametrize("length", [100, 128, 240, 512, 2048])
def test_passes_between_measured_ones_are_predicted_as_near_as_those(
    length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never too little, and within 5 %: any number of samples, up to the largest pass measured, and
    half as many again."""
    model = model_of(length, 16_384, monkeypatch)
    most = 24_576 // length
    cases = [
        *((1, 16, size) for size in range(1, min(200, most))),
        *((jobs, rank, 1) for jobs in (1, 3, 8, 9, 64) for rank in (16, 32, 128)),
        *((jobs, 64, 5) for jobs in (1, 2, 7)),
    ]
    for jobs, rank, batch_size in cases:
        if jobs * batch_size <= most:
            assert 0 <= over(model, jobs, rank, batch_size, length) < 0.05, (jobs, rank, batch_size)


@pytest.mark.parametrize("length", [128, 160, 256, 512, 2048, 8192])
def test_what_short_samples_were_measured_for_holds_for_long_ones(
    length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `alto profile` measures, once for passes of all lengths."""
    model = model_of(128, 16_384, monkeypatch)
    for jobs, rank in [(1, 16), (1, 128), (2, 64), (3, 16), (8, 16), (32, 16), (64, 16)]:
        if jobs * length <= 16_384:
            assert 0 <= over(model, jobs, rank, 1, length) < 0.05, (jobs, rank)


def test_probes_drop_as_the_jobs_that_drop_most(monkeypatch: pytest.MonkeyPatch) -> None:
    """With dropout the last layer has all rows, and so the pass holds more."""
    found: set[float] = set()

    def train_pass(
        backbone: Decoder, bank: AdapterBank, samples: Sequence[Sample], here: Sequence[Resident]
    ) -> int:
        found.update(resident.job.hyperparameters.dropout for resident in here)
        return 512 * len(here)

    monkeypatch.setattr(probing, "train_pass", train_pass)
    for name in ("reset_peak_memory_stats", "synchronize", "max_memory_allocated"):
        monkeypatch.setattr(torch.cuda, name, lambda: 1 << 30)
    plain, *_ = equal_jobs(1, rank=PROBE_RANK, batch_size=1)
    dropping = replace(
        plain, id=JobId("dropping"), hyperparameters=replace(plain.hyperparameters, dropout=0.1)
    )
    measured_as_it_is(512, 2_048, monkeypatch, [dropping, plain])
    assert found == {0.1}


@pytest.mark.parametrize(
    ("length", "recorded", "passes"),
    [
        pytest.param(
            77, 6_000, {308: 2, 616: 2, 1_232: 2, 2_464: 2}, id="four fill the least rows"
        ),
        pytest.param(512, 6_000, {512: 2, 1_024: 2, 2_048: 2}, id="one has more rows than that"),
        pytest.param(512, 600, {512: 2, 1_024: 1, 2_048: 1}, id="the others are launched"),
        pytest.param(512, 0, {512: 1, 1_024: 1, 2_048: 1}, id="all are launched"),
    ],
)
def test_each_size_is_passed_once_and_once_more_where_it_is_recorded(
    length: int, recorded: int, passes: dict[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    found: Counter[int] = Counter()

    def train_pass(
        backbone: Decoder, bank: AdapterBank, samples: Sequence[Sample], here: Sequence[Resident]
    ) -> int:
        count = sum(resident.job.hyperparameters.batch_size for resident in here)
        found[count * len(samples[0].tokens)] += 1
        return count * len(samples[0].tokens)

    monkeypatch.setattr(probing, "train_pass", train_pass)
    for name in ("reset_peak_memory_stats", "synchronize", "max_memory_allocated"):
        monkeypatch.setattr(torch.cuda, name, lambda: 1 << 30)
    bank = AdapterBank(Decoder(tiny_llama()[0]).shapes, CPU, rows=0)
    prober = Prober(Decoder(tiny_llama()[0]), bank, sample_of(length), 0, recorded, 0.0)
    sizes = prober.sizes(most=2_048, capacity=1 << 40)
    assert [probe.tokens for probe in sizes] == list(passes)
    assert found == passes


@pytest.mark.parametrize(("recorded", "passes"), [(2_048, 3), (512, 2)])
def test_a_pass_is_timed_when_others_have_asked_for_its_memory_and_recorded_it(
    recorded: int, passes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def train_pass(
        backbone: Decoder, bank: AdapterBank, samples: Sequence[Sample], here: Sequence[Resident]
    ) -> None:
        sequences = sum(resident.job.hyperparameters.batch_size for resident in here)
        seen.append(sequences * len(samples[0].tokens))
        now[0] += len(seen)

    now = [0.0]
    monkeypatch.setattr(probing, "train_pass", train_pass)
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    backbone = Decoder(tiny_llama()[0])
    bank = AdapterBank(backbone.shapes, CPU, rows=0)
    prober = Prober(backbone, bank, sample_of(64), 0, recorded, 0.0)
    assert prober.seconds(16 * 64) == passes
    assert seen == [16 * 64] * passes
    assert bank.num_taken_rows == 0
