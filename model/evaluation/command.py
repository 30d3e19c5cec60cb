"""`python -m model evaluate`."""

from pathlib import Path

from model.data.photographs import find_photographs, load_luma
from model.device import choose_device
from model.errors import UserError
from model.evaluation.config import EvaluateConfig
from model.evaluation.evaluator import METRICS, Measurement, evaluate
from model.evaluation.methods import Identity, Method, method_from_weights
from model.evaluation.perceptual import Lpips, LpipsUnavailable
from model.evaluation.protocol import Pair, Protocol, match_pairs
from model.evaluation.table import Row, mean_rows, to_csv, to_markdown
from model.progress import ProgressBar, say
from model.weights import replace_file

__all__ = ["open_lpips", "run", "write_per_image"]


def run(config: EvaluateConfig) -> None:
    """Measure the weights as configured; print the table and leave it in the run folder."""
    config.check()
    device = choose_device(config.device)
    methods: list[Method] = [Identity(), *(method_from_weights(path, device) for path in config.weights)]
    names = [method.name for method in methods]
    if len(set(names)) < len(names):
        # Files of the same name in different folders: only the whole path tells them apart.
        for method, path in zip(methods[1:], config.weights, strict=True):
            method.name = str(path)
    pairs = _pairs(config)
    lpips = open_lpips(config.lpips, config.lpips_weights, config.device)
    measurements = evaluate(methods, pairs, config.q_definition, lpips)
    rows = mean_rows(measurements)
    table = to_markdown(rows)
    foot = Protocol(config.crop, config.box).describe(len(pairs), real=config.blurred is not None)
    foot = f"{foot}; Q: {config.q_definition}; seconds on {device}."
    say(f"\n{table}\n\n{foot}")
    replace_file(config.out / "table.md", f"{table}\n\n{foot}\n".encode())
    replace_file(config.out / "results.csv", to_csv(rows).encode())
    write_per_image(config.out / "per_image.csv", measurements)
    say(f"written: {config.out / 'results.csv'}, {config.out / 'per_image.csv'}, {config.out / 'table.md'}")


def _pairs(config: EvaluateConfig) -> list[Pair]:
    def skip(path: Path, reason: str) -> None:
        say(f"skipped {path}: {reason}")

    paths = find_photographs(config.photographs)
    if config.blurred is not None:
        pairs = list(match_pairs(paths, config.blurred, config.crop, skip))
        if not pairs:
            raise UserError(f"none of {len(paths)} pairs can be used")
        return pairs
    protocol = Protocol(config.crop, config.box)
    # SSIM's window is 11 pixels wide.
    with ProgressBar("reading", len(paths), "photographs") as bar:
        photographs = load_luma(paths, max(config.crop, 11), skip, on_read=lambda path: bar.advance())
    return [protocol.blur(photograph) for photograph in photographs]


def open_lpips(wanted: bool, folder: Path | None, device: str) -> Lpips | None:
    """LPIPS where it can be had; where not, the reason is printed and the rest goes on without it."""
    if not wanted:
        return None
    try:
        return Lpips(folder, choose_device(device))
    except LpipsUnavailable as reason:
        say(f"no LPIPS column: {reason}")
        return None


def write_per_image(path: Path, measurements: list[Measurement]) -> None:
    """Every picture's numbers as CSV."""
    rows = [
        Row((one.method, one.image), {metric: getattr(one, metric) for metric in METRICS})
        for one in measurements
    ]
    replace_file(path, to_csv(rows, ("method", "image")).encode())
