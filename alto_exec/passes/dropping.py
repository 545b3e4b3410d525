"""Which elements dropout takes from a job: a function of its configuration and of the step.

Not of its name: a grid with one value more numbers its jobs anew, and the others are to train as
before. Jobs of one seed that differ in anything else drop differently.
"""

import json
from dataclasses import fields
from functools import lru_cache
from hashlib import sha256

from alto_kernels.lora_linear import dropout_key
from alto_policy.types import Hyperparameters

__all__ = ["step_key"]


def step_key(h: Hyperparameters, step: int) -> int:
    """32 bits: of the masks of a step."""
    return dropout_key(h.seed, _number(h), step)


@lru_cache(maxsize=1024)  # more than jobs that are in training at a time
def _number(h: Hyperparameters) -> int:
    """32 bits of all that differs from the defaults, so that a field that is new changes nothing
    for jobs that do not use it. The seed is told apart."""
    chosen = {}
    for field in fields(h):
        value = getattr(h, field.name)
        if field.name != "seed" and value != field.default:
            chosen[field.name] = float(value) if isinstance(value, int | float) else value
    text = json.dumps(chosen, sort_keys=True)
    return int.from_bytes(sha256(text.encode()).digest()[:4], "big")
