"""`python -m model deblur`."""

import sys
from pathlib import Path

from model.data.kernels import blur_in_words
from model.device import choose_device
from model.errors import UserError
from model.evaluation.methods import NetworkMethod, method_from_weights
from model.interpolation import between
from model.photo.config import DeblurConfig
from model.photo.picture import encoded, format_of, read_picture, undecoded, write_picture
from model.photo.restore import memory_estimate, restore_picture
from model.photo.targets import find_targets
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
    targets = find_targets(config)
    method, which = _method(config)
    say(f"weights: {which}")
    for note in targets.notes:
        say(note)
    failed = 0
    for original, target in targets.of.items():
        try:
            _deblur(config, method, original, target)
        except UserError as error:
            failed += 1
            print(f"error: {original}: {error}", file=sys.stderr, flush=True)
    if failed and len(targets.of) > 1:
        say(f"{len(targets.of) - failed} of {len(targets.of)} pictures restored")
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


def _deblur(config: DeblurConfig, method: NetworkMethod, original: Path, target: Path) -> None:
    tile, overlap = config.tiling(method.crop)
    # All that can fail does so before the work.
    format_of(target)
    width, height, channels = undecoded(original)
    needed = memory_estimate(height, width, channels, config.reduce, tile, overlap) / 2**30
    if needed >= 1:
        say(f"{original}: about {needed:.1f} GiB of memory beside the program")
    picture = read_picture(original).reduced(config.reduce)
    encoded(target, picture.corner())
    height, width, _ = picture.pixels.shape
    count = sum(1 for _ in tiles(height, width, tile, overlap))
    say(f"{original}: {width} x {height}, {count} tile{'s' * (count != 1)}")
    for note in picture.notes:
        say(f"{original}: {note}")
    megapixels = height * width / 1e6
    with ProgressBar(original.name, count, "megapixels") as bar:
        restored = restore_picture(
            picture, method, tile, overlap, on_tile=lambda: bar.advance(1, megapixels / count)
        )
    write_picture(target, restored, config.quality)
    say(f"written: {target}")
