"""`python -m model demo`."""

import time
from dataclasses import dataclass
from pathlib import Path

from model.data.photographs import load_luma
from model.demo.comparison import draw_comparison
from model.demo.config import DemoConfig
from model.demo.report import TITLES, read_table, strip
from model.demo.scenes import Scenes, scikit_image_scenes
from model.device import choose_device
from model.evaluation.command import open_lpips, write_per_image
from model.evaluation.evaluator import evaluate
from model.evaluation.methods import Identity, Method, NetworkMethod
from model.evaluation.protocol import Protocol
from model.evaluation.table import Row, mean_rows, to_csv, to_markdown
from model.progress import say
from model.training.config import FinetuneConfig, TrainConfig
from model.training.trainer import train
from model.weights import load_network, replace_file

__all__ = ["DemoResult", "demo", "run"]

# The definition that explains the Q column of the paper's tables; the loss may use another.
Q_DEFINITION = "pythonq"


@dataclass(frozen=True)
class DemoResult:
    """What the demonstration found."""

    rows: list[Row]
    """Means over the held-out photographs: blurred, mae, mae_q."""
    weights: dict[str, Path]
    """The weights of mae and mae_q."""


def run(config: DemoConfig) -> None:
    """Run the demonstration on scikit-image's photographs."""
    demo(config, scikit_image_scenes())


def demo(config: DemoConfig, scenes: Scenes) -> DemoResult | None:
    """Train, fine-tune, measure, and show.

    Args:
        config: how long, and with what.
        scenes: what to train on and what to hold out.

    Returns:
        The result, or None if a stage was interrupted; its weights are then on disk.

    Raises:
        UserError: if something in the configuration or the scenes is wrong.
    """
    config.check()
    begun = time.monotonic()
    say(
        "A U-Net learns to restore photographs blurred by a 5 x 5 box: first with the mean absolute error,\n"
        "MAE, then fine-tuned with MAE - w Q, where Q is Zhu and Milanfar's sharpness metric and "
        f"w = {config.q_weight:g}.\n"
        f"It trains on {len(scenes.training)} photographs and is judged by {len(scenes.held_out)} others.\n"
    )
    weights = _train_both(config, scenes)
    if weights is None:
        return None
    say()
    rows = _compare(config, scenes, weights)
    say(
        f"\nlook at    {config.out / 'comparison.png'}\n"
        f"numbers    {config.out / 'results.csv'}, picture by picture in {config.out / 'per_image.csv'}\n"
        f"your own   python -m model deblur photo.jpg --weights {weights['mae_q']}\n"
        "train      python -m model train FOLDER_OF_PHOTOGRAPHS --blur box:7\n\n"
        "A network takes away the blur it was trained on: here a 5 x 5 box, nothing wider, and no motion.\n"
        f"This took {time.monotonic() - begun:.0f} seconds."
    )
    return DemoResult(rows, weights)


def _train_both(config: DemoConfig, scenes: Scenes) -> dict[str, Path] | None:
    shared = {
        "photographs": scenes.training,
        "batch": config.batch,
        "crop": config.crop,
        "augment": True,
        "device": config.device,
        "save_every": 0,
        "statistics_batches": 50,
        "log_every": 25,
        # The average of so short a run must not reach far back.
        "ema": 0.99,
        "trackers": ["none"],
        "overwrite": True,
    }
    first = TrainConfig(
        out=config.out / "mae",
        steps=config.steps,
        lr=config.lr,
        # Batches this small hide what a whole photograph shows a network.
        freeze_after=0.7,
        seed=config.seed,
        network_args=config.network_args,
        **shared,
    )
    mae = train(first, "MAE")
    if not mae.finished:
        return None
    second = FinetuneConfig(
        out=config.out / "mae_q",
        weights=mae.weights,
        steps=config.finetune_steps,
        lr=config.finetune_lr,
        warmup=20,
        freeze_batch_norm=True,
        # Not the same crops in the same order once more.
        seed=config.seed + 1,
        q_weight=config.q_weight,
        q_definition=config.q_definition,
        **shared,
    )
    mae_q = train(second, "MAE - w Q")
    return {"mae": mae.weights, "mae_q": mae_q.weights} if mae_q.finished else None


def _compare(config: DemoConfig, scenes: Scenes, weights: dict[str, Path]) -> list[Row]:
    """Measure both networks on the held-out photographs, whole; print, write and draw what comes out."""
    protocol = Protocol(crop=0)
    pairs = [protocol.pair(photograph) for photograph in load_luma(held.path for held in scenes.held_out)]
    device = choose_device(config.device)
    networks = {name: NetworkMethod(name, load_network(path)[0], device) for name, path in weights.items()}
    methods: list[Method] = [Identity(), *networks.values()]
    lpips = open_lpips(True, config.lpips_weights, config.device)
    measurements = evaluate(methods, pairs, Q_DEFINITION, lpips)

    rows = mean_rows(measurements)
    table = to_markdown(rows, TITLES)
    foot = (
        f"{protocol.describe(len(pairs))}.\n"
        f"No network was trained on them. Q: {Q_DEFINITION}. Seconds on {device}, one picture at a time."
    )
    say(f"\n{table}\n\n{foot}\n\n{read_table(rows, pairs, Q_DEFINITION)}")
    replace_file(config.out / "results.csv", to_csv(rows).encode())
    replace_file(config.out / "table.md", f"{table}\n\n{foot}\n".encode())
    write_per_image(config.out / "per_image.csv", measurements)
    draw_comparison(
        config.out / "comparison.png",
        [
            strip(held, pair, networks, measurements, Q_DEFINITION)
            for held, pair in zip(scenes.held_out, pairs, strict=True)
        ],
        title="Photographs that the networks have never seen",
        foot="PSNR and Q are of the whole photograph's luma. Crops are enlarged without smoothing.",
    )
    return rows
