"""`python -m model tune`."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from model.device import choose_device
from model.errors import UserError
from model.evaluation.cache import ResultCache
from model.evaluation.command import device_in_words, read_pairs
from model.evaluation.evaluator import Failure, evaluate
from model.evaluation.methods import Setting, build_method
from model.evaluation.table import straight
from model.evaluation.tune_config import TuneConfig
from model.evaluation.tuning import Choice, Trial, choose
from model.progress import say
from model.weights import replace_file

__all__ = ["run"]


def run(config: TuneConfig) -> None:
    """Try the candidates, print what Q chooses, and leave the table and a drawing in the folder."""
    config.check()
    device, settings = choose_device(config.device), config.settings()
    protocol, operator = settings.settled(), config.operator().operator()
    pairs = read_pairs(settings, protocol)
    setting = Setting(device, operator, pairs)
    methods = [build_method(text, setting) for text in config.candidates()]
    if len({method.name for method in methods}) < len(methods):
        raise UserError("two candidates are called alike; label them: LABEL=NAME:PARAMETERS")
    failures: list[Failure] = []
    measurements = evaluate(
        methods,
        pairs,
        config.definition,
        None,
        output=protocol.output,
        device=device,
        cache=ResultCache(config.out / "cache", device_in_words(device), protocol.output, 1, 1),
        on_failure=failures.append,
    )
    for failure in failures:
        say(f"{failure.method} failed on {failure.image} and is no candidate: {failure.reason}")
    try:
        choice = choose(measurements, pairs, config.definition)
    except ValueError as error:
        raise UserError(f"{error}, e.g. {failures[0].method}: {failures[0].reason}") from None
    with_psnr = bool(config.protocol)
    text = _table(choice, with_psnr, len(pairs))
    plain = f"{len(pairs)} picture{'s' * (len(pairs) != 1)} as given"
    about = protocol.describe(len(pairs)) if with_psnr else plain
    foot = [
        f"Q ({config.definition}) over the patches that are anisotropic in what was given; {about}.",
        _verdict(choice, with_psnr),
    ]
    say("\n".join(["", text, "", *foot]))
    replace_file(config.out / "tune.csv", _csv(choice.trials, with_psnr).encode())
    replace_file(config.out / "tune.md", "\n\n".join([text, *foot, ""]).encode())
    _draw(config.out / "tune.png", choice, config.parameter, with_psnr)
    say(f"written: {', '.join(str(config.out / name) for name in ('tune.md', 'tune.csv', 'tune.png'))}")


def _verdict(choice: Choice, with_psnr: bool) -> str:
    if not with_psnr:
        return f"Q chooses {choice.by_q.name}."
    lost = choice.by_psnr.psnr - choice.by_q.psnr
    return (
        f"Q chooses {choice.by_q.name} ({choice.by_q.psnr:.2f} dB), PSNR {choice.by_psnr.name} "
        f"({choice.by_psnr.psnr:.2f} dB): {lost:.2f} dB for not knowing the sharp pictures. "
        f"Picture by picture: {choice.each_by_q:.2f} and {choice.each_by_psnr:.2f} dB."
    )


def _table(choice: Choice, with_psnr: bool, pictures: int) -> str:
    lines = [["candidate", "Q", f"chosen, of {pictures}", *(["PSNR dB", "best"] if with_psnr else [])]]
    for trial in choice.trials:
        q = f"{trial.q:.5f}"
        cells = [trial.name, f"**{q}**" if trial is choice.by_q else q, str(trial.chosen)]
        if with_psnr:
            psnr = f"{trial.psnr:.2f}"
            cells += [f"**{psnr}**" if trial is choice.by_psnr else psnr, str(trial.best)]
        lines.append(cells)
    return straight(lines)


def _csv(trials: Sequence[Trial], with_psnr: bool) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["candidate", "q", "chosen", "psnr", "best"])
    for trial in trials:
        psnr = [f"{trial.psnr:.6g}", trial.best] if with_psnr else ["", ""]
        writer.writerow([trial.name, f"{trial.q:.6g}", trial.chosen, *psnr])
    return text.getvalue()


def _draw(path: Path, choice: Choice, parameter: str, with_psnr: bool) -> None:
    """Q and, where it is known, PSNR against the candidates."""
    # Without pyplot: no display is asked for and no global state is left.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5 * (1 + with_psnr), 3.2), dpi=150, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    panels = [("Q", "q", choice.by_q), *([("PSNR dB", "psnr", choice.by_psnr)] if with_psnr else [])]
    labels = [trial.name.removeprefix(f"{parameter}=") for trial in choice.trials]
    for place, (title, metric, best) in enumerate(panels, start=1):
        axes = figure.add_subplot(1, len(panels), place)
        values = [getattr(trial, metric) for trial in choice.trials]
        axes.plot(range(len(values)), values, "o-", color="#0072b2", markersize=4, linewidth=1.2)
        axes.axvline(choice.trials.index(best), color="#d55e00", linestyle="--", linewidth=1)
        axes.set_xticks(range(len(values)), labels, fontsize=8, rotation=0 if parameter else 30)
        axes.set_xlabel(parameter or "candidate")
        axes.set_title(title, fontsize=10)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    encoded = io.BytesIO()
    figure.savefig(encoded, format="png")
    replace_file(path, encoded.getvalue())
