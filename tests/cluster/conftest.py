"""One Ray cluster of two nodes with two GPUs each, none of them real, for all tests here."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.nodes import start_nodes, stop_nodes
from tests.cluster.zygotes import warm_zygotes


def pytest_addoption(parser: pytest.Parser) -> None:
    """Of a run that is given this folder."""
    parser.addoption("--cluster-seeds", default="1,2", help="misfortunes: seeds, or how many")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "cluster_seed" in metafunc.fixturenames:
        text = str(metafunc.config.getoption("--cluster-seeds", default="1,2"))
        seeds = [int(seed) for seed in text.split(",")] if "," in text else range(int(text))
        metafunc.parametrize("cluster_seed", seeds)


# Whose commands begin what they need by themselves.
_OF_THEIR_OWN = {"test_local", "test_recipes", "test_served_here", "test_zygote"}


@pytest.hookimpl(tryfirst=True)  # xdist reads the marks when it is its turn
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In one process of xdist those that share a Ray cluster, in another those that begin their own
    one after another: more clusters at once would be too much for a small machine."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            if config.pluginmanager.hasplugin("xdist"):
                group = "ray-of-their-own" if item.path.stem in _OF_THEIR_OWN else "ray"
                item.add_marker(pytest.mark.xdist_group(group))
            item.add_marker(pytest.mark.timeout(900))


@pytest.fixture(scope="session")
def nodes() -> Iterator[Any]:
    """A `ray.cluster_utils.Cluster`; this process is not connected to it."""
    with warm_zygotes():
        cluster = start_nodes()
        yield cluster
        stop_nodes(cluster)
