"""Kernels are interpreted in all other tests; here each of them is compiled for the card."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

from tests.style.sources import ROOT

FOLDER = ROOT / "kernels" / "alto_kernels"


def launched() -> set[str]:
    """Kernels that a module launches: `kernel[grid](...)`."""
    found = set()
    for path in FOLDER.rglob("*.py"):
        module = ".".join(path.relative_to(FOLDER.parent).with_suffix("").parts)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Subscript):
                assert isinstance(node.func.value, ast.Name)
                found.add(f"{module}.{node.func.value.id}")
    return found


def test_every_kernel_compiles_for_the_card(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment |= {
        "PYTHONPATH": os.pathsep.join(sys.path),
        "TRITON_CACHE_DIR": str(tmp_path),  # nothing was compiled before
        "CUDA_VISIBLE_DEVICES": "",
        "TRITON_DISABLE_LINE_INFO": "1",  # nobody debugs it, and it is a fifth of the time
    }
    command = [sys.executable, "-m", "tests.kernels.compile_all"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    product = "alto_kernels.lora_linear.kernel.gemm_hopper._gemm_kernel with s made"
    assert set(done.stdout.splitlines()) == {*launched(), f"{product} inside", f"{product} along"}
    assert len(launched()) >= 19


def test_no_kernel_adds_atomically() -> None:
    """In whichever order programs end, sums are the same."""
    for path in FOLDER.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        names = {node.attr for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Attribute)}
        assert not [name for name in names if name.startswith("atomic_")], path
        assert not re.search(r"\b(red|atom)\.", text), path  # in assembler
