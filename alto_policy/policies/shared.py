"""Tasks of many tenants: who is next by their shares, within a task the rules of another policy."""

from dataclasses import dataclass, field

from alto_policy.decisions import Decision, ExitReason, Stop
from alto_policy.events import Event, TaskArrived
from alto_policy.policies.alto import AltoSettings
from alto_policy.policies.tuners import TunerSettings, build_tuner
from alto_policy.tenants import FairShare, TenantRules
from alto_policy.view import ClusterView

__all__ = ["Shared", "SharedSettings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedSettings(TenantRules):
    within: TunerSettings = field(default_factory=AltoSettings)


class Shared:
    def __init__(self, settings: SharedSettings, *, same_node: bool = False) -> None:
        self._shares = FairShare(settings)
        self._tuner = build_tuner(settings.within, self._shares.place)
        self._tuner.same_node = same_node

    def observe(self, event: Event, cluster: ClusterView) -> tuple[Decision, ...]:
        self._shares.hear(event, cluster)
        if isinstance(event, TaskArrived) and self._shares.is_beyond_quota(event.task):
            return tuple(Stop(job.id, ExitReason.OVER_QUOTA) for job in event.task.jobs)
        return self._tuner.observe(event, cluster)
