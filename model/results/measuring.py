"""The measurements behind the results page."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from model.data.photographs import Photograph
from model.data.sources import load_images
from model.device import choose_device
from model.errors import UserError
from model.evaluation.command import device_in_words, measure, open_lpips
from model.evaluation.config import EvaluateConfig
from model.evaluation.data_sets import locate
from model.evaluation.evaluator import evaluate
from model.evaluation.formats import Table
from model.evaluation.methods import Identity, Method, NetworkMethod, method_from_weights
from model.evaluation.paired import Difference, against
from model.evaluation.perceptual import Lpips
from model.evaluation.protocol import Pair, Protocol, find_protocol
from model.evaluation.ringing import overshoot
from model.evaluation.table import Row, mean_rows
from model.interpolation import between
from model.progress import say
from model.results.config import ResultsConfig
from model.results.runs import Run, of_study, of_sweep, require_alike, require_untouched
from model.shipped import MAE, MAE_Q, shipped
from model.weights import Card, load_weights

__all__ = [
    "PROTOCOLS",
    "QUALITIES",
    "Q_DEFINITION",
    "Results",
    "Study",
    "measure_all",
]

PROTOCOLS = ("paper-kodak", "paper-bsds")
PROTOCOL_DATA = {name: find_protocol(name).data for name in PROTOCOLS}
QUALITIES = ("psnr", "ssim", "q", "lpips")
# The definition that explains the Q column of the paper's tables.
Q_DEFINITION = "pythonq"


@dataclass(frozen=True)
class Study:
    """Fine-tuning runs beside each other on photographs held out from training."""

    rows: Sequence[Row]
    """blurred, the start, then the runs by name."""
    cards: Mapping[str, Card]
    """Of the runs, by name."""
    differences: Mapping[str, Mapping[str, Difference]]
    """run -> metric -> against the run whose w is 0; empty without one."""
    note: str


@dataclass(frozen=True)
class Results:
    """Everything that the page shows."""

    tables: Mapping[str, tuple[Table, list[Pair]]]
    """protocol -> its table and pictures: blurred, the two shipped networks, then the sweep."""
    dial: Sequence[Row]
    """On Kodak, labels "sharpness=NUMBER"."""
    cards: Mapping[str, Card]
    """Of the shipped networks, and of the sweep, by the names of the rows."""
    study: Study | None
    machine: str

    @property
    def soft(self) -> str:
        """The row of the network trained with MAE."""
        return next(iter(self.cards))

    @property
    def sharp(self) -> str:
        """The row of the recommended network."""
        return list(self.cards)[1]

    @property
    def weights_of_q(self) -> list[str]:
        """Rows of the sweep, the control first."""
        return sorted(
            (name for name in self.cards if name.startswith("w=")), key=lambda name: float(name[2:])
        )

    def differences(self, protocol: str, method: str, control: str) -> dict[str, Difference]:
        """A method against a control, picture by picture."""
        return against(self.tables[protocol][0].measurements, control, method, QUALITIES)

    def overshoots(self, protocol: str, method: str) -> dict[str, float]:
        """Picture -> grey levels beyond what the sharp picture shows around each pixel."""
        table, pairs = self.tables[protocol]
        restored = {one.image: one.restored for one in table.measurements if one.method == method}
        return {pair.name: overshoot(pair.sharp, restored[pair.name]) for pair in pairs}


def measure_all(config: ResultsConfig) -> Results:
    """Measure what the configuration asks for; what was measured before is taken from the cache.

    Raises:
        UserError: if something in the configuration, the weights or the pictures is wrong.
    """
    config.check()
    device = choose_device(config.device)
    # All that can be wrong is found before hundreds of pictures are measured.
    for protocol in PROTOCOLS:
        locate(Path(PROTOCOL_DATA[protocol]), config.data)
    soft, sharp = shipped(MAE), shipped(MAE_Q)
    between(soft, sharp, 0.5)
    sweep = of_sweep(config.sweep) if config.sweep else {}
    if sweep:
        require_alike(sweep, soft)
    cards = {path.stem: load_weights(path)[1] for path in (soft, sharp)}
    study = of_study(config.study) if config.study else {}
    if study:
        require_alike(study, soft)
        require_untouched(next(iter(study.values())), cards[soft.stem])
    lpips = open_lpips(True, config.lpips_weights, config.device)
    named = {soft.stem: soft, sharp.stem: sharp, **{name: run.weights for name, run in sweep.items()}}
    tables = {protocol: _table(config, protocol, named) for protocol in PROTOCOLS}
    say("the dial")
    return Results(
        tables,
        _dial(config, soft, sharp, tables[PROTOCOLS[0]][1], lpips, device),
        {**cards, **{name: run.card for name, run in sweep.items()}},
        _study(study, soft, lpips, device) if study else None,
        device_in_words(device),
    )


def _table(config: ResultsConfig, protocol: str, named: Mapping[str, Path]) -> tuple[Table, list[Pair]]:
    table, pairs = measure(
        EvaluateConfig(
            protocol=protocol,
            data=config.data,
            methods=[f"{name}=weights:{path}" for name, path in named.items()],
            limit=config.limit,
            lpips_weights=config.lpips_weights,
            published="I" if protocol == PROTOCOLS[0] else "",
            out=config.run / protocol,
            device=config.device,
        )
    )
    if table.failures:
        failure = table.failures[0]
        raise UserError(f"{failure.method} failed on {failure.image}: {failure.reason}")
    return table, pairs


def _dial(
    config: ResultsConfig,
    soft: Path,
    sharp: Path,
    pairs: Sequence[Pair],
    lpips: Lpips | None,
    device: torch.device,
) -> list[Row]:
    methods: list[Method] = [
        NetworkMethod(f"sharpness={share:g}", between(soft, sharp, share), device)
        for share in np.linspace(0, 1, config.dial)
    ]
    output = find_protocol(PROTOCOLS[0]).output
    return mean_rows(evaluate(methods, pairs, Q_DEFINITION, lpips, output=output), intervals=True)


def _study(runs: Mapping[str, Run], soft: Path, lpips: Lpips | None, device: torch.device) -> Study:
    """Measure the runs on the photographs that they kept from training."""
    control = next(iter(runs))
    of_all = runs[control].config
    pairs = list(_held_out(of_all))
    start = method_from_weights(soft, device)
    start.name = "start"
    methods: list[Method] = [Identity(), start]
    for name, run in runs.items():
        method = method_from_weights(run.weights, device)
        method.name = name
        methods.append(method)
    measurements = evaluate(methods, pairs, Q_DEFINITION, lpips)
    differences = {name: against(measurements, control, name, QUALITIES) for name in runs if name != control}
    note = (
        f"Central crops of {of_all['crop']} x {of_all['crop']} of the {len(pairs)} photographs that were "
        f"kept from training, blur {of_all['blur']}, 8 bits. Q in this table: {Q_DEFINITION}, whatever the "
        "loss was."
    )
    cards = {name: run.card for name, run in runs.items()}
    return Study(mean_rows(measurements, intervals=True), cards, differences, note)


def _held_out(config: Mapping[str, Any]) -> Iterator[Pair]:
    def skip(name: str, reason: str) -> None:
        say(f"skipped {name}: {reason}")

    images = load_images([Path(one) for one in config["photographs"]], config["crop"], skip)
    _, held_out = images.split(config["holdout"], config["seed"])
    for option in ("noise", "jpeg", "light", "vary"):
        if config.get(option):
            raise UserError(f"--study compares runs on one blur without more; these have --{option}")
    protocol = Protocol(crop=config["crop"], blur=config["blur"])
    for index, name in enumerate(held_out.names):
        yield protocol.pair(Photograph(Path(name), np.asarray(held_out.image(index))), name)
