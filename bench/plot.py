"""Measurements as pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .record import Machine, Timing
from .tables import KERNELS, short, size

#: A colour for each provider, the same in every panel (Okabe and Ito's, told apart by the colour-blind).
_COLOURS = {
    "cpp": "#0072B2",
    "cuda": "#0072B2",
    "triton": "#56B4E9",
    "eager": "#CC79A7",
    "plain": "#D55E00",
    "refined": "#E69F00",
    "compile": "#009E73",
    "torch": "#000000",
}


def micro(rows: Sequence[Timing], machine: Machine, path: Path) -> None:
    """Bars of milliseconds: a row for each kernel, a column for each mode, in the first dtype measured."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    dtype = rows[0].dtype
    rows = [r for r in rows if r.dtype == dtype and r.ms_p50 is not None and r.kernel != "copy"]
    modes = list(dict.fromkeys(r.mode for r in rows))
    shapes = list(dict.fromkeys(r.shape for r in rows))
    kernels = ("q", "mae_q")
    figure, axes = pyplot.subplots(
        len(kernels),
        len(modes),
        figsize=(5.2 * len(modes), 7.6),
        squeeze=False,
        sharey=True,
        layout="constrained",
    )
    for line, kernel in zip(axes, kernels, strict=True):
        for axis, mode in zip(line, modes, strict=True):
            here = [r for r in rows if r.mode == mode and r.kernel in (kernel, "l1_loss")]
            _bars(axis, here, shapes)
            axis.set_title(f"{KERNELS[kernel]}, {mode}")
            axis.set_yscale("log")
            axis.margins(y=0.12)
            axis.grid(axis="y", which="major", alpha=0.3)
            axis.set_axisbelow(True)
            axis.set_xticks(range(len(shapes)), [size(s) for s in shapes], fontsize=8)
        line[0].set_ylabel("ms per call (median)")
        line[0].legend(fontsize=8, loc="upper left")
    figure.suptitle(
        f"{machine.device_name}, {machine.threads} threads, torch {machine.torch}, {dtype}; "
        f"lower is better, a tick is a factor of 10",
        fontsize=10,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _bars(axis, rows: Sequence[Timing], shapes: Sequence[tuple[int, int, int, int]]) -> None:
    providers = list(dict.fromkeys((r.kernel, r.provider) for r in rows))
    width = 0.84 / max(len(providers), 1)
    for i, (kernel, provider) in enumerate(providers):
        found = {r.shape: r for r in rows if (r.kernel, r.provider) == (kernel, provider)}
        places = [shapes.index(s) + (i - (len(providers) - 1) / 2) * width for s in found]
        low, middle, high = ([getattr(r, f"ms_p{p}") for r in found.values()] for p in (20, 50, 80))
        spread = [[m - v for m, v in zip(middle, low, strict=True)]]
        spread.append([v - m for m, v in zip(middle, high, strict=True)])
        colour = _COLOURS.get(provider)
        label = "torch l1_loss" if kernel == "l1_loss" else provider
        bars = axis.bar(
            places,
            middle,
            width,
            yerr=spread,
            error_kw={"lw": 0.8},
            color=colour,
            label=label,
        )
        axis.bar_label(bars, [short(m) for m in middle], fontsize=6, padding=1, rotation=90)
