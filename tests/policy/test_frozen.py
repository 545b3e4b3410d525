"""Dataclasses with a quicker `__init__` are the same dataclasses."""

import pickle
from dataclasses import FrozenInstanceError, dataclass, field, fields, replace
from inspect import signature

import pytest

from alto_policy.events import LossReported
from alto_policy.frozen import quick
from alto_policy.types import Job, Task
from tests.policy.cases import job, task


@dataclass(frozen=True, slots=True)
class Slow:
    x: int
    y: str = "y"
    z: int = field(default=3, kw_only=True)

    def __post_init__(self) -> None:
        if self.x < 0:
            raise ValueError(f"x must be at least 0, got {self.x}")


@quick
@dataclass(frozen=True, slots=True)
class Quick:
    x: int
    y: str = "y"
    z: int = field(default=3, kw_only=True)

    def __post_init__(self) -> None:
        if self.x < 0:
            raise ValueError(f"x must be at least 0, got {self.x}")


def test_the_same_parameters_defaults_and_checks() -> None:
    assert list(signature(Quick).parameters) == list(signature(Slow).parameters)
    slow, made = Slow(1, z=5), Quick(1, z=5)
    assert repr(made) == repr(slow).replace("Slow", "Quick")
    assert made == Quick(1, "y", z=5) != Quick(1)
    assert hash(made) == hash(Quick(1, "y", z=5))
    with pytest.raises(ValueError, match="got -1"):
        Quick(-1)
    with pytest.raises(TypeError):
        Quick(1, "y", 3)  # type: ignore[call-arg]


def test_frozen_replaceable_and_picklable() -> None:
    made = LossReported(1.0, job("a").id, 2, 3.0, 4.0)
    with pytest.raises(FrozenInstanceError):
        made.t = 2.0  # type: ignore[misc]
    assert replace(made, t=2.0).t == 2.0
    assert pickle.loads(pickle.dumps(made)) == made


def test_a_default_factory_is_refused() -> None:
    with pytest.raises(TypeError, match=r"Made\.x"):

        @quick
        @dataclass(frozen=True, slots=True)
        class Made:
            x: list[int] = field(default_factory=list)


@pytest.mark.parametrize("kind", [Job, Task])
def test_every_field_is_asked_for(kind: type) -> None:
    value = job("a") if kind is Job else task("t", [job("a")])
    assert all(hasattr(value, each.name) for each in fields(kind))
