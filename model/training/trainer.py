"""The training loop of both stages."""

import copy
import shlex
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from model.data.blur import box_blur
from model.data.crops import RandomCrops
from model.data.photographs import Photograph, find_photographs, load_luma
from model.device import choose_device
from model.errors import UserError
from model.networks import build_network, parameter_count
from model.progress import ProgressBar, say
from model.training.batch_norm import measure_batch_norm
from model.training.config import FinetuneConfig, TrainConfig
from model.training.interruption import Interruption
from model.training.losses import build_loss, describe_loss
from model.training.run_folder import RunFolder, refuse_earlier_run
from model.training.schedule import warmup_cosine
from model.weights import Card, load_network, save_weights

__all__ = ["Outcome", "Trainer", "train"]


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    weights: Path
    """The weights it wrote."""
    step: int
    """Steps done."""
    finished: bool
    """False if it was interrupted."""
    seconds: float
    """Time spent in steps, over all sessions of the run."""
    terms: dict[str, float]
    """Mean loss terms since the last line of the log."""


def train(config: TrainConfig, title: str = "") -> Outcome:
    """Run `train` or `finetune` as configured, from the photographs to the weights on disk.

    Raises:
        UserError: if something in the configuration, the photographs or the weights is wrong.
    """
    config.check()
    paths = find_photographs(config.photographs)
    torch.manual_seed(config.seed)
    network = _starting_network(config)
    if not (config.resume or config.overwrite):
        refuse_earlier_run(config.out)
    with ProgressBar("reading", len(paths), "photographs") as bar:
        photographs = load_luma(
            paths,
            smallest=config.crop,
            on_skip=lambda path, reason: say(f"skipped {path}: {reason}"),
            on_read=lambda path: bar.advance(),
        )
    # Made only now, so that a mistyped command leaves no folder behind.
    folder = RunFolder(config.out)
    trainer = Trainer(config, network, photographs, folder)
    if config.resume:
        trainer.restore_state(folder.read_state())
    return trainer.run(title or config.stage)


def _starting_network(config: TrainConfig) -> nn.Module:
    if not isinstance(config, FinetuneConfig):
        return build_network(config.network, config.network_args)
    assert config.weights is not None  # check() has refused that
    network, card = load_network(config.weights)
    if card.network != config.network:
        raise UserError(
            f"{config.weights} holds weights of network {card.network!r}, not {config.network!r}; "
            f"give --network {card.network}"
        )
    if config.network_args not in ({}, card.network_args):
        raise UserError(
            f"{config.weights} was made with --network_args {card.network_args}, not {config.network_args}; "
            "leave --network_args away"
        )
    # The resolved configuration says what was trained.
    config.network_args = card.network_args
    return network


class Trainer:
    """One run: the network, its optimiser, the crops, and the folder it writes to.

    Args:
        config: checked by the caller.
        network: with the weights to start from.
        photographs: at least one, none smaller than the crop.
        folder: where config, log and weights go.
    """

    def __init__(
        self, config: TrainConfig, network: nn.Module, photographs: list[Photograph], folder: RunFolder
    ) -> None:
        self.config, self.folder = config, folder
        self.device = choose_device(config.device)
        # Channels-last is the layout in which both oneDNN and cuDNN convolve fastest.
        self.network = network.to(self.device, memory_format=torch.channels_last).train()
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=config.lr, weight_decay=config.weight_decay, fused=True
        )
        self.loss = build_loss(config)
        self.photographs = len(photographs)
        images = [photograph.luma for photograph in photographs]
        self.crops = RandomCrops(images, config.crop, config.batch, config.seed, config.augment)
        self.step, self.seconds = 0, 0.0

    def run(self, title: str) -> Outcome:
        """Train to the last step or to the first SIGINT or SIGTERM, and leave the weights on disk either way.

        Raises:
            UserError: if the loss is no longer finite, or a file cannot be written.
        """
        config = self.config
        self._open_folder(title)
        self._sums: dict[str, Tensor] = {}
        self._since, terms = 0, dict[str, float]()
        with (
            Interruption() as interruption,
            ProgressBar(title, config.steps, "crops", done=self.step) as bar,
        ):
            while self.step < config.steps and not interruption.requested:
                begun = time.perf_counter()
                self._one_step()
                due = self.step % config.log_every == 0 or self.step == config.steps
                if due:
                    terms = self._read_terms()
                # Reading the terms waits for the device, so it belongs to the time of the steps.
                self.seconds += time.perf_counter() - begun
                if due:
                    self._log(terms)
                bar.advance(1, config.batch, _shown(terms))
                if config.save_every and self.step % config.save_every == 0 and self.step < config.steps:
                    self.save(terms)
            finished = self.step >= config.steps
            if not finished:
                say(f"{interruption.requested}: saving; once more ends at once")
            self.save(terms, finished)
        outcome = Outcome(self.folder.weights, self.step, finished, self.seconds, terms)
        self._close(outcome, interruption.requested)
        return outcome

    def _one_step(self) -> None:
        config = self.config
        rate = config.lr * warmup_cosine(self.step, config.steps, config.warmup)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        sharp = self.crops.at(self.step).to(self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=config.precision == "bfloat16"):
            restored = self.network(self._blurred(sharp))
        loss, terms = self.loss(restored, sharp.to(torch.float32) / 255)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if config.clip_norm:
            nn.utils.clip_grad_norm_(self.network.parameters(), config.clip_norm)
        self.optimizer.step()
        self.step += 1
        # Summed on the device and read only when a line is due: no wait in between.
        for name, term in {"loss": loss.detach(), **terms}.items():
            self._sums[name] = self._sums.get(name, 0) + term
        self._since += 1

    def _blurred(self, sharp: Tensor) -> Tensor:
        blurred = box_blur(sharp, self.config.box).to(torch.float32) / 255
        return blurred.to(memory_format=torch.channels_last)

    def _read_terms(self) -> dict[str, float]:
        terms = {name: float(total) / self._since for name, total in self._sums.items()}
        self._sums, self._since = {}, 0
        wrong = [name for name, value in terms.items() if value != value or abs(value) == float("inf")]
        if wrong:
            kept = (
                f"the last good weights are in {self.folder.weights}" if self.folder.weights.is_file() else ""
            )
            advice = f"a lower --lr than {self.config.lr:g} may help"
            raise UserError(
                "; ".join(filter(None, [f"{wrong[-1]} is not finite at step {self.step}", kept, advice]))
            )
        return terms

    def _log(self, terms: dict[str, float]) -> None:
        rate = self.optimizer.param_groups[0]["lr"]
        crops = self.step * self.config.batch
        row = {"step": self.step, "crops": crops, "seconds": f"{self.seconds:.3f}", "lr": f"{rate:.6g}"}
        self.folder.append_row({**row, **{name: f"{value:.6g}" for name, value in terms.items()}})

    def save(self, terms: dict[str, float], finished: bool = False) -> None:
        """Write the weights, with batch-norm statistics measured anew, and the state unless finished."""
        config = self.config
        if not finished:
            self.folder.write_state(
                {
                    "step": self.step,
                    "seconds": self.seconds,
                    "network": self.network.state_dict(),
                    "optimizer": self.optimizer.state_dict(),
                    "random": torch.get_rng_state(),
                }
            )
        # A copy: the run goes on with its own running statistics, as if nothing had been saved.
        network = copy.deepcopy(self.network)
        # A few will do for weights that are not the last: somebody waits for them.
        batches = config.statistics_batches if finished else min(config.statistics_batches, 5)
        if batches:
            steps = range(config.steps, config.steps + batches)
            measure_batch_norm(
                network, (self._blurred(self.crops.at(step).to(self.device)) for step in steps)
            )
        save_weights(self.folder.weights, network, self._card(terms))
        if finished:
            self.folder.state.unlink(missing_ok=True)

    def _card(self, terms: dict[str, float]) -> Card:
        config = self.config
        return Card(
            network=config.network,
            network_args=config.network_args,
            stage=config.stage,
            loss=describe_loss(config),
            metrics={f"train_{name}": value for name, value in terms.items()},
            training={
                "steps": self.step,
                "crops": self.step * config.batch,
                "seconds": round(self.seconds, 1),
                "torch": torch.__version__,
                "config": config.recorded(),
            },
        )

    def restore_state(self, state: dict[str, Any]) -> None:
        """Go back to a saved state.

        Raises:
            UserError: if it belongs to another network or a longer run.
        """
        if state["step"] > self.config.steps:
            raise UserError(f"the run has done {state['step']} steps, more than --steps {self.config.steps}")
        try:
            self.network.load_state_dict(state["network"])
            self.optimizer.load_state_dict(state["optimizer"])
        except (RuntimeError, ValueError) as error:
            raise UserError(
                f"the state in {self.folder.state} does not fit the configuration: {error}"
            ) from error
        torch.set_rng_state(state["random"])
        self.step, self.seconds = state["step"], state["seconds"]

    def _open_folder(self, title: str) -> None:
        config, folder = self.config, self.folder
        if self.step:
            folder.cut_log(self.step)
        else:
            folder.start_log()
        folder.write_config(config.recorded())
        line = (
            f"{title}: {config.network} with {parameter_count(self.network):,} parameters on {self.device}, "
            f"{self.photographs} photographs, {config.steps} steps of {config.batch} crops of "
            f"{config.crop} x {config.crop}" + (f", from step {self.step}" if self.step else "")
        )
        say(line)
        folder.append_text(line)

    def _close(self, outcome: Outcome, signal_name: str | None) -> None:
        crops = self.step * self.config.batch
        speed = f"{crops / self.seconds:.1f} crops/s" if self.seconds else "no steps"
        if outcome.finished:
            lines = [
                f"finished {self.step} steps in {self.seconds:.0f} s ({speed}); weights: {outcome.weights}"
            ]
        else:
            out = shlex.quote(str(self.folder.path))
            lines = [
                f"stopped by {signal_name} after step {self.step} of {self.config.steps}; "
                f"saved {outcome.weights} and {self.folder.state}",
                f"go on with: python -m model {self.config.stage} --resume --out {out}",
            ]
        for line in lines:
            say(line)
            self.folder.append_text(line)


def _shown(terms: dict[str, float]) -> str:
    """The terms in words; MAE alone is its own pixel term and need not be said twice."""
    shown = terms if len(terms) != 2 else {"loss": terms["loss"]}
    return "  ".join(f"{name} {value:.4f}" for name, value in shown.items())
