"""Runs a group of `checks` on the CPU: a program, since Triton reads TRITON_INTERPRET when it is imported.

`python -m tests.triton.run_checks GROUP`: under Triton's interpreter, which computes in numpy, one program
after the other. `python -m tests.triton.run_checks GROUP ARCHITECTURE`: on the PTX that the kernels are
compiled to for that architecture, see `bench.ptx`. Ends with 0 if the checks hold.
"""

from __future__ import annotations

import os
import sys


def interpreted(group: str) -> None:
    os.environ["TRITON_INTERPRET"] = "1"
    fill_memory()
    patch_once()
    from . import checks

    # Blocks of several warps cost the interpreter no more than blocks of one, and there are fewer of them.
    checks.launch.WARPS = ((0, 4, 4),)
    checks.GROUPS[group]()


def on_ptx(group: str, architecture: int) -> None:
    fill_memory()
    from bench.ptx.triton_driver import Driver
    from bench.traffic import OUTPUTS

    from . import checks

    with Driver(architecture, OUTPUTS).installed() as driver:
        if group in ("definitions", "halves"):
            # As for large images: programs of several warps.
            checks.launch.WARPS = ((0, 4, 2),)
        if group == "touched_once":
            checks.touched_once(driver)
        elif group == "general":
            checks.general(sizes=(8,))  # most of the time goes into compiling
        elif group == "any_input":
            checks.any_input(count=12)
        else:
            checks.GROUPS[group]()
        assert driver.record.launched


def fill_memory() -> None:
    """Fresh tensors are full of NaN, so that a result left unwritten shows."""
    import torch

    # torch.use_deterministic_algorithms would import the compiler, which takes two seconds.
    torch._C._set_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True


def patch_once() -> None:
    """The interpreter replaces what is in triton.language anew whenever a function calls another, which takes
    half of its time. Here that is done once for the functions of a file, for good."""
    from triton.runtime import interpreter

    patch, patched = interpreter._patch_lang, set()

    def once(function):
        if function.__module__ not in patched:
            patched.add(function.__module__)
            patch(function)
        return interpreter._LangPatchScope()  # of which nothing is to be undone

    interpreter._patch_lang = once


if __name__ == "__main__":
    if len(sys.argv) > 2:
        on_ptx(sys.argv[1], int(sys.argv[2]))
    else:
        interpreted(sys.argv[1])
