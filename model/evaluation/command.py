"""`python -m model evaluate`."""

import platform
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch

from model.data.pairs import PAIR_FOLDERS, pair_folders
from model.data.photographs import find_photographs, load_luma
from model.device import choose_device
from model.errors import UserError
from model.evaluation.cache import ResultCache
from model.evaluation.config import EvaluateConfig
from model.evaluation.data_sets import incomplete, locate
from model.evaluation.evaluator import LONG, METRICS, Failure, Measurement, evaluate
from model.evaluation.formats import Table
from model.evaluation.methods import Identity, Method, Setting, build_method, method_from_weights, needs_pairs
from model.evaluation.perceptual import Lpips, LpipsUnavailable
from model.evaluation.protocol import Pair, Protocol, match_pairs
from model.evaluation.table import Row, to_csv
from model.progress import ProgressBar, say
from model.weights import replace_file

__all__ = ["device_in_words", "measure", "open_lpips", "read_pairs", "run", "write_per_image"]


def run(config: EvaluateConfig) -> int:
    """Measure as configured; print the table and leave it in the run folder.

    Returns:
        The exit code: 1 if a method failed on a picture.
    """
    table, pairs = measure(config)
    say(f"\n{table.plain()}")
    written = table.write(config.out)
    written += _drawings(config, table, pairs)
    say(f"written: {', '.join(map(str, written))}")
    return 1 if table.failures else 0


def measure(config: EvaluateConfig) -> tuple[Table, list[Pair]]:
    """Measure as configured, and write nothing but the cache: the table and the pictures it is about.

    Raises:
        UserError: if something in the configuration or the pictures is wrong.
    """
    config.check()
    device, protocol = choose_device(config.device), config.settled()
    setting = Setting(device, protocol.operator())
    # What is wrong with a method is found before hundreds of photographs are read. Only a folder of results
    # must know whose they are.
    weights = _networks(config, setting)
    others = {text: build_method(text, setting) for text in config.methods if not needs_pairs(text)}
    pairs = read_pairs(config, protocol)
    setting = replace(setting, pairs=pairs)
    methods = [
        Identity(),
        *weights,
        *(others.get(text) or build_method(text, setting) for text in config.methods if text != "blurred"),
    ]
    counts = Counter(method.name for method in methods)
    if twice := [name for name, count in counts.items() if count > 1]:
        raise UserError(f"two methods are called {twice[0]!r}; name one of them: LABEL={twice[0]}")
    lpips = open_lpips(config.lpips, config.lpips_weights, config.device)
    in_words = device_in_words(device)
    cache = None
    if config.cache:
        folder = config.out / "cache"
        cache = ResultCache(folder, in_words, protocol.output, config.batch, config.repeats)
    failures: list[Failure] = []

    def fail(failure: Failure) -> None:
        failures.append(failure)
        say(f"{failure.method} failed on {failure.image}: {failure.reason}")

    measurements = evaluate(
        methods,
        pairs,
        config.q_definition,
        lpips,
        output=protocol.output,
        batch=config.batch,
        repeats=config.repeats,
        device=device,
        cache=cache,
        on_failure=fail,
    )
    if cache and cache.hits:
        say(f"{cache.hits} results were there from an earlier run ({cache.folder})")
    table = Table(
        measurements,
        [
            *_notes(config, protocol, len(pairs), lpips is not None, in_words),
            *_larger_than_crops(methods, pairs),
        ],
        {
            "protocol": asdict(protocol),
            "pictures": len(pairs),
            "q_definition": config.q_definition,
            "lpips": "alex" if lpips else None,
            "batch": config.batch,
            "repeats": config.repeats,
            "device": in_words,
            "torch": torch.__version__,
        },
        {method.name: str(method.knows) for method in methods[1:]},
        failures,
        config.published,
    )
    return table, pairs


def _drawings(config: EvaluateConfig, table: Table, pairs: Sequence[Pair]) -> list[Path]:
    written = []
    if config.plots:
        from model.evaluation.plots import draw_all

        written += draw_all(config.out, table, pairs, config.q_definition)
    if config.report:
        from model.evaluation.report import write_report

        written.append(write_report(config.out / "report.html", table, pairs))
    return written


def _networks(config: EvaluateConfig, setting: Setting) -> list[Method]:
    """The methods of --weights, each with a name of its own."""
    methods: list[Method] = [
        method_from_weights(path, setting.device, setting.blur) for path in config.weights
    ]
    if len({method.name for method in methods}) < len(methods):
        # Files of the same name in different folders: only the whole path tells them apart.
        for method, path in zip(methods, config.weights, strict=True):
            method.name = str(path)
    return methods


def read_pairs(config: EvaluateConfig, protocol: Protocol) -> list[Pair]:
    """The pairs that a configuration asks for.

    Raises:
        UserError: if photographs are missing, do not match, or cannot be read, all of them.
    """

    def skip(path: Path, reason: str) -> None:
        say(f"skipped {path}: {reason}")

    words = config.photographs or [Path(protocol.data)]
    folders = [locate(word, config.data) for word in words]
    if protocol.photographed:
        sharp, blurred = _paired(folders, config.blurred)
        paths = find_photographs(sharp)
        paths = paths[: config.limit or len(paths)]
        pairs = list(match_pairs(paths, blurred, protocol.crop, skip, protocol.grid))
        if not pairs:
            raise UserError(f"none of {len(paths)} pairs can be used")
        return pairs
    paths = find_photographs(folders)
    for word, folder in zip(words, folders, strict=True):
        if warning := incomplete(word, find_photographs(folder)):
            say(f"warning: {warning}")
    paths = paths[: config.limit or len(paths)]
    # SSIM's window is 11 pixels wide.
    with ProgressBar("reading", len(paths), "photographs") as bar:
        photographs = load_luma(paths, max(protocol.crop, 11), skip, on_read=lambda path: bar.advance())
    names = _names([photograph.path for photograph in photographs])
    return [
        pair
        for photograph, name in zip(photographs, names, strict=True)
        for pair in protocol.pairs(photograph, name)
    ]


def _paired(folders: Sequence[Path], blurred: Path | None) -> tuple[list[Path], Path]:
    """The folders of sharp and of blurred pictures."""
    if blurred is not None:
        return list(folders), blurred
    if len(folders) == 1 and (found := pair_folders(folders[0])):
        degraded, sharp = found
        return [sharp], degraded
    kinds = ", ".join(f"{sharp}/ and {degraded}/" for degraded, sharp in PAIR_FOLDERS)
    raise UserError(f"{folders[0]} holds no pairs ({kinds}); name the blurred ones with --blurred FOLDER")


def _names(paths: Sequence[Path]) -> list[str]:
    """Short names that tell the photographs apart: the file's, or with its folder, or the whole path."""
    for shorten in (lambda path: path.stem, lambda path: f"{path.parent.name}/{path.stem}", str):
        names = [shorten(path) for path in paths]
        if len(set(names)) == len(names):
            return names
    return names


def device_in_words(device: torch.device) -> str:
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return f"{device} ({platform.machine()}, {torch.get_num_threads()} threads)"


def _notes(
    config: EvaluateConfig, protocol: Protocol, pairs: int, with_lpips: bool, device: str
) -> list[str]:
    """The foot: everything that changes a number."""
    lpips = "LPIPS 0.1, AlexNet, luma as three equal channels" if with_lpips else "no LPIPS"
    together = f"{config.batch} pictures at once" if config.batch > 1 else "one picture at a time"
    unless = f" (unless that takes {LONG:g} s or more)" if config.repeats == 1 else ""
    runs = "one run" if config.repeats == 1 else f"median of {config.repeats} runs"
    end = {"round": "rounded", "truncate": "truncated"}[protocol.output]
    return [
        f"Protocol {protocol.name}: {protocol.describe(pairs)}.",
        f"Luma: floor(0.299 R + 0.587 G + 0.114 B). Results: clipped to 0 ... 255, {end} to 8 bits. "
        f"Metrics: PSNR, data range 255; SSIM, Gaussian window 11 x 11, sigma 1.5; "
        f"Q: {config.q_definition}, patches 8 x 8, pixels in [0, 1]; {lpips}.",
        f"Seconds on {device}: {runs} after one that is not counted{unless}, {together}.",
    ]


def _larger_than_crops(methods: Sequence[Method], pairs: Sequence[Pair]) -> list[str]:
    """A note on networks that are given larger pictures than they were trained on, if there are any."""
    largest = max((max(pair.observed.shape[-2:]) for pair in pairs), default=0)
    trained = {method.name: getattr(method, "crop", 0) for method in methods}
    names = [f"{name} ({crop} x {crop})" for name, crop in trained.items() if 0 < crop < largest]
    if not names:
        return []
    return [
        f"Trained on smaller crops than these pictures of up to {largest} pixels: {', '.join(names)}. "
        "A network may break down on larger ones; `deblur` and --protocol grid give it squares of that size."
    ]


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
