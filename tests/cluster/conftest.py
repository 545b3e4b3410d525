"""One Ray cluster of two nodes with two GPUs each, none of them real, for all tests here."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from alto_runs.result import Result
from alto_runs.study import Study
from tests.cluster.nodes import start_nodes, stop_nodes
from tests.cluster.six_tasks import six_tasks
from tests.cluster.trouble import study_of, undisturbed
from tests.cluster.zygotes import warm_processes


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
    one after another: more clusters at once would be too much for a small machine. Others need no
    cluster."""
    for item in items:
        if Path(__file__).parent not in item.path.parents:
            continue
        is_of_its_own = item.path.stem in _OF_THEIR_OWN
        if is_of_its_own or "nodes" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.timeout(900))
            if config.pluginmanager.hasplugin("xdist"):
                group = "ray-of-their-own" if is_of_its_own else "ray"
                item.add_marker(pytest.mark.xdist_group(group))


@pytest.fixture(scope="session")
def nodes() -> Iterator[Any]:
    """A `ray.cluster_utils.Cluster`; this process is not connected to it."""
    with warm_processes():
        cluster = start_nodes()
        yield cluster
        stop_nodes(cluster)


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """What most tests here train."""
    return study_of(tmp_path_factory.mktemp("trouble"))


@pytest.fixture(scope="session")
def expected(study: Study, tmp_path_factory: pytest.TempPathFactory) -> Result:
    """On one device, undisturbed."""
    return undisturbed(study, tmp_path_factory.mktemp("alone") / "run")


@pytest.fixture(scope="session")
def six(tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, Result]:
    """Six tasks, and how they end on one device: one after another, packed otherwise."""
    folder = tmp_path_factory.mktemp("six")
    given = six_tasks(folder)
    return given, undisturbed(given, folder / "alone")
