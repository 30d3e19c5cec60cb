"""The CUDA side of the build: finds nvcc, picks the architectures, compiles csrc/cuda/. Needs no torch."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent

#: RTX and data-centre GPUs, by compute capability: Turing, Ampere, Ada, Hopper, Blackwell.
ARCHITECTURES = (75, 80, 86, 89, 90, 100, 120)
OLDEST_TOOLKIT = 12

# No multiplication and addition is fused but where the code says so, on the GPU as on the host; no fast-math.
FLAGS = ["-std=c++17", "-O3", "-fmad=false"]


class Unavailable(Exception):
    """Why the CUDA engine cannot be built here."""


def find_nvcc() -> Path:
    """nvcc of the toolkit that CUDA_HOME or CUDA_PATH names, else that on PATH, else in /usr/local/cuda.

    Raises:
        Unavailable: if there is none, or it is too old.
    """
    suffix = ".exe" if sys.platform == "win32" else ""
    homes = [os.environ[name] for name in ("CUDA_HOME", "CUDA_PATH") if os.environ.get(name)]
    places = [Path(home) / "bin" / f"nvcc{suffix}" for home in homes]
    if not homes:
        if on_path := shutil.which("nvcc"):
            places.append(Path(on_path))
        places.append(Path("/usr/local/cuda/bin/nvcc"))
    for place in places:
        if place.is_file():
            if (version := toolkit_version(place)) < (OLDEST_TOOLKIT, 0):
                raise Unavailable(
                    f"{place} is of CUDA {version[0]}.{version[1]}, and {OLDEST_TOOLKIT} is needed"
                )
            return place
    raise Unavailable(f"no nvcc: {', '.join(map(str, places)) or 'PATH'} has none")


def toolkit_version(nvcc: Path) -> tuple[int, int]:
    out = _run([nvcc, "--version"])
    if not (match := re.search(r"release (\d+)\.(\d+)", out)):
        raise Unavailable(f"{nvcc} --version says no release: {out!r}")
    return int(match[1]), int(match[2])


def known_architectures(nvcc: Path) -> list[int]:
    """Compute capabilities, times 10, that the toolkit compiles for."""
    return sorted({int(n) for n in re.findall(r"compute_(\d+)\b", _run([nvcc, "--list-gpu-arch"]))})


def architectures(nvcc: Path) -> list[int]:
    """What to build machine code for.

    QKERNEL_CUDA_ARCHS overrides it: numbers like 86 or 8.6, separated by commas, spaces or semicolons.

    Raises:
        Unavailable: for something that is no architecture, or one that this toolkit does not know.
    """
    known = known_architectures(nvcc)
    if not (wish := os.environ.get("QKERNEL_CUDA_ARCHS", "").strip()):
        return [a for a in ARCHITECTURES if a in known]
    wanted = []
    for name in re.split(r"[\s,;]+", wish):
        number = int(name.replace(".", "")) if re.fullmatch(r"\d+\.\d|\d{2,3}", name) else None
        if number not in known:
            raise Unavailable(
                f"QKERNEL_CUDA_ARCHS has {name!r}, and {nvcc} knows {', '.join(map(str, known))}"
            )
        wanted.append(number)
    return sorted(set(wanted))


def virtual(number: int) -> int:
    """The architecture whose PTX machine code is made from.

    Nothing in the kernels depends on more than 8.0 has. So PTX, whose making takes most of the time, is made
    once for all of these; and, kept in the object, it serves every later GPU, not only those after the
    newest.
    """
    return min(number, 80)


def built_for(numbers: list[int]) -> str:
    """The same as the module tells it: "75,80,86,80-ptx"."""
    return ",".join([*map(str, numbers), f"{virtual(max(numbers))}-ptx"])


def nvcc_command(nvcc: Path, numbers: list[int], output: Path) -> list[str]:
    """The compilation of csrc/cuda/engine.cu to an object file."""
    codes = []
    for base in sorted({virtual(a) for a in numbers}):
        real = [f"sm_{a}" for a in numbers if virtual(a) == base]
        kept = [f"compute_{base}"] if base == virtual(max(numbers)) else []
        codes.append(f"-gencode=arch=compute_{base},code=[{','.join([*real, *kept])}]")
    host = ["-Xcompiler", "/MD"] if sys.platform == "win32" else ["-Xcompiler", "-fPIC,-fvisibility=hidden"]
    if os.environ.get("CXX") and sys.platform != "win32":
        host += ["-ccbin", os.environ["CXX"].split()[0]]
    # One compilation for each architecture, as many at a time as there are processors (0).
    parallel = ["--threads", os.environ.get("QKERNEL_NVCC_THREADS", "0")]
    source = ROOT / "csrc" / "cuda" / "engine.cu"
    return [str(nvcc), *FLAGS, *codes, *parallel, *host, "-c", str(source), "-o", str(output)]


def toolkit_root(nvcc: Path) -> Path:
    """The folder with include/ and lib/: nvcc may be a script that stands elsewhere."""
    for line in _run([nvcc, "--dryrun", "-x", "cu", "-c", os.devnull], both=True).splitlines():
        if match := re.match(r"#\$ TOP=(.+)", line):
            return Path(match[1].strip()).resolve()
    return nvcc.resolve().parent.parent


def libraries(nvcc: Path) -> Path:
    """The folder of the static CUDA runtime.

    Raises:
        Unavailable: if the toolkit has none.
    """
    root = toolkit_root(nvcc)
    name = "cudart_static.lib" if sys.platform == "win32" else "libcudart_static.a"
    for folder in ("lib64", "lib", "lib/x64", "targets/x86_64-linux/lib", "targets/sbsa-linux/lib"):
        if (root / folder / name).is_file():
            return root / folder
    raise Unavailable(f"{root} has no {name}")


def compile_objects(
    compiler, build_temp: str | Path, include_dirs: list[str]
) -> tuple[list[str], dict[str, object]]:
    """Compiles the CUDA engine; what is left is to link ``qkernel._cuda``.

    Args:
        compiler: setuptools' C++ compiler, for the bindings.
        build_temp: folder for objects.
        include_dirs: pybind11's and Python's.

    Returns:
        Object files, and the keyword arguments of ``compiler.link_shared_object`` that they need.

    Raises:
        Unavailable: with the reason, where there is no usable nvcc.
        subprocess.CalledProcessError: if nvcc fails; its output is on stderr.
    """
    nvcc = find_nvcc()
    numbers = architectures(nvcc)
    folder = libraries(nvcc)
    build_temp = Path(build_temp)
    build_temp.mkdir(parents=True, exist_ok=True)
    kernels = build_temp / ("cuda_engine.obj" if sys.platform == "win32" else "cuda_engine.o")
    # An object is kept as long as it was made by the same command from the same files.
    command = nvcc_command(nvcc, numbers, kernels)
    stamp = kernels.with_suffix(".stamp")
    version = ".".join(map(str, toolkit_version(nvcc)))
    fingerprint = "\n".join(
        [version, *command, *(p.read_text() for p in sorted((ROOT / "csrc").glob("cuda/*")))]
    )
    fingerprint += (ROOT / "csrc" / "patch.h").read_text()
    if not (kernels.is_file() and stamp.is_file() and stamp.read_text() == fingerprint):
        print("compiling the CUDA engine for", built_for(numbers), flush=True)
        subprocess.run(command, check=True)
        stamp.write_text(fingerprint)
    msvc = getattr(compiler, "compiler_type", "") == "msvc"
    flags = ["/std:c++17", "/O2", "/EHsc"] if msvc else ["-std=c++17", "-O2", "-fvisibility=hidden", "-Wall"]
    if not msvc:
        flags.append("-Wno-unknown-pragmas")  # those of nvcc
    bindings = compiler.compile(
        [os.path.relpath(ROOT / "csrc" / "cuda" / "bindings.cpp")],
        output_dir=str(build_temp),
        macros=[("QKERNEL_CUDA_ARCHITECTURES", f'"{built_for(numbers)}"')],
        include_dirs=list(include_dirs),
        extra_postargs=flags,
    )
    names = ["cudart_static"] if msvc else ["cudart_static", "dl", "pthread", "rt"]
    return [*bindings, str(kernels)], {
        "libraries": names,
        "library_dirs": [str(folder)],
        "target_lang": "c++",
    }


def _run(command: list, both: bool = False) -> str:
    try:
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=not both)
    except (OSError, subprocess.CalledProcessError) as error:
        raise Unavailable(f"{command[0]} does not run: {error}") from error
    return done.stdout + (done.stderr if both else "")
