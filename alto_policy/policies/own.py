"""A policy that its user wrote, in a file that is no part of ALTO."""

import inspect
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from alto_policy.dispatch import Dispatch, Placement
from alto_policy.estimates import DurationEstimate
from alto_policy.ledger.transitions import IllegalDecisionError
from alto_policy.view import Policy

__all__ = ["GIVEN", "OwnSettings", "build_own"]

GIVEN = ("estimate", "place")  # to a class that has parameters of these names


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnSettings:
    """What a log tells of it. Its code is not there: it decides where the user has named its file,
    so that nobody's log or study brings code along."""

    file: str  # without its folder
    policy: str  # its class
    digest: str  # SHA-256 of the file

    @property
    def module(self) -> str:
        """Under which the file has been loaded, if it has."""
        return f"alto_own_{self.digest}"

    @property
    def is_loaded(self) -> bool:
        return hasattr(sys.modules.get(self.module), self.policy)


def build_own(settings: OwnSettings, place: Placement | None, estimate: DurationEstimate) -> Policy:
    """Raises KeyError where its file has not been loaded, and IllegalDecisionError for one that
    could decide nothing."""
    make = getattr(sys.modules[settings.module], settings.policy)
    given: Mapping[str, Any] = dict(zip(GIVEN, (estimate, place), strict=True))
    wanted = inspect.signature(make).parameters
    policy: Policy = make(**{name: value for name, value in given.items() if name in wanted})
    if isinstance(policy, Dispatch) and not hasattr(policy, "_queue"):
        raise IllegalDecisionError("expected __init__ to call super().__init__() first")
    return policy
