"""The networks with several losses at equal budget, trained for minutes, measured on Kodak."""

from __future__ import annotations

import argparse
import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from model.__main__ import COMMANDS
from model.command_line import load_config
from model.comparison.command import compare, write_comparison
from model.comparison.config import CompareConfig
from model.comparison.table import Comparison
from model.data.prepare import PrepareConfig, prepare
from model.data.store import is_store
from model.device import choose_device
from model.errors import UserError
from model.evaluation.data_sets import VARIABLE, data_folder

from . import record

NETWORKS = CompareConfig().networks
LOSSES = CompareConfig().losses
#: IFAN's predicted filters multiply; at the rate of the others it diverges after some hundred steps.
RATES = {"ifan": 0.3}

#: Decibels above the blurred pictures from which on a network has learned something.
BEGUN = 0.5

ABOUT = """\
Every network is trained with MAE for the same time and then, from the same weights, with each loss for
the same number of steps on the same crops. What this can say is what a loss does: its differences to MAE
are taken picture by picture, after equally many steps from the same start. What it cannot say is which
network is best. Their authors trained for days on GPUs; in minutes a light network sees many times the
crops of a heavy one, all learn at about the same rates instead of their own, and on crops that are
smaller than what the large ones were made for. DDNet is told the blur and starts from its inverse: its
rows are not to be held against networks that are not told. The intervals are over pictures; with one seed
nothing is said about how much another training run would differ.
"""


@dataclass(frozen=True)
class Row:
    """One row: a run, or the blurred pictures. Steps, crops and seconds are of its stage alone."""

    network: str
    knows_blur: bool
    arguments: str
    parameters: int
    loss: str
    steps: int
    earlier_steps: int
    crops: int
    seconds: float
    psnr: float | None
    ssim: float | None
    q: float | None
    lpips: float | None
    others: float | None = None


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, help=f"folder with kodak and train (default: {VARIABLE})")
    parser.add_argument("--train", nargs="+", type=Path, help="photographs or a store (default: DATA/train)")
    parser.add_argument("--networks", nargs="+", default=NETWORKS, metavar="NAME")
    parser.add_argument("--losses", nargs="+", default=LOSSES, metavar="LOSS", help="e.g. l1+0.1*lpips")
    parser.add_argument("--minutes", type=float, default=2.0, help="of the first stage (default 2)")
    parser.add_argument("--finetune-minutes", type=float, default=1.0, help="of the second (default 1)")
    parser.add_argument("--batch", type=int, default=2, help="crops in a step (default 2)")
    parser.add_argument("--crop", type=int, default=64, help="side of the crops (default 64)")
    parser.add_argument("--lr", type=float, default=1e-3, help="highest rate of the first stage (1e-3)")
    parser.add_argument("--finetune-lr", type=float, default=2e-4, help="of the second (default 2e-4)")
    parser.add_argument("--precision", default="auto", help="as of `python -m model train`")
    parser.add_argument("--limit", type=int, default=0, help="test photographs (default: all)")
    parser.add_argument("--lpips-weights", type=Path, help="default: DATA/lpips_weights where it is there")
    parser.add_argument("--device", default="auto", help="cpu, cuda or auto (default)")
    parser.add_argument("--run", type=Path, help="folder of the runs (default: runs/bench/compare)")
    parser.add_argument("--out", type=Path, help="folder (default: bench/results, of a part runs/bench)")


def run(options: argparse.Namespace) -> int:
    """Compare, write CSV and Markdown; an interrupted run goes on where it stopped."""
    device = choose_device(options.device).type
    whole = (options.networks, options.losses, options.limit) == (NETWORKS, LOSSES, 0)
    whole = whole and options.minutes >= 1 and options.finetune_minutes >= 1
    folder = options.out or (record.RESULTS if whole else record.SCRATCH)
    machine, others = record.machine(device), record.Others()
    config = _config(options)
    others.share()
    comparison = compare(config)
    if comparison is None:
        print("Interrupted: the same command goes on.")
        return 130
    busy = others.share()
    write_comparison(config.out, comparison)
    folder.mkdir(parents=True, exist_ok=True)
    record.write(folder / f"compare_{device}.csv", rows(comparison, busy), machine)
    text = report(comparison, machine, busy)
    (folder / f"compare_{device}.md").write_text(text, encoding="utf-8", newline="\n")
    print(text)
    print(f"Written: {folder}/compare_{device}.csv and .md")
    return 0


def _config(options: argparse.Namespace) -> CompareConfig:
    """The comparison, going on where one with the same options was interrupted."""
    data = data_folder(options.data)
    if data is None:
        raise UserError(
            f"where are the photographs? Name the folder with kodak and train: --data or {VARIABLE}"
        )
    out = options.run or record.SCRATCH / "compare"
    lpips = options.lpips_weights or data / "lpips_weights"
    config = CompareConfig(
        photographs=_photographs(options.train or [data / "train"], out),
        test=[Path("kodak")],
        data=data,
        out=out,
        networks=options.networks,
        losses=options.losses,
        minutes=options.minutes,
        finetune_minutes=options.finetune_minutes,
        batch=options.batch,
        crop=options.crop,
        lr=options.lr,
        network_rates={name: RATES[name] for name in options.networks if name in RATES},
        finetune_lr=options.finetune_lr,
        precision=options.precision,
        limit=options.limit,
        lpips_weights=lpips if options.lpips_weights or lpips.is_dir() else None,
        device=options.device,
    )
    config.check()
    saved = out / "config.yaml"
    if not saved.is_file():
        return config
    before = load_config(saved, "compare", COMMANDS["compare"])
    asked, had = (
        dataclasses.replace(one, resume=False, overwrite=False, out=out).recorded()
        for one in (config, before)
    )
    changed = [name for name in asked if asked[name] != had[name]]
    if changed:
        raise UserError(
            f"{out} holds a comparison with --{changed[0]} {had[changed[0]]}, not {asked[changed[0]]}; "
            "name another folder with --run"
        )
    return dataclasses.replace(config, resume=True)


def _photographs(sources: list[Path], out: Path) -> list[Path]:
    """A store, so that the photographs are decoded once and not for every run."""
    if len(sources) == 1 and is_store(sources[0]):
        return sources
    store = out.with_name(f"{out.name}_store")
    if not is_store(store):
        prepare(PrepareConfig(photographs=sources, out=store))
    return [store]


def rows(comparison: Comparison, others: float | None) -> list[Row]:
    """The lines of the table as records, the blurred pictures first."""
    blurred = Row("blurred", False, "{}", 0, "", 0, 0, 0, 0.0, **comparison.blurred, others=others)
    return [
        blurred,
        *(
            Row(
                line.network,
                line.knows_blur,
                json.dumps(dict(line.arguments)),
                line.parameters,
                line.loss,
                line.steps,
                line.earlier_steps,
                line.crops,
                line.seconds,
                **line.means,
                others=others,
            )
            for line in comparison.lines
        ),
    ]


def report(comparison: Comparison, machine: record.Machine, others: float | None) -> str:
    """Everything as Markdown."""
    parts = ["# Networks and losses at equal budget", record.describe(machine, others)]
    parts += [ABOUT.replace("\n", " ").strip(), *_hardly_begun(comparison)]
    return "\n\n".join([*parts, comparison.markdown()])


def _hardly_begun(comparison: Comparison) -> list[str]:
    """A warning where networks still give back what they are given."""
    before = comparison.blurred["psnr"]
    gains = {
        line.network: line.means["psnr"] - before
        for line in comparison.lines
        if line.means["psnr"] is not None and before is not None
    }
    names = [network for network, gain in gains.items() if gain < BEGUN]
    if not names:
        return []
    return [
        f"**Hardly begun to learn after so few steps: {', '.join(names)}**, less than {BEGUN:g} dB above the "
        "blurred pictures. Their differences say nothing of a loss."
    ]
