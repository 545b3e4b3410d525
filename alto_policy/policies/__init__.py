"""The policies by name, and the settings that a run log or a study file holds of them."""

from alto_policy.dispatch import Placement
from alto_policy.estimates import DurationEstimate, declared_seconds
from alto_policy.policies.alto import AltoSettings
from alto_policy.policies.alto_plus import AltoPlusSettings
from alto_policy.policies.asha import AshaSettings
from alto_policy.policies.elastic import ElasticSettings, build_elastic
from alto_policy.policies.exclusive import Exclusive, ExclusiveSettings
from alto_policy.policies.fifo import FifoSettings
from alto_policy.policies.ftf import Ftf, FtfSettings
from alto_policy.policies.gavel import Gavel, GavelSettings
from alto_policy.policies.hyperband import HyperbandSettings
from alto_policy.policies.las import Las, LasSettings
from alto_policy.policies.median import MedianSettings
from alto_policy.policies.own import OwnSettings, build_own
from alto_policy.policies.sequential import SequentialSettings
from alto_policy.policies.shared import Shared, SharedSettings
from alto_policy.policies.sjf import Sjf, SjfSettings
from alto_policy.policies.srtf import Srtf, SrtfSettings
from alto_policy.policies.tuners import TunerSettings, build_tuner
from alto_policy.view import Policy

__all__ = ["SETTINGS", "Settings", "build", "chooses_widths"]

# Orders of the tasks; their jobs train to their ends.
SchedulerSettings = (
    ExclusiveSettings | FtfSettings | GavelSettings | LasSettings | SjfSettings | SrtfSettings
)
BuiltInSettings = TunerSettings | SharedSettings | SchedulerSettings | ElasticSettings
Settings = BuiltInSettings | OwnSettings

SETTINGS: dict[str, type[BuiltInSettings]] = {
    "alto": AltoSettings,
    "alto+": AltoPlusSettings,
    "sequential": SequentialSettings,
    "shared": SharedSettings,
    "elastic": ElasticSettings,
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


def chooses_widths(settings: Settings) -> bool:
    """Whether the policy says on how many GPUs a task trains: a user's own may. Those that take
    turns do not: whoever waits has its turn soon, and to begin anew costs as much as a turn."""
    return isinstance(settings, ElasticSettings | OwnSettings)


def build(
    settings: Settings,
    place: Placement | None = None,
    estimate: DurationEstimate = declared_seconds,
) -> Policy:
    """The policy of these settings, in its first state.

    Preemptive policies and `shared` have an order of their own, and no use for `place`. Raises
    KeyError for a user's own whose file has not been loaded.
    """
    match settings:
        case SharedSettings():
            return Shared(settings)
        case ElasticSettings():
            return build_elastic(settings, place)
        case OwnSettings():
            return build_own(settings, place, estimate)
        case (
            ExclusiveSettings()
            | FtfSettings()
            | GavelSettings()
            | LasSettings()
            | SjfSettings()
            | SrtfSettings()
        ):
            return _scheduler(settings, place, estimate)
        case _:
            return build_tuner(settings, place)


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
