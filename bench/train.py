"""Crops a second of the trainer, beside training the way one writes it first, in one run."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from model.data.luma_set import LumaSet
from model.data.sources import load_images
from model.demo.scenes import scikit_image_scenes
from model.device import choose_device
from model.errors import UserError
from model.networks.unet import UNet
from model.training.config import FinetuneConfig, TrainConfig
from model.training.engine import choose_compile, choose_precision, open_accelerator
from model.training.losses import build_loss
from model.training.run_folder import RunFolder
from model.training.trainer import Trainer, train
from model.weights import Card, save_weights
from qkernel import Definition, reference

from . import record, tables, timing
from .providers import WEIGHT

#: The paper's: crops of an epoch, epochs of a stage.
STAGE_CROPS = 134_400 * 100
#: What the paper's training ran at, on an RTX 2080 Ti (its 392 minutes for 155 epochs of 77,000 crops).
PAPER = 507
BLUR = 5
LOSSES = ("mae", "mae_q")
TITLES = {"mae": "MAE", "mae_q": "MAE - w Q"}


@dataclass(frozen=True)
class Speed:
    """One row: a way of training with one loss. Times are of one step, those of the loss of its forward and
    backward alone."""

    provider: str
    loss: str
    precision: str
    compile: str
    batch: int
    crop: int
    photographs: int
    ms_p20: float
    ms_p50: float
    ms_p80: float
    rounds: int
    steps_per_round: int
    crops_per_s: float
    loss_ms: float
    loss_share: float
    stage_minutes: float
    others: float | None = None


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="auto", help="cpu, cuda, ... (default: the best there is)")
    parser.add_argument("--batch", type=int, help="crops in a step (default: 32, on a CPU 8)")
    parser.add_argument("--crop", type=int, default=128, help="side of the crops (default 128)")
    parser.add_argument("--workers", type=int, help="loader processes of the plain way (default: its cores)")
    parser.add_argument("--photographs", nargs="+", type=Path, help="default: those of scikit-image")
    parser.add_argument("--seconds", type=float, default=90.0, help="time for all rounds (default 90)")
    parser.add_argument("--precision", default="auto", help="of the trainer (default: what auto takes)")
    parser.add_argument("--compile", default="auto", help="of the trainer (default: what auto takes)")
    parser.add_argument(
        "--curve", type=int, default=0, metavar="STEPS", help="also train so many steps and record the curve"
    )
    parser.add_argument("--out", type=Path, default=record.RESULTS, help="folder (default: bench/results)")


def run(options: argparse.Namespace) -> int:
    """Measure, and write CSV and Markdown."""
    if not options.seconds > 0:
        raise UserError(f"--seconds must be positive, not {options.seconds}")
    device = choose_device(options.device)
    batch = options.batch or (32 if device.type == "cuda" else 8)
    sources = options.photographs or scikit_image_scenes().training
    machine = record.machine(device.type)
    with tempfile.TemporaryDirectory() as scratch:
        config = TrainConfig(
            photographs=list(sources),
            batch=batch,
            crop=options.crop,
            device=str(device),
            precision=options.precision,
            compile=options.compile,
            trackers=["none"],
            out=Path(scratch) / "run",
            # Never reached; the schedule does not end while there is time.
            steps=10**9,
        )
        config.check()
        rows = measure(config, device, options.workers, options.seconds)
        stem = f"train_{device.type}"
        record.write(options.out / f"{stem}.csv", rows, machine)
        text = report(rows, machine)
        (options.out / f"{stem}.md").write_text(text)
        print(text)
        print(f"Written: {options.out}/{stem}.csv and .md", flush=True)
        # Last: it may be stopped for want of time.
        if options.curve:
            curve(config, options.curve, options.out / f"train_curve_{device.type}")
    return 0


def measure(config: TrainConfig, device: torch.device, workers: int | None, seconds: float) -> list[Speed]:
    """Interleaved like all timings; a sample is a step on a CPU, and fifty, then a wait, on a GPU."""
    images = load_images(config.photographs, config.crop)
    repeats = 1 if device.type == "cpu" else 50

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    names: list[tuple[str, str]] = []
    steps: list[Callable[[], object]] = []
    for loss in LOSSES:
        for provider, step in (
            ("plain", _plain(config, images, device, workers, loss)),
            ("trainer", _trainer(config, images, loss)),
        ):
            for _ in range(3):
                step()
            wait()
            names.append((provider, loss))
            steps.append(_waited(timing.repeated(step, repeats), wait))
    # Only now: the processes with which torch.compile compiles are not this one's.
    others = record.Others()
    samples = timing.interleave(steps, seconds)
    busy = others.share()
    alone = [_loss_alone(config, device, *name) for name in names]
    for step in alone:
        step()
    loss_samples = timing.interleave(
        [_waited(timing.repeated(step, 20), wait) for step in alone], min(10.0, seconds / 4)
    )
    rows = []
    for (provider, loss), sample, loss_sample in zip(names, samples, loss_samples, strict=True):
        low, middle, high = (sample.ms(p) / repeats for p in (20, 50, 80))
        loss_ms = loss_sample.ms(50) / 20
        speed = config.batch / middle * 1e3
        ours = provider == "trainer"
        rows.append(
            Speed(
                provider=provider,
                loss=loss,
                precision=choose_precision(config.precision, device) if ours else "float32",
                compile=choose_compile(config.compile, device, 1) if ours else "none",
                batch=config.batch,
                crop=config.crop,
                photographs=len(images),
                ms_p20=low,
                ms_p50=middle,
                ms_p80=high,
                rounds=len(sample.seconds),
                steps_per_round=repeats,
                crops_per_s=speed,
                loss_ms=loss_ms,
                loss_share=loss_ms / middle,
                stage_minutes=STAGE_CROPS / speed / 60,
                others=busy,
            )
        )
    return rows


def curve(config: TrainConfig, steps: int, stem: Path) -> None:
    """Train so many steps from nothing, as a user would, and keep the log and the report's curves."""
    config = replace(
        config,
        steps=steps,
        out=config.out.with_name("curve"),
        holdout=2,
        log_every=max(1, steps // 50),
        save_every=0,
        validate_every=max(1, steps // 5),
    )
    outcome = train(config)
    for name, suffix in (
        ("log.csv", ".csv"),
        ("validation.csv", "_validation.csv"),
        ("report.html", ".html"),
    ):
        stem.with_name(stem.name + suffix).write_bytes((outcome.weights.parent / name).read_bytes())


def _waited(step: Callable[[], object], wait: Callable[[], None]) -> Callable[[], None]:
    def both() -> None:
        step()
        wait()

    return both


def _trainer(config: TrainConfig, images: LumaSet, loss: str) -> Callable[[], object]:
    """The trainer's own step, as `python -m model train` and `finetune` take it."""
    torch.manual_seed(0)
    if loss == "mae_q":
        values = {name: getattr(config, name) for name in config.recorded()}
        config = FinetuneConfig(
            **{**values, "q_weight": WEIGHT, "lr": 2e-4}, weights=config.out / "w.safetensors"
        )
        save_weights(config.weights, UNet(), Card("unet"))
    trainer = Trainer(config, UNet(), images, None, RunFolder(config.out), open_accelerator(config))
    trainer.train_mode()
    return trainer.one_step


class _PlainCrops(IterableDataset):
    """Random crops, blurred on the CPU in the loader's processes."""

    def __init__(self, images: LumaSet, size: int) -> None:
        self.images, self.size = images, size

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        from scipy.ndimage import uniform_filter

        worker = get_worker_info()
        random = np.random.default_rng(worker.id if worker else 0)
        while True:
            image = self.images.image(random.integers(len(self.images)))
            top, left = (random.integers(side - self.size + 1) for side in image.shape)
            sharp = image[top : top + self.size, left : left + self.size]
            blurred = np.rint(uniform_filter(sharp.astype(np.float32), BLUR, mode="mirror")).astype(np.uint8)
            yield tuple(torch.from_numpy(one[None].astype(np.float32) / 255) for one in (blurred, sharp))


def _plain(
    config: TrainConfig, images: LumaSet, device: torch.device, workers: int | None, loss: str
) -> Callable[[], object]:
    """Float32, eager, Adam, a DataLoader whose processes crop and blur, Q by autograd."""
    torch.manual_seed(0)
    network = UNet().to(device).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    loader = DataLoader(
        _PlainCrops(images, config.crop),
        config.batch,
        num_workers=record.machine(device.type).cores if workers is None else workers,
        pin_memory=device.type == "cuda",
        persistent_workers=workers != 0,
    )
    batches = iter(loader)
    measure_loss = _plain_loss(loss)

    def step() -> None:
        blurred, sharp = (one.to(device, non_blocking=True) for one in next(batches))
        optimizer.zero_grad()
        measure_loss(network(blurred), sharp).backward()
        optimizer.step()

    return step


def _plain_loss(loss: str) -> Callable[[Tensor, Tensor], Tensor]:
    """As one writes it in torch, with autograd, in the definition that the trainer uses."""
    if loss == "mae":
        return torch.nn.functional.l1_loss
    definition = Definition(FinetuneConfig().q_definition)
    return lambda restored, sharp: (
        torch.nn.functional.l1_loss(restored, sharp)
        - WEIGHT * reference.q_per_image(restored, definition, None, refine=False).mean()
    )


def _loss_alone(config: TrainConfig, device: torch.device, provider: str, loss: str) -> Callable[[], object]:
    """The loss's forward and backward on what a network would put out."""
    shape = (config.batch, 1, config.crop, config.crop)
    sharp = torch.rand(shape, device=device)
    restored = (sharp + 0.02 * torch.randn_like(sharp)).requires_grad_()
    if provider == "plain":
        measured = _plain_loss(loss)
    else:
        ours = build_loss(FinetuneConfig(q_weight=WEIGHT) if loss == "mae_q" else config)

        def measured(restored: Tensor, sharp: Tensor) -> Tensor:
            return ours(restored, sharp)[0]

    return lambda: torch.autograd.grad(measured(restored, sharp), restored)


def report(rows: list[Speed], machine: record.Machine) -> str:
    """The speeds, and what they come to, as Markdown."""
    first = rows[0]
    lines = [
        [
            f"{row.provider}: {TITLES[row.loss]}",
            f"{row.precision}{'' if row.compile == 'none' else f', {row.compile}'}",
            f"{row.ms_p50:.4g} ({row.ms_p20:.4g} - {row.ms_p80:.4g})",
            f"{row.crops_per_s:.4g}",
            f"{row.loss_ms:.3g}",
            f"{row.loss_share:.2%}",
            f"{row.stage_minutes:,.0f}",
        ]
        for row in rows
    ]
    heads = ["", "precision", "ms a step", "crops/s", "loss ms", "of the step", "minutes a stage"]
    text = [
        f"# Training speed on {machine.device}\n",
        record.describe(machine, first.others) + "\n",
        f"Steps of {first.batch} crops of {first.crop} x {first.crop}, {first.photographs} photographs, "
        f"{BLUR} x {BLUR} box blur. Medians (20th - 80th\npercentile) of interleaved rounds. plain: float32, "
        "eager, Adam, DataLoader processes that crop and blur with scipy, Q by\nautograd of its closed form. "
        "trainer: the step of `python -m model train` and `finetune`. The loss's time is that\nof its "
        "forward and backward alone, on a tensor of the batch's shape. A stage is the paper's "
        f"{STAGE_CROPS / 1e6:.2f} million crops.\n",
        tables.table(heads, lines, left=2),
        "\n## Reach\n",
        tables.table(["", "wanted", "measured", "reached"], reach(rows, machine.device), left=1),
    ]
    return "\n".join(text) + "\n"


def reach(rows: list[Speed], device: str) -> list[list[str]]:
    """The targets of the device, what was measured, and whether it is there."""
    times = {(row.provider, row.loss): row for row in rows}
    ours, ours_q = (times["trainer", loss] for loss in LOSSES)
    speed_ups = {loss: times["plain", loss].ms_p50 / times["trainer", loss].ms_p50 for loss in LOSSES}
    found: list[tuple[str, str, str, bool]] = []
    least = 5 if device == "cuda" else 1
    for loss, ratio in speed_ups.items():
        found.append((f"{TITLES[loss]}: speed-up over plain", f">= {least}", f"{ratio:.2f}", ratio >= least))
    more = ours_q.ms_p50 / ours.ms_p50 - 1
    found.append(("MAE - w Q: more time a step than MAE", "<= 2%", f"{more:.1%}", more <= 0.02))
    if device == "cuda":
        speed = ours.crops_per_s
        found.append(("MAE: crops/s on an H200-class card", ">= 11,000", f"{speed:,.0f}", speed >= 11_000))
        found.append(("MAE: times the paper's", "", f"{speed / PAPER:.1f}", True))
    else:
        share = ours_q.loss_share
        found.append(("MAE - w Q: the loss's share of the step", "<= 1%", f"{share:.2%}", share <= 0.01))
    both = ours.stage_minutes + ours_q.stage_minutes
    lines = [
        [what, wanted, measured, "yes" if there else "**no**"] for what, wanted, measured, there in found
    ]
    return [*lines, ["both stages of the paper, minutes", "", f"{both:,.0f}", ""]]
