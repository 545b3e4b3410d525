"""The policies by name, and the settings that a run log or a study file holds of them."""

from alto_policy.dispatch import Placement
from alto_policy.estimates import DurationEstimate, declared_seconds
from alto_policy.policies.alto import Alto, AltoSettings
from alto_policy.policies.alto_plus import AltoPlus, AltoPlusSettings
from alto_policy.policies.asha import Asha, AshaSettings
from alto_policy.policies.exclusive import Exclusive, ExclusiveSettings
from alto_policy.policies.fifo import Fifo, FifoSettings
from alto_policy.policies.ftf import Ftf, FtfSettings
from alto_policy.policies.gavel import Gavel, GavelSettings
from alto_policy.policies.hyperband import Hyperband, HyperbandSettings
from alto_policy.policies.las import Las, LasSettings
from alto_policy.policies.median import Median, MedianSettings
from alto_policy.policies.sequential import Sequential, SequentialSettings
from alto_policy.policies.sjf import Sjf, SjfSettings
from alto_policy.policies.srtf import Srtf, SrtfSettings
from alto_policy.view import Policy

__all__ = ["SETTINGS", "Settings", "build"]

# Rules for the jobs of a task; the tasks come in the order of arrival.
TunerSettings = (
    AltoSettings
    | AltoPlusSettings
    | AshaSettings
    | FifoSettings
    | HyperbandSettings
    | MedianSettings
    | SequentialSettings
)
# Orders of the tasks; their jobs train to their ends.
SchedulerSettings = (
    ExclusiveSettings | FtfSettings | GavelSettings | LasSettings | SjfSettings | SrtfSettings
)
Settings = TunerSettings | SchedulerSettings

SETTINGS: dict[str, type[Settings]] = {
    "alto": AltoSettings,
    "alto+": AltoPlusSettings,
    "sequential": SequentialSettings,
    "exclusive": ExclusiveSettings,
    "fifo": FifoSettings,
    "sjf": SjfSettings,
    "srtf": SrtfSettings,
    "las": LasSettings,
    "ftf": FtfSettings,
    "gavel": GavelSettings,
    "asha": AshaSettings,
    "hyperband": HyperbandSettings,
    "median": MedianSettings,
}


def build(
    settings: Settings,
    place: Placement | None = None,
    estimate: DurationEstimate = declared_seconds,
) -> Policy:
    """The policy of these settings, in its first state.

    Preemptive policies have an order of their own, and no use for `place`.
    """
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
        case _:
            return _scheduler(settings, place, estimate)


def _scheduler(
    settings: SchedulerSettings, place: Placement | None, estimate: DurationEstimate
) -> Policy:
    match settings:
        case ExclusiveSettings():
            return Exclusive(settings, place)
        case FtfSettings():
            return Ftf(settings, estimate)
        case GavelSettings():
            return Gavel(settings)
        case LasSettings():
            return Las(settings)
        case SjfSettings():
            return Sjf(settings, estimate, place)
        case SrtfSettings():
            return Srtf(settings, estimate)
