"""Figure 11's search of preferences one job after another, which is simulated."""

import pytest

from experiments.exhibits import fig11_preferences
from experiments.grids.curve_sets import RECORDED


def test_it_takes_as_long_as_all_steps_one_by_one_and_no_less() -> None:
    """Of 18,000 steps of at least 6 ms, as passes of a single job take on an H100."""
    shown = fig11_preferences.exhibit(RECORDED)
    assert shown.table is not None
    rows = {row[0]: row for row in shown.table.rows}
    seconds = rows["one after another"][2]
    assert isinstance(seconds, float)
    assert 18_000 * 6e-3 < seconds < 18_000 * 15e-3
    assert "simulated" in shown.gist


def test_where_nobody_tells_of_passes_it_was_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fig11_preferences, "_one_by_one", lambda *_: {})
    shown = fig11_preferences.exhibit(RECORDED)
    assert "One job after another was not run." in shown.gist
