"""Before and after: zoomed crops side by side, with the place they come from."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.weights import replace_file

__all__ = ["Panel", "Strip", "draw_comparison"]

_INK, _MARK, _FAINT = "#1b1f24", "#ffb000", "#57606a"


@dataclass(frozen=True)
class Panel:
    """One version of a picture: H x W or H x W x 3 uint8, its heading and the numbers under it."""

    title: str
    pixels: NDArray[np.uint8]
    caption: str


@dataclass(frozen=True)
class Strip:
    """One row: the versions of a picture, and the crop that is shown of each."""

    title: str
    overview: NDArray[np.uint8]
    panels: Sequence[Panel]
    left: int
    top: int
    side: int


def draw_comparison(path: Path, strips: Sequence[Strip], title: str, foot: str) -> None:
    """Draw one row for each picture, the whole of it at the left with the crop marked, and write it as PNG.

    Pixels are enlarged without smoothing, so what looks sharp or soft is in the data.

    Raises:
        UserError: if the file cannot be written.
    """
    # Without pyplot: no display is asked for and no global state is left.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    columns = 1 + max(len(strip.panels) for strip in strips)
    cell, gap, head, bottom = 2.3, 0.06, 0.75, 0.35
    caption = 0.34
    width = columns * (cell + gap) + gap
    height = head + len(strips) * (cell + caption) + bottom
    figure = Figure(figsize=(width, height), dpi=150, facecolor="white")
    FigureCanvasAgg(figure)

    def place(column: int, row: int, pixels: NDArray[np.uint8], under: str, nearest: bool):
        left = gap + column * (cell + gap)
        top = head + row * (cell + caption)
        axes = figure.add_axes((left / width, 1 - (top + cell) / height, cell / width, cell / height))
        grey = {"cmap": "gray", "vmin": 0, "vmax": 255} if pixels.ndim == 2 else {}
        axes.imshow(pixels, interpolation="nearest" if nearest else "antialiased", **grey)
        axes.set_xticks([])
        axes.set_yticks([])
        for spine in axes.spines.values():
            spine.set_visible(False)
        # Under a picture that is wider than high there would be a hole, so all sit on the same line.
        figure.text(
            (left + cell / 2) / width,
            1 - (top + cell + 0.06) / height,
            under,
            ha="center",
            va="top",
            size=8.5,
            color=_FAINT,
        )
        return axes, (left + cell / 2) / width

    for row, strip in enumerate(strips):
        axes, _ = place(0, row, strip.overview, strip.title, nearest=False)
        axes.set_anchor("S")
        box = (strip.left - 0.5, strip.top - 0.5)
        axes.add_patch(Rectangle(box, strip.side, strip.side, fill=False, edgecolor=_MARK, linewidth=1.8))
        for column, panel in enumerate(strip.panels, start=1):
            crop = panel.pixels[strip.top : strip.top + strip.side, strip.left : strip.left + strip.side]
            axes, centre = place(column, row, crop, panel.caption, nearest=True)
            if row == 0:
                figure.text(
                    centre,
                    1 - (head - 0.07) / height,
                    panel.title,
                    ha="center",
                    va="bottom",
                    size=11,
                    color=_INK,
                )
    figure.text(
        gap / width, 1 - 0.12 / height, title, ha="left", va="top", size=12.5, weight="bold", color=_INK
    )
    figure.text(gap / width, 0.1 / height, foot, ha="left", va="bottom", size=8.5, color=_FAINT)
    encoded = io.BytesIO()
    figure.savefig(encoded, format="png")
    replace_file(path, encoded.getvalue())
