"""Triton kernels on the CPU: a driver for Triton's JIT whose launches execute the PTX it has compiled.

Everything but the device is Triton's own: specialisation, compilation, grids, the packing of arguments.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import torch
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.backends.driver import DriverBase
from triton.runtime.driver import driver as active

from . import machine, syntax
from .machine import Record
from .memory import Region

#: Bytes of shared memory that every GPU since Turing gives to a block.
SHARED = 48 * 1024

_FORMATS = {"i1": "<?", "i8": "<b", "i16": "<h", "i32": "<i", "i64": "<q", "fp32": "<f", "fp64": "<d"}


def region_of(tensor: torch.Tensor, name: str, writable: bool) -> Region:
    """From its first element to its last."""
    last = sum((n - 1) * stride for n, stride in zip(tensor.shape, tensor.stride(), strict=True))
    size = (last + 1) * tensor.element_size() if tensor.numel() else 0
    return Region(tensor.data_ptr(), size, name, writable)


class Driver(DriverBase):
    """One for each architecture in a process, since Triton's kernels remember their driver.

    Args:
        architecture: compute capability, times 10, that is compiled for.
        outputs: names of the arguments that kernels may write to.
    """

    def __init__(self, architecture: int, outputs: tuple[str, ...]) -> None:
        super().__init__()
        self.architecture, self.outputs = architecture, outputs
        self.record = Record()
        self.utils = SimpleNamespace(
            load_binary=lambda name, binary, shared, device: (None, name, 0, 0, 1024),
            get_device_properties=lambda device: {"max_shared_mem": SHARED, "multiprocessor_count": 132},
        )
        self._kernels: dict[str, syntax.Kernel] = {}

    @classmethod
    def is_active(cls) -> bool:
        return False

    def map_python_to_cpp_type(self, ty: str) -> str:
        raise NotImplementedError

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.architecture, 32)

    def get_active_torch_device(self) -> torch.device:
        return torch.device("cpu")

    def get_benchmarker(self):
        raise NotImplementedError

    def get_current_device(self) -> int:
        # Triton keeps compiled kernels by device.
        return self.architecture

    def get_current_stream(self, device: int) -> int:
        return 0

    @contextmanager
    def installed(self) -> Iterator[Driver]:
        """The driver of all launches in here."""
        before, hook = active._active, knobs.runtime.kernel_load_start_hook
        active.set_active(self)
        knobs.runtime.kernel_load_start_hook = self._remember
        try:
            yield self
        finally:
            active._active = before
            knobs.runtime.kernel_load_start_hook = hook

    def _remember(self, module, function, name: str, files: dict[str, str], key: str) -> None:
        (ptx,) = (Path(path) for file, path in files.items() if file.endswith(".ptx"))
        (self._kernels[key],) = syntax.Kernels(ptx.read_text()).values()

    def launcher_cls(self, source, metadata):
        def launch(x, y, z, stream, function, packed, launch_metadata, enter, leave, *arguments) -> None:
            self._launch(source.signature, metadata, (x, y, z), arguments)

        return launch

    def _launch(self, signature: dict[str, str], metadata, grid, arguments) -> None:
        kernel = self._kernels[metadata.hash]
        packed, regions = [], []
        for (name, kind), argument in zip(signature.items(), arguments, strict=True):
            if kind == "constexpr":
                continue
            if kind.startswith("*"):
                packed.append(struct.pack("<Q", argument.data_ptr()))
                regions.append(region_of(argument, name, writable=name in self.outputs))
            else:
                packed.append(struct.pack(_FORMATS[kind], argument))
        parameters = bytearray(kernel.parameter_bytes)
        # What comes behind are Triton's own buffers, which these kernels do not use.
        for (_, offset, size), value in zip(kernel.parameters, packed, strict=False):
            assert len(value) == size
            parameters[offset : offset + size] = value
        threads = metadata.num_warps * 32
        machine.launch(
            kernel, grid, (threads, 1, 1), bytes(parameters), regions, metadata.shared, self.record
        )
