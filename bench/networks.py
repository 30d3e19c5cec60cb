"""What the networks cost: parameters, arithmetic, milliseconds and memory, beside the published figures."""

from __future__ import annotations

import argparse
import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from model.device import choose_device
from model.errors import UserError
from model.networks import NETWORKS, build_network, parameter_count

from . import record, tables, timing
from .content import pictures
from .memory import peak_extra

SIZES = ("128x128", "1280x720")
DTYPES = ("float32", "bfloat16")
#: Rounds in which each network runs at least once, after one that is not counted.
LEAST, MOST = 2, 50


@dataclass(frozen=True)
class Published:
    """What has been published of a network. ``gmac`` is 1e9 multiply-adds at ``width`` x ``height``."""

    channels: int
    parameters: int
    gmac: float | None
    width: int
    height: int
    source: str


#: Parameters and multiply-adds of the public definitions (the convolutions of which were counted layer by
#: layer), beside what the papers say where they say it.
PUBLISHED = {
    "unet": Published(1, 4_891_216, None, 128, 128, "paper: 4.9 M"),
    "xydeblur": Published(3, 4_918_627, 965.9, 1280, 720, "public code"),
    "restormer": Published(3, 26_126_644, 140.99, 256, 256, "paper: 26.1 M, 140.99 G"),
    "ddnet": Published(1, 2_938_330, 4.63, 128, 128, "public code"),
    "ifan": Published(3, 10_476_996, 362.9, 1280, 720, "paper: 10.48 M, 362.9 G"),
}

#: Milliseconds for a 128 x 128 crop in tables II and III of the MMSP 2024 paper, on its authors' machine.
PAPER_MS = {"unet": (52, 40), "xydeblur": (19, 12), "ddnet": (19, None), "ifan": (None, 22)}
PAPER_MS["restormer"] = (None, 66)


@dataclass(frozen=True)
class Cost:
    """One row: a network at one size and precision, restoring one image without a graph.

    ``gmac`` is half of what torch's counter says for this size, in 1e9; it leaves out Fourier transforms,
    adaptive filters and activations. ``peak_bytes`` is what torch's allocator hands out at most, beyond
    weights and image.
    """

    network: str
    channels: int
    knows_blur: bool
    dtype: str
    h: int
    w: int
    parameters: int
    gmac: float
    ms_p20: float | None = None
    ms_p50: float | None = None
    ms_p80: float | None = None
    rounds: int = 0
    peak_bytes: int | None = None
    others: float | None = None
    note: str = ""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--networks", nargs="+", default=list(PUBLISHED), metavar="NAME")
    parser.add_argument("--sizes", nargs="+", default=list(SIZES), metavar="WxH", help="e.g. 1280x720")
    parser.add_argument("--dtypes", nargs="+", default=list(DTYPES), choices=DTYPES, help="precision")
    parser.add_argument("--channels", type=int, default=1, choices=(1, 3), help="1: luma (default), 3: RGB")
    parser.add_argument("--device", default="auto", help="cpu, cuda or auto (default)")
    parser.add_argument("--seconds", type=float, default=30.0, help="time for each size and precision")
    parser.add_argument("--out", type=Path, help="folder (default: bench/results, of a part runs/bench)")


def run(options: argparse.Namespace) -> int:
    """Measure, and write CSV and Markdown."""
    for name in options.networks:
        if name not in NETWORKS:
            raise UserError(f"no network is called {name!r}; known: {', '.join(NETWORKS)}")
    if not options.seconds > 0:
        raise UserError(f"--seconds must be positive, not {options.seconds}")
    sizes = [_size(text) for text in options.sizes]
    device = choose_device(options.device).type
    whole = (set(options.networks), set(options.sizes), set(options.dtypes), options.channels) == (
        set(PUBLISHED),
        set(SIZES),
        set(DTYPES),
        1,
    )
    folder = options.out or (record.RESULTS if whole else record.SCRATCH)
    machine, others = record.machine(device), record.Others()
    networks = {name: _network(name, options.channels, device) for name in options.networks}
    rows: list[Cost] = []
    for height, width in sizes:
        for dtype in options.dtypes:
            others.share()
            found = measure(networks, device, (height, width), dtype, options.seconds)
            busy = others.share()
            rows += [replace(row, others=busy) for row in found]
            # After each cell: whoever interrupts a long run keeps what was measured.
            record.write(folder / f"networks_{device}.csv", rows, machine)
            (folder / f"networks_{device}.md").write_text(report(rows, machine))
    print(report(rows, machine))
    print(f"Written: {folder}/networks_{device}.csv and .md")
    return 0


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    if not (width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise UserError(f"a size is WIDTHxHEIGHT in pixels, such as {SIZES[1]}; got {text!r}")
    return int(height), int(width)


def _network(name: str, channels: int, device: str) -> nn.Module:
    own = {"channels": channels} if channels != 1 else {}
    if name == "unet" and channels != 1:
        raise UserError("the U-Net takes luma alone: leave it out with --networks, or give --channels 1")
    torch.manual_seed(0)
    network = build_network(name, own).to(device, memory_format=torch.channels_last)
    return network.eval().requires_grad_(False)


def measure(
    networks: dict[str, nn.Module], device: str, size: tuple[int, int], dtype: str, seconds: float
) -> list[Cost]:
    """All networks at one size (height, width) and precision, timed in interleaved rounds."""
    height, width = size
    rows, steps = [], []
    for name, network in networks.items():
        channels = getattr(network, "channels", 1)
        blurred, _ = pictures((1, channels, height, width), "blurred")
        image = blurred.float().to(device, memory_format=torch.channels_last)
        step = _step(network, image, dtype)
        row = Cost(
            network=name,
            channels=channels,
            knows_blur=getattr(network, "knows_blur", False),
            dtype=dtype,
            h=height,
            w=width,
            # Frozen here, so that all of them count.
            parameters=sum(p.numel() for p in network.parameters()),
            gmac=multiply_adds(name, channels, height, width)[0],
        )
        try:
            # Also the first call, which chooses kernels.
            peak = peak_extra(step, device, behind_torch=False)
        except torch.cuda.OutOfMemoryError as error:
            rows.append(replace(row, note=f"{type(error).__name__}: {str(error).splitlines()[0][:100]}"))
            torch.cuda.empty_cache()
            continue
        rows.append(replace(row, peak_bytes=peak))
        steps.append(step)
        print(f"{name} {width}x{height} {dtype}: {peak / 2**20:.0f} MiB", flush=True)
    clock = timing.cuda_clock if device == "cuda" else timing.cpu_clock
    begin = time.perf_counter()
    samples = iter(timing.interleave(steps, seconds, clock=clock, least=LEAST, most=MOST, patience=1.0))
    print(f"{width}x{height} {dtype}: {time.perf_counter() - begin:.0f} s", flush=True)
    done = []
    for row in rows:
        if row.note:
            done.append(row)
            continue
        sample = next(samples)
        low, middle, high = (sample.ms(p) for p in (20, 50, 80))
        done.append(replace(row, ms_p20=low, ms_p50=middle, ms_p80=high, rounds=len(sample.seconds)))
    return done


def _step(network: nn.Module, image: Tensor, dtype: str) -> Callable[[], Tensor]:
    def step() -> Tensor:
        with (
            torch.inference_mode(),
            torch.autocast(image.device.type, torch.bfloat16, enabled=dtype == "bfloat16"),
        ):
            return network(image)

    return step


@functools.cache
def multiply_adds(name: str, channels: int, height: int, width: int) -> tuple[float, float]:
    """Multiply-adds of one image in 1e9, all and of convolutions, by torch's counter on empty tensors."""
    own = {"channels": channels} if channels != 1 else {}
    with FakeTensorMode(), torch.no_grad():
        network = build_network(name, own).eval()
        with FlopCounterMode(display=False) as counter:
            network(torch.empty(1, channels, height, width))
    convolutions = counter.get_flop_counts()["Global"][torch.ops.aten.convolution]
    return counter.get_total_flops() / 2e9, convolutions / 2e9


def report(rows: Sequence[Cost], machine: record.Machine) -> str:
    """The measurements as Markdown."""
    busy = max((row.others for row in rows if row.others is not None), default=None)
    parts = [
        f"# What the networks cost on {machine.device}\n",
        record.describe(machine, busy) + "\n",
        "## Size, beside the published\n",
        tables.table(
            ["network", "parameters", "published", "at", "GMAC", "convolutions", "published", "source"],
            [_published(name) for name in dict.fromkeys(row.network for row in rows) if name in PUBLISHED],
        ),
        "Parameters are trainable ones; GMAC are 1e9 multiply-adds of one image, half of what torch's\n"
        "counter says. The published ones are of convolutions alone. DDNet's are above them because it adds\n"
        "a border of 4 pixels on each side.\n",
        "## Time and memory\n",
        "One image, no graph, channels-last. Milliseconds are medians (20th - 80th percentile) of\n"
        "interleaved rounds; memory is what torch's allocator hands out at most beyond weights and image.\n"
        "bfloat16 is autocast. The last column is the MMSP 2024 paper's (tables II and III), for 128 x 128\n"
        "on its authors' machine.\n",
    ]
    for height, width in dict.fromkeys((row.h, row.w) for row in rows):
        for dtype in dict.fromkeys(row.dtype for row in rows if (row.h, row.w) == (height, width)):
            cell = [row for row in rows if (row.h, row.w, row.dtype) == (height, width, dtype)]
            parts += [f"### {width} x {height}, {dtype}\n", _cell(cell)]
    return "\n".join(parts)


def _published(name: str) -> list[str]:
    known = PUBLISHED[name]
    with torch.device("meta"):
        network = build_network(name, {} if name == "unet" else {"channels": known.channels})
    every, convolutions = multiply_adds(name, known.channels, known.height, known.width)
    return [
        f"{name}, {'luma' if known.channels == 1 else 'RGB'}",
        f"{parameter_count(network):,}",
        f"{known.parameters:,}",
        f"{known.width} x {known.height}",
        f"{every:.2f}",
        f"{convolutions:.2f}",
        "" if known.gmac is None else f"{known.gmac:.2f}",
        known.source,
    ]


def _cell(rows: Sequence[Cost]) -> str:
    lines = []
    for row in rows:
        name = f"{row.network}{' (knows the blur)' if row.knows_blur else ''}"
        cost = [name, f"{row.parameters / 1e6:.2f}", tables.short(row.gmac)]
        if row.ms_p50 is None:
            lines.append([*cost, "failed", "", "", "", ""])
            continue
        synthetic, real = PAPER_MS.get(row.network, (None, None))
        paper = " / ".join("-" if ms is None else str(ms) for ms in (synthetic, real))
        lines.append(
            [
                *cost,
                f"{tables.short(row.ms_p50)} ({tables.short(row.ms_p20)} - {tables.short(row.ms_p80)})",
                str(row.rounds),
                tables.short(2 * row.gmac / row.ms_p50),
                f"{row.peak_bytes / 2**20:.0f}",
                paper if (row.h, row.w) == (128, 128) else "",
            ]
        )
    head = ["", "M parameters", "GMAC", "ms", "rounds", "TFLOP/s", "MiB", "paper ms"]
    notes = "".join(f"\n{row.network}: {row.note}\n" for row in rows if row.note)
    return tables.table(head, lines) + notes
