"""Builds the compiled engines. Needs setuptools and pybind11, not torch; a missing compiler is no error."""

import os
import platform
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pybind11
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

# An isolated build does not look for modules beside this file by itself.
sys.path.insert(0, str(Path(__file__).resolve().parent))

import setup_cuda

X86 = platform.machine().lower() in ("x86_64", "amd64") and sys.platform != "win32"

#: Sources compiled for an instruction set that is chosen at run time.
FLAGS_OF = {
    "csrc/cpu/avx2.cpp": ["-mavx2", "-mfma", "-mf16c"],
    "csrc/cpu/avx512.cpp": [
        *("-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl"),
        *("-mavx2", "-mfma", "-mf16c"),
    ],
}
SOURCES = [
    "csrc/bindings.cpp",
    *(f"csrc/cpu/{name}.cpp" for name in ("engine", "pages", "parallel", "portable")),
]

# Contraction is off so that value and gradient, compiled apart, decide alike which patches count; the kernels
# ask for fused multiply-adds where they want them. No -march=native: a wheel must run elsewhere.
# Python's own flags ask for debug information, which is ten times the code.
FLAGS = ["-std=c++17", "-O3", "-g0", "-fvisibility=hidden", "-ffp-contract=off", "-Wall"]
# GCC takes its own _mm512_undefined_ps() for a mistake.
FLAGS += ["-Wno-uninitialized", "-Wno-maybe-uninitialized"]
FLAGS_MSVC = ["/std:c++17", "/O2", "/EHsc", "/fp:precise"]


class BuildEngines(build_ext):
    """Compiles each source with its own flags, several at a time; goes on without what cannot be built."""

    def finalize_options(self) -> None:
        super().finalize_options()
        # The engines side by side as well; how many processes CUDA's takes says QKERNEL_NVCC_THREADS.
        self.parallel = self.parallel or os.cpu_count()

    def build_extension(self, ext: Extension) -> None:
        if ext.name == "qkernel._cuda":
            self._build_cuda(ext)
        else:
            self._build_cpp(ext)

    def _build_cuda(self, ext: Extension) -> None:
        try:
            includes = [pybind11.get_include(), *self.include_dirs]
            objects, link = setup_cuda.compile_objects(self.compiler, self.build_temp, includes)
            path = self.get_ext_fullpath(ext.name)
            self.compiler.link_shared_object(objects, path, build_temp=self.build_temp, **link)
        except Exception as error:
            if setup_cuda.must_be_built():
                # Whoever names architectures would look for them later in vain.
                raise SystemExit(
                    f"error: qkernel's CUDA engine cannot be built: {error} (QKERNEL_CUDA_ARCHS asks for it; "
                    "unset, the engine is built where it can be, and QKERNEL_CUDA_ARCHS=none leaves it out)"
                ) from error
            if isinstance(error, setup_cuda.Unavailable):
                print(f"qkernel's CUDA engine is left out: {error}", file=sys.stderr)
            else:
                print(f"warning: qkernel's CUDA engine was not built ({error})", file=sys.stderr)

    def _build_cpp(self, ext: Extension) -> None:
        try:
            self._build(ext)
        except Exception as error:
            # A user without a compiler still gets a working, slower library, and is told so.
            print(
                f"warning: qkernel's C++ engine was not built ({error}).\n"
                "         Q will run in plain torch on the CPU. For the fast engine, install a C++17\n"
                "         compiler (Debian, Ubuntu: apt install g++; macOS: xcode-select --install;\n"
                "         Windows: Visual Studio Build Tools) and install again.",
                file=sys.stderr,
            )

    def _build(self, ext: Extension) -> None:
        msvc = self.compiler.compiler_type == "msvc"
        common = FLAGS_MSVC if msvc else FLAGS
        macros = [("QKERNEL_X86", None)] if X86 else []

        def compile_one(source: str) -> list[str]:
            return self.compiler.compile(
                [source],
                output_dir=self.build_temp,
                macros=macros,
                include_dirs=ext.include_dirs,
                extra_postargs=[*common, *FLAGS_OF.get(source, [])],
                depends=ext.depends,
            )

        with ThreadPoolExecutor(max_workers=max(1, self.parallel - 1)) as pool:
            objects = [path for paths in pool.map(compile_one, ext.sources) for path in paths]
        self.compiler.link_shared_object(
            objects,
            self.get_ext_fullpath(ext.name),
            libraries=[] if msvc else ["dl", "pthread"] if sys.platform == "linux" else [],
            build_temp=self.build_temp,
            target_lang="c++",
        )

    def get_outputs(self) -> list[str]:
        return [path for path in super().get_outputs() if Path(path).exists()]


setup(
    ext_modules=[
        Extension(
            "qkernel._C",
            sources=[*SOURCES, *(FLAGS_OF if X86 else [])],
            include_dirs=[pybind11.get_include()],
            language="c++",
            # Without it setuptools fails where it copies into the checkout what it then finds missing.
            optional=True,
        ),
        Extension("qkernel._cuda", sources=[], language="c++", optional=True),
    ],
    cmdclass={"build_ext": BuildEngines},
)
