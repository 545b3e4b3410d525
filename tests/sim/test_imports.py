import subprocess
import sys

import pytest

HEAVY = ("torch", "transformers", "pandas", "matplotlib", "pyarrow", "triton", "ray", "pydantic")


@pytest.mark.parametrize(
    "module", ["alto_sim.simulate", "alto_sim.workloads.loading", "alto_sim.importers"]
)
def test_the_simulator_starts_without_heavy_libraries(module: str) -> None:
    script = f"import sys, {module}; print(*(name for name in {HEAVY} if name in sys.modules))"
    told = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    ).stdout
    assert told.split() == []
