"""What the network sees in a step: crops, degraded on the device, as numbers in [0, 1]."""

from collections.abc import Callable

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from model.data.batches import Batches, ResidentBatches, StreamedBatches, gather_crops
from model.data.constants import compiled
from model.data.crops import CropPlan
from model.data.luma_set import LumaSet
from model.errors import UserError
from model.networks.luma import show_luma
from model.training.config import TrainConfig

__all__ = ["Inputs"]


class Inputs:
    """The inputs and targets of every step, a function of seed, step and process.

    Args:
        config: crops, degradation, and where the photographs lie.
        images: at least one, none smaller than the crop.
        accelerator: device and processes.
        channels: 1, or 3 for a network that takes RGB and is shown luma three times.

    Raises:
        UserError: if there are fewer photographs than processes that are to share them.
    """

    def __init__(
        self, config: TrainConfig, images: LumaSet, accelerator: Accelerator, channels: int = 1
    ) -> None:
        self.config, self.device, self.channels = config, accelerator.device, channels
        self.rank, self.world = accelerator.process_index, accelerator.num_processes
        self.degrade, gather = self._compiled(config.degradation, gather_crops)
        self.batches = self._batches(images, gather)

    def _compiled(self, *functions: Callable) -> list[Callable]:
        """On a GPU the small operations of a function run as few kernels; on a CPU that gains nothing."""
        if self.device.type != "cuda" or self.config.compile == "none":
            return list(functions)
        return [compiled(function) for function in functions]

    def _batches(self, images: LumaSet, gather: Callable[[Tensor, Tensor, int], Tensor]) -> Batches:
        config, rank, world = self.config, self.rank, self.world
        seed = config.seed
        if config.shard and world > 1:
            if len(images) < world:
                raise UserError(f"--shard: {len(images)} photographs cannot be shared by {world} processes")
            images, seed, rank, world = (
                images.select(range(rank, len(images), world)),
                seed * world + rank,
                0,
                1,
            )
        plan = CropPlan(images, config.crop, seed, config.augment, config.sampling)
        if self._resident(images):
            return ResidentBatches(plan, config.batch, self.device, rank, world, gather)
        return StreamedBatches(plan, config.batch, self.device, rank, world)

    def _resident(self, images: LumaSet) -> bool:
        if self.config.memory != "auto":
            return self.config.memory == "device"
        if self.device.type != "cuda":
            return False
        free, _ = torch.cuda.mem_get_info(self.device)
        return ResidentBatches.bytes_needed(images) < free // 2

    def at(self, step: int) -> tuple[Tensor, Tensor]:
        """Network input, N x channels x size x size, and target of a step, N x 1 x size x size; float32."""
        sharp, degraded = self.batches.at(step)
        if degraded is not None:
            blurred = degraded.to(torch.float32) / 255
        else:
            generator = None
            if self.config.degradation.random:
                # A function of seed, step and process, as the crops are.
                mixed = np.random.SeedSequence([self.config.seed, self.rank, step])
                generator = torch.Generator(self.device)
                generator.manual_seed(int(mixed.generate_state(1, np.uint64)[0]))
            blurred = self.degrade(sharp, generator)
        return show_luma(blurred, self.channels), sharp.to(torch.float32) / 255
