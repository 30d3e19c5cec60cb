"""One HTML file with the table and every picture, two versions of it under a slider; nothing is loaded."""

import base64
import html
import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model.evaluation.evaluator import METRICS, Measurement
from model.evaluation.formats import Table
from model.evaluation.protocol import Pair
from model.evaluation.table import HEADERS, marks, shown
from model.weights import replace_file

__all__ = ["write_report"]

# Pictures are added until the file would be larger than a browser opens at once.
_LARGEST = 40 * 2**20
_TEMPLATE = Path(__file__).with_name("report.html")


def write_report(path: Path, table: Table, pairs: Sequence[Pair], largest: int = _LARGEST) -> Path:
    """Write the table, its foot, and the pictures: as many as `largest` bytes hold, but at least one.

    What is shown can be named in the address: report.html#picture=NAME&left=METHOD&right=METHOD&at=50.

    Args:
        path: the file.
        table: the rows, the notes and the measurements.
        pairs: the pictures.
        largest: bytes of all pictures.

    Returns:
        `path`.

    Raises:
        UserError: if it cannot be written.
    """
    of: dict[str, list[Measurement]] = {}
    for one in table.measurements:
        of.setdefault(one.image, []).append(one)
    pictures, size = [], 0
    for pair in pairs:
        versions = {one.method: (_encoded(one.restored), _caption(one)) for one in of.get(pair.name, [])}
        versions["sharp"] = (_encoded(pair.sharp), "")
        size += sum(len(picture) for picture, _ in versions.values())
        if pictures and size > largest:
            break
        height, width = pair.sharp.shape
        pictures.append({"name": pair.name, "width": width, "height": height, "versions": versions})
    foot = list(table.foot())
    if len(pictures) < len(pairs):
        foot.append(f"Shown are the first {len(pictures)} of {len(pairs)} pictures.")
    parts = {
        "TABLE": _table(table),
        "FOOT": "\n".join(f"<p>{html.escape(line)}</p>" for line in foot),
        # Inside a script only the end tag has a meaning, and JSON may write its slash escaped.
        "DATA": json.dumps(pictures, ensure_ascii=False).replace("</", "<\\/"),
    }
    page = _TEMPLATE.read_text(encoding="utf-8")
    for name, part in parts.items():
        page = page.replace(f"{{{{{name}}}}}", part)
    replace_file(path, page.encode())
    return path


def _encoded(pixels: NDArray[np.uint8]) -> str:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, format="png")
    return "data:image/png;base64," + base64.b64encode(content.getvalue()).decode()


def _caption(one: Measurement) -> str:
    parts = [
        f"PSNR {shown('psnr', one.psnr)} dB",
        f"SSIM {shown('ssim', one.ssim)}",
        f"Q {shown('q', one.q)}",
    ]
    return ", ".join([*parts, *([f"LPIPS {shown('lpips', one.lpips)}"] if one.lpips is not None else [])])


def _table(table: Table) -> str:
    lines = ["<thead><tr>" + "".join(f"<th>{head}</th>" for head in ("method", *HEADERS.values()))]
    lines[0] += "</tr></thead><tbody>"
    for row, ranks in zip(table.rows, marks(table.rows), strict=True):
        cells = [f"<td>{html.escape(row.labels[0])}</td>"]
        for metric in METRICS:
            text, tag = shown(metric, row.values[metric]), {1: "strong", 2: "u"}.get(ranks.get(metric, 0))
            ends = row.intervals.get(metric)
            title = f' title="95 %: {" to ".join(shown(metric, end) for end in ends)}"' if ends else ""
            cells.append(f"<td{title}>{f'<{tag}>{text}</{tag}>' if tag else text}</td>")
        lines.append(f"<tr{'' if row.ours else ' class=theirs'}>{''.join(cells)}</tr>")
    return "\n".join([*lines, "</tbody>"])
