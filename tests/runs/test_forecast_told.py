"""How long a study will take, as it is told."""

import pytest

from alto_runs.measurement import Forecast
from alto_runs.summary import print_forecast, stdout_console


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (0.2, "1 s"),
        (59.4, "59 s"),
        (89.0, "1 min"),
        (3_569.0, "59 min"),
        (3_590.0, "1 h"),
        (11_100.0, "3 h 5 min"),
        (360_000.0, "100 h"),
    ],
)
def test_a_duration_is_told_as_one_would_say_it(
    seconds: float, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    forecast = Forecast(measured=(), longest_seconds=seconds, typical_seconds=1.0)
    print_forecast(forecast, stdout_console())
    assert capsys.readouterr().out.splitlines()[-1] == (
        f"on this device at most {told} if no job leaves early; about 1 s on typical loss curves"
    )
