"""Work without looks for rings of garbage, and what comes after it."""

import gc
import subprocess
import sys
import weakref

import pytest

from alto_runs.garbage import uncollected


class Ring:
    def __init__(self) -> None:
        self.itself = self


def test_what_was_made_is_not_looked_through_when_the_work_ends() -> None:
    looks: list[int] = []

    def note(phase: str, info: dict[str, int]) -> None:
        looks.append(info["generation"])

    gc.collect()
    gc.callbacks.append(note)
    try:
        with uncollected():
            made = [[number] for number in range(100_000)]
        assert gc.isenabled()
        assert [len(each) for each in made[:10]] == [1] * 10
    finally:
        gc.callbacks.remove(note)
    assert looks == []


def test_a_ring_that_was_made_is_found_by_a_later_look() -> None:
    with uncollected():
        ring = weakref.ref(Ring())
        assert ring() is not None
    gc.collect()
    assert ring() is None


_RING = """
from alto_runs.garbage import leave_at_exit

class Ring:
    def __init__(self): self.itself = self
    def __del__(self): print("taken apart")

def main(): Ring()

%s
main()
print("written")
"""


@pytest.mark.parametrize(
    ("first", "printed"), [("", "written\ntaken apart\n"), ("leave_at_exit()", "written\n")]
)
def test_a_process_that_ends_takes_no_rings_apart(first: str, printed: str) -> None:
    command = [sys.executable, "-c", _RING % first]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout == printed
