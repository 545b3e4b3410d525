"""Shapes and rows of profiles."""

from alto_policy.memory import MemoryModel
from alto_runs.profile import Machine, ModelShape, StepRow, Trained, shipped_profile

__all__ = ["LLAMA_8B", "MACHINE", "ROOMY", "SHIPPED", "step_row"]

SHIPPED = shipped_profile()

LLAMA_8B = ModelShape(
    name="Llama-3.1-8B",
    layers=32,
    hidden=4096,
    intermediate=14336,
    heads=32,
    key_value_heads=8,
    head_size=128,
    vocabulary=128_256,
    tied=False,
)

# A job takes as many bytes as its batch size.
ROOMY = MemoryModel(capacity=99, fixed=0, per_rank=0, per_token=1)

MACHINE = Machine(
    gpu="NVIDIA H100 80GB HBM3",
    driver=None,
    cuda=None,
    torch=None,
    triton=None,
    commit=None,
    date=None,
    source="made up",
)


def step_row(
    *,
    model: ModelShape = LLAMA_8B,
    kernels: str = "alto-triton",
    jobs: int = 1,
    rank: int = 16,
    batch_size: int = 1,
    length: int = 512,
    seconds: float = 1.0,
    peak_bytes: int | None = None,
) -> StepRow:
    return StepRow(
        machine=MACHINE,
        model=model,
        dtype="bfloat16",
        kernels=kernels,
        trained=Trained.LORA if rank else Trained.NONE,
        recompute=False,
        jobs=jobs,
        rank=rank,
        batch_size=batch_size,
        length=length,
        seconds=seconds,
        peak_bytes=peak_bytes,
    )
