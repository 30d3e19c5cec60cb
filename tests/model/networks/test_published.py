"""The authors' files: every tensor arrives where the publication uses it, and what does not fit is named."""

import re
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from model.errors import UserError
from model.networks.published import load_published, read_published


class Published:
    """A checkpoint under its published names, filled as a forward pass asks for them.

    The passes below are written from the publications with torch's functions alone and share nothing with the
    networks they check: they ask for a name and a shape, and get random numbers that stay, kept in float32
    and used in float64.
    """

    def __init__(self, prefix: str = "") -> None:
        self.tensors: OrderedDict[str, Tensor] = OrderedDict()
        self.prefix = prefix
        self.random = torch.Generator().manual_seed(4)

    def __call__(self, name: str, *shape: int) -> Tensor:
        name = self.prefix + name
        if name not in self.tensors:
            fan = max(1, torch.Size(shape)[1:].numel())
            self.tensors[name] = torch.randn(shape, generator=self.random) * fan**-0.5
        assert self.tensors[name].shape == shape
        return self.tensors[name].double()

    def convolve(self, x: Tensor, name: str, after: int, size: int = 3, stride: int = 1, bias: bool = True):
        before = x.shape[1]
        return F.conv2d(
            x,
            self(f"{name}.weight", after, before, size, size),
            self(f"{name}.bias", after) if bias else None,
            stride=stride,
            padding=size // 2,
        )

    def enlarge(self, x: Tensor, name: str, after: int) -> Tensor:
        weight, bias = self(f"{name}.weight", x.shape[1], after, 4, 4), self(f"{name}.bias", after)
        return F.conv_transpose2d(x, weight, bias, stride=2, padding=1)

    def channelwise(self, x: Tensor, name: str) -> Tensor:
        return F.conv2d(x, self(f"{name}.weight", x.shape[1], 1, 3, 3), padding=1, groups=x.shape[1])


def xydeblur(p: Published, image: Tensor, width: int, blocks: int) -> Tensor:
    def residual_block(x, name):
        inner = F.relu(p.convolve(x, f"{name}.main.0.main.0", x.shape[1]))
        return x + p.convolve(inner, f"{name}.main.1.main.0", x.shape[1])

    def decode(e1, e2, e3):
        x = e3
        for level, skip in ((1, e2), (2, e1)):
            for block in range(blocks):
                x = residual_block(x, f"Decoder1_{level}.layers.{block}")
            half = x.shape[1] // 2
            x = F.relu(p.enlarge(x, f"Decoder1_{level}.layers.{blocks}.main.0", half))
            x = F.relu(p.convolve(torch.cat([x, skip], 1), f"Convs1_{level}.main.0", half, size=1))
        for block in range(blocks):
            x = residual_block(x, f"Decoder1_3.layers.{block}")
        return p.convolve(x, "Decoder1_4.main.0", image.shape[1])

    x, levels = image, []
    for level in (1, 2, 3):
        name = f"Encoder{level}.layers"
        x = F.relu(p.convolve(x, f"{name}.0.main.0", width * 2 ** (level - 1), stride=1 if level == 1 else 2))
        for block in range(1, blocks + 1):
            x = residual_block(x, f"{name}.{block}")
        levels.append(x)
    turned = decode(*(x.transpose(2, 3).flip(2) for x in levels)).transpose(2, 3).flip(3)
    return image + decode(*levels) + turned


def restormer(p: Published, image: Tensor, width: int, blocks: list[int], heads: list[int]) -> Tensor:
    def norm(x, name):
        weight, bias = p(f"{name}.body.weight", x.shape[1]), p(f"{name}.body.bias", x.shape[1])
        x = (x - x.mean(1, keepdim=True)) / torch.sqrt(x.var(1, keepdim=True, unbiased=False) + 1e-5)
        return x * weight[:, None, None] + bias[:, None, None]

    def attention(x, name, heads):
        n, c, h, w = x.shape
        qkv = p.channelwise(p.convolve(x, f"{name}.qkv", 3 * c, size=1, bias=False), f"{name}.qkv_dwconv")
        q, k, v = (part.reshape(n, heads, c // heads, h * w) for part in qkv.chunk(3, 1))
        q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
        scores = (q @ k.transpose(-1, -2) * p(f"{name}.temperature", heads, 1, 1)).softmax(-1)
        return p.convolve((scores @ v).reshape(n, c, h, w), f"{name}.project_out", c, size=1, bias=False)

    def feed_forward(x, name):
        c, hidden = x.shape[1], int(2.66 * x.shape[1])
        x = p.channelwise(p.convolve(x, f"{name}.project_in", 2 * hidden, 1, bias=False), f"{name}.dwconv")
        return p.convolve(F.gelu(x[:, :hidden]) * x[:, hidden:], f"{name}.project_out", c, size=1, bias=False)

    def level(x, name, count, heads):
        for i in range(count):
            x = x + attention(norm(x, f"{name}.{i}.norm1"), f"{name}.{i}.attn", heads)
            x = x + feed_forward(norm(x, f"{name}.{i}.norm2"), f"{name}.{i}.ffn")
        return x

    x = p.convolve(image, "patch_embed.proj", width, bias=False)
    skips = []
    for i in (1, 2, 3):
        x = level(x, f"encoder_level{i}", blocks[i - 1], heads[i - 1])
        skips.append(x)
        x = F.pixel_unshuffle(p.convolve(x, f"down{i}_{i + 1}.body.0", x.shape[1] // 2, bias=False), 2)
    x = level(x, "latent", blocks[3], heads[3])
    for i in (3, 2, 1):
        x = F.pixel_shuffle(p.convolve(x, f"up{i + 1}_{i}.body.0", 2 * x.shape[1], bias=False), 2)
        x = torch.cat([x, skips[i - 1]], 1)
        if i > 1:
            x = p.convolve(x, f"reduce_chan_level{i}", x.shape[1] // 2, size=1, bias=False)
        x = level(x, f"decoder_level{i}", blocks[i - 1], heads[i - 1])
    x = level(x, "refinement", 1, heads[0])
    return image + p.convolve(x, "output", image.shape[1], bias=False)


def ifan(p: Published, image: Tensor, width: int, steps: int) -> Tensor:
    widths = [width, 2 * width, 4 * width, 4 * width]
    deep = widths[-1]

    def rectified(x):
        return F.leaky_relu(x, 0.1)

    def stages(x, name, count):
        start = x
        for i in range(count):
            inner = rectified(p.convolve(x, f"{name}.stem.{i}.0", x.shape[1]))
            x = rectified(x + p.convolve(inner, f"{name}.stem.{i}.2", x.shape[1]))
        return x + start if count > 1 else x

    def encode(x, kind):
        features = []
        for i, channels in enumerate(widths, start=1):
            for j in (1, 2, 3):
                stride = 2 if i > 1 and j == 1 else 1
                x = rectified(p.convolve(x, f"{kind}{i}_{j}.0", channels, stride=stride))
            features.append(x)
        return features

    def two_blocks(x, name, entrance=True):
        x = rectified(p.convolve(x, f"{name}.0.0", deep))
        return stages(stages(x, f"{name}.1", 2), f"{name}.2", 2)

    *skips, x = encode(image, "conv")
    f = encode(image, "kconv")[-1]
    disparity = p.convolve(two_blocks(f, "DME"), "DME.3", 1)
    f = torch.cat([f, rectified(p.convolve(disparity, "conv_DME.0", deep))], 1)
    f = rectified(p.convolve(two_blocks(f, "conv4_4"), "conv4_4.3.0", deep))
    filters = p.convolve(two_blocks(f, "F"), "F.3", steps * deep * 7, size=1)
    for step in range(steps):
        # The published defect: the first of the two filters, in both directions.
        start = step * deep * 6
        weights = filters[:, start : start + deep * 3].unflatten(1, (deep, 3))
        for padding, dim in (((0, 0, 1, 1), 2), ((1, 1, 0, 0), 3)):
            near = F.pad(x, padding, mode="replicate").unfold(dim, 3, 1)
            x = (near * weights.movedim(2, -1)).sum(-1)
        start = steps * deep * 6 + step * deep
        x = rectified(x + filters[:, start : start + deep])
    x = rectified(p.convolve(x, "conv_res.0.0", deep))
    x = rectified(p.convolve(stages(x, "conv_res.1", 3), "conv_res.2.0", deep))
    for i in (3, 2, 1):
        x = rectified(p.enlarge(x, f"upconv{i}_u.0", widths[i - 1])) + skips[i - 1]
        x = stages(stages(x, f"upconv{i}_1", 1), f"upconv{i}_2", 1)
    return image + rectified(p.convolve(x, "out_res.0", image.shape[1]))


TINY: dict[str, tuple[Callable[..., Tensor], dict]] = {
    "xydeblur": (xydeblur, {"width": 4, "blocks": 2}),
    "restormer": (restormer, {"width": 8, "blocks": [1, 2, 1, 2], "heads": [1, 2, 2, 4]}),
    "ifan": (ifan, {"width": 4, "steps": 3}),
}
FULL: dict[str, tuple[dict, int]] = {
    "xydeblur": ({"width": 32, "blocks": 6}, 4_918_627),
    "ifan": ({"width": 32, "steps": 17}, 10_476_996),
}


def write(path: Path, name: str, tensors: dict[str, Tensor]) -> Path:
    """As the authors' code writes it, with what else is in the file."""
    if name == "xydeblur":
        layer = torch.nn.Linear(2, 2)
        optimizer = torch.optim.Adam(layer.parameters())
        scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [500, 1000], 0.5)
        content = {
            "model": tensors,
            "optimizer": optimizer.state_dict(),
            "scheduler": scheduler.state_dict(),
            "epoch": 3000,
        }
    elif name == "restormer":
        content = {"params": tensors}
    else:
        content = {f"module.{key}": tensor for key, tensor in tensors.items()}
        content["module.reblurNet.RBF.0.0.weight"] = torch.zeros(4, 4, 3, 3)
    torch.save(content, path, _use_new_zipfile_serialization=name != "xydeblur")
    return path


def published(name: str, image: Tensor) -> tuple[Published, Tensor]:
    forward, arguments = TINY[name]
    p = Published("Network." if name == "ifan" else "")
    return p, forward(p, image.double(), **arguments)


@pytest.fixture(params=TINY)
def name(request) -> str:
    return request.param


@pytest.mark.parametrize("channels", [1, 3])
def test_published_weights_restore_as_published(name, channels, tmp_path, photograph):
    image = photograph(channels, 32, 40)
    p, expected = published(name, image)
    path = write(tmp_path / "weights", name, p.tensors)
    network, checkpoint = load_published(path, name)
    assert checkpoint.network == name
    assert checkpoint.arguments["channels"] == channels
    assert checkpoint.arguments.items() >= TINY[name][1].items()
    assert sum(x.numel() for x in network.state_dict().values()) == sum(x.numel() for x in p.tensors.values())
    with torch.no_grad():
        restored = network.double().eval()(image.double())
    assert (expected - image).abs().max() > 1e-2
    torch.testing.assert_close(restored, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("full", FULL)
def test_published_names_make_up_the_published_size(full):
    """The passes above ask for as many numbers as the public definitions hold."""
    arguments, count = FULL[full]
    p = Published()
    with torch.no_grad():
        TINY[full][0](p, torch.rand(1, 3, 8, 8, dtype=torch.float64), **arguments)
    assert sum(x.numel() for x in p.tensors.values()) == count


def test_what_does_not_fit_is_listed(name, tmp_path, photograph):
    p, _ = published(name, photograph(3, 16, 16))
    names = list(p.tensors)
    lost, bent = names[-1], names[3]
    changed = OrderedDict(p.tensors)
    del changed[lost]
    changed[bent] = torch.zeros(2, 2)
    changed[f"{p.prefix}extra.weight"] = torch.zeros(1)
    with pytest.raises(UserError) as caught:
        load_published(write(tmp_path / "weights", name, changed))
    message = str(caught.value)
    assert "\n" not in message
    assert f"do not fit network {name!r}: 1 missing (" in message
    assert "; 1 unknown (extra.weight); 1 of another shape (" in message
    assert re.search(r"\(2, 2\) instead of \(", message)


def test_weights_of_another_network_are_named(name, tmp_path, photograph):
    p, _ = published(name, photograph(3, 16, 16))
    with pytest.raises(UserError, match=f"holds weights of network {name!r}, not 'unet'; give --network"):
        load_published(write(tmp_path / "weights", name, p.tensors), "unet")


def test_wrong_number_of_channels_is_named(tmp_path, photograph):
    """Restormer's dual-pixel weights take two pictures at once: not what this is for."""
    p, _ = published("restormer", photograph(3, 16, 16))
    p.tensors["patch_embed.proj.weight"] = torch.zeros(8, 6, 3, 3)
    with pytest.raises(UserError, match="channels must be 1 for luma or 3 for RGB, got 6"):
        load_published(write(tmp_path / "weights", "restormer", p.tensors))


def test_cut_off_checkpoint_is_named(tmp_path, photograph):
    p, _ = published("restormer", photograph(3, 16, 16))
    kept = {key: p.tensors[key] for key in list(p.tensors)[:12]}
    with pytest.raises(UserError, match=r"looks like restormer, but .*encoder_level2\.0\.attn\.temperature"):
        read_published(write(tmp_path / "weights", "restormer", kept))


class Harmful:
    def __reduce__(self):
        return (Path.touch, (Path("should-not-be-here"),))


def test_files_that_are_something_else_are_named(tmp_path):
    with pytest.raises(UserError, match=r"there are no weights at .*nowhere\.pth"):
        read_published(tmp_path / "nowhere.pth")
    (tmp_path / "text.pth").write_text("not a checkpoint")
    with pytest.raises(UserError, match=r"text\.pth is no checkpoint that can be read safely"):
        read_published(tmp_path / "text.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(UserError, match="holds list instead of named tensors"):
        read_published(tmp_path / "list.pth")
    torch.save({"a": 1}, tmp_path / "numbers.pth")
    with pytest.raises(UserError, match="no tensors: a"):
        read_published(tmp_path / "numbers.pth")
    torch.save({"a": torch.ones(1)}, tmp_path / "other.pth")
    with pytest.raises(UserError, match="no published checkpoint of xydeblur, restormer, ifan; it holds a"):
        read_published(tmp_path / "other.pth")


def test_code_in_a_file_is_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"params": Harmful()}, tmp_path / "harmful.pth")
    with pytest.raises(UserError, match="read safely"):
        read_published(tmp_path / "harmful.pth")
    assert not (tmp_path / "should-not-be-here").exists()
