"""The picture of what the weights for photographs out of focus do: docs/focus.jpg."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from model.data.degradation import Degradation
from model.data.luma import luma_uint8
from model.demo.comparison import Panel, Strip, draw_comparison
from model.demo.scenes import HeldOut, scikit_image_scenes
from model.evaluation.methods import Method
from model.evaluation.metrics import psnr
from model.evaluation.protocol import find_protocol
from model.photo.picture import Picture, read_picture
from model.photo.restore import restore_picture

#: The radius of each photograph's disc in pixels, in the order of the scenes.
RADII = (1.5, 2.5, 3.5)
CAMERA = find_protocol("focus")


def draw(path: Path, methods: Mapping[str, Method]) -> None:
    """Photographs in colour, out of focus as a camera stores them, restored by each method, and sharp.

    Args:
        path: JPEG.
        methods: by what stands above their columns.
    """
    scenes = scikit_image_scenes().held_out
    strips = [_strip(held, radius, methods) for held, radius in zip(scenes, RADII, strict=True)]
    with tempfile.TemporaryDirectory() as folder:
        png = Path(folder) / "focus.png"
        draw_comparison(
            png,
            strips,
            title="Photographs that no network was trained on, out of focus by the radius of a disc",
            foot=f"Blurred in amounts of light, noise of {255 * CAMERA.noise**0.5:.1f} levels, JPEG of "
            f"quality {CAMERA.jpeg}. PSNR is of the whole photograph's luma. Crops are enlarged without "
            "smoothing.",
        )
        with Image.open(png) as image:
            image.convert("RGB").save(path, quality=80, optimize=True)


def _strip(held: HeldOut, radius: float, methods: Mapping[str, Method]) -> Strip:
    sharp = read_picture(held.path)
    blurred = _photographed(sharp, radius)
    shown = {"out of focus": blurred}
    # In squares of 128 x 128, on which the networks were trained, as `deblur` does.
    shown |= {title: restore_picture(blurred, method, 64, 32) for title, method in methods.items()}
    panels = [
        Panel(title, _drawn(one), f"{psnr(_luma(sharp), _luma(one)):.2f} dB") for title, one in shown.items()
    ]
    panels.append(Panel("sharp", _drawn(sharp), ""))
    return Strip(f"{held.title}, {radius:g} pixels", _drawn(sharp), panels, held.left, held.top, held.side)


def _photographed(sharp: Picture, radius: float) -> Picture:
    degrade = Degradation(f"disc:{radius:g}", noise=CAMERA.noise, light=CAMERA.light)
    channels = torch.from_numpy(np.ascontiguousarray(sharp.pixels.transpose(2, 0, 1)))[None]
    seen = degrade(channels, torch.Generator().manual_seed(0))[0].permute(1, 2, 0).mul(255).round()
    file = io.BytesIO()
    Image.fromarray(_drawn(sharp.with_pixels(seen.numpy().astype(np.uint8)))).save(
        file, "JPEG", quality=CAMERA.jpeg
    )
    stored = np.asarray(Image.open(file))
    return sharp.with_pixels(stored.reshape(sharp.pixels.shape))


def _luma(picture: Picture) -> np.ndarray:
    pixels = _drawn(picture)
    return luma_uint8(pixels) if pixels.ndim == 3 else pixels


def _drawn(picture: Picture) -> np.ndarray:
    return picture.pixels if picture.pixels.shape[2] == 3 else picture.pixels[..., 0]
