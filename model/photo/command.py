"""`python -m model deblur`."""

import sys
from pathlib import Path

from model.data.kernels import blur_in_words
from model.data.photographs import find_photographs
from model.device import choose_device
from model.errors import UserError
from model.evaluation.methods import NetworkMethod, method_from_weights
from model.interpolation import between
from model.photo.config import DeblurConfig
from model.photo.picture import read_picture, write_picture
from model.photo.restore import memory_estimate, restore_picture
from model.photo.tiles import tiles
from model.progress import ProgressBar, say
from model.shipped import DIALS, shipped
from model.weights import load_weights

__all__ = ["run"]


def run(config: DeblurConfig) -> int:
    """Restore each picture; one that cannot be is named, the others are done, and the exit code is 2.

    Raises:
        UserError: if an option cannot work, the weights cannot be loaded, or a result would replace a file.
    """
    config.check()
    method, which = _method(config)
    originals = find_photographs(config.photographs)
    targets = _targets(config, originals)
    say(f"weights: {which}")
    failed = 0
    for original, target in targets.items():
        try:
            _deblur(config, method, original, target)
        except UserError as error:
            failed += 1
            print(f"error: {original}: {error}", file=sys.stderr, flush=True)
    if failed and len(targets) > 1:
        say(f"{len(targets) - failed} of {len(targets)} pictures restored")
    return 2 if failed else 0


def _method(config: DeblurConfig) -> tuple[NetworkMethod, str]:
    """What restores, and which weights it has, in words."""
    device = choose_device(config.device)
    if config.weights is not None:
        return method_from_weights(config.weights, device), str(config.weights)
    dial = DIALS[config.blur or "focus"]
    sharpness = dial.default if config.sharpness is None else config.sharpness
    network = between(shipped(dial.soft), shipped(dial.sharp), sharpness)
    _, card = load_weights(shipped(dial.sharp))
    trained = card.training["config"]
    # Whoever has another blur must learn here that it will stay.
    blur = f"{'up to ' * bool(trained.get('vary'))}a {blur_in_words(trained['blur'])}"
    which = (
        f"sharpness {sharpness:g} between {dial.soft} (0) and {dial.sharp} (1), "
        f"which come with this program: takes away {blur}, nothing wider and no motion"
    )
    return NetworkMethod(dial.sharp, network, device, crop=card.crop), which


def _targets(config: DeblurConfig, originals: list[Path]) -> dict[Path, Path]:
    targets: dict[Path, Path] = {}
    taken: dict[Path, Path] = {}
    there = {path.resolve() for path in originals}
    for original in originals:
        target = (config.out or original.parent) / f"{original.stem}{config.suffix}{original.suffix}"
        if target.resolve() in there:
            raise UserError(f"{target} is one of the originals; give another --out or --suffix")
        if target in taken:
            raise UserError(
                f"{taken[target]} and {original} would both become {target}; restore them one by one"
            )
        if target.exists() and not config.overwrite:
            raise UserError(f"{target} is already there; --overwrite replaces it")
        targets[original], taken[target] = target, original
    return targets


def _deblur(config: DeblurConfig, method: NetworkMethod, original: Path, target: Path) -> None:
    tile, overlap = config.tiling(method.crop)
    picture = read_picture(original).reduced(config.reduce)
    height, width, channels = picture.pixels.shape
    count = sum(1 for _ in tiles(height, width, tile, overlap))
    bytes_per_pixel = channels * picture.pixels.itemsize + (picture.alpha is not None)
    needed = memory_estimate(height, width, bytes_per_pixel, tile, overlap)
    say(
        f"{original}: {width} x {height}, {count} tile{'s' * (count != 1)}, "
        f"about {needed / 2**30:.1f} GiB of memory beside the program"
    )
    for note in picture.notes:
        say(f"{original}: {note}")
    megapixels = height * width / 1e6
    with ProgressBar(original.name, count, "megapixels") as bar:
        restored = restore_picture(
            picture, method, tile, overlap, on_tile=lambda: bar.advance(1, megapixels / count)
        )
    write_picture(target, restored, config.quality)
    say(f"written: {target}")
