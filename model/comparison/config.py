"""What a comparison is told."""

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from model.classical.naming import nearest
from model.errors import UserError
from model.evaluation.config import EvaluateConfig
from model.networks import NETWORKS
from model.training.config import FinetuneConfig, TrainConfig, plain_values
from model.training.formula import parse_loss, written

__all__ = ["CompareConfig"]


@dataclass(kw_only=True)
class CompareConfig:
    """Train each network with MAE, go on from there with each loss, and measure them all: one table.

    Every run sees the same crops in the same order, and every loss starts from the same weights of its
    network.
    """

    photographs: list[Path] = field(default_factory=list)
    """What to train on: a store (`python -m model prepare`) or folders of photographs."""
    test: list[Path] = field(default_factory=list)
    """What to measure on: folders of sharp photographs, or names of data sets, as for `evaluate`."""
    data: Path | None = None
    """Folder that holds the data sets; without it, the one that QKERNEL_DATA names."""
    out: Path = Path("runs/compare")
    """Folder for the runs, table.md, table.csv and table.json."""
    resume: bool = False
    """Go on with the comparison in --out, with the configuration saved there; finished runs stay, and other
    options than it has are refused."""
    overwrite: bool = False
    """Replace an earlier comparison in --out."""

    networks: list[str] = field(default_factory=lambda: ["unet", "xydeblur", "restormer", "ifan", "ddnet"])
    """Names of the networks."""
    losses: list[str] = field(default_factory=lambda: ["l1", "l1+0.01*q"])
    """Losses of the second stage, as for --loss of `finetune`; the first is what the others are compared
    with."""
    network_args: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Network -> arguments of its constructor, such as {"restormer": {"width": 24}}; the table shows them."""
    output_gain: float = 0.0
    """Factor on the initial weights of every network's last convolutions. With 0 training starts from the
    blurred picture (DDNet: from the inverted blur), which suits short runs; 1 is as published."""

    steps: int = 1000
    """Steps of the first stage."""
    finetune_steps: int = 500
    """Steps of the second stage, with each loss."""
    minutes: float = 0.0
    """Length of the first stage in minutes instead of --steps, where above 0: the time of a step is measured
    first for each network, so that a slow network takes fewer."""
    finetune_minutes: float = 0.0
    """Length of the second stage with MAE in minutes instead of --finetune_steps, where above 0; every loss
    gets the same number of steps."""
    batch: int = 4
    """Crops in a step."""
    crop: int = 64
    """Side of the crops in pixels."""
    blur: str = "box:5"
    """The blur to remove, in training and in the test."""
    lr: float = 3e-4
    """Highest learning rate of the first stage."""
    finetune_lr: float = 1e-4
    """Highest learning rate of the second stage."""
    network_rates: dict[str, float] = field(default_factory=dict)
    """Network -> factor on both rates, such as {"ifan": 0.3} for one that diverges at those of the others."""
    q_definition: Literal["zhu2010", "mmsp2024", "pythonq"] = "mmsp2024"
    """Definition of Q in the losses; the table has that of `evaluate`."""
    seed: int = 0
    """Seed of the fresh weights and of the crops."""

    protocol: str = "central"
    """The protocol of `evaluate` by which all are measured."""
    limit: int = 0
    """Take the first test photographs only; 0 takes all."""
    lpips_weights: Path | None = None
    """Folder with alexnet_features.npz, where torchvision has not cached its AlexNet."""
    save_every: int = 200
    """Steps between checkpoints."""
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Of the convolutions in training, as for `train`."""
    device: str = "auto"
    """cpu, cuda, cuda:1, mps, or auto for the best there is."""

    def check(self) -> None:
        """Refuse values that cannot work, also those of the runs.

        Raises:
            UserError: naming the option, its value, and what would do.
        """
        if not self.photographs:
            raise UserError("no photographs given to train on; name a folder: --photographs FOLDER")
        if not self.test:
            raise UserError("no photographs given to measure on; name a folder: --test FOLDER")
        for name in ("networks", "losses"):
            if not getattr(self, name):
                raise UserError(f"--{name} names none")
        for name in (*self.networks, *self.network_args, *self.network_rates):
            if name not in NETWORKS:
                raise UserError(f"no network is called {name!r}; {nearest(name, NETWORKS)}")
        if unused := set(self.network_args) - set(self.networks):
            raise UserError(f"--network_args is for {min(unused)}, which --networks leaves out")
        for name, factor in self.network_rates.items():
            if not factor > 0:
                raise UserError(f"--network_rates: the factor of {name} must be positive, got {factor}")
        for name, given in (("networks", self.networks), ("losses", self.formulas)):
            if len(set(given)) < len(given):
                raise UserError(f"--{name} names one twice: {', '.join(given)}")
        for name in ("minutes", "finetune_minutes", "output_gain"):
            if not getattr(self, name) >= 0:
                raise UserError(f"--{name} must not be negative, got {getattr(self, name)}")
        if not self.finetune_steps > 0:
            raise UserError(f"--finetune_steps must be positive, got {self.finetune_steps}")
        self.evaluation([]).check()
        for network in self.networks:
            first = self.first_stage(network, self.steps)
            first.check()
            for formula in self.formulas:
                self.second_stage(network, formula, first.out, self.finetune_steps).check()

    @property
    def formulas(self) -> list[str]:
        """The losses, each in its one way of writing."""
        return [written(parse_loss(text)) for text in self.losses]

    def first_stage(self, network: str, steps: int) -> TrainConfig:
        """The run that trains a network with MAE."""
        arguments = {"output_gain": self.output_gain, **self.network_args.get(network, {})}
        return TrainConfig(
            **self._shared(steps),
            out=self.out / network / "first",
            network=network,
            network_args=arguments,
            lr=self.lr * self.network_rates.get(network, 1.0),
            seed=self.seed,
            # Batches this small hide what a whole photograph shows a network.
            freeze_after=0.7,
        )

    def second_stage(self, network: str, formula: str, first: Path, steps: int) -> FinetuneConfig:
        """The run that goes on with a loss from the weights in the folder `first`."""
        return FinetuneConfig(
            **self._shared(steps),
            # The star would mean something to shells.
            out=self.out / network / formula.replace("*", ""),
            weights=first / "weights.safetensors",
            loss=formula,
            q_definition=self.q_definition,
            lpips_weights=self.lpips_weights,
            lr=self.finetune_lr * self.network_rates.get(network, 1.0),
            # Not the same crops in the same order once more.
            seed=self.seed + 1,
            freeze_batch_norm=True,
        )

    def _shared(self, steps: int) -> dict[str, Any]:
        return {
            "photographs": self.photographs,
            "steps": steps,
            "batch": self.batch,
            "crop": self.crop,
            "blur": self.blur,
            "augment": True,
            "warmup": min(100, steps // 10),
            # The average of so short a run must not reach far back.
            "ema": 0.99,
            "log_every": 25,
            "save_every": self.save_every,
            "precision": self.precision,
            "trackers": ["none"],
            "device": self.device,
        }

    def evaluation(self, methods: list[str]) -> EvaluateConfig:
        """How some methods are measured."""
        return EvaluateConfig(
            photographs=self.test,
            data=self.data,
            protocol=self.protocol,
            blur=self.blur,
            limit=self.limit,
            methods=methods,
            lpips_weights=self.lpips_weights,
            out=self.out / "evaluation",
            device=self.device,
        )

    def recorded(self) -> dict[str, Any]:
        """The configuration as plain values, ready for YAML or JSON."""
        return {item.name: plain_values(getattr(self, item.name)) for item in fields(self)}
