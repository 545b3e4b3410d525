"""What a user's policy defines beside what the class that it derives from asks for."""

import pytest

from alto_policy.dispatch import Dispatch
from alto_policy.policies.sjf import Sjf
from alto_policy.preemption import Preemptive
from alto_runs.own_hooks import misfit
from alto_runs.own_policy import blaming, own_policy

MISTAKES = {
    "a letter more": (
        "def keys(self, task): return 0.0",
        "keys: Dispatch asks no such thing, expected key(self, task), or _keys for a helper",
    ),
    "two letters in turn": ("def kye(self, task): return 0.0", "expected key(self, task)"),
    "capitals": (
        "jobsPerGpu = 3",
        "jobsPerGpu: Dispatch asks no such thing, expected jobs_per_gpu",
    ),
    "a letter less": ("def judg(self, job, cluster): return ()", "expected judge(self, job, clust"),
    "a setting": ("backfill = False", "expected backfills, or _backfill for a helper"),
    "too few": ("def key(self): return 0.0", "key(self): expected key(self, task)"),
    "too many": (
        "def judge(self, job, cluster, t): return ()",
        "expected judge(self, job, cluster)",
    ),
    "static": ("@staticmethod\n    def key(self, task): return 0.0", "expected key(self, task)"),
    "no method": ("key = 3", "key: value 3, expected a method key(self, task)"),
    "asynchronous": ("async def key(self, task): return 0.0", "expected a plain method"),
    "no switch": ("backfills = 0", "backfills: value 0, expected True or False"),
    "no number": ("jobs_per_gpu = 0", "jobs_per_gpu: value 0, expected a whole number of at"),
    "nothing": (
        "def priority(self, task): return 0.0",
        "overrides nothing, for Dispatch asks no 'priority', expected key or judge or cut or ready",
    ),
    "nothing, made": (
        "def __init__(self):\n        super().__init__()\n    def _priority(self): return 0.0",
        "overrides nothing, for Dispatch asks no '_priority'",
    ),
}
RIGHT = {
    "nothing of its own": "pass",
    "helpers": "def key(self, task): return self.keys()\n    def keys(self): return 0.0",
    "helpers of other names": "same_node = True\n    def is_ready(self): return 0.0",
    "a private name that is near": "same_node = True\n    def _keys(self): return 0.0",
    "set when it is made": "def __init__(self): self.backfills = False\n    def mine(self): pass",
    "static": "key = staticmethod(lambda task: 0.0)",
    "a class method": "@classmethod\n    def key(cls, task): return 0.0",
    "more, with defaults": "def key(self, task, weight=2.0, *rest, **more): return 0.0",
    "no limit": "jobs_per_gpu = None\n    move_tokens = 4000",
    "a property": "@property\n    def same_node(self): return True",
    "what is private there": "def _wait(self, task, cluster): pass",
}


def derived(base: type, body: str) -> type:
    found: dict[str, type] = {}
    code = f"class Mine(Base):\n    {body}\n"
    exec(code, {"Base": base, "__name__": "mine"}, found)
    return found["Mine"]


@pytest.mark.parametrize(("body", "told"), MISTAKES.values(), ids=MISTAKES)
def test_a_misnamed_or_wrongly_signed_hook_is_told(body: str, told: str) -> None:
    assert told in (misfit(derived(Dispatch, body)) or "")


@pytest.mark.parametrize("body", RIGHT.values(), ids=RIGHT)
def test_what_is_meant_so_is_not(body: str) -> None:
    assert misfit(derived(Dispatch, body)) is None


def test_hooks_are_those_of_the_class_that_it_derives_from() -> None:
    key = "def key(self, task): return 0.0"
    assert "the method 'urgencies', which Preemptive asks" in (
        misfit(derived(Preemptive, key)) or ""
    )
    slip = (
        "def urgencies(self, services, now, num_gpus): return ()\n    def steady_untill(self): pass"
    )
    assert "expected steady_until(self, services, now)" in (misfit(derived(Preemptive, slip)) or "")
    assert misfit(derived(Sjf, "def cut(self, task, cluster, gone): return ()")) is None
    between = derived(Dispatch, key)
    assert misfit(derived(between, "def weight(self): return 0.0")) is None
    assert "keys: Dispatch" in (
        misfit(derived(derived(Dispatch, "def keys(self): pass"), "pass")) or ""
    )
    alone = derived(object, "def observe(self, event): return ()")
    assert misfit(alone) == "observe(self, event): expected observe(self, event, cluster)"
    assert misfit(derived(object, "def observe(self, event, cluster): return ()")) is None


def test_only_what_a_policy_was_asked_is_its_fault() -> None:
    """An error of a backend is none, whoever decides."""
    with pytest.raises(ZeroDivisionError), blaming(own_policy("examples/policy/widest_first.py")):
        raise ZeroDivisionError
