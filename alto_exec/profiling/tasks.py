"""Times a few passes of each task, for a forecast of the whole run."""

import time
from collections.abc import Callable

import torch

from alto_exec.adapters.bank import AdapterBank
from alto_exec.host.machine import settle
from alto_exec.host.process import multiply_with
from alto_exec.jobs.residence import Progress, Resident
from alto_exec.passes.evaluation import validation_loss
from alto_exec.passes.training import train_pass
from alto_exec.preparation import PreparedTask, bank_of, prepare
from alto_policy.memory import MemoryModel
from alto_policy.types import TaskId
from alto_runs.measurement import MeasuredTask
from alto_runs.study import ExecutorSpec, Study

__all__ = ["measure"]

_JOBS = 4  # in the larger of the two passes that are timed
_VALIDATION = 12  # samples of the evaluation that is timed


def measure(
    study: Study, begins: Callable[[TaskId], None] = lambda _: None
) -> tuple[MeasuredTask, ...]:
    """Every task of the study as this machine would train it; nothing is written. It is told when
    one `begins`, for on a CPU it may take a minute."""
    executor = settle(study.executor)
    assert executor.threads is not None
    multiply_with(executor.threads)
    found = []
    for one in prepare(study):
        begins(one.task.id)
        found.append(_measure(one, executor))
    return tuple(found)


def _measure(prepared: PreparedTask, executor: ExecutorSpec) -> MeasuredTask:
    start = time.perf_counter()
    backbone = prepared.load(executor)
    load_seconds = time.perf_counter() - start
    bank = bank_of(backbone, executor)
    memory = prepared.memory(backbone, bank, executor)
    residents = _residents(prepared, bank, memory)
    train, validation = prepared.dataset.train, prepared.dataset.validation

    def pass_seconds(count: int) -> float:
        return _seconds(
            lambda: train_pass(backbone, bank, train, residents[:count]), backbone.device
        )

    few, many = pass_seconds(1), pass_seconds(len(residents))
    of_one, of_all = _tokens(residents[:1], prepared), _tokens(residents, prepared)
    token_seconds = (many - few) / (of_all - of_one) if of_all > of_one else 0.0
    if not 0 < token_seconds < few / of_one:
        token_seconds = many / of_all
    part = validation[:: max(1, len(validation) // _VALIDATION)]
    evaluation = _seconds(
        lambda: validation_loss(backbone, bank, part, residents[0].slot), backbone.device
    )
    return MeasuredTask(
        task=prepared.task,
        memory=memory,
        load_seconds=load_seconds,
        pass_seconds=max(0.0, few - token_seconds * of_one),
        token_seconds=token_seconds,
        evaluation_seconds=evaluation * len(validation) / len(part),
    )


def _residents(prepared: PreparedTask, bank: AdapterBank, memory: MemoryModel) -> list[Resident]:
    """The first jobs of the task, as many as fit beside one another."""
    task = prepared.task
    chosen = list(task.jobs[: min(_JOBS, memory.max_jobs or _JOBS)])
    while len(chosen) > 1 and not memory.fits(chosen, task.max_length):
        chosen.pop()
    fresh = [bank.fresh(job.hyperparameters.rank, job.hyperparameters.seed) for job in chosen]
    slots = [bank.join(state) for state in fresh]
    return [Resident(job, slot, Progress()) for job, slot in zip(chosen, slots, strict=True)]


def _tokens(residents: list[Resident], prepared: PreparedTask) -> float:
    """Of one pass, were all sequences as long as the mean one, as a forecast counts them."""
    batch = sum(resident.job.hyperparameters.batch_size for resident in residents)
    return batch * prepared.task.mean_length


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    """The second run: the first one warms up."""
    seconds = 0.0
    for _ in range(2):
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds = time.perf_counter() - start
    return seconds
