"""`python -m model demo`."""

import shlex
import time
from dataclasses import dataclass, fields
from pathlib import Path

from model.data.photographs import load_luma
from model.demo.comparison import draw_comparison
from model.demo.config import DemoConfig
from model.demo.report import read_table, strip
from model.demo.scenes import Scenes, scikit_image_scenes
from model.demo.start import Start, starting_point
from model.device import choose_device
from model.evaluation.command import open_lpips, write_per_image
from model.evaluation.evaluator import evaluate
from model.evaluation.methods import Identity, Method, NetworkMethod
from model.evaluation.protocol import Protocol
from model.evaluation.table import Row, mean_rows, to_csv, to_markdown
from model.progress import say
from model.training.config import FinetuneConfig
from model.training.trainer import train
from model.weights import load_network, replace_file

__all__ = ["DemoResult", "demo", "run"]

# The definition that explains the Q column of the paper's tables; the loss may use another.
Q_DEFINITION = "pythonq"
# What must be said to make a run like the demonstration's.
RECIPE = (
    *(
        "q_weight",
        "q_definition",
        "q_eps",
        "q_offset",
        "steps",
        "batch",
        "crop",
        "lr",
        "warmup",
        "ema",
        "seed",
    ),
    *("augment", "freeze_batch_norm"),
)


@dataclass(frozen=True)
class DemoResult:
    """What the demonstration found."""

    rows: list[Row]
    """Means over the held-out photographs: blurred, mae, mae_q."""
    weights: dict[str, Path]
    """The weights of mae, which it started from, and of mae_q, which it has made."""


def run(config: DemoConfig) -> None:
    """Run the demonstration on scikit-image's photographs."""
    demo(config, scikit_image_scenes())


def demo(config: DemoConfig, scenes: Scenes) -> DemoResult | None:
    """Fine-tune, measure before and after, and show.

    Args:
        config: how long, and with what.
        scenes: what to train on and what to hold out.

    Returns:
        The result, or None if the fine-tuning was interrupted; its weights are then on disk.

    Raises:
        UserError: if something in the configuration or the scenes is wrong, or there are no weights to start
            from.
    """
    config.check()
    start = starting_point(config.weights, with_q=config.q_weight > 0)
    finetuning = _finetuning(config, scenes, start)
    # Before the opening words, not after them.
    finetuning.check()
    begun = time.monotonic()
    say(
        f"{start.origin}\n"
        f"Here it is fine-tuned with {_loss_in_words(config)},\n"
        f"on {len(scenes.training)} photographs, and judged by {len(scenes.held_out)} others: "
        "what you would do with photographs of your own.\n"
    )
    made = train(finetuning, "MAE - w Q" if config.q_weight else "MAE")
    if not made.finished:
        return None
    weights = {"mae": start.weights, "mae_q": made.weights}
    say()
    rows = _compare(config, scenes, start, weights)
    say(f"\n{_closing(config, finetuning, weights)}\nThis took {time.monotonic() - begun:.0f} seconds.")
    return DemoResult(rows, weights)


def _loss_in_words(config: DemoConfig) -> str:
    if not config.q_weight:
        return "MAE alone, w = 0, the control"
    return f"MAE - w Q, where Q is Zhu and Milanfar's sharpness metric and w = {config.q_weight:g}"


def _finetuning(config: DemoConfig, scenes: Scenes, start: Start) -> FinetuneConfig:
    return FinetuneConfig(
        photographs=scenes.training,
        weights=start.weights,
        out=config.run_folder,
        steps=config.steps,
        batch=config.batch,
        crop=config.crop,
        augment=True,
        lr=config.lr,
        warmup=config.warmup,
        ema=config.ema,
        # The statistics of the start are of far more crops than this run sees.
        freeze_batch_norm=True,
        q_weight=config.q_weight,
        q_definition=config.q_definition,
        q_eps=config.q_eps,
        q_offset=config.q_offset,
        seed=config.seed,
        device=config.device,
        save_every=0,
        log_every=25,
        trackers=["none"],
        overwrite=True,
    )


def _closing(config: DemoConfig, finetuning: FinetuneConfig, weights: dict[str, Path]) -> str:
    """What to look at, what to try next, and what the comparison leaves open."""
    out, plain = config.out, FinetuneConfig()
    values = {name: getattr(finetuning, name) for name in RECIPE}
    recipe = [
        f"--{name}" if value is True else f"--{name} {value}"
        for name, value in values.items()
        if value != getattr(plain, name)
    ]
    start, made = (shlex.quote(str(path)) for path in weights.values())
    control = shlex.quote(str(out.parent / f"{out.resolve().name or 'demo'}_control"))
    plain_demo = DemoConfig()
    same = [
        f" --{item.name} {shlex.quote(str(getattr(config, item.name)))}"
        for item in fields(config)
        if item.name not in ("out", "q_weight")
        and getattr(config, item.name) != getattr(plain_demo, item.name)
    ]
    open_question = (
        f"Fine-tuning is also more training; on {len(finetuning.photographs)} photographs it may lose PSNR.\n"
        "What the same steps do without Q is the control:\n"
        f"  python -m model demo --q_weight 0 --out {control}{''.join(same)}\n\n"
        if config.q_weight
        else ""
    )
    return (
        f"look at    {out / 'comparison.png'}\n"
        f"numbers    {out / 'results.csv'}, picture by picture in {out / 'per_image.csv'}\n\n"
        "A photograph of your own, out of focus:\n"
        "  python -m model deblur photo.jpg\n"
        "One blurred by a 5 x 5 box: with the weights that come with this program, sharper, and with these:\n"
        "  python -m model deblur photo.jpg --blur box\n"
        "  python -m model deblur photo.jpg --blur box --sharpness 1\n"
        f"  python -m model deblur photo.jpg --weights {made}\n"
        "The same fine-tuning with a folder of your own photographs:\n"
        f"  python -m model finetune FOLDER --weights {start} \\\n"
        f"      {' '.join(recipe)}\n"
        f"  python -m model deblur photo.jpg --weights {plain.out / 'weights.safetensors'}\n\n"
        f"{open_question}"
        "A network takes away the blur it was trained on: here a 5 x 5 box, nothing wider, and no motion."
    )


def _compare(config: DemoConfig, scenes: Scenes, start: Start, weights: dict[str, Path]) -> list[Row]:
    """Measure both networks on the held-out photographs, whole; print, write and draw what comes out."""
    protocol = Protocol(crop=0)
    pairs = [protocol.pair(photograph) for photograph in load_luma(held.path for held in scenes.held_out)]
    device = choose_device(config.device)
    networks = {name: NetworkMethod(name, load_network(path)[0], device) for name, path in weights.items()}
    methods: list[Method] = [Identity(), *networks.values()]
    lpips = open_lpips(True, config.lpips_weights, config.device)
    measurements = evaluate(methods, pairs, Q_DEFINITION, lpips)

    rows = mean_rows(measurements)
    table = to_markdown(rows, start.titles)
    foot = (
        f"{protocol.describe(len(pairs))}.\n"
        f"{start.unseen} Q: {Q_DEFINITION}. Seconds on {device}, one picture at a time."
    )
    say(f"\n{table}\n\n{foot}\n\n{read_table(rows, pairs, Q_DEFINITION)}")
    replace_file(config.out / "results.csv", to_csv(rows).encode())
    replace_file(config.out / "table.md", f"{table}\n\n{foot}\n".encode())
    write_per_image(config.out / "per_image.csv", measurements)
    draw_comparison(
        config.out / "comparison.png",
        [
            strip(held, pair, networks, measurements, start.titles, Q_DEFINITION)
            for held, pair in zip(scenes.held_out, pairs, strict=True)
        ],
        title=f"Photographs held out. {start.unseen}",
        foot="PSNR and Q are of the whole photograph's luma. Crops are enlarged without smoothing.",
    )
    return rows
