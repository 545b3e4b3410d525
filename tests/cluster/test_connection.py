"""Addresses at which there is no cluster."""

import pytest

from alto_exec.ray_cluster import connected
from alto_runs.errors import UserError


@pytest.mark.parametrize(
    "address", ["127.0.0.1:1", "nonsense", "nowhere.invalid:6379", "ray://127.0.0.1:1", ":", ""]
)
@pytest.mark.timeout(30)
def test_one_clear_line_and_soon(address: str) -> None:
    with pytest.raises(UserError) as told, connected(address):
        pass
    assert str(told.value) == (
        f"--cluster: value {address!r}: no Ray cluster there, expected local, auto or HOST:PORT"
    )
