"""Syne Tune's ASHA and median stopping rule."""

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

from experiments.tuners.rule import GRACES, Peer, TrainAll

__all__ = ["syne_peers"]

_FACTORS = (2, 3, 4)


class _Scheduled(TrainAll):
    """The configuration of a trial plays no part in stopping; it is the job's number."""

    def __init__(self, scheduler: Any) -> None:
        self._scheduler = scheduler
        self._trials: dict[int, Any] = {}

    def begin(self, job: int) -> None:
        from syne_tune.backend.trial_status import Trial

        self._trials[job] = Trial(job, {"job": job}, datetime(2026, 1, 1))
        self._scheduler.on_trial_add(self._trials[job])

    def stops(self, job: int, report: int, loss: float) -> bool:
        from syne_tune.optimizer.scheduler import SchedulerDecision

        result = {"loss": loss, "report": report}
        action = self._scheduler.on_trial_result(self._trials[job], result)
        return bool(action == SchedulerDecision.STOP)


def syne_peers() -> Iterator[Peer]:
    for grace in GRACES:
        for factor in _FACTORS:
            yield Peer("Syne Tune ASHA", f"grace {grace}, factor {factor}", _asha(grace, factor))
        yield Peer("Syne Tune median", f"grace {grace}", _median(grace))


def _asha(grace: int, factor: int) -> Callable[[int, int], _Scheduled]:
    def make(reports: int, seed: int) -> _Scheduled:
        return _Scheduled(_scheduler(reports, seed, grace, factor))

    return make


def _median(grace: int) -> Callable[[int, int], _Scheduled]:
    def make(reports: int, seed: int) -> _Scheduled:
        from syne_tune.optimizer.schedulers.median_stopping_rule import MedianStoppingRule
        from syne_tune.optimizer.schedulers.single_objective_scheduler import (
            SingleObjectiveScheduler,
        )

        alone = SingleObjectiveScheduler(
            _space(), metric="loss", do_minimize=True, random_seed=seed, searcher="random_search"
        )
        return _Scheduled(
            MedianStoppingRule(
                alone, time_attr="report", metric="loss", grace_time=grace, do_minimize=True
            )
        )

    return make


def _scheduler(reports: int, seed: int, grace: int, factor: int) -> Any:
    from syne_tune.optimizer.baselines import ASHA

    return ASHA(
        _space(),
        metric="loss",
        time_attr="report",
        max_t=reports,
        do_minimize=True,
        random_seed=seed,
        grace_period=grace,
        reduction_factor=factor,
    )


def _space() -> dict[str, Any]:
    from syne_tune.config_space import randint

    return {"job": randint(0, 10_000)}
