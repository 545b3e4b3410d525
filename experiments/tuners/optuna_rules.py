"""Optuna's pruners, asked through a study that is told what we measured."""

from collections.abc import Callable, Iterator
from typing import Any

from experiments.tuners.rule import GRACES, Peer, TrainAll

__all__ = ["optuna_peers"]

_FACTORS = (2, 3, 4)
_PATIENCES = (2, 3, 5)


class _Pruned(TrainAll):
    def __init__(self, pruner: Any, seed: int) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._study = optuna.create_study(
            direction="minimize",
            pruner=pruner,
            sampler=optuna.samplers.RandomSampler(seed=seed),
            study_name=f"study-{seed}",  # Hyperband draws brackets from it and the trial's number
        )
        self._trials: dict[int, Any] = {}
        self._pruned: set[int] = set()

    def begin(self, job: int) -> None:
        self._trials[job] = self._study.ask()

    def stops(self, job: int, report: int, loss: float) -> bool:
        trial = self._trials[job]
        trial.report(loss, report)
        if not trial.should_prune():
            return False
        self._pruned.add(job)
        return True

    def end(self, job: int, loss: float) -> None:
        from optuna.trial import TrialState

        if job in self._pruned:
            self._study.tell(self._trials[job], state=TrialState.PRUNED)
        else:
            self._study.tell(self._trials[job], loss)


def optuna_peers() -> Iterator[Peer]:
    import optuna.pruners as pruners

    def peer(name: str, setting: str, pruner: Callable[[int], Any]) -> Peer:
        def make(reports: int, seed: int) -> _Pruned:
            return _Pruned(pruner(reports), seed)

        return Peer(f"Optuna {name}", setting, make)

    def halving(grace: int, factor: int) -> Callable[[int], Any]:
        return lambda _: pruners.SuccessiveHalvingPruner(
            min_resource=grace, reduction_factor=factor
        )

    def hyperband(grace: int, factor: int) -> Callable[[int], Any]:
        return lambda reports: pruners.HyperbandPruner(
            min_resource=grace, max_resource=reports, reduction_factor=factor
        )

    def after(pruner: Callable[..., Any], grace: int, *given: float) -> Callable[[int], Any]:
        return lambda _: pruner(*given, n_startup_trials=5, n_warmup_steps=grace - 1)

    def patient(patience: int) -> Callable[[int], Any]:
        return lambda _: pruners.PatientPruner(None, patience)

    for grace in GRACES:
        for factor in _FACTORS:
            setting = f"grace {grace}, factor {factor}"
            yield peer("successive halving", setting, halving(grace, factor))
            yield peer("Hyperband", setting, hyperband(grace, factor))
        yield peer("median", f"grace {grace}", after(pruners.MedianPruner, grace))
        quarter = after(pruners.PercentilePruner, grace, 25.0)
        yield peer("percentile", f"grace {grace}, best 25 %", quarter)
    for patience in _PATIENCES:
        yield peer("patient", f"patience {patience}", patient(patience))
