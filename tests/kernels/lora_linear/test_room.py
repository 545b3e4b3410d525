"""Tables with room, as recorded launches read them, mean what the plan's own tables mean."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from alto_kernels.lora_linear import Path, TablesShape, room_for
from tests.kernels.comparing import DEVICE, DTYPES
from tests.kernels.lora_linear.cases import NAMES, Case, draw, ours

pytestmark = pytest.mark.usefixtures("one_pass")
DTYPE = DTYPES[0]
BEFORE = Case((70, 20, 40, 3), (8, 8, 4, 8), tail=5, dropouts=(0.0, 0.5, 0.0, 0.0))
NOW = Case((90, 7, 50), (8, 16, 4), inputs=64, outputs=(64, 128), dropouts=(0.25, 0.0, 0.0))
ROWS = 400  # more than another tile


def test_a_plan_written_over_another_is_computed_the_same() -> None:
    t, plan = draw(NOW, DTYPE), NOW.plan()
    shape = TablesShape.around(plan.tables(DEVICE), ROWS)
    before = BEFORE.plan()
    assert TablesShape.around(before.tables(DEVICE), ROWS) == shape
    roomy = before.with_room(shape, DEVICE)
    roomy.refill(plan, DEVICE)

    def filled_up(rows: Tensor) -> Tensor:
        return torch.cat([rows, rows.new_ones(ROWS - len(rows), rows.shape[1])])

    found = ours(NOW, replace(t, x=filled_up(t.x), dy=filled_up(t.dy)), DTYPE, Path.FUSED, roomy)
    expected = ours(NOW, t, DTYPE, Path.FUSED)
    for name in NAMES:
        assert torch.equal(found[name][: len(expected[name])], expected[name]), name


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 128, 129, 1000, 16384, 16385])
def test_room_is_an_eighth_at_most(count: int) -> None:
    assert count <= room_for(count) <= max(8, count * 9 / 8 + 8)
    assert room_for(count) == room_for(room_for(count))
