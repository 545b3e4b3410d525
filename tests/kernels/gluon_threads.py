"""Gluon kernels without a card: a program's partitions are threads, and programs run side by side.

What is asynchronous on a card happens as late as it may: a product reads its operands, and a copy
out of shared memory its source, when somebody waits for it. So a buffer that is given back too soon
is written over, and what waits for what nobody tells ends after some seconds. Layouts are left out,
but for tiles wider than 64 columns, which lie in shared memory as panels of 64.
"""

import importlib
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from tests.kernels.gluon_values import Block, Pointer, bare, load, store

__all__ = ["interpreted"]

_PATIENCE = 20.0  # seconds
_PANEL = 64  # columns
_own = threading.local()  # program, programs, products and copies under way


class Shared:
    """A tile of a program's shared memory."""

    def __init__(self, memory: Tensor, dtype: torch.dtype, shape: Sequence[int]) -> None:
        self.memory, self.dtype, self.shape = memory, dtype, tuple(shape)

    def index(self, at: Any) -> "Shared":
        size = self.memory.numel() // self.shape[0]
        assert 0 <= int(at) < self.shape[0], "outside of the buffers"
        return Shared(self.memory[int(at) * size :][:size], self.dtype, self.shape[1:])

    def _reinterpret(self, dtype: torch.dtype, shape: Sequence[int], layout: Any) -> "Shared":
        size = torch.Size(shape).numel() * dtype.itemsize
        assert size <= self.memory.numel(), "larger than the buffer"
        return Shared(self.memory[:size], dtype, shape)

    def panels(self) -> Tensor:
        """(..., rows, columns) as a view of the memory, or of its panels."""
        *lead, rows, columns = self.shape
        values = self.memory.view(self.dtype)
        if columns <= _PANEL:
            return values.view(self.shape)
        panels = values.view(*lead, columns // _PANEL, rows, _PANEL)
        return panels.transpose(-3, -2)  # (..., rows, panels, 64)

    def write(self, values: Tensor) -> None:
        view = self.panels()
        view.copy_(values.reshape(view.shape).to(self.dtype))

    def read(self) -> Tensor:
        return self.panels().reshape(self.shape).clone()

    def store(self, block: Block) -> None:
        assert not [source for source in _own.copies if source.overlaps(self)], "not read yet"
        self.write(block.v)

    def load(self, layout: Any) -> Block:
        return Block(self.read())

    def overlaps(self, other: "Shared") -> bool:
        one, two = (each.memory.data_ptr() for each in (self, other))
        return one < two + other.memory.numel() and two < one + self.memory.numel()

    def permute(self, order: Sequence[int]) -> "Turned":
        assert tuple(order) == (1, 0)
        return Turned(self)


class Turned:
    def __init__(self, of: Shared) -> None:
        self.of = of

    def read(self) -> Tensor:
        return self.of.read().T


class Barrier:
    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.phase, self.missing, self.count, self.bytes = 0, 0, 0, 0

    def begin(self, count: int) -> None:
        self.count = self.missing = count

    def change(self, arrivals: int, more_bytes: int) -> None:
        with self.changed:
            assert self.missing >= arrivals, "arrived once too often"
            self.missing -= arrivals
            self.bytes += more_bytes
            if not self.missing and not self.bytes:
                self.phase, self.missing = self.phase + 1, self.count
            self.changed.notify_all()

    def wait(self, parity: int) -> None:
        with self.changed:
            done = self.changed.wait_for(lambda: self.phase & 1 != parity, timeout=_PATIENCE)
        assert done, "waited for what nobody tells"


class Product(Block):
    """Of two tiles, and what was there before; its operands are read when it is waited for."""

    def __init__(self, a: Any, b: Any, before: Block) -> None:
        self.operands, self.before, self.made = (a, b), before, False

    @property
    def v(self) -> Tensor:
        assert self.made, "read before it is there"
        return self._v

    def make(self) -> None:
        a, b = (operand.read().float() for operand in self.operands)
        self._v = bare(self.before) + a @ b
        self.made = True


def warpgroup_mma(a: Any, b: Any, acc: Block, *, is_async: bool) -> Product:
    product = Product(a, b, acc)
    _own.products.append(product)
    return product


def warpgroup_mma_wait(num_outstanding: int, deps: Sequence[Block]) -> Any:
    while len(_own.products) > num_outstanding:
        _own.products.pop(0).make()
    return deps[0] if len(deps) == 1 else tuple(deps)


class Descriptor:
    def __init__(
        self, tensor: Tensor, shape: Any, strides: Any, block: Sequence[int], layout: Any
    ) -> None:
        assert tensor.stride(1) == 1
        self.tensor, self.block, self.dtype, self.layout = tensor, tuple(block), tensor.dtype, None


def fetch(source: Descriptor, at: Sequence[Any], barrier: Barrier, to: Shared) -> None:
    assert to.shape == source.block, "a tile of another shape"
    values = torch.zeros(to.shape, dtype=source.dtype)
    row, column = (int(place) for place in at)
    found = source.tensor.detach()[row : row + to.shape[0], column : column + to.shape[1]]
    values[: found.shape[0], : found.shape[1]] = found
    to.write(values)
    barrier.change(0, -to.memory.numel())


class _Copy:
    def __init__(self, to: Descriptor, at: Sequence[int], source: Shared) -> None:
        self.to, self.at, self.source = to, at, source

    def overlaps(self, other: Shared) -> bool:
        return self.source.overlaps(other)

    def make(self) -> None:
        row, column = self.at
        room = self.to.tensor.detach()[row : row + self.to.block[0], column:][:, : self.to.block[1]]
        room.copy_(self.source.read()[: room.shape[0], : room.shape[1]])


def bring(to: Descriptor, at: Sequence[Any], source: Shared) -> None:
    _own.copies.append(_Copy(to, [int(place) for place in at], source))


def store_wait(pendings: int) -> None:
    while len(_own.copies) > pendings:
        _own.copies.pop(0).make()


def allocate(dtype: torch.dtype, shape: Sequence[int], layout: Any) -> Any:
    if dtype == torch.int64:
        barriers = [Barrier() for _ in range(shape[0])]
        return SimpleNamespace(index=lambda at: barriers[int(at)])
    size = torch.Size(shape).numel() * dtype.itemsize
    return Shared(torch.full((size,), 255, dtype=torch.uint8), dtype, shape)  # not a number


def _thread(work: Callable[[], object], program: int, programs: int, errors: Any) -> Any:
    """That works as a partition of the program, or as all of it."""

    def run() -> None:
        vars(_own).update(program=program, programs=programs, errors=errors, products=[], copies=[])
        try:
            work()
            assert not [*_own.products, *_own.copies], "nobody waited for it"
        except BaseException as error:  # noqa: BLE001 - told by whoever launched it
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


def specialize(parts: Sequence[tuple[Callable[..., None], tuple[Any, ...]]], *_: Any) -> None:
    own = (_own.program, _own.programs, _own.errors)
    for thread in [_thread(partial(work, *args), *own) for work, args in parts]:
        thread.join()


class Jit:
    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __call__(self, *args: Any, **options: Any) -> Any:
        return self.function(*args, **options)

    def __getitem__(self, grid: tuple[int]) -> Callable[..., None]:
        def launch(*args: Any, num_warps: int, launch_pdl: bool, **options: Any) -> None:
            bare = [Pointer(a.detach()) if isinstance(a, Tensor) else a for a in args]
            errors: list[BaseException] = []
            work = partial(self.function, *bare, **options)
            order = reversed(range(grid[0]))
            threads = [_thread(work, program, grid[0], errors) for program in order]
            for thread in threads:
                thread.join()
            for error in errors:
                raise error

        return launch


def _jit(function: Any = None, **_: Any) -> Any:
    return Jit(function) if function is not None else _jit


def _where(condition: Any, one: Any, other: Any) -> Block:
    one, other = (torch.as_tensor(bare(value)) for value in (one, other))
    return Block(torch.where(torch.as_tensor(bare(condition)), one, other))


def _extreme(choose: Callable[..., Tensor]) -> Callable[[Any, Any], Block]:
    return lambda a, b: Block(choose(torch.as_tensor(bare(a)), torch.as_tensor(bare(b))))


def _wait_for(flags: Pointer, first: Any, end: Any) -> None:
    deadline = threading.Event()
    timer = threading.Timer(_PATIENCE, deadline.set)
    timer.start()
    for at in range(first, end):
        while not load(flags + at):
            assert not deadline.wait(1e-4), "waited for a flag that nobody sets"
    timer.cancel()


def _modules() -> Iterator[tuple[str, Any]]:
    language = {
        "constexpr": lambda value: value,
        "program_id": lambda _: _own.program,
        "num_programs": lambda _: _own.programs,
        "num_warps": lambda: 8,
        "cdiv": lambda a, b: (a + b - 1) // b,
        "minimum": _extreme(torch.minimum),
        "maximum": _extreme(torch.maximum),
        "where": _where,
        "zeros": lambda shape, dtype, layout: Block(torch.zeros(shape, dtype=dtype)),
        "arange": lambda first, end, layout: Block(torch.arange(first, end)),
        "expand_dims": lambda block, axis: Block(block.v.unsqueeze(axis)),
        "exp": lambda block: Block(block.v.exp()),
        "convert_layout": lambda block, layout: block,
        "static_range": range,
        "load": load,
        "store": store,
        "allocate_shared_memory": allocate,
        "warp_specialize": specialize,
        "SliceLayout": lambda *_, **__: None,
        "NVMMADistributedLayout": lambda *_, **__: None,
        "NVMMASharedLayout": SimpleNamespace(get_default_for=lambda *_: None),
        **{
            name: getattr(torch, name)
            for name in ("float32", "bfloat16", "float16", "int32", "int64")
        },
    }
    barriers = {
        "MBarrierLayout": lambda: None,
        "init": lambda barrier, count: barrier.begin(count),
        "wait": lambda barrier, parity: barrier.wait(int(parity)),
        "expect": lambda barrier, bytes: barrier.change(1, bytes),
        "arrive": lambda barrier, pred=True: barrier.change(1, 0) if pred else None,
    }
    copies = {
        "async_copy_global_to_shared": fetch,
        "async_copy_shared_to_global": bring,
        "store_wait": store_wait,
    }
    hopper = {
        "mbarrier": SimpleNamespace(**barriers),
        "tma": SimpleNamespace(**copies),
        "warpgroup_mma": warpgroup_mma,
        "warpgroup_mma_wait": warpgroup_mma_wait,
        "fence_async_shared": lambda: None,
    }
    flags = {
        "thread_barrier": lambda: None,
        "wait_for_launches": lambda: None,
        "publish": lambda flag: store(flag, 1),
        "wait_for": _wait_for,
    }
    root = "triton.experimental.gluon"
    yield root, {"jit": _jit, "language": SimpleNamespace(**language)}
    yield f"{root}.language", language
    yield f"{root}.language.nvidia.hopper", hopper
    yield f"{root}.nvidia.hopper", {"TensorDescriptor": Descriptor}
    yield "alto_kernels.lora_linear.kernel.hopper_flags", flags


@contextmanager
def interpreted(names: Sequence[str]) -> Iterator[None]:
    """Inside, these modules are those of threads."""
    from triton import experimental
    from triton.experimental import gluon

    values = dict(_modules())
    before = {name: sys.modules.pop(name, None) for name in (*values, *names)}
    for name in values:
        sys.modules[name] = ModuleType(name)
        for key, value in values[name].items():
            setattr(sys.modules[name], key, value)
    vars(experimental)["gluon"] = sys.modules["triton.experimental.gluon"]
    try:
        for name in names:
            importlib.import_module(name)
        vars(experimental)["gluon"] = gluon
        _restore({name: before[name] for name in values})
        yield
    finally:
        _restore({name: before[name] for name in names})


def _restore(modules: dict[str, ModuleType | None]) -> None:
    for name, module in modules.items():
        sys.modules.pop(name, None)
        if module is not None:
            sys.modules[name] = module
