"""What a script prints must not depend on how Python hashes text."""

import os
import subprocess
import sys


def printed_under_two_seeds(script: str) -> list[bytes]:
    return [
        subprocess.run(
            [sys.executable, "-c", script],
            env=os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": "."},
            check=True,
            capture_output=True,
        ).stdout
        for seed in ("0", "1")
    ]
