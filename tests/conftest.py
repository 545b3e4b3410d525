"""Without a GPU, Triton's kernels run in its interpreter.

Triton reads the variable when a kernel is defined, so it stands before any test is imported.
"""

import os

import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"
