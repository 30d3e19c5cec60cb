"""The report of a run: one HTML file with the curves, the scores and the pictures, readable anywhere."""

import base64
import csv
import html
import io
from pathlib import Path

from model.training.config import TrainConfig
from model.training.run_folder import RunFolder
from model.weights import replace_file

__all__ = ["write_report"]

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1b1f24; max-width: 60rem; margin: 2rem auto }
body { padding: 0 1rem }
h1 { font-size: 1.5rem } h2 { font-size: 1.1rem; margin-top: 2rem }
table { border-collapse: collapse }
td, th { padding: .15rem .8rem .15rem 0; text-align: left; vertical-align: top }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums }
figure { margin: 1rem 0 } img, svg { max-width: 100%; height: auto }
img { image-rendering: pixelated; width: 100% } figcaption, .faint { color: #57606a; font-size: .85rem }
"""
# Columns of log.csv that are drawn, under their titles.
_CURVES = {
    "loss": "Loss",
    "pixel": "Mean absolute error",
    "l1": "Mean absolute error",
    "mse": "Mean squared error",
    "charbonnier": "Charbonnier",
    "ssim": "1 - SSIM",
    "sobel": "Difference of Sobel gradients",
    "lpips": "LPIPS",
    "q": "Q of the restored crops, as in the loss",
    "grad_norm": "Length of the gradient",
    "lr": "Learning rate",
}
_SCORES = {"psnr": "PSNR, dB", "ssim": "SSIM", "q": "Q (pythonq)"}


def write_report(folder: RunFolder, config: TrainConfig, steps: int) -> Path:
    """Write report.html from what the run folder holds.

    Args:
        folder: its log.csv, validation.csv and pictures are shown.
        config: of the run.
        steps: of the whole run.

    Returns:
        The report.

    Raises:
        UserError: if it cannot be written.
    """
    log, scores = _columns(folder.log), _columns(folder.validation)
    done = int(log["step"][-1]) if log else 0
    seconds = log["seconds"][-1] if log else 0.0
    speed = f", {log['crops'][-1] / seconds:.1f} crops/s" if seconds else ""
    parts = [
        f"<h1>{html.escape(config.stage)}: {html.escape(config.network)}</h1>",
        f"<p>{done} of {steps} steps, {seconds:.0f} s{speed}. "
        f"Folder: <code>{html.escape(str(folder.path))}</code></p>",
    ]
    if scores:
        parts += ["<h2>Validation</h2>", _score_table(scores), _figure(scores, _SCORES, marked=True)]
    pictures = folder.written_pictures()
    if pictures:
        parts.append("<h2>Blurred, restored, sharp</h2>")
        parts += [_picture(path) for path in pictures]
    if log:
        parts += ["<h2>Training</h2>", _figure(log, _CURVES)]
    rows = "".join(
        f"<tr><td>{name}</td><td><code>{html.escape(str(value))}</code></td></tr>"
        for name, value in config.recorded().items()
    )
    parts += ["<h2>Configuration</h2>", f"<table>{rows}</table>"]
    page = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>{html.escape(config.out.name)}</title>"
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head>\n<body>\n'
        + "\n".join(parts)
        + "\n</body></html>\n"
    )
    replace_file(folder.report, page.encode())
    return folder.report


def _columns(path: Path) -> dict[str, list[float]]:
    """A CSV file's columns as numbers; empty if there is no line."""
    if not path.is_file():
        return {}
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: [float(row[name]) for row in rows] for name in rows[0]} if rows else {}


def _score_table(scores: dict[str, list[float]]) -> str:
    names = ["step", *_SCORES]
    head = "".join(f'<th class="n">{name if name == "step" else _SCORES[name]}</th>' for name in names)
    # The last lines; the plot shows the others.
    body = "".join(
        "<tr>" + "".join(f'<td class="n">{value:g}</td>' for value in line) + "</tr>"
        for line in list(zip(*(scores[name] for name in names), strict=True))[-10:]
    )
    return f"<table><tr>{head}</tr>{body}</table>"


def _figure(columns: dict[str, list[float]], titles: dict[str, str], marked: bool = False) -> str:
    """Curves over the steps as SVG, one panel each."""
    # Without pyplot: no display is asked for and no global state is left.
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    shown = {name: title for name, title in titles.items() if name in columns}
    wide = min(3, len(shown))
    high = -(-len(shown) // wide)
    figure = Figure(figsize=(3.3 * wide, 2.3 * high), layout="constrained")
    FigureCanvasSVG(figure)
    for index, (name, title) in enumerate(shown.items(), start=1):
        axes = figure.add_subplot(high, wide, index)
        axes.plot(
            columns["step"], columns[name], color="#0969da", linewidth=1.2, marker="o" * marked, markersize=3
        )
        axes.set_title(title, fontsize=9)
        axes.tick_params(labelsize=8)
        axes.set_xlabel("step", fontsize=8)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    drawn = io.StringIO()
    # Without a date, the same run gives the same file.
    figure.savefig(drawn, format="svg", metadata={"Date": None})
    return f"<figure>{drawn.getvalue().partition('<svg')[1]}{drawn.getvalue().partition('<svg')[2]}</figure>"


def _picture(path: Path) -> str:
    content = base64.b64encode(path.read_bytes()).decode()
    return f'<figure><img alt="blurred, restored, sharp" src="data:image/png;base64,{content}"></figure>'
