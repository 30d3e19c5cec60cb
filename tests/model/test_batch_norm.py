"""Batch-norm statistics measured on finished weights."""

import torch
from torch import nn

from model.training.batch_norm import measure_batch_norm


def test_statistics_are_the_mean_over_the_batches():
    network = nn.Sequential(nn.BatchNorm2d(2, momentum=0.01)).eval()
    network[0].running_mean.fill_(99)
    batches = [torch.rand(4, 2, 5, 5) + shift for shift in (0.0, 1.0, 3.0)]
    measure_batch_norm(network, batches)
    means = torch.stack([batch.mean((0, 2, 3)) for batch in batches]).mean(0)
    variances = torch.stack([batch.var((0, 2, 3)) for batch in batches]).mean(0)
    torch.testing.assert_close(network[0].running_mean, means)
    torch.testing.assert_close(network[0].running_var, variances)


def test_mode_momentum_and_weights_are_put_back():
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2, momentum=0.01), nn.BatchNorm2d(2)).train()
    network[2].eval()
    before = {name: parameter.clone() for name, parameter in network.named_parameters()}
    measure_batch_norm(network, [torch.rand(2, 1, 8, 8)])
    assert [layer.training for layer in network] == [True, True, False]
    assert (network[1].momentum, network[2].momentum) == (0.01, 0.1)
    assert all(torch.equal(before[name], parameter) for name, parameter in network.named_parameters())


def test_network_without_batch_norm_is_left_alone():
    def no_batches():
        raise AssertionError("nothing needed to be run")
        yield

    measure_batch_norm(nn.Conv2d(1, 1, 3), no_batches())
