"""A policy's settings, as a study names them."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import UnionType
from typing import Any

from alto_policy.codec import MalformedError, codec_of
from alto_policy.policies import SETTINGS, Settings
from alto_policy.policies.elastic import ElasticSettings
from alto_policy.policies.own import OwnSettings
from alto_policy.policies.shared import SharedSettings
from alto_policy.policies.tuners import TunerSettings
from alto_runs.fields import FieldError, decode_fields, encode_fields

__all__ = ["parse_settings", "policy_name", "written_settings"]

_OWN = "own"
_WITHIN = SharedSettings, ElasticSettings  # leave something to another policy


def parse_settings(value: object) -> Settings:
    """From the name of a policy, or from fields with its name among them; raises FieldError.

    A user's own is one whose file has been loaded.
    """
    if isinstance(value, str):
        value = {"name": value}
    if not isinstance(value, Mapping) or "name" not in value:
        raise FieldError((), "expected the name of a policy, or fields with the 'name' of one")
    fields = dict(value)
    name = fields.pop("name")
    if name == _OWN and fields:
        return _parse_own(fields)
    if not isinstance(name, str) or name not in SETTINGS:
        raise FieldError(("name",), f"expected one of {', '.join(SETTINGS)}")
    kind: Callable[..., Settings] = SETTINGS[name]
    if isinstance(rules := fields.get("rules"), Mapping):  # the others stay those of the policy
        fields["rules"] = {**encode_fields(kind()).get("rules", {}), **rules}
    if "within" not in fields or not issubclass(SETTINGS[name], _WITHIN):
        return decode_fields(kind, fields)
    within = fields.pop("within")
    settings = decode_fields(kind, fields)
    if isinstance(settings, SharedSettings):
        return replace(settings, within=_parse_within(within, TunerSettings))
    assert isinstance(settings, ElasticSettings), "no other leaves anything to another"
    return replace(settings, within=_parse_within(within, TunerSettings | SharedSettings))


def _parse_own(fields: Mapping[str, Any]) -> OwnSettings:
    try:
        settings: OwnSettings = codec_of(OwnSettings).decode(fields)
    except MalformedError as error:
        raise FieldError((), error.what) from error
    if not settings.is_loaded:
        what = f"expected {settings.file}, as it was when this was written, with --policy"
        raise FieldError(("file",), what)
    return settings


def _parse_within(value: object, kinds: UnionType) -> Any:
    try:
        settings = parse_settings(value)
    except FieldError as error:
        raise error.within("within") from error
    if not isinstance(settings, kinds):
        names = [name for name, kind in SETTINGS.items() if issubclass(kind, kinds)]
        raise FieldError(("within",), f"expected one of {', '.join(names)}")
    return settings


def policy_name(settings: Settings) -> str:
    if isinstance(settings, OwnSettings):
        return settings.policy
    (name,) = (name for name, kind in SETTINGS.items() if kind is type(settings))
    return name


def written_settings(settings: Settings) -> dict[str, Any]:
    """All fields and the name, as `parse_settings` takes them."""
    name = _OWN if isinstance(settings, OwnSettings) else policy_name(settings)
    fields = {"name": name, **encode_fields(settings)}
    if isinstance(settings, _WITHIN):
        fields["within"] = written_settings(settings.within)
    return fields
