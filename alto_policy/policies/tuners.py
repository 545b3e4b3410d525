"""Policies for the jobs of a task; the tasks come in the order of arrival, or of a placement."""

from alto_policy.dispatch import Dispatch, Placement
from alto_policy.policies.alto import Alto, AltoSettings
from alto_policy.policies.alto_plus import AltoPlus, AltoPlusSettings
from alto_policy.policies.asha import Asha, AshaSettings
from alto_policy.policies.fifo import Fifo, FifoSettings
from alto_policy.policies.hyperband import Hyperband, HyperbandSettings
from alto_policy.policies.median import Median, MedianSettings
from alto_policy.policies.sequential import Sequential, SequentialSettings

__all__ = ["TunerSettings", "build_tuner"]

TunerSettings = (
    AltoSettings
    | AltoPlusSettings
    | AshaSettings
    | FifoSettings
    | HyperbandSettings
    | MedianSettings
    | SequentialSettings
)


def build_tuner(settings: TunerSettings, place: Placement | None) -> Dispatch:
    """The policy of these settings, in its first state."""
    match settings:
        case AltoSettings():
            return Alto(settings, place)
        case AltoPlusSettings():
            return AltoPlus(settings, place)
        case AshaSettings():
            return Asha(settings, place)
        case FifoSettings():
            return Fifo(settings, place)
        case HyperbandSettings():
            return Hyperband(settings, place)
        case MedianSettings():
            return Median(settings, place)
        case SequentialSettings():
            return Sequential(settings, place)
