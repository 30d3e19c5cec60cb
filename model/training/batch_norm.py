"""Batch-norm statistics measured on the finished weights ("precise" batch normalisation)."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

__all__ = ["measure_batch_norm"]


@torch.no_grad()
def measure_batch_norm(network: nn.Module, batches: Iterable[Tensor]) -> None:
    """Replace the running statistics by their mean over some batches, with the weights held fixed.

    At the paper's momentum a running statistic forgets over hundreds of steps, and meanwhile the weights move
    on: after a short run it describes a network that no longer exists. The mode (train or eval) and the
    momenta are put back.

    Args:
        network: any network; nothing happens if it has no batch normalisation.
        batches: inputs of the network, at least one.

    Source: Wu and Johnson, "Rethinking 'Batch' in BatchNorm", 2021, section 3.
    """
    layers = [layer for layer in network.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
    if not layers:
        return
    before = [(layer, layer.momentum, layer.training) for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        # None makes torch keep the plain mean over all batches.
        layer.momentum = None
        layer.train()
    for batch in batches:
        network(batch)
    for layer, momentum, training in before:
        layer.momentum = momentum
        layer.train(training)
