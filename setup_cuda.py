"""The CUDA side of the build: finds nvcc, picks the architectures, compiles csrc/cuda/. Needs no torch."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).parent

#: What nvcc made, a folder for each set of sources and architectures. pip builds in a folder that it deletes,
#: and would compile all of it again at every change to anything else.
OBJECTS = ROOT / "build" / "cuda"
#: So many folders are kept, the latest.
KEPT = 4
SUFFIX = ".obj" if sys.platform == "win32" else ".o"
#: engine.cu is compiled so many times, each for a part of the kernels, side by side: a single compilation
#: makes PTX on a single processor, and that takes most of the time.
PARTS = 4

#: RTX and data-centre GPUs, by compute capability: Turing, Ampere, Ada, Hopper, Blackwell.
ARCHITECTURES = (75, 80, 86, 89, 90, 100, 120)
OLDEST_TOOLKIT = 12

# No multiplication and addition is fused but where the code says so, on the GPU as on the host; no fast-math.
FLAGS = ["-std=c++17", "-O3", "-fmad=false"]


#: The libraries that the kernels' host code needs; on Windows the first alone.
LINKED = ["cudart_static", "dl", "pthread", "rt"]


class Unavailable(Exception):
    """Why the CUDA engine cannot be built here."""


def wish() -> str:
    """What QKERNEL_CUDA_ARCHS asks for: "" for nothing in particular, "native", "none", or architectures."""
    return os.environ.get("QKERNEL_CUDA_ARCHS", "").strip().lower()


def must_be_built() -> bool:
    """Whether architectures were asked for by name: then an installation without them is a failure."""
    return wish() not in ("", "native", "none")


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

    QKERNEL_CUDA_ARCHS overrides it: numbers like 86 or 8.6, separated by commas, spaces or semicolons; or
    "native", for the GPUs of this machine, where there are any; or "none", which leaves the engine out.

    Raises:
        Unavailable: for something that is no architecture, or one that this toolkit does not know.
    """
    known = known_architectures(nvcc)
    if not (wished := wish()):
        return [a for a in ARCHITECTURES if a in known]
    if wished == "native":
        # What is compiled for one GPU runs on a newer one of the same kind; on any other there is the PTX.
        nearest = {max((a for a in known if a <= gpu), default=None) for gpu in gpus()} - {None}
        return sorted(nearest) or [a for a in ARCHITECTURES if a in known]
    wanted = []
    for name in re.split(r"[\s,;]+", wished):
        number = int(name.replace(".", "")) if re.fullmatch(r"\d+\.\d|\d{2,3}", name) else None
        if number not in known:
            raise Unavailable(
                f"QKERNEL_CUDA_ARCHS has {name!r}, and {nvcc} knows {', '.join(map(str, known))}"
            )
        wanted.append(number)
    return sorted(set(wanted))


def gpus() -> list[int]:
    """Compute capabilities, times 10, of the GPUs that the driver lists; none without a driver."""
    try:
        listed = _run(["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"])
    except Unavailable:
        return []
    return [int(major) * 10 + int(minor) for major, minor in re.findall(r"^\s*(\d+)\.(\d)\s*$", listed, re.M)]


def virtual(number: int) -> int:
    """The architecture whose PTX machine code is made from.

    The kernels use what 8.0 has, and from 9.0 on that a kernel is launched before the last one has ended. So
    PTX, whose making takes most of the time, is made once for all architectures that share it; and, kept in
    the object, it serves every later GPU, not only those after the newest.
    """
    return 90 if number >= 90 else min(number, 80)


def built_for(numbers: list[int]) -> str:
    """The same as the module tells it: "75,80,90,90-ptx"."""
    return ",".join([*map(str, numbers), f"{virtual(max(numbers))}-ptx"])


def processes() -> int:
    """How many compilations run at a time: QKERNEL_NVCC_THREADS, or as many as there are processors."""
    asked = os.environ.get("QKERNEL_NVCC_THREADS", "").strip()
    return int(asked) if asked.isdecimal() and int(asked) else os.cpu_count() or 1


def parallel(commands: int) -> list[str]:
    """nvcc's option for the architectures of one of so many commands that run at a time."""
    return ["--threads", str(max(1, processes() // commands))]


def nvcc_command(
    nvcc: Path, numbers: list[int], output: Path, root: Path = ROOT, part: int | None = None
) -> list[str]:
    """The compilation of csrc/cuda/engine.cu, of this folder or another, or a part of it, to an object."""
    codes = []
    for base in sorted({virtual(a) for a in numbers}):
        real = [f"sm_{a}" for a in numbers if virtual(a) == base]
        kept = [f"compute_{base}"] if base == virtual(max(numbers)) else []
        codes.append(f"-gencode=arch=compute_{base},code=[{','.join([*real, *kept])}]")
    host = ["-Xcompiler", "/MD"] if sys.platform == "win32" else ["-Xcompiler", "-fPIC,-fvisibility=hidden"]
    if os.environ.get("CXX") and sys.platform != "win32":
        host += ["-ccbin", os.environ["CXX"].split()[0]]
    of_part = [] if part is None else [f"-DQKERNEL_PART={part}"]
    threads = parallel(1 if part is None else PARTS)
    source = root / "csrc" / "cuda" / "engine.cu"
    return [str(nvcc), *FLAGS, *codes, *of_part, *threads, *host, "-c", str(source), "-o", str(output)]


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


def objects(folder: Path) -> list[Path]:
    """The object files in what `compile_kernels` returns."""
    return [folder / f"engine{part}{SUFFIX}" for part in range(PARTS)]


def compile_kernels(nvcc: Path, numbers: list[int]) -> Path:
    """Compiles csrc/cuda/engine.cu for these architectures, unless that was done before.

    Returns:
        The folder with the `objects`, and with the PTX that this very compilation made, ``compute_80.ptx``
        and so on, all parts' one after the other: the names of the kernels belong to it.

    Raises:
        subprocess.CalledProcessError: if nvcc fails; its output is on stderr.
    """
    kernels = ROOT / "csrc" / "cuda"
    sources = [kernels / "engine.cu", *sorted(kernels.glob("*.h")), ROOT / "csrc" / "patch.h"]
    # Where nvcc and the checkout are, and how many are compiled at a time, changes nothing in them.
    command = nvcc_command(nvcc, numbers, Path("engine"), Path(), part=PARTS)[1:]
    of_command = [word for word in command if word not in parallel(PARTS)]
    toolkit = [_run([nvcc, "--version"])]
    toolkit += [os.environ.get(name, "") for name in ("NVCC_PREPEND_FLAGS", "NVCC_APPEND_FLAGS")]
    contents = [path.read_text(encoding="utf-8") for path in sources]
    made_from = "\n".join([*toolkit, *of_command, *contents])
    done = OBJECTS / hashlib.sha256(made_from.encode()).hexdigest()[:16]
    if done.is_dir():
        with suppress(OSError):  # of another user
            os.utime(done)
        return done
    print("compiling the CUDA engine for", built_for(numbers), flush=True)
    OBJECTS.mkdir(parents=True, exist_ok=True)
    # Under another name first: another process may be compiling the same.
    partial = Path(tempfile.mkdtemp(dir=OBJECTS, prefix="partial-"))
    try:
        _compile_parts(nvcc, numbers, partial)
        partial.chmod(0o755)
        partial.replace(done)
    except OSError:
        if not done.is_dir():  # the other process was first
            raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    with suppress(OSError):  # another process may be tidying up too
        for old in sorted(OBJECTS.iterdir(), key=lambda path: path.stat().st_mtime)[:-KEPT]:
            shutil.rmtree(old, ignore_errors=True)
    return done


def _compile_parts(nvcc: Path, numbers: list[int], folder: Path) -> None:
    def compile_part(part: int) -> Path:
        kept = folder / f"part{part}"
        kept.mkdir()
        command = nvcc_command(nvcc, numbers, objects(folder)[part], part=part)
        subprocess.run([*command, "--keep", "--keep-dir", str(kept)], check=True)
        return kept

    with ThreadPoolExecutor(min(PARTS, processes())) as pool:
        # The last one takes longest, the first comes next.
        parts = list(pool.map(compile_part, (PARTS - 1, *range(PARTS - 1))))
    modules: dict[str, list[str]] = {}
    for kept in parts:
        for path in sorted(kept.glob("*.ptx")):
            # nvcc names the architecture where there are several.
            named = re.search(r"compute_\d+", path.name)
            name = f"{named[0] if named else f'compute_{virtual(numbers[0])}'}.ptx"
            modules.setdefault(name, []).append(path.read_text(encoding="utf-8"))
        shutil.rmtree(kept)
    for name, texts in modules.items():
        (folder / name).write_text("\n".join(texts), encoding="utf-8")


def compile_objects(
    compiler, build_temp: str | Path, include_dirs: list[str]
) -> tuple[list[str], dict[str, object]]:
    """Compiles the CUDA engine; what is left is to link ``qkernel._cuda``.

    Args:
        compiler: setuptools' C++ compiler, for the bindings.
        build_temp: folder for the bindings' object.
        include_dirs: pybind11's and Python's.

    Returns:
        Object files, and the keyword arguments of ``compiler.link_shared_object`` that they need.

    Raises:
        Unavailable: with the reason, where there is no usable nvcc, or it is not wanted.
        subprocess.CalledProcessError: if nvcc fails; its output is on stderr.
    """
    if wish() == "none":
        raise Unavailable("QKERNEL_CUDA_ARCHS is none")
    nvcc = find_nvcc()
    numbers = architectures(nvcc)
    folder = libraries(nvcc)
    kernels = objects(compile_kernels(nvcc, numbers))
    msvc = getattr(compiler, "compiler_type", "") == "msvc"
    flags = ["/std:c++17", "/O2", "/EHsc"]
    if not msvc:
        # The unknown pragmas are nvcc's.
        flags = ["-std=c++17", "-O2", "-g0", "-fvisibility=hidden", "-Wall", "-Wno-unknown-pragmas"]
    bindings = compiler.compile(
        [os.path.relpath(ROOT / "csrc" / "cuda" / "bindings.cpp")],
        output_dir=str(build_temp),
        macros=[("QKERNEL_CUDA_ARCHITECTURES", f'"{built_for(numbers)}"')],
        include_dirs=list(include_dirs),
        extra_postargs=flags,
    )
    return [*bindings, *map(str, kernels)], {
        "libraries": LINKED[:1] if msvc else LINKED,
        "library_dirs": [str(folder)],
        "target_lang": "c++",
    }


def _run(command: list, both: bool = False) -> str:
    try:
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=not both)
    except (OSError, subprocess.CalledProcessError) as error:
        raise Unavailable(f"{command[0]} does not run: {error}") from error
    return done.stdout + (done.stderr if both else "")
