"""The policies by name, and the settings that a run log or a study file holds of them."""

from alto_policy.dispatch import Placement
from alto_policy.estimates import DurationEstimate, declared_seconds
from alto_policy.policies.alto import Alto, AltoSettings
from alto_policy.policies.asha import Asha, AshaSettings
from alto_policy.policies.fifo import Fifo, FifoSettings
from alto_policy.policies.hyperband import Hyperband, HyperbandSettings
from alto_policy.policies.median import Median, MedianSettings
from alto_policy.policies.sequential import Sequential, SequentialSettings
from alto_policy.policies.sjf import ShortestFirst, SjfSettings
from alto_policy.view import Policy

__all__ = ["SETTINGS", "Settings", "build"]

Settings = (
    AltoSettings
    | AshaSettings
    | FifoSettings
    | HyperbandSettings
    | MedianSettings
    | SequentialSettings
    | SjfSettings
)

SETTINGS: dict[str, type[Settings]] = {
    "alto": AltoSettings,
    "sequential": SequentialSettings,
    "fifo": FifoSettings,
    "sjf": SjfSettings,
    "asha": AshaSettings,
    "hyperband": HyperbandSettings,
    "median": MedianSettings,
}


def build(
    settings: Settings,
    place: Placement | None = None,
    estimate: DurationEstimate = declared_seconds,
) -> Policy:
    """The policy of these settings, in its first state."""
    match settings:
        case AltoSettings():
            return Alto(settings, place)
        case SequentialSettings():
            return Sequential(settings, place)
        case FifoSettings():
            return Fifo(settings, place)
        case AshaSettings():
            return Asha(settings, place)
        case HyperbandSettings():
            return Hyperband(settings, place)
        case MedianSettings():
            return Median(settings, place)
        case SjfSettings():
            return ShortestFirst(settings, estimate, place)
