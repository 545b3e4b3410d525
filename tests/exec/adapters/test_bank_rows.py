"""The rows that a simulated bank has are those of one that trains."""

from dataclasses import dataclass, field
from typing import Any, cast

import torch
from hypothesis import given
from hypothesis import strategies as st

from alto_exec.adapters.bank import AdapterBank, LinearShape
from alto_exec.jobs.keeping import Keeper
from alto_exec.jobs.residence import Resident
from alto_exec.jobs.seating import Seating, Space
from alto_policy.memory import MemoryModel
from alto_policy.types import Hyperparameters, Job, JobId
from alto_sim.cluster.bank_rows import BankRows

JOBS = [
    Job(
        id=JobId(f"j{n}"),
        hyperparameters=Hyperparameters(rank=4, batch_size=1 if n < 5 else 6),
        steps=9,
        reports=9,
    )
    for n in range(8)
]
LENGTH = 2


@dataclass
class Written:
    """In place of what keeps jobs on disk: nothing comes back from there."""

    is_durable: bool = False
    jobs: list[JobId] = field(default_factory=list)

    def read(self, job: Job) -> None: ...
    def keep(self, resident: Resident) -> None:
        self.jobs.append(resident.job.id)


@given(st.lists(st.tuples(st.sampled_from(range(8)), st.booleans()), max_size=30), st.data())
def test_rows_move_when_those_of_an_executor_do(
    turns: list[tuple[int, bool]], data: st.DataObject
) -> None:
    """Jobs are launched, a few at a time, pause and are stopped, as long as they fit. Of one rank:
    what gaps of other widths take more is not simulated."""
    memory = MemoryModel(capacity=40, fixed=0, per_rank=1, per_token=2)
    bank = AdapterBank((LinearShape("one", 5, 7),), torch.device("cpu"), rows=0)
    written = Written()
    seating = Seating(bank, cast(Keeper, cast(Any, written)), Space(memory, LENGTH))
    rows = BankRows(memory, LENGTH)
    seated: dict[JobId, Resident] = {}
    for number, pauses in turns:
        job = JOBS[number]
        if job.id in seated:
            resident = seated.pop(job.id)
            if pauses:
                seating.park(resident)
                rows.park(job)
            else:
                bank.leave(resident.slot)
            continue
        count = data.draw(st.integers(1, 3))
        group = [one for one in JOBS[number : number + count] if one.id not in seated]
        there = [resident.job for resident in seated.values()]
        if not memory.fits([*there, *group], LENGTH):
            continue
        before = bank.num_rows
        seating.expect(group, list(seated.values()))
        for one in group:
            seated[one.id] = seating.seat(one, list(seated.values()))
        assert rows.launch(group, there) or bank.num_rows == before
        assert rows.rows == bank.num_rows
        assert list(rows.parked) == list(seating._parked)
