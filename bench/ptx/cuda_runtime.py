"""The CUDA engine on the CPU: its own host code, linked to a runtime that hands launches to `machine`."""

from __future__ import annotations

import ctypes
import hashlib
import importlib.machinery
import importlib.util
import os
import shutil
import subprocess
import sysconfig
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import setup_cuda

from . import machine, syntax
from .machine import Record
from .memory import Region

ROOT = Path(__file__).resolve().parents[2]
RUNTIME = Path(__file__).with_name("cuda_runtime.cpp")

_LAUNCH = ctypes.CFUNCTYPE(
    ctypes.c_int,
    ctypes.c_char_p,
    ctypes.POINTER(ctypes.c_uint),
    ctypes.POINTER(ctypes.c_uint),
    ctypes.c_size_t,
    ctypes.POINTER(ctypes.c_void_p),
)


class Unavailable(Exception):
    """Why the engine cannot be built here."""


def build(architecture: int, folder: Path) -> tuple[Path, Path]:
    """The engine with this runtime in the place of CUDA's.

    Args:
        architecture: virtual architecture, times 10: 75, 80 or 90.
        folder: where modules are kept, in subfolders named after what they are made from.

    Returns:
        A module, and the PTX of its kernels.

    Raises:
        Unavailable: without nvcc, pybind11 or a C++ compiler.
        RuntimeError: if the compilation fails, with what the compiler said.
    """
    try:
        nvcc = setup_cuda.find_nvcc()
        numbers = setup_cuda.architectures(nvcc)
        import pybind11
    except (setup_cuda.Unavailable, ImportError) as error:
        raise Unavailable(str(error)) from error
    compiler = shutil.which(os.environ.get("CXX", "")) or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        raise Unavailable("no C++ compiler")
    # What an installation is made of, if that has this architecture.
    installed = architecture in map(setup_cuda.virtual, numbers)
    made = setup_cuda.compile_kernels(nvcc, numbers if installed else [architecture])
    host = [compiler, "-std=c++17", "-O1", "-fPIC", "-fvisibility=hidden", "-shared", "-Wno-unknown-pragmas"]
    host += [f"-I{sysconfig.get_paths()['include']}", f"-I{pybind11.get_include()}"]
    host += [f'-DQKERNEL_CUDA_ARCHITECTURES="{architecture}-ptx"']
    bindings = ROOT / "csrc" / "cuda" / "bindings.cpp"
    # The kernels' folder is named after their sources, headers and all.
    made_from = "\n".join([str(made), *host, bindings.read_text(), RUNTIME.read_text()])
    module = folder / hashlib.sha256(made_from.encode()).hexdigest()[:16] / "_cuda.so"
    if not module.is_file():
        module.parent.mkdir(parents=True, exist_ok=True)
        # Under another name first: a second process may be building the same.
        partial = module.with_name(f"{os.getpid()}.partial")
        _run([*host, bindings, RUNTIME, *setup_cuda.objects(made), "-o", partial])
        partial.replace(module)
    return module, made / f"compute_{architecture}.ptx"


def _run(command: list) -> None:
    done = subprocess.run(list(map(str, command)), check=False, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed:\n{(done.stdout + done.stderr)[-4000:]}")


class CudaModule:
    """What qkernel._cuda is on a GPU: the same functions, on CPU tensors, by executing PTX."""

    def __init__(self, library: Path, ptx: Path) -> None:
        # Another name for each: of one name, pybind11 makes only one module.
        loader = importlib.machinery.ExtensionFileLoader(f"ptx_{library.parent.name}._cuda", str(library))
        self.module: types.ModuleType = importlib.util.module_from_spec(
            importlib.util.spec_from_loader(loader.name, loader)
        )
        loader.exec_module(self.module)
        self.kernels = syntax.Kernels(ptx.read_text())
        self.record = Record()
        self._regions: list[Region] = []
        self._error: BaseException | None = None
        self._callback = _LAUNCH(self._launch)  # lives as long as the library may call it
        #: The runtime: `set_ptx_version`, and `early`, for tests.
        self.runtime = ctypes.CDLL(str(library))
        self.runtime.set_launch(self._callback)

    def __getattr__(self, name: str):
        return getattr(self.module, name)

    def forward(self, shape, pred, pixel, definition, settings, place, workspace, value, terms) -> None:
        images, wide = shape[0] if settings[2] == 2 else 1, self._wide(pred, pixel)
        arguments = (shape, pred, pixel, definition, settings)
        regions = [
            *self._inputs(*arguments),
            Region(workspace, self.module.workspace_bytes(*arguments), "the workspace"),
            Region(value, images * wide, "the value"),
        ]
        regions += [Region(terms, 2 * images * wide, "the terms")] if pixel[0] else []
        with self._launching(regions):
            self.module.forward(*arguments, place, workspace, value, terms)

    def backward(self, shape, pred, pixel, definition, settings, place, grad_output, gradient) -> None:
        images, wide = shape[0] if settings[2] == 2 else 1, self._wide(pred, pixel)
        arguments = (shape, pred, pixel, definition, settings)
        regions = [
            *self._inputs(*arguments),
            Region(grad_output, images * wide, "grad_output", writable=False),
            self._image(shape, gradient, "the gradient", writable=True),
        ]
        with self._launching(regions):
            self.module.backward(*arguments, place, grad_output, gradient)

    def _wide(self, pred, pixel) -> int:
        """Bytes of a result."""
        double = self.module.float64
        return 8 if pred[1] == double or (pixel[0] and pixel[2][1] == double) else 4

    def _inputs(self, shape, pred, pixel, definition, settings) -> Iterator[Region]:
        yield self._image(shape, pred, "pred", writable=False)
        if pixel[0]:
            yield self._image(shape, pixel[2], "target", writable=False)
        if settings[0]:
            yield Region(settings[0], 8, "the offset", writable=False)

    def _image(self, shape, tensor, name: str, writable: bool) -> Region:
        address, dtype, strides = tensor
        size = {self.module.float32: 4, self.module.float64: 8}.get(dtype, 2)
        last = sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
        return Region(address, (last + 1) * size, name, writable)

    @contextmanager
    def _launching(self, regions: list[Region]) -> Iterator[None]:
        self._regions, self._error = regions, None
        try:
            yield
        except RuntimeError as error:
            # By way of the runtime's error code.
            raise self._error or error from None
        finally:
            self._regions = []

    def _launch(self, name, grid, block, shared, arguments) -> int:
        try:
            kernel = self.kernels[name.decode()]
            for region in self._regions:
                # Before the combining kernel no forward pass with an offset comes early.
                region.settled = region.name == "the offset" and "combine_kernel" in kernel.name
            parameters = bytearray(kernel.parameter_bytes)
            for i, (_, offset, size) in enumerate(kernel.parameters):
                parameters[offset : offset + size] = ctypes.string_at(arguments[i], size)
            machine.launch(
                kernel,
                tuple(grid[:3]),
                tuple(block[:3]),
                bytes(parameters),
                self._regions,
                shared,
                self.record,
            )
        except BaseException as error:  # it must not cross the C++ in between
            self._error = error
            return 1
        return 0
