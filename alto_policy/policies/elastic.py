"""Tasks on as many GPUs as there are for them, within the rules of another policy."""

from dataclasses import dataclass, field

from alto_policy.dispatch import Placement
from alto_policy.policies.alto import AltoSettings
from alto_policy.policies.shared import Shared, SharedSettings
from alto_policy.policies.tuners import TunerSettings, build_tuner
from alto_policy.resizing import Elastic, ElasticRules

__all__ = ["ElasticSettings", "build_elastic"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ElasticSettings(ElasticRules):
    same_node: bool = True  # GPUs of a task are all of one node
    within: TunerSettings | SharedSettings = field(default_factory=AltoSettings)


def build_elastic(settings: ElasticSettings, place: Placement | None) -> Elastic:
    within = settings.within
    if isinstance(within, SharedSettings):
        shared = Shared(within, same_node=settings.same_node)
        return Elastic(shared, settings, same_node=settings.same_node, quota=within.quota)
    tuner = build_tuner(within, place)
    tuner.same_node = settings.same_node
    return Elastic(tuner, settings, same_node=settings.same_node)
