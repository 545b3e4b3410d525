"""Which nodes' devices a run's GPUs are."""

from collections.abc import Sequence

import pytest

from alto_exec.events.past import Past
from alto_exec.ray_cluster.devices import Devices, Node, Share, gpus_of, move_of
from alto_policy.ledger.cluster import Cluster
from alto_policy.types import GpuId, TaskId
from alto_runs.study import ExecutorSpec


def node(name: str, count: int = 2) -> Node:
    return Node(f"id of {name}", name, "H100", count, has_gpus=True)


A, B, C = node("a"), node("b"), node("c", 4)


def share(node: Node, count: int) -> Share:
    return Share((node.id,) * count, "GPU")


def taken(devices: Devices, task: str, gpus: Sequence[int], *found: Node) -> Share | None:
    return devices.take(TaskId(task), [GpuId(gpu) for gpu in gpus], found)


@pytest.fixture
def devices() -> Devices:
    return Devices(gpus_of((A, B)))


def test_gpus_are_numbered_node_by_node() -> None:
    assert [(gpu.id, gpu.node, gpu.kind) for gpu in gpus_of((A, B))] == [
        (0, "a", "H100"),
        (1, "a", "H100"),
        (2, "b", "H100"),
        (3, "b", "H100"),
    ]


def test_of_a_node_as_many_count_as_wide_tasks_can_use() -> None:
    three = node("three", 3)
    assert [gpu.node for gpu in gpus_of((three, C), width=2)] == ["three"] * 2 + ["c"] * 4
    assert gpus_of((A, B), width=3) == ()


def test_an_executor_goes_where_its_gpus_are(devices: Devices) -> None:
    assert taken(devices, "one", [2], A, B) == share(B, 1)
    assert taken(devices, "two", [0, 1], A, B) == share(A, 2)


def test_a_gang_is_on_one_node(devices: Devices) -> None:
    assert taken(devices, "wide", [1, 2], A, B) == share(A, 2)
    assert taken(devices, "wider", [0, 1, 2], A, B) is None
    assert taken(devices, "wider", [0, 1, 2], A, C) == share(C, 3)


def test_a_lost_node_is_stood_in_for_by_one_with_room(devices: Devices) -> None:
    assert taken(devices, "one", [0], A, B) == share(A, 1)
    assert taken(devices, "two", [2], A) == share(A, 1)
    assert taken(devices, "three", [3], A) is None
    devices.give_back(TaskId("one"))
    assert taken(devices, "three", [3], A) == share(A, 1)


@pytest.mark.parametrize(
    ("found", "lost"),
    [
        pytest.param((A, B), set(), id="all live"),
        pytest.param((A, B, C), set(), id="one more"),
        pytest.param((A,), {"b"}, id="one is gone"),
        pytest.param((A, C), set(), id="a new one stands in"),
        pytest.param((C,), set(), id="it has room for two"),
        pytest.param((node("new"),), {"b"}, id="it has room for one"),
        pytest.param((node("new", 1),), {"b"}, id="a part of one is better than none"),
        pytest.param((), {"a", "b"}, id="none"),
    ],
)
def test_a_node_is_lost_when_nothing_stands_in_for_it(
    devices: Devices, found: tuple[Node, ...], lost: set[str]
) -> None:
    assert devices.lost(found) == lost


def test_each_stands_in_for_one_of_its_size() -> None:
    devices = Devices(gpus_of((A, C)))
    assert devices.lost((node("new", 4),)) == {"a"}
    assert devices.lost((node("new", 2),)) == {"c"}


def test_a_node_that_is_too_narrow_is_not_there() -> None:
    devices = Devices(gpus_of((node("a", 5), C), width=2), width=2)
    assert devices.lost((node("a", 1), C)) == {"a"}
    assert devices.lost((node("new", 5), C)) == set()


@pytest.mark.parametrize(
    ("width", "found", "gone", "come"),
    [
        pytest.param(1, (A, C), (), {}, id="all as they were"),
        pytest.param(1, (A, C, B), (), {"b": [6, 7]}, id="one joins"),
        pytest.param(1, (A,), ("c",), {}, id="one is gone"),
        pytest.param(1, (B, C), (), {}, id="one stands in"),
        pytest.param(1, (node("new", 4),), ("a",), {}, id="for the one of its size"),
        pytest.param(1, (A, node("c", 1)), ("c",), {"c": [2]}, id="one has fewer"),
        pytest.param(1, (node("a", 3), C), ("a",), {"a": [6, 7, 8]}, id="one has more"),
        pytest.param(2, (A, C), (), {}, id="pairs"),
        pytest.param(3, (A, C), ("a", "c"), {"c": [2, 3, 4]}, id="one is too narrow"),
        pytest.param(1, (node("new", 3),), ("a", "c"), {"new": [6, 7, 8]}, id="none of its size"),
    ],
)
def test_a_run_goes_on_with_the_nodes_that_there_are(
    width: int, found: tuple[Node, ...], gone: tuple[str, ...], come: dict[str, list[int]]
) -> None:
    move = move_of(found, ExecutorSpec(gpus=width), Past(), Cluster(gpus_of((A, C))))
    assert move.gone == gone
    assert {gpus[0].node: [gpu.id for gpu in gpus] for gpus in move.come} == come
    devices = Devices(move.after(gpus_of((A, C))), width)
    assert devices.lost(found) == set(gone) - set(come)


def test_a_new_node_stands_in_before_those_of_the_run(devices: Devices) -> None:
    new = node("new", 1)
    assert taken(devices, "one", [2], A, new) == share(new, 1)
    assert taken(devices, "two", [3], A, new) == share(A, 1)


def test_a_gang_of_a_lost_node_stays_together(devices: Devices) -> None:
    assert taken(devices, "one", [0], A, C) == share(A, 1)
    assert taken(devices, "wide", [2, 3], A, C) == share(C, 2)
    assert taken(devices, "wider", [0, 1], A) is None


def test_what_an_earlier_head_has_left_is_not_given_out(devices: Devices) -> None:
    devices.hold(TaskId("one"), share(A, 2))
    assert taken(devices, "two", [0], A, B) == share(B, 1)


def test_gpus_of_several_nodes_count_where_none_is_wide_enough() -> None:
    both = gpus_of((A, B), width=3, across_nodes=True)
    assert [gpu.node for gpu in both] == ["a", "a", "b", "b"]
    assert [gpu.node for gpu in gpus_of((A, C), width=3, across_nodes=True)] == ["c"] * 3
    assert gpus_of((A, B), width=5, across_nodes=True) == ()


def test_a_gang_of_several_nodes_is_where_its_gpus_are() -> None:
    gpus = gpus_of((A, B), width=3, across_nodes=True)
    devices = Devices(gpus, 3, across_nodes=True)
    wide = taken(devices, "wide", [0, 1, 2], A, B)
    assert wide == Share((A.id, A.id, B.id), "GPU")
    assert [wide.place(rank) for rank in range(3)] == [(0, 2), (1, 2), (0, 1)]
    assert taken(devices, "next", [1, 2, 3], A, B) is None
    devices.give_back(TaskId("wide"))
    new = node("new")
    assert taken(devices, "next", [0, 1, 2], B, new) == Share((B.id, new.id, new.id), "GPU")
    assert taken(Devices(gpus, 3), "wide", [0, 1, 2], A, B) is None


def test_a_gang_is_not_split_for_a_node_that_is_busy() -> None:
    devices = Devices(gpus_of((A, B)), 2, across_nodes=True)
    for busy in (A, B):
        devices.hold(TaskId(f"on {busy.name}"), share(busy, 1))
    assert taken(devices, "wide", [1, 3], A, B) is None


def test_without_gpus_a_node_lends_itself() -> None:
    plain = Node("id", "plain", "cpu", 1, has_gpus=False)
    assert Devices(gpus_of((plain,))).take(TaskId("one"), [GpuId(0)], (plain,)) == (
        Share(("id",), "CPU")
    )
