"""What the CUDA kernels compile to: registers, spills, vector loads, instructions per pixel, loads under way.

Read from the object or the module by cuobjdump, the CUDA toolkit's or the one in Triton's wheel.
`python -m bench.cuda_inspect [file]` exits with 1 if a limit is broken.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

#: Pixels of a lane: a patch of 8 x 8, or a row of it.
PIXELS = {"Direct": 64, "Spread": 8}

#: (direct kernel, channels, backward, with the pixel term): instructions per pixel, of all its channels, that
#: float32 may take, and half.
INSTRUCTIONS = {
    ("central", 1, False, False): (16, 17),
    ("central", 1, False, True): (20, 22),
    ("central", 1, True, False): (34, 33),
    ("central", 1, True, True): (40, 41),
    ("central", 3, False, False): (20, 23),
    ("central", 3, False, True): (29, 37),
    ("central", 3, True, False): (43, 44),
    ("central", 3, True, True): (72, 79),
    ("sobel", 1, False, False): (11, 12),
    ("sobel", 1, False, True): (15, 17),
    ("sobel", 1, True, False): (30, 30),
    ("sobel", 1, True, True): (36, 38),
    ("sobel", 3, False, False): (15, 17),
    ("sobel", 3, False, True): (24, 32),
    ("sobel", 3, True, False): (39, 40),
    ("sobel", 3, True, True): (70, 75),
}

#: (channels, with the pixel term): the same of the gradient's kernels for few patches, whatever the operator.
FEW_INSTRUCTIONS = {(1, False): 105, (1, True): 115, (3, False): 165, (3, True): 190}

#: Bytes of loads that a thread must have under way at once, in float32 and in half precision: for its share
#: of the bandwidth a multiprocessor of an H200 needs some 25 KB in flight, and it has room for 8 to 16 warps.
#: The combining kernel, a single block, only waits for its loads; few patches do not fill a GPU.
UNDER_WAY = {"direct": (192, 64), "spread": (32, 16), "staged": (64, 64), "combine": (128, 128)}

#: Bytes of a load by the words in its name; 4 where there is none of these.
_WIDTHS = {"U8": 1, "S8": 1, "U16": 2, "S16": 2, "64": 8, "128": 16}

#: More where rounding to bfloat16 takes several instructions.
ROUNDING_BEFORE_SM_80 = 8

_MANGLED = re.compile(
    r"(?P<kernel>Direct|Spread|Staged|Loop|combine_kernel)I"
    r"(?:NS\w?_?\d(?P<gradient>Central|Sobel)ILi(?P<n>\d)EEE(?:Li\dE)?)?"
    r"(?P<scalar>NS\w?_?4HalfE|[fd])?"
    r"(?:Lb(?P<backward>[01])E)?(?:LNS\w?_?5PixelE(?P<pixel>\d)E)?(?:Li(?P<channels>\d)E)?"
)


@dataclass(frozen=True)
class Kernel:
    """One kernel for one architecture.

    ``instructions`` are those per pixel of the longest way without a rare case, None for kernels with loops;
    ``under_way`` the bytes of a thread's loads between their issue and their first use, where they are most.
    """

    architecture: int
    name: str
    key: tuple[str, int, bool, bool] | None
    half: bool
    registers: int
    stack: int
    local: int
    spilled: int
    vector_loads: int
    vector_stores: int
    instructions: float | None
    under_way: int

    @property
    def kind(self) -> str:
        """Of the design: direct, spread, staged, loop or combine."""
        return self.name.partition(" ")[0]


def find_cuobjdump() -> Path | None:
    """On PATH, or in Triton's wheel; None if there is none."""
    if found := shutil.which("cuobjdump"):
        return Path(found)
    spec = importlib.util.find_spec("triton")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder) / "backends" / "nvidia" / "bin" / "cuobjdump"
        if path.is_file():
            return path
    return None


def inspect(file: Path, cuobjdump: Path, only: int | None = None) -> list[Kernel]:
    """All kernels in an object file or a module, by architecture, or those for one architecture."""
    chosen = () if only is None else ("-arch", f"sm_{only}")
    resources: dict[tuple[int, str], dict[str, int]] = {}
    architecture, name = 0, ""
    for line in _run(cuobjdump, "--dump-resource-usage", *chosen, file).splitlines():
        if match := re.match(r"arch = sm_(\d+)", line):
            architecture = int(match[1])
        elif match := re.match(r"\s*Function (\S+):", line):
            name = match[1]
        elif "REG:" in line:
            resources[architecture, name] = {k: int(v) for k, v in re.findall(r"(\w+):(\d+)", line)}
    kernels = []
    listing = _run(cuobjdump, "--dump-sass", *chosen, file)
    # Plain words, for there are hundreds of megabytes.
    for section in listing.split("\narch = sm_")[1:]:
        architecture = int(re.match(r"\d+", section)[0])
        for function in section.split("\tFunction : ")[1:]:
            name = function.split("\n", 1)[0].strip()
            kernels.append(_kernel(architecture, name, function, resources[architecture, name]))
    if len(kernels) < len(resources):
        raise ValueError(f"{file}: {len(resources)} kernels, but the listing has {len(kernels)}")
    return kernels


def _run(*command: object) -> str:
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True).stdout


def _kernel(architecture: int, mangled: str, text: str, resources: dict[str, int]) -> Kernel:
    parts = _MANGLED.search(mangled)
    if parts is None:
        raise ValueError(f"not a kernel of this library: {mangled}")
    code = _instructions(text)
    operations = [operation for _, _, operation, _ in code]
    half = "Half" in (parts["scalar"] or "")
    key = None
    words = [parts["kernel"].removesuffix("_kernel").lower()]
    if parts["gradient"]:
        words += [parts["gradient"].lower(), parts["n"]]
    words.append({"f": "float32", "d": "float64", None: "any"}.get(parts["scalar"], "half"))
    if parts["backward"]:
        words.append("backward" if parts["backward"] == "1" else "forward")
    if parts["kernel"] in PIXELS:
        key = (
            parts["gradient"].lower(),
            int(parts["channels"]),
            parts["backward"] == "1",
            parts["pixel"] == "1",
        )
        words += ["l1"] * key[3] + ["RGB"] * (key[1] == 3)
    return Kernel(
        architecture,
        " ".join(words),
        key,
        half,
        resources["REG"],
        resources["STACK"],
        resources["LOCAL"],
        sum(re.match(r"(LDL|STL)\b", o) is not None for o in operations),
        sum(o.startswith("LDG") and ".128" in o for o in operations),
        sum(o.startswith("STG") and ".128" in o for o in operations),
        _longest_way(code) / PIXELS[parts["kernel"]] if key else None,
        _under_way(code),
    )


def _instructions(text: str) -> list[tuple[int, str, str, str]]:
    """(address, predicate, operation, operands) of each instruction."""
    pattern = r"/\*([0-9a-f]{4,})\*/\s+(?:(@!?U?P\w+)\s+)?([A-Z][A-Z0-9_.]*)([^;]*);"
    return [(int(a, 16), p, o, rest) for a, p, o, rest in re.findall(pattern, text)]


def _longest_way(code: list[tuple[int, str, str, str]]) -> int:
    """Instructions from the entry through the vector loads to the end, where it is longest.

    Not followed: branches back (the loops over pixels outside the patches), calls (division and roots of
    denormal and huge numbers) and what is executed by a warp that has come apart (BRA.DIV).
    """
    at = {address: i for i, (address, *_) in enumerate(code)}
    first_load = next(i for i, (_, _, o, _) in enumerate(code) if o.startswith("LDG") and ".128" in o)

    def ways(i: int) -> list[int]:
        _, predicate, operation, operands = code[i]
        out = []
        if operation.startswith(("EXIT", "RET")) and not predicate:
            return [len(code)]
        if operation == "BRA" or operation.startswith("BRA."):
            conditional = predicate or re.search(r"\bU?P\d", operands)
            target = at[int(re.findall(r"0x([0-9a-f]+)", operands)[-1], 16)]
            if ".DIV" not in operation and target > i:
                out.append(target)
            if not conditional and ".DIV" not in operation:
                return out
        if not operation.startswith("CALL"):
            out.append(i + 1)
        return out

    # Longest to the end from each instruction, and whether it ends at all.
    longest: list[int | None] = [None] * len(code) + [0]
    through: list[int | None] = [None] * (len(code) + 1)
    for i in range(len(code) - 1, -1, -1):
        cost = 0 if code[i][2] == "NOP" else 1
        ends = [longest[j] for j in ways(i) if longest[j] is not None]
        longest[i] = cost + max(ends) if ends else None
        ends = [through[j] for j in ways(i) if through[j] is not None]
        through[i] = longest[i] if i == first_load else cost + max(ends) if ends else None
    if through[0] is None:
        raise ValueError("no way leads from the kernel's entry through its loads to its end")
    return through[0]


def _under_way(code: list[tuple[int, str, str, str]]) -> int:
    """Bytes of the loads from memory that nothing has yet waited for, where they are most.

    In the order of the code, as if no branch were taken.
    """
    most = 0
    pending: dict[int, tuple[int, int]] = {}  # by register: the load's address and bytes
    for address, _, operation, operands in code:
        registers = [int(n) for n in re.findall(r"\bR(\d+)\b", operands)]
        writes = not operation.startswith(("ST", "RED")) and re.match(r"\s*R\d", operands)
        waited_for = {pending.get(register) for register in registers[1 if writes else 0 :]}
        pending = {register: load for register, load in pending.items() if load not in waited_for}
        if not writes:
            continue
        pending.pop(registers[0], None)
        if operation.startswith("LDG"):
            size = next((_WIDTHS[word] for word in operation.split(".") if word in _WIDTHS), 4)
            pending |= dict.fromkeys(range(registers[0], registers[0] + -(-size // 4)), (address, size))
            most = max(most, sum(size for _, size in set(pending.values())))
    return most


def violations(kernel: Kernel) -> list[str]:
    """Which limits a kernel breaks."""
    found = []
    if kernel.stack or kernel.local or kernel.spilled:
        found.append(f"spills: {kernel.stack} bytes of stack, {kernel.spilled} local-memory instructions")
    if kernel.key:
        _, channels, backward, pixel = kernel.key
        direct = kernel.kind == "direct"
        image = (8 if direct else 1) * (1 if kernel.half else 2) * channels
        if kernel.vector_loads < (loads := image * (1 + pixel)):
            found.append(f"{kernel.vector_loads} loads of 16 bytes, fewer than {loads}")
        if backward and kernel.vector_stores < image:
            found.append(f"{kernel.vector_stores} stores of 16 bytes")
        limit = INSTRUCTIONS[kernel.key][kernel.half] if direct else FEW_INSTRUCTIONS[channels, pixel]
        if direct and kernel.half and backward and kernel.architecture < 80:
            limit += ROUNDING_BEFORE_SM_80 * channels
        if kernel.instructions > limit:
            found.append(f"{kernel.instructions:.1f} instructions per pixel, more than {limit}")
    if kernel.kind in UNDER_WAY and kernel.under_way < (least := UNDER_WAY[kernel.kind][kernel.half]):
        found.append(f"{kernel.under_way} bytes of loads under way, fewer than {least}")
    return found


def table(kernels: list[Kernel]) -> str:
    """A line for each kernel: by architecture its registers, bytes under way, and instructions per pixel."""
    architectures = sorted({k.architecture for k in kernels})
    lines = [
        "registers / bytes of a thread's loads under way / instructions per pixel, of kernels without loops"
    ]
    lines += [" " * 40 + "".join(f"{f'sm_{a}':>18}" for a in architectures)]
    for name in dict.fromkeys(k.name for k in kernels):
        line = f"{name:40}"
        for a in architectures:
            (kernel,) = (k for k in kernels if k.name == name and k.architecture == a)
            count = f" / {kernel.instructions:.1f}" if kernel.instructions else ""
            line += f"{f'{kernel.registers} / {kernel.under_way}{count}':>18}"
        lines.append(line)
    return "\n".join(lines)


def built_module() -> Path | None:
    """qkernel._cuda, if it is built."""
    spec = importlib.util.find_spec("qkernel._cuda")
    return Path(spec.origin) if spec else None


def main() -> int:
    file = Path(sys.argv[1]) if len(sys.argv) > 1 else built_module()
    cuobjdump = find_cuobjdump()
    if file is None or cuobjdump is None:
        print("nothing inspected:", "qkernel._cuda is not built" if file is None else "there is no cuobjdump")
        return 0
    try:
        kernels = inspect(file, cuobjdump)
    except (subprocess.CalledProcessError, ValueError) as error:
        kernels = []
        print(getattr(error, "stderr", "").strip() or error)
    if not kernels:
        print(f"{file} is no object or module with kernels of the CUDA engine")
        return 1
    print(table(kernels))
    broken = [f"sm_{k.architecture} {k.name}: {problem}" for k in kernels for problem in violations(k)]
    print("\n".join(broken) or "no spills, no limit broken")
    return bool(broken)


if __name__ == "__main__":
    raise SystemExit(main())
