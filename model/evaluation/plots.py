"""The paper's figures from our measurements: Q against SSIM, the sweep of w, zoomed crops, maps of Q."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from model.evaluation.evaluator import Measurement
from model.evaluation.formats import Table
from model.evaluation.protocol import Pair
from model.evaluation.table import HEADERS, Row
from model.weights import replace_file
from qkernel import q_map

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw_all", "draw_crops", "draw_curve", "draw_q_maps", "draw_scatter", "draw_sweep", "liveliest"]

_INK, _FAINT, _MARK = "#1b1f24", "#57606a", "#ffb000"
# Okabe and Ito's colours, told apart by the colour-blind too; with the markers, 48 kinds of points.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#6b6b6b", "#000000")
_MARKERS = ("o", "s", "^", "D", "v", "P")
# Pictures in a drawing of crops, and in one of maps.
_ROWS = 4


def draw_all(out: Path, table: Table, pairs: Sequence[Pair], q_definition: str) -> list[Path]:
    """Draw whatever the measurements allow into a folder: scatter.png, crops.png, q_map.png, sweep.png.

    sweep.png is drawn where two rows or more are called w=NUMBER.

    Raises:
        UserError: if a file cannot be written.
    """
    written = [out / "scatter.png", out / "crops.png", out / "q_map.png"]
    draw_scatter(written[0], table.measurements)
    draw_crops(written[1], pairs[:_ROWS], table.measurements)
    draw_q_maps(written[2], pairs[:_ROWS], table.measurements, q_definition)
    if len(_by_number([row for row in table.rows if row.ours], "w")) > 1:
        written.append(out / "sweep.png")
        draw_sweep(written[-1], table.rows)
    return written


def _figure(width: float, height: float) -> "Figure":
    # Without pyplot: no display is asked for and no global state is left.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=150, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _save(figure: "Figure", path: Path) -> None:
    encoded = io.BytesIO()
    figure.savefig(encoded, format="png")
    replace_file(path, encoded.getvalue())


def _plain(axes: "Axes") -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.tick_params(colors=_FAINT, labelsize=8)


def draw_scatter(path: Path, measurements: Sequence[Measurement]) -> None:
    """Q against SSIM, one point for each picture and method, the means of each method as dashed lines.

    Source: the paper's figure 5.
    """
    groups: dict[str, list[Measurement]] = {}
    for one in measurements:
        groups.setdefault(one.method, []).append(one)
    figure = _figure(7.5, 5)
    axes = figure.add_subplot()
    for place, (method, group) in enumerate(groups.items()):
        colour = _COLOURS[place % len(_COLOURS)]
        marker = _MARKERS[place // len(_COLOURS) % len(_MARKERS)]
        x, y = [one.ssim for one in group], [one.q for one in group]
        axes.scatter(x, y, s=14, color=colour, marker=marker, alpha=0.7, linewidths=0, label=method)
        axes.axvline(float(np.mean(x)), color=colour, linestyle="--", linewidth=0.8, alpha=0.8)
        axes.axhline(float(np.mean(y)), color=colour, linestyle="--", linewidth=0.8, alpha=0.8)
    axes.set_xlabel("SSIM", color=_INK)
    axes.set_ylabel("Q", color=_INK)
    _plain(axes)
    figure.legend(loc="outside right upper", fontsize=8, frameon=False)
    figure.suptitle("Sharpness against similarity; dashed: means", fontsize=10, color=_INK)
    _save(figure, path)


def _by_number(rows: Sequence[Row], name: str) -> list[tuple[float, Row]]:
    """The rows called NAME=NUMBER (the paper's end so), in order of the number."""
    result = []
    for row in rows:
        _, found, number = row.labels[0].replace(" ", "").rpartition(f"{name}=")
        try:
            result.append((float(number), row) if found else None)
        except ValueError:
            continue
    return sorted((one for one in result if one is not None), key=lambda one: one[0])


def draw_curve(path: Path, rows: Sequence[Row], name: str, smallest: float = 0.0) -> None:
    """Each metric against a number, with confidence intervals; rows of the paper in grey.

    Args:
        path: the PNG to write.
        rows: those called NAME=NUMBER are drawn.
        name: of the number.
        smallest: where above 0, the axis is logarithmic from there on and linear below, with a place for 0.
    """
    metrics = ("psnr", "ssim", "q", "lpips")
    figure = _figure(11, 2.9)
    for place, metric in enumerate(metrics, start=1):
        axes = figure.add_subplot(1, len(metrics), place)
        drawn = 0
        for ours, colour, label in ((False, "#9aa0a6", "paper"), (True, _COLOURS[0], "ours")):
            points = _by_number([row for row in rows if row.ours == ours], name)
            points = [(x, row) for x, row in points if row.values.get(metric) is not None]
            if not points:
                continue
            drawn += 1
            x, y = [x for x, _ in points], [row.values[metric] for _, row in points]
            axes.plot(x, y, "o-", color=colour, markersize=4, linewidth=1.2, label=label)
            ends = [row.intervals.get(metric) for _, row in points]
            if all(ends):
                low, high = zip(*ends, strict=True)  # type: ignore[arg-type]
                axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
        if smallest:
            axes.set_xscale("symlog", linthresh=smallest)
        axes.set_xlabel(name, color=_INK)
        axes.set_title(HEADERS[metric], fontsize=10, color=_INK)
        _plain(axes)
        if place == 1 and drawn > 1:
            axes.legend(fontsize=8, frameon=False)
    _save(figure, path)


def draw_sweep(path: Path, rows: Sequence[Row]) -> None:
    """Each metric against the weight w of Q (rows called w=NUMBER), beside the paper's Table I.

    Args:
        path: the PNG to write.
        rows: ours, and the paper's where they are wanted.
    """
    # Table I has 0 and values from 0.001 to 0.1 in one row.
    draw_curve(path, rows, "w", smallest=0.001)


def liveliest(pair: Pair, side: int) -> tuple[int, int]:
    """Top and left of the square in which blurring took most away: where restoring has most to do."""
    loss = (pair.sharp / 255 - pair.observed) ** 2
    sums = np.zeros((loss.shape[0] + 1, loss.shape[1] + 1))
    sums[1:, 1:] = loss.cumsum(0).cumsum(1)
    windows = sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]
    top, left = np.unravel_index(int(windows.argmax()), windows.shape)
    return int(top), int(left)


def _versions(pair: Pair, measurements: Sequence[Measurement]) -> Mapping[str, NDArray[np.uint8]]:
    return {
        **{one.method: one.restored for one in measurements if one.image == pair.name},
        "sharp": pair.sharp,
    }


def draw_crops(
    path: Path, pairs: Sequence[Pair], measurements: Sequence[Measurement], side: int | None = None
) -> None:
    """Zoomed crops of every method side by side, one row for each picture, the place marked at the left.

    Pixels are enlarged without smoothing, so what looks sharp or soft is in the data.

    Args:
        path: the PNG to write.
        pairs: pictures to show.
        measurements: of any methods on them.
        side: of the crops in pixels; by default half the shorter side of the picture, at most 96.

    Source: the paper's figures 3, 4, 6 and 7.
    """
    from matplotlib.patches import Rectangle

    shown = [_versions(pair, measurements) for pair in pairs]
    columns = 1 + max(map(len, shown))
    figure = _figure(1.9 * columns, 2.15 * len(pairs))
    for row, (pair, versions) in enumerate(zip(pairs, shown, strict=True)):
        size = side or min(min(pair.sharp.shape) // 2, 96)
        top, left = liveliest(pair, size)
        axes = _picture(figure, len(pairs), columns, row, 0, pair.sharp, pair.name)
        axes.add_patch(
            Rectangle((left - 0.5, top - 0.5), size, size, fill=False, edgecolor=_MARK, linewidth=1.5)
        )
        scores = {one.method: one.psnr for one in measurements if one.image == pair.name}
        for column, (method, pixels) in enumerate(versions.items(), start=1):
            under = f"{scores[method]:.2f} dB" if method in scores else ""
            crop = pixels[top : top + size, left : left + size]
            _picture(figure, len(pairs), columns, row, column, crop, f"{method}\n{under}".rstrip())
    _save(figure, path)


def _picture(
    figure: "Figure", rows: int, columns: int, row: int, column: int, pixels: NDArray[np.uint8], title: str
) -> "Axes":
    axes = figure.add_subplot(rows, columns, row * columns + column + 1)
    axes.imshow(pixels, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    axes.set_title(title, fontsize=7, color=_INK)
    axes.set_axis_off()
    return axes


def draw_q_maps(
    path: Path, pairs: Sequence[Pair], measurements: Sequence[Measurement], q_definition: str
) -> None:
    """Q of each patch as colour, for every method and the sharp picture: where a method is sharp.

    The scale is one for each picture, from 0 to the largest value of the sharp picture's patches.
    """
    shown = [_versions(pair, measurements) for pair in pairs]
    columns = max(map(len, shown))
    figure = _figure(1.9 * columns + 0.6, 2.15 * len(pairs))
    for row, versions in enumerate(shown):
        maps = {
            method: q_map(torch.from_numpy(pixels / 255), definition=q_definition).q.numpy()
            for method, pixels in versions.items()
        }
        drawn = []
        for column, (method, values) in enumerate(maps.items()):
            axes = figure.add_subplot(len(pairs), columns, row * columns + column + 1)
            limit = max(float(maps["sharp"].max()), 1e-9)
            image = axes.imshow(values, cmap="viridis", vmin=0, vmax=limit, interpolation="nearest")
            axes.set_title(f"{method}\nQ {values.mean():.4f}", fontsize=7, color=_INK)
            axes.set_axis_off()
            drawn.append(axes)
        bar = figure.colorbar(image, ax=drawn, fraction=0.02, pad=0.01)
        bar.ax.tick_params(labelsize=6, colors=_FAINT)
        bar.set_label(pairs[row].name, fontsize=7, color=_INK)
    _save(figure, path)
