"""PTX text as data: kernels, their parameters and shared memory, and instructions with resolved labels.

The grammar is that of NVIDIA's "PTX ISA", chapters 4 and 5, as far as nvcc and Triton use it for kernels
without calls.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

#: Bytes of a value by its type.
SIZES = {
    **{f"{kind}{bits}": bits // 8 for kind in "bus" for bits in (8, 16, 32, 64)},
    "f16": 2,
    "bf16": 2,
    "f32": 4,
    "f64": 8,
    "f16x2": 4,
    "bf16x2": 4,
    "f32x2": 8,
    "pred": 1,
}


@dataclass(frozen=True)
class Register:
    name: str


@dataclass(frozen=True)
class Immediate:
    """``bits`` as they stand; an integer may be negative."""

    bits: int


@dataclass(frozen=True)
class Special:
    """%tid.x and the like."""

    name: str


@dataclass(frozen=True)
class Symbol:
    """A parameter, a shared array or a label."""

    name: str


@dataclass(frozen=True)
class Address:
    base: Register | Symbol | Immediate
    offset: int


@dataclass(frozen=True)
class Vector:
    parts: tuple


@dataclass(frozen=True)
class Instruction:
    """``guard`` is (register, value that lets it run); ``opcode`` the words between its dots."""

    guard: tuple[str, bool] | None
    opcode: tuple[str, ...]
    operands: tuple
    text: str


@dataclass
class Kernel:
    """Offsets and sizes in bytes; ``labels`` are indices into ``code``."""

    name: str
    parameters: list[tuple[str, int, int]] = field(default_factory=list)
    parameter_bytes: int = 0
    shared: dict[str, int] = field(default_factory=dict)
    shared_bytes: int = 0
    registers: dict[str, str] = field(default_factory=dict)
    labels: dict[str, int] = field(default_factory=dict)
    code: list[Instruction] = field(default_factory=list)

    @property
    def waits(self) -> bool:
        """Whether it waits for the kernel before, and so may be launched before that has ended."""
        return any(instruction.opcode == ("griddepcontrol", "wait") for instruction in self.code)


class Kernels(Mapping[str, Kernel]):
    """All kernels of a module, by their (mangled) names; each is read when it is first asked for."""

    def __init__(self, text: str) -> None:
        self._text = re.sub(r"//[^\n]*", "", text)
        self._entries = {
            match[1]: match for match in re.finditer(r"\.entry\s+([\w$]+)\s*\(([^)]*)\)[^{]*\{", self._text)
        }
        self._read: dict[str, Kernel] = {}

    def __getitem__(self, name: str) -> Kernel:
        if name not in self._read:
            self._read[name] = self._kernel(self._entries[name])
        return self._read[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    @functools.cached_property
    def _dynamic(self) -> list[tuple[str, str]]:
        """Shared memory whose size the launch gives; it comes after a kernel's own."""
        array = r"\.extern\s+\.shared\s+\.align\s+(\d+)\s+\.b8\s+([\w$]+)\s*\[\s*\]"
        return re.findall(array, self._text)

    def _kernel(self, entry: re.Match) -> Kernel:
        kernel = Kernel(entry[1])
        _parameters(kernel, entry[2])
        _body(kernel, self._text[entry.end() : _closing(self._text, entry.end())])
        for alignment, name in self._dynamic:
            kernel.shared[name] = _aligned(kernel.shared_bytes, int(alignment))
        return kernel


def _closing(text: str, start: int) -> int:
    """Where the brace that was opened before ``start`` closes."""
    depth = 1
    for match in re.compile(r"[{}]").finditer(text, start):
        depth += 1 if match[0] == "{" else -1
        if depth == 0:
            return match.start()
    raise ValueError("a kernel's body does not end")


def _aligned(size: int, alignment: int) -> int:
    return -(-size // alignment) * alignment


def _parameters(kernel: Kernel, text: str) -> None:
    for declaration in filter(None, map(str.strip, text.split(","))):
        kind = re.search(r"\.([busf]\d+)\b", declaration)[1]
        # ".ptr .align" is of what a pointer points to.
        own = re.search(r"\.param\s+\.align\s+(\d+)", declaration)
        name, count = re.search(r"([\w$]+)(?:\[(\d+)\])?$", declaration).groups()
        offset = _aligned(kernel.parameter_bytes, int(own[1]) if own else SIZES[kind])
        size = SIZES[kind] * int(count or 1)
        kernel.parameters.append((name, offset, size))
        kernel.parameter_bytes = offset + size


def _body(kernel: Kernel, text: str) -> None:
    # Directives for debuggers and the assembler end with their line, not with a semicolon.
    text = re.sub(r"^\s*\.(loc|pragma|file)\b[^\n]*$", "", text, flags=re.MULTILINE)
    for statement in _statements(text):
        while match := re.match(r"([$\w]+):\s*", statement):
            kernel.labels[match[1]] = len(kernel.code)
            statement = statement[match.end() :]
        if not statement:
            continue
        if match := re.match(r"\.reg\s+\.(\w+)\s+(.*)", statement):
            for name in map(str.strip, match[2].split(",")):
                _registers(kernel, match[1], name)
        elif match := re.match(r"\.shared\s+\.align\s+(\d+)\s+\.(\w+)\s+([\w$]+)\[(\d+)\]", statement):
            kernel.shared[match[3]] = _aligned(kernel.shared_bytes, int(match[1]))
            kernel.shared_bytes = kernel.shared[match[3]] + SIZES[match[2]] * int(match[4])
        elif statement.startswith("."):
            raise ValueError(f"{kernel.name}: not understood: {statement!r}")
        else:
            kernel.code.append(_instruction(statement))


def _statements(text: str) -> list[str]:
    """The parts between semicolons; braces that only open a scope of names are dropped, those of vectors
    stay."""
    statements = []
    for part in text.split(";"):
        part = " ".join(part.split())
        while match := re.match(r"((?:[$\w]+:\s*)*)[{}]\s*", part):
            part = match[1] + part[match.end() :]
        statements.append(part)
    return statements


def _registers(kernel: Kernel, kind: str, name: str) -> None:
    if match := re.fullmatch(r"(%[\w$]+)<(\d+)>", name):
        kernel.registers |= {f"{match[1]}{i}": kind for i in range(int(match[2]))}
    else:
        kernel.registers[name] = kind


def _instruction(text: str) -> Instruction:
    match = re.fullmatch(r"(?:@(!?)(%?[\w$]+)\s+)?([\w.:]+)\s*(.*)", text)
    if match is None:
        raise ValueError(f"not understood: {text!r}")
    guard = (match[2], not match[1]) if match[2] else None
    opcode = tuple(match[3].replace("::", "_").split("."))
    parts = re.findall(r"\{[^}]*\}|\[[^\]]*\]|[^,\s][^,]*", match[4])
    return Instruction(guard, opcode, tuple(map(_operand, parts)), text)


@functools.lru_cache(1 << 16)
def _operand(text: str):
    text = text.strip()
    if text.startswith("{"):
        return Vector(tuple(_operand(part) for part in text[1:-1].split(",")))
    if text.startswith("["):
        base, _, offset = text[1:-1].partition("+")
        return Address(_operand(base), int(offset or "0", 0))
    if match := re.fullmatch(r"0[fFdD]([0-9a-fA-F]+)", text):
        return Immediate(int(match[1], 16))
    if re.fullmatch(r"-?(0[xX][0-9a-fA-F]+|\d+)U?", text):
        return Immediate(int(text.rstrip("U"), 0))
    if re.fullmatch(r"%(tid|ntid|ctaid|nctaid)\.[xyz]|%laneid", text):
        return Special(text[1:])
    if "|" in text:
        return Vector(tuple(_operand(part) for part in text.split("|")))
    return Register(text) if text.startswith("%") else Symbol(text)
