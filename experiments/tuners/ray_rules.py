"""Ray Tune's schedulers, called as its controller calls them, without a cluster."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

from experiments.tuners.rule import GRACES, Peer, TrainAll

__all__ = ["ray_peers"]

_FACTORS = (2, 3, 4)


class _Scheduled(TrainAll):
    """Our trials never wait, so that a scheduler that would pause one finds nobody to yield to."""

    def __init__(self, scheduler: Any) -> None:
        self._scheduler = scheduler
        self._controller = SimpleNamespace(get_live_trials=list)
        self._trials: dict[int, Any] = {}

    def begin(self, job: int) -> None:
        self._trials[job] = _Trial(str(job))
        self._scheduler.on_trial_add(self._controller, self._trials[job])

    def stops(self, job: int, report: int, loss: float) -> bool:
        from ray.tune.schedulers import TrialScheduler

        result = {"training_iteration": report, "loss": loss}
        action = self._scheduler.on_trial_result(self._controller, self._trials[job], result)
        return bool(action == TrialScheduler.STOP)


class _Trial:
    """As much of a trial as the schedulers look at; they keep it as a key."""

    def __init__(self, name: str) -> None:
        self.trial_id = name
        self.status = "RUNNING"


def ray_peers() -> Iterator[Peer]:
    for grace in GRACES:
        for factor in _FACTORS:
            yield Peer("Ray Tune ASHA", f"grace {grace}, factor {factor}", _asha(grace, factor))
        yield Peer("Ray Tune median", f"grace {grace}", _median(grace))


def _asha(grace: int, factor: int) -> Any:
    def make(reports: int, seed: int) -> _Scheduled:
        from ray.tune.schedulers import ASHAScheduler

        return _Scheduled(
            ASHAScheduler(
                time_attr="training_iteration",  # its default is seconds
                metric="loss",
                mode="min",
                max_t=reports,
                grace_period=grace,
                reduction_factor=factor,
            )
        )

    return make


def _median(grace: int) -> Any:
    def make(reports: int, seed: int) -> _Scheduled:
        from ray.tune.schedulers import MedianStoppingRule

        return _Scheduled(
            MedianStoppingRule(
                time_attr="training_iteration",
                metric="loss",
                mode="min",
                grace_period=grace,
                min_samples_required=3,
            )
        )

    return make
