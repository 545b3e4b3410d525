"""One Ray cluster of two nodes with two GPUs each, none of them real, for all tests here."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.nodes import start_nodes, stop_nodes


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All in one process of xdist: two Ray clusters would be too much for a small machine."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.xdist_group("ray"))
            item.add_marker(pytest.mark.timeout(900))


@pytest.fixture(scope="session")
def nodes() -> Iterator[Any]:
    """A `ray.cluster_utils.Cluster`; this process is not connected to it."""
    cluster = start_nodes()
    yield cluster
    stop_nodes(cluster)
