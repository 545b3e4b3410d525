"""A policy as a study names it: what is not written is the policy's own."""

import pytest

from alto_policy.exits import ExitRules
from alto_policy.policies.alto import AltoSettings
from alto_policy.policies.alto_plus import AltoPlusSettings
from alto_runs.fields import FieldError
from alto_runs.study_fields.policy_settings import parse_settings, written_settings


def test_one_rule_that_is_written_leaves_the_others_as_the_policy_has_them() -> None:
    plus = parse_settings({"name": "alto+", "rules": {"window": 3}})
    assert plus == AltoPlusSettings(rules=ExitRules(gap=None, window=3))
    assert parse_settings(written_settings(plus)) == plus
    assert parse_settings({"name": "alto", "rules": {"gap": None}}) == AltoSettings(
        rules=ExitRules(gap=None)
    )
    within = {"name": "shared", "tenants": [], "within": {"name": "alto+", "rules": {"gap": 0.2}}}
    shared = parse_settings(within | {"tenants": [{"name": "one"}]})
    assert shared.within == AltoPlusSettings(rules=ExitRules(gap=0.2))  # type: ignore[union-attr]


def test_rules_of_a_policy_that_has_none_are_told() -> None:
    with pytest.raises(FieldError) as told:
        parse_settings({"name": "fifo", "rules": {"gap": 0.2}})
    assert told.value.path == ("rules",)
