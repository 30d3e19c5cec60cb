"""What a training run is told, and the checks of it."""

import math
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from model.data.degradation import Degradation
from model.errors import UserError
from model.training.formula import parse_loss

__all__ = ["FinetuneConfig", "TrainConfig", "plain_values"]

# The side of the smallest picture of which AlexNet's last pooling leaves a pixel.
LPIPS_SMALLEST = 31


@dataclass(kw_only=True)
class TrainConfig:
    """Train a network from fresh weights with the mean absolute error.

    Batch and crop are the paper's; optimiser, rates and schedule are not published and chosen here: AdamW, a
    short warm-up and a cosine to nothing. `configs/` has the paper's recipes whole.
    """

    photographs: list[Path] = field(default_factory=list)
    """What to train on: a store (`python -m model prepare`), folders of photographs, or folders of pairs."""
    validation: list[Path] = field(default_factory=list)
    """Photographs or pairs to validate on, given like --photographs; never trained on."""
    holdout: int = 0
    """Without --validation: this many of the training photographs, drawn by --seed, are kept for it."""
    out: Path = Path("runs/train")
    """Folder for config, logs, weights, checkpoints and report."""
    then: Path | None = None
    """YAML file of the fine-tuning that follows, from the newest weights of this run, or from the best if
    the file names best.safetensors in --out as its weights."""
    resume: bool = False
    """Go on with the interrupted run in --out, with the configuration saved there; other options than it has
    are refused."""
    overwrite: bool = False
    """Replace an earlier run in --out."""
    network: str = "unet"
    """Name of the network."""
    network_args: dict[str, Any] = field(default_factory=dict)
    """Arguments of the network's constructor."""

    steps: int = 10_000
    """Optimiser steps of the whole run."""
    epochs: float = 0.0
    """Length in epochs instead of --steps, where above 0."""
    epoch_crops: int = 134_400
    """Crops of an epoch: how often is validated, and what --epochs counts."""
    batch: int = 32
    """Crops in a step, of each process."""
    accumulate: int = 1
    """Parts in which a step's crops go through the network, one after the other, for GPUs whose memory does
    not hold the activations of all. The gradient is the same; batch normalisation and the grid of a random
    --q_offset are those of a part."""
    crop: int = 128
    """Side of the square crops in pixels."""
    sampling: Literal["random", "grid"] = "random"
    """random: crops from anywhere; grid: photographs cut into crops side by side, each once in a round, as
    the paper's fixed set."""
    augment: bool = False
    """Turn and mirror the crops at random; the paper does not."""
    blur: str = "box:5"
    """The blur to learn to remove: box:SIDE, disc:RADIUS (a lens out of focus), gaussian:SIGMA, or none."""
    noise: float = 0.0
    """Variance of Gaussian noise on [0, 1] added to the blurred crops; the paper's noisy set has 0.003."""
    quantise: bool = True
    """Round blurred crops to 8 bits, as stored photographs are."""
    jpeg: int = 0
    """Quality, 1 to 100, of the JPEG compression of blurred crops; 0 does not compress."""
    light: bool = False
    """Blur the amounts of light that sRGB's levels stand for, as a lens does, and not the levels."""
    vary: bool = False
    """Give each crop a blur, a noise and a compression of its own, drawn evenly from none up to those given,
    so that one network learns them all and leaves alone what is sharp."""

    loss: str = ""
    """What is minimised instead of the command's own loss: terms, each with its weight, summed, such as
    l1+0.01*q+0.1*lpips. Terms: l1 (or mae), mse, charbonnier, ssim (1 - SSIM), sobel (difference of
    gradients), lpips, and q, the sharpness metric, which is subtracted: l1+0.01*q is MAE - 0.01 Q."""
    q_definition: Literal["zhu2010", "mmsp2024", "pythonq"] = "mmsp2024"
    """Which published definition of Q is in the loss; the weight does not carry over between them."""
    q_eps: float = 0.0
    """Smoothing of Q near straight edges, a gradient per pixel; 0 is the published metric."""
    q_offset: Literal["zero", "random"] = "zero"
    """Where Q's grid of 8 x 8 patches starts: always in the corner, or drawn anew at every step."""
    lpips_weights: Path | None = None
    """Folder with alexnet_features.npz for LPIPS in the loss, where torchvision has not cached AlexNet."""

    lr: float = 1e-3
    """Highest learning rate."""
    schedule: Literal["cosine", "linear", "exponential", "constant"] = "cosine"
    """How the rate falls from --lr to --lr_end of it."""
    warmup: int = 100
    """Steps in which the rate rises to --lr."""
    hold: float = 0.0
    """Share of the run during which the rate stays at --lr before it falls."""
    lr_end: float = 0.0
    """The rate after the last step, as a share of --lr; exponential needs it above 0."""
    weight_decay: float = 0.0
    """Decoupled weight decay of AdamW."""
    clip_norm: float = 1.0
    """Longest gradient (norm over all parameters); 0 does not limit it."""
    ema: float = 0.999
    """Decay of the moving average of the weights that is validated and written; 0 writes the weights
    themselves."""
    freeze_batch_norm: bool = False
    """Keep batch-norm statistics as they are, in the network and in its gradient."""
    freeze_after: float = 1.0
    """Share of the run after which batch-norm statistics are measured once and held, so that the network ends
    its training in the form in which it is used; 1 never holds them."""
    sync_batch_norm: bool = False
    """Batch-norm statistics over the crops of all processes; on GPUs."""
    statistics_batches: int = 20
    """Batches that batch-norm statistics are measured on before weights are written; 0: the running ones."""

    seed: int = 0
    """Seed of the fresh weights and of the crops."""
    log_every: int = 50
    """Steps between lines of the log."""
    validate_every: int = 0
    """Steps between validations; 0: every epoch. The last step is always validated."""
    save_every: int = 1000
    """Steps between checkpoints; 0 saves at the end and on interruption only."""
    keep: int = 2
    """Checkpoints that are kept, the newest."""
    best: Literal["psnr", "ssim", "q"] = "psnr"
    """Measure by which best.safetensors is chosen among the validated weights."""
    trackers: list[str] = field(default_factory=lambda: ["tensorboard"])
    """Where curves and pictures go besides the run folder: tensorboard, wandb, ... or none."""

    device: str = "auto"
    """cpu, cuda, cuda:1, mps, or auto for the best there is."""
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Of the convolutions, under autocast; weights and loss stay float32. auto: bfloat16 where the GPU or the
    CPU multiplies it, else float16 on a GPU and float32 on a CPU."""
    compile: Literal["auto", "none", "default", "reduce-overhead", "max-autotune"] = "auto"
    """torch.compile's mode for the network. auto: reduce-overhead (CUDA graphs) on one GPU, default on many
    or with --accumulate, none elsewhere."""
    memory: Literal["auto", "device", "stream"] = "auto"
    """Where the photographs lie: on the device whole, or on the host, from where crops are streamed. auto: on
    a GPU that can hold them in half of its free memory."""
    shard: bool = False
    """Each process takes crops from its own part of the photographs only: for sets beyond one memory."""

    @property
    def stage(self) -> str:
        """The name of the stage, kept in the weights' metadata."""
        return "train"

    @property
    def degradation(self) -> Degradation:
        """How crops are made worse."""
        return Degradation(self.blur, self.noise, self.quantise, self.jpeg, self.light, self.vary)

    @property
    def at_a_time(self) -> int:
        """Crops that go through the network together."""
        return self.batch // self.accumulate

    def total_steps(self, processes: int = 1) -> int:
        """Steps of the whole run, when so many processes share it."""
        if not self.epochs:
            return self.steps
        return max(1, math.ceil(self.epochs * self.epoch_crops / (self.batch * processes)))

    def epoch_steps(self, processes: int = 1) -> int:
        """Steps of an epoch."""
        return max(1, round(self.epoch_crops / (self.batch * processes)))

    def check(self) -> None:
        """Refuse values that cannot work.

        Raises:
            UserError: naming the option, its value, and what would do.
        """
        if not self.photographs:
            raise UserError("no photographs given; name a folder: --photographs FOLDER")
        for name in ("steps", "batch", "accumulate", "crop", "lr", "log_every", "epoch_crops", "keep"):
            if not getattr(self, name) > 0:
                raise UserError(f"--{name} must be positive, got {getattr(self, name)}")
        for name in (
            *("warmup", "weight_decay", "clip_norm", "seed", "save_every", "statistics_batches"),
            *("epochs", "holdout", "validate_every", "q_eps"),
        ):
            if not getattr(self, name) >= 0:
                raise UserError(f"--{name} must not be negative, got {getattr(self, name)}")
        for name in ("ema", "hold"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"--{name} must be at least 0 and below 1, got {getattr(self, name)}")
        if not 0 < self.freeze_after <= 1:
            raise UserError(
                f"--freeze_after is a share of the run, above 0 and at most 1, got {self.freeze_after}"
            )
        if not 0 <= self.lr_end <= 1:
            raise UserError(f"--lr_end is a share of --lr, from 0 to 1, got {self.lr_end}")
        if self.schedule == "exponential" and self.lr_end == 0:
            raise UserError("--schedule exponential never reaches 0; give --lr_end, e.g. 0.01")
        self.degradation.check()
        if self.crop < 16:
            raise UserError(f"--crop must be at least 16 pixels, got {self.crop}")
        if self.crop <= self.degradation.radius:
            raise UserError(f"--crop {self.crop} is too small for --blur {self.blur}")
        self._check_loss()
        if self.batch % self.accumulate:
            raise UserError(
                f"--accumulate {self.accumulate} does not divide --batch {self.batch} into equal parts"
            )
        # Batch normalisation cannot be trained on the one value per channel that the bridge would see.
        if self.at_a_time == 1 and self.crop <= 16 and not self.freeze_batch_norm:
            raise UserError(
                f"a crop at a time (--batch, --accumulate) needs --crop above 16, got {self.crop}"
            )

    def _check_loss(self) -> None:
        if self.lpips_weights is not None and not self.lpips_weights.is_dir():
            raise UserError(f"--lpips_weights {self.lpips_weights} is not a folder")
        names = {term.name for term in parse_loss(self.loss)} if self.loss else set()
        if "lpips" in names and self.crop < LPIPS_SMALLEST:
            least = LPIPS_SMALLEST
            raise UserError(f"--loss {self.loss}: lpips needs --crop {least} or more, got {self.crop}")

    def recorded(self) -> dict[str, Any]:
        """The configuration as plain values, ready for YAML or JSON."""
        return {item.name: plain_values(getattr(self, item.name)) for item in fields(self)}


@dataclass(kw_only=True)
class FinetuneConfig(TrainConfig):
    """Fine-tune given weights with MAE - w Q, equation 7 of the paper.

    w and the definition of Q are those of the paper's released code; the rate is chosen: a fifth of that of
    `train`.
    """

    weights: Path | None = None
    """Weights to start from, which say what network it is: as `train` writes them (.safetensors), or as the
    authors of XY-Deblur, Restormer and IFAN publish them (.pkl, .pth, .pytorch)."""
    out: Path = Path("runs/finetune")
    """Folder for config, logs, weights, checkpoints and report."""
    network: str = ""
    """Name of the network; without it, the one that the weights are of."""
    q_weight: float | None = None
    """w, the weight of the sharpness metric Q; 0 continues with MAE alone, the control to compare with.
    Without it 0.01, unless --loss says what is minimised."""
    q_weights: list[float] = field(default_factory=list)
    """Several w in one go, e.g. 0,0.001,0.01,0.1: a run for each in a subfolder of --out, and a table."""
    only: list[str] = field(default_factory=list)
    """Parts of the network that are trained, by the beginnings of their parameters' names, such as
    decoder.3,output; all others stay as they are, bit by bit. Without any, all are trained."""
    lr: float = 2e-4
    """Highest learning rate."""

    @property
    def stage(self) -> str:
        """The name of the stage, kept in the weights' metadata."""
        return "finetune"

    @property
    def weight_of_q(self) -> float:
        """w of MAE - w Q, where --loss does not say otherwise; the default is that of the released code."""
        return 0.01 if self.q_weight is None else self.q_weight

    def check(self) -> None:
        """Refuse values that cannot work; see `TrainConfig.check`."""
        super().check()
        if self.weights is None:
            raise UserError("no weights to start from; give --weights FILE.safetensors, as `train` writes it")
        if self.q_weight is not None and not self.q_weight >= 0:
            raise UserError(f"--q_weight must not be negative, got {self.q_weight}")
        for name in ("q_weight", "q_weights"):
            given = getattr(self, name)
            if self.loss and given not in (None, []):
                raise UserError(
                    f"--loss {self.loss} and --{name} {given} both say what is minimised; leave one away "
                    f"(--{name} {'null' if name == 'q_weight' else '[]'} where a file sets it)"
                )
        for weight in self.q_weights:
            if not weight >= 0:
                raise UserError(f"--q_weights must not be negative, got {weight}")
        if len(set(self.q_weights)) < len(self.q_weights):
            raise UserError(f"--q_weights names a weight twice: {self.q_weights}")
        self._check_start(self.weights)

    def _check_start(self, weights: Path) -> None:
        """Refuse to begin with the removal of the weights to start from."""
        folder, out = weights.resolve().parent, self.out.resolve()
        mine = folder.parent == out and folder.name.startswith("w_") if self.q_weights else folder == out
        if mine and weights.name in ("weights.safetensors", "best.safetensors") and not self.resume:
            raise UserError(
                f"--weights {weights} would be replaced by this run; give another --out than {self.out}"
            )


def plain_values(value: Any) -> Any:
    """A value with its paths as text and its sequences as lists, ready for YAML or JSON."""
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, list | tuple):
        return [plain_values(item) for item in value]
    if isinstance(value, dict):
        return {key: plain_values(item) for key, item in value.items()}
    return value
