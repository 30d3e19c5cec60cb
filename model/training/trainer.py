"""The training loop of both stages."""

import dataclasses
import time
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from model.data.luma_set import LumaSet
from model.errors import UserError
from model.networks import build_network
from model.progress import ProgressBar, say
from model.training.average import WeightAverage
from model.training.batch_norm import measure_batch_norm
from model.training.checkpoints import Checkpoints
from model.training.config import FinetuneConfig, TrainConfig
from model.training.earlier_stage import say_contradictions
from model.training.engine import (
    close_accelerator,
    log_pictures,
    open_accelerator,
    process_group,
    start_trackers,
)
from model.training.failure import Diverged, explain_failure
from model.training.inputs import Inputs
from model.training.interruption import Interruption
from model.training.losses import Loss, build_loss
from model.training.messages import card, closing_lines, opening_line, shown
from model.training.outcome import Outcome, Progress
from model.training.report import write_report
from model.training.run_folder import RunFolder, refuse_earlier_run, remove_results
from model.training.schedule import learning_rate
from model.training.start import load_photographs, starting_network
from model.training.step import Reading, Stepper
from model.training.validation import METRICS, Score, Validation, table
from model.weights import save_weights

__all__ = ["Outcome", "Trainer", "train"]

# Before/after strips that trackers and the report show.
SHOWN = 4


def train(config: TrainConfig, title: str = "", replaced: Iterable[Path] = ()) -> Outcome:
    """Run `train` or `finetune` as configured, from the photographs to the weights on disk.

    Args:
        config: what is to be done.
        title: its name in what is said; without one, that of the stage.
        replaced: results of earlier runs elsewhere that this one makes invalid, removed when it begins.

    Raises:
        UserError: if something in the configuration, the photographs or the weights is wrong.
    """
    with process_group(config.device):
        return _train(config, title, replaced)


def _train(config: TrainConfig, title: str, replaced: Iterable[Path]) -> Outcome:
    config.check()
    torch.manual_seed(config.seed)
    network = starting_network(config)
    if not (config.resume or config.overwrite):
        refuse_earlier_run(config.out)
    loss = build_loss(config)
    images, held_out = load_photographs(config)
    say_contradictions(config, images, held_out)
    accelerator = open_accelerator(config)
    # Made only now, so that a mistyped command leaves no folder behind.
    folder = RunFolder(config.out)
    with folder.held() if accelerator.is_main_process else nullcontext():
        trainer = Trainer(config, network, images, held_out, folder, accelerator, loss)
        if config.resume:
            trainer.restore()
        elif trainer.main:
            remove_results(replaced)
        return trainer.run(title or config.stage)


class Trainer:
    """One run: the network, its optimiser, the crops, and the folder it writes to.

    Args:
        config: checked by the caller.
        network: with the weights to start from.
        images: at least one, none smaller than the crop.
        held_out: what is validated on, or None.
        folder: where config, log and weights go.
        accelerator: device, precision, processes.
        loss: the configuration's where it has been built already.
    """

    def __init__(
        self,
        config: TrainConfig,
        network: nn.Module,
        images: LumaSet,
        held_out: LumaSet | None,
        folder: RunFolder,
        accelerator: Accelerator,
        loss: Loss | None = None,
    ) -> None:
        self.config, self.folder, self.accelerator = config, folder, accelerator
        self.device, self.world = accelerator.device, accelerator.num_processes
        self.rank, self.main = accelerator.process_index, accelerator.is_main_process
        self.steps, self.epoch = config.total_steps(self.world), config.epoch_steps(self.world)
        freezing = max(1, round(config.freeze_after * self.steps))
        # Held after the last step they would never have been measured.
        self.freezing_step = freezing if freezing < self.steps else None
        self.photographs = len(images)
        if config.sync_batch_norm and self.world > 1:
            if self.device.type != "cuda":
                raise UserError("--sync_batch_norm needs GPUs; on CPUs give --freeze_batch_norm or neither")
            network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
        shadow = build_network(config.network, config.network_args)
        # Channels-last is the layout in which both oneDNN and cuDNN convolve fastest.
        self.network = network.to(self.device, memory_format=torch.channels_last)
        shadow = shadow.to(self.device, memory_format=torch.channels_last)
        self.average = WeightAverage(self.network, shadow, config.ema)
        optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=config.lr, weight_decay=config.weight_decay, fused=True
        )
        prepared, optimizer = accelerator.prepare(self.network, optimizer)
        self.loss = loss or build_loss(config)
        if isinstance(self.loss, nn.Module):
            # LPIPS has a network of its own.
            self.loss.to(self.device)
        self.stepper = Stepper(accelerator, prepared, optimizer, self.loss, config.clip_norm)
        channels = getattr(network, "channels", 1)
        self.inputs = Inputs(config, images, accelerator, channels)
        self.validation = (
            Validation(
                held_out,
                config.crop,
                config.degradation,
                self.device,
                config.seed,
                config.at_a_time,
                channels,
            )
            if held_out is not None and self.main
            else None
        )
        self.progress = Progress(world=self.world, photographs=images.digest)
        accelerator.register_for_checkpointing(self.average, self.progress)
        self.checkpoints = Checkpoints(folder.checkpoints, accelerator, config.keep)
        self.score: Score | None = None
        self.start: dict[str, Score] = {}

    @property
    def step(self) -> int:
        """Steps done."""
        return self.progress.step

    def restore(self) -> None:
        """Go on from the newest checkpoint.

        Raises:
            UserError: if there is none, it does not fit, or it belongs to a longer run, to other photographs
                or to another number of processes, which see other crops.
        """
        here = dataclasses.replace(self.progress)
        self.checkpoints.restore()
        self.progress.check(here, self.config.photographs)
        if self.step > self.steps:
            raise UserError(f"the run has done {self.step} steps, more than the {self.steps} it is given")

    def run(self, title: str) -> Outcome:
        """Train to the last step or to the first SIGINT or SIGTERM, and leave the weights on disk either way.

        Raises:
            UserError: if the loss is no longer finite, or a file cannot be written.
        """
        config, progress = self.config, self.progress
        self._open_folder(title)
        terms: dict[str, float] = {}
        if isinstance(config, FinetuneConfig) and not self.step and self.validation is not None:
            self._validate_start()
        self.train_mode()
        with (
            Interruption() as interruption,
            ProgressBar(title, self.steps, "crops", done=self.step) as bar,
        ):
            while self.step < self.steps and not self._stopped(interruption):
                begun = time.perf_counter()
                self.one_step()
                last = self.step == self.steps
                due = last or self.step % config.log_every == 0 or self._save_due() or self._validation_due()
                reading = self.stepper.read() if due else None
                # Reading waits for the device, so it belongs to the time of the steps.
                progress.seconds += time.perf_counter() - begun
                if reading is not None:
                    terms = self._log(self._finite(reading))
                bar.advance(1, config.batch * self.world, shown(terms))
                if not last:
                    if self.step == self.freezing_step and not config.freeze_batch_norm:
                        self._freeze()
                    self._between_steps(terms)
            finished = self.step >= self.steps
            if self.stepper.unread:
                # Weights that stood still must not be saved as if all were well.
                terms = self._finite(self.stepper.read()).terms
            if not finished:
                say(f"{interruption.requested or 'stopped'}: saving; once more ends at once")
                self.checkpoints.save(self.step)
            self._write(terms, validate=finished)
        self.accelerator.wait_for_everyone()
        if finished:
            self.checkpoints.clear()
        outcome = Outcome(
            self.folder.weights,
            self.step,
            finished,
            progress.seconds,
            {name: value for name, value in terms.items() if name != "grad_norm"},
            self.score,
            self.validation.before if self.validation else None,
        )
        self._close(outcome, interruption.requested)
        return outcome

    def train_mode(self) -> None:
        """Put the network into the mode in which it learns."""
        self.network.train()
        if self._frozen():
            for layer in self.network.modules():
                if isinstance(layer, nn.modules.batchnorm._BatchNorm):
                    layer.eval()

    def _frozen(self) -> bool:
        """Whether batch-norm statistics are held in the next step."""
        late = self.freezing_step is not None and self.step >= self.freezing_step
        return self.config.freeze_batch_norm or late

    def _freeze(self) -> None:
        """Measure the statistics of the weights as they are, and hold them.

        Small batches hide their outliers: a crop of large activations widens the statistics that it is
        normalised by. A network that never met it otherwise can fail on it when it is used. Of several
        processes, the first one's statistics reach the others with the next forward pass.

        Source: Wu and Johnson, "Rethinking 'Batch' in BatchNorm", 2021, section 4.
        """
        if self.config.statistics_batches:
            with self.accelerator.autocast():
                measure_batch_norm(self.network, self._statistics_inputs(self.config.statistics_batches))
        self.train_mode()

    def _stopped(self, interruption: Interruption) -> bool:
        """Whether to leave.

        Several processes must leave after the same step, so they ask each other: each time on CPUs, where a
        step is long, and every tenth on GPUs.
        """
        if self.world == 1:
            return interruption.requested is not None
        if self.device.type == "cuda" and self.step % 10:
            return False
        asked = torch.tensor([float(interruption.requested is not None)], device=self.device)
        return bool(self.accelerator.reduce(asked, "sum").item() > 0)

    def one_step(self) -> None:
        """Take the next step; the device may still be at work when it returns."""
        config = self.config
        shape = (self.steps, config.warmup, config.hold, config.lr_end, config.schedule)
        rate = config.lr * learning_rate(self.step, *shape)
        blurred, sharp = self.inputs.at(self.step)
        self.stepper(self.step, rate, blurred, sharp)
        self.average.update()
        self.progress.step += 1

    def _save_due(self) -> bool:
        return bool(self.config.save_every) and self.step % self.config.save_every == 0

    def _validation_due(self) -> bool:
        return self.step % (self.config.validate_every or self.epoch) == 0

    def _between_steps(self, terms: dict[str, float]) -> None:
        validate, save = self._validation_due(), self._save_due()
        # The checkpoint comes last and knows the best score: a resumed run must not replace better weights.
        if save or validate:
            self._write(terms, validate)
        if save:
            self.checkpoints.save(self.step)

    def _finite(self, reading: Reading) -> Reading:
        """The reading itself.

        Raises:
            Diverged: if a step since the last one had no finite loss or gradient.
        """
        if reading.failed is not None:
            message = explain_failure(self, reading)
            # Other runs may follow.
            self._let_go()
            raise Diverged(message)
        return reading

    def _log(self, reading: Reading) -> dict[str, float]:
        """Write a line of the log."""
        rate = self.stepper.optimizer.param_groups[0]["lr"]
        crops = self.step * self.config.batch * self.world
        row = {
            "step": self.step,
            "crops": crops,
            "seconds": f"{self.progress.seconds:.3f}",
            "lr": f"{rate:.6g}",
        }
        if self.main:
            self.folder.append_row({**row, **{name: f"{value:.6g}" for name, value in reading.terms.items()}})
        self.accelerator.log({**reading.terms, "lr": rate, "crops": crops}, step=self.step)
        return reading.terms

    def _write(self, terms: dict[str, float], validate: bool) -> None:
        """Write the weights, with batch-norm statistics measured anew; validate them first if asked."""
        if self.main:
            network = self._snapshot(last=self.step >= self.steps)
            metrics = {f"train_{name}": value for name, value in terms.items()}
            if validate and self.validation is not None:
                metrics |= self._validate(network)
            save_weights(self.folder.weights, network, card(self, metrics))
            if validate:
                write_report(self.folder, self.config, self.steps)
        self.accelerator.wait_for_everyone()

    def _snapshot(self, last: bool) -> nn.Module:
        config = self.config
        # A few will do for weights that are not the last: somebody waits for them.
        count = config.statistics_batches if last else min(config.statistics_batches, 5)
        count = 0 if self._frozen() else count
        with self.accelerator.autocast():
            return self.average.snapshot(self._statistics_inputs(count))

    def _statistics_inputs(self, count: int) -> Iterator[Tensor]:
        """Crops that no step sees, for statistics."""
        for step in range(self.steps, self.steps + count):
            yield from self.inputs.at(step)[0].split(self.config.at_a_time)

    @torch.no_grad()
    def _validate_start(self) -> None:
        """Score the weights that fine-tuning starts from: what is gained is gained against them."""
        assert self.validation is not None
        with self.accelerator.autocast():
            score, _ = self.validation(self.network.eval())
        self.start = {"start": score}
        self._append_score(score)
        say(f"before the first step\n{table({'blurred': self.validation.before, **self.start})}")

    def _append_score(self, score: Score) -> float:
        """Write a line of the validations; returns the epoch."""
        epoch = self.step / self.epoch
        scores = {name: f"{getattr(score, name):.6g}" for name in METRICS}
        self.folder.append_validation({"step": self.step, "epoch": f"{epoch:.4g}", **scores})
        return epoch

    def _validate(self, network: nn.Module) -> dict[str, float]:
        assert self.validation is not None
        with self.accelerator.autocast():
            score, pictures = self.validation(network)
        self.score, before = score, self.validation.before
        epoch = self._append_score(score)
        number = len(pictures)
        say(
            f"step {self.step}, epoch {epoch:.3g}: {number} photograph{'s' * (number != 1)} held out\n"
            + table({"blurred": before, **self.start, "restored": score})
        )
        strips = self.validation.strips(pictures, SHOWN)
        self.folder.write_pictures(strips)
        self.accelerator.log({f"validation/{name}": getattr(score, name) for name in METRICS}, step=self.step)
        log_pictures(
            self.accelerator, {f"validation/{i}": strip for i, strip in enumerate(strips)}, self.step
        )
        value = getattr(score, self.config.best)
        metrics = {f"validation_{name}": getattr(score, name) for name in METRICS}
        if value > self.progress.best:
            self.progress.best = value
            save_weights(self.folder.best, network, card(self, metrics))
        return metrics

    def _open_folder(self, title: str) -> None:
        config, folder = self.config, self.folder
        if self.main and self.step:
            folder.cut_logs(self.step)
        elif self.main:
            folder.start_logs()
            self.checkpoints.clear()
        start_trackers(self.accelerator, config, self.step)
        if not self.main:
            return
        folder.write_config(config.recorded())
        line = opening_line(self, title)
        say(line)
        folder.append_text(line)

    def _let_go(self) -> None:
        # The wrapped network holds the process group.
        self.stepper.network = self.network
        close_accelerator(self.accelerator)

    def _close(self, outcome: Outcome, signal_name: str | None) -> None:
        self._let_go()
        if not self.main:
            return
        for line in closing_lines(self, outcome, signal_name):
            say(line)
            self.folder.append_text(line)
