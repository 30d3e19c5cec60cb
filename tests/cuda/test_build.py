"""The CUDA build, on a machine that needs no GPU: what is found, what is compiled, and what it became."""

from __future__ import annotations

import functools
import importlib.machinery
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
import torch

import setup_cuda
from bench import cuda_inspect
from qkernel.definition import Definition

ROOT = Path(__file__).parents[2]


@functools.cache
def _nvcc() -> Path | str:
    try:
        return setup_cuda.find_nvcc()
    except setup_cuda.Unavailable as reason:
        return str(reason)


@pytest.fixture(scope="session")
def nvcc() -> Path:
    if isinstance(found := _nvcc(), str):
        pytest.skip(found)
    return found


@pytest.fixture(scope="session")
def module_path(nvcc) -> Path:
    """The module as setup.py builds it, for the architectures of an installation here."""
    pybind11 = pytest.importorskip("pybind11")
    from setuptools._distutils.ccompiler import new_compiler
    from setuptools._distutils.sysconfig import customize_compiler

    compiler = new_compiler()
    customize_compiler(compiler)
    folder = ROOT / "build" / "tests" / "cuda"
    includes = [pybind11.get_include(), sysconfig.get_paths()["include"]]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        objects, arguments = setup_cuda.compile_objects(compiler, folder, includes)
        path = folder / f"_cuda{sysconfig.get_config_var('EXT_SUFFIX')}"
        compiler.link_shared_object(objects, str(path), **arguments)
    return path


@pytest.fixture(scope="session")
def module(module_path):
    loader = importlib.machinery.ExtensionFileLoader("_cuda", str(module_path))
    loaded = importlib.util.module_from_spec(importlib.util.spec_from_loader("_cuda", loader))
    loader.exec_module(loaded)
    return loaded


def test_no_kernel_spills_or_breaks_its_limit_of_instructions(module_path):
    cuobjdump = cuda_inspect.find_cuobjdump()
    if cuobjdump is None:
        pytest.skip("no cuobjdump: it comes with Triton's wheel and with the CUDA toolkit")
    kernels = cuda_inspect.inspect(module_path, cuobjdump)
    print(cuda_inspect.table(kernels))
    numbers = {k.architecture for k in kernels}
    assert numbers
    for kind, count in (("direct", 32), ("spread", 16)):
        assert len([k for k in kernels if k.kind == kind]) == count * len(numbers)
    broken = [(k.architecture, k.name, cuda_inspect.violations(k)) for k in kernels]
    assert not [b for b in broken if b[2]]


@pytest.mark.parametrize("name", ["README.md", "missing.so"])
def test_a_file_without_kernels_is_not_said_to_keep_its_limits(tmp_path, monkeypatch, capsys, name):
    if cuda_inspect.find_cuobjdump() is None:
        pytest.skip("no cuobjdump: it comes with Triton's wheel and with the CUDA toolkit")
    (tmp_path / "README.md").write_text("No object.")
    monkeypatch.setattr("sys.argv", ["cuda_inspect", str(tmp_path / name)])
    assert cuda_inspect.main() == 1
    assert f"{tmp_path / name} is no object or module" in capsys.readouterr().out


def test_the_module_needs_no_cuda_library_to_load(module_path):
    if shutil.which("ldd") is None:
        pytest.skip("no ldd")
    libraries = subprocess.run(["ldd", str(module_path)], capture_output=True, text=True, check=True).stdout
    assert "cudart" not in libraries and "libcuda" not in libraries and "torch" not in libraries


def test_the_module_says_what_it_was_built_for(module, nvcc):
    numbers = module.architectures.split(",")
    assert numbers[-1].endswith("-ptx")
    assert numbers[:-1] == list(map(str, setup_cuda.architectures(nvcc)))
    assert module.toolkit == ".".join(map(str, setup_cuda.toolkit_version(nvcc)))


def test_without_a_device_the_engine_says_so(module, cuda_engine, monkeypatch):
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    assert module.no_device().startswith(("no CUDA device", "the NVIDIA driver is older"))
    monkeypatch.setattr(cuda_engine, "_cuda", module)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    cuda_engine._no_device.cache_clear()
    assert cuda_engine.missing() == module.no_device()


def test_a_launch_without_a_device_is_an_error_and_not_a_silence(module, cuda_engine, monkeypatch):
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    monkeypatch.setattr(cuda_engine, "_cuda", module)
    monkeypatch.setattr(cuda_engine, "_place", lambda x: (0, 0))
    with pytest.raises(RuntimeError, match="CUDA error"):
        cuda_engine.q(torch.zeros(1, 1, 8, 8), Definition(), None, 1.0, "mean")


def test_a_gpu_older_or_other_than_the_kernels_is_refused_in_words(kernels, cuda_engine, monkeypatch):
    monkeypatch.setattr(cuda_engine, "_cuda", kernels)
    monkeypatch.setattr(kernels, "architectures", "80,90,80-ptx", raising=False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla P100")
    for capability, runs in (
        ((6, 0), False),
        ((7, 5), False),
        ((8, 0), True),
        ((8, 6), True),
        ((12, 0), True),
    ):
        monkeypatch.setattr(
            torch.cuda, "get_device_capability", lambda device, capability=capability: capability
        )
        cuda_engine._unsupported.cache_clear()
        reason = cuda_engine._unsupported(0)
        assert (reason is None) == runs
        assert runs or ("Tesla P100" in reason and "QKERNEL_CUDA_ARCHS" in reason)
    assert not cuda_engine.runs_on((8, 0), ("86",)) and cuda_engine.runs_on((8, 9), ("86",))
    assert not cuda_engine.runs_on((9, 0), ("86",)) and cuda_engine.runs_on((9, 0), ("75-ptx",))


def test_images_elsewhere_and_larger_patches_are_refused(kernels, cuda_engine, monkeypatch):
    monkeypatch.setattr(cuda_engine, "_cuda", kernels)
    assert "cpu" in cuda_engine.refusal(torch.zeros(1, 1, 8, 8), Definition())
    x = torch.zeros(1, 1, 80, 80, device="meta")
    assert "meta" in cuda_engine.refusal(x, Definition())


def test_architectures_are_those_the_toolkit_knows_and_can_be_chosen(nvcc, monkeypatch):
    monkeypatch.delenv("QKERNEL_CUDA_ARCHS", raising=False)
    known = setup_cuda.known_architectures(nvcc)
    assert setup_cuda.architectures(nvcc) == [a for a in setup_cuda.ARCHITECTURES if a in known]
    for wish in ("89,8.0", "80 89", "8.9;8.0", "89,80,80"):
        monkeypatch.setenv("QKERNEL_CUDA_ARCHS", wish)
        assert setup_cuda.architectures(nvcc) == [80, 89]
    for wrong in ("sm_90", "12", "fast", "9.0a"):
        monkeypatch.setenv("QKERNEL_CUDA_ARCHS", wrong)
        with pytest.raises(setup_cuda.Unavailable, match="QKERNEL_CUDA_ARCHS"):
            setup_cuda.architectures(nvcc)


@pytest.mark.parametrize(
    ("wish", "must"), [("", False), ("native", False), (" None ", False), ("80", True), ("9.0,99", True)]
)
def test_what_is_asked_for_by_name_must_be_built(wish, must, monkeypatch):
    monkeypatch.setenv("QKERNEL_CUDA_ARCHS", wish)
    assert setup_cuda.must_be_built() == must
    if wish == " None ":
        with pytest.raises(setup_cuda.Unavailable, match="QKERNEL_CUDA_ARCHS is none"):
            setup_cuda.compile_objects(None, "", [])


@pytest.mark.skipif(sys.platform == "win32", reason="a script stands in for nvidia-smi")
@pytest.mark.parametrize(
    ("said", "chosen"),
    [("echo 9.0; echo 8.6; echo 9.0", [86, 90]), ("echo 8.8", [86]), ("echo 6.1", None), ("exit 9", None)],
)
def test_native_is_for_the_gpus_of_this_machine(said, chosen, tmp_path, monkeypatch):
    known = [75, 80, 86, 90]
    (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{said}\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("QKERNEL_CUDA_ARCHS", "native")
    monkeypatch.setattr(setup_cuda, "known_architectures", lambda nvcc: known)
    # Elsewhere, or for a GPU that the toolkit no longer knows, it is built as without the wish.
    assert setup_cuda.architectures(Path("nvcc")) == (chosen or known)


def test_ptx_is_made_once_for_all_that_share_it():
    command = setup_cuda.nvcc_command(Path("nvcc"), [75, 80, 89, 90, 120], Path("x.o"))
    assert "-gencode=arch=compute_75,code=[sm_75]" in command
    assert "-gencode=arch=compute_80,code=[sm_80,sm_89]" in command
    assert "-gencode=arch=compute_90,code=[sm_90,sm_120,compute_90]" in command
    assert setup_cuda.built_for([75, 80, 120]) == "75,80,120,90-ptx"
    assert setup_cuda.built_for([75]) == "75,75-ptx"


#: Stands in for nvcc: writes the object, and beside it what --keep leaves.
FAKE_NVCC = """#!/bin/sh
[ "$1" = --version ] && { echo "release 13.0, V13.0.1"; exit; }
[ -e "$0.fails" ] && { exit 1; }
echo compiled >> "$0.log"
while [ $# -gt 0 ]; do
    [ "$1" = -o ] && object=$2
    [ "$1" = --keep-dir ] && folder=$2
    shift
done
touch "$object" "$folder/engine.cpp4.ii"
for name in $PTX; do basename "$folder" > "$folder/$name"; done
"""


@pytest.mark.skipif(sys.platform == "win32", reason="scripts stand in for nvcc")
def test_kernels_are_compiled_once_for_the_same_sources_and_architectures(tmp_path, monkeypatch):
    nvcc, objects = tmp_path / "nvcc", tmp_path / "objects"
    nvcc.write_text(FAKE_NVCC)
    nvcc.chmod(0o755)
    monkeypatch.setattr(setup_cuda, "OBJECTS", objects)
    monkeypatch.setenv("PTX", "engine.compute_75.ptx engine.compute_90.ptx")
    both = setup_cuda.compile_kernels(nvcc, [75, 90])
    assert sorted(both.iterdir()) == [
        both / "compute_75.ptx",
        both / "compute_90.ptx",
        *setup_cuda.objects(both),
    ]
    # The PTX of all parts.
    assert sorted((both / "compute_90.ptx").read_text().split()) == ["part0", "part1", "part2", "part3"]
    assert setup_cuda.compile_kernels(nvcc, [75, 90]) == both
    assert (tmp_path / "nvcc.log").read_text() == "compiled\n" * setup_cuda.PARTS
    # However many at a time, and wherever nvcc is.
    monkeypatch.setenv("QKERNEL_NVCC_THREADS", "32")
    (tmp_path / "elsewhere").symlink_to(nvcc)
    assert setup_cuda.compile_kernels(tmp_path / "elsewhere", [75, 90]) == both
    monkeypatch.setenv("PTX", "engine.ptx")
    one = setup_cuda.compile_kernels(nvcc, [90])
    assert one != both and (one / "compute_90.ptx").is_file()
    (tmp_path / "nvcc.fails").touch()
    with pytest.raises(subprocess.CalledProcessError):
        setup_cuda.compile_kernels(nvcc, [86])
    assert sorted(objects.iterdir()) == sorted([one, both])
    (tmp_path / "nvcc.fails").unlink()
    for number in (80, 86, 89, 120):
        latest = setup_cuda.compile_kernels(nvcc, [number])
    assert latest.is_dir() and len(list(objects.iterdir())) == setup_cuda.KEPT and not both.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="scripts stand in for nvcc")
def test_a_missing_old_or_broken_nvcc_is_a_reason_and_not_a_failure(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    with pytest.raises(setup_cuda.Unavailable, match="no nvcc"):
        setup_cuda.find_nvcc()
    nvcc = tmp_path / "bin" / "nvcc"
    nvcc.parent.mkdir()
    for script, reason in (
        ("echo release 11.8, V11.8.89", "CUDA 11.8"),
        ("exit 1", "does not run"),
        ("", "no release"),
    ):
        nvcc.write_text(f"#!/bin/sh\n{script}\n")
        nvcc.chmod(0o755)
        with pytest.raises(setup_cuda.Unavailable, match=reason):
            setup_cuda.find_nvcc()
