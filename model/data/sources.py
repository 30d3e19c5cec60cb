"""What a training run is given, whatever its form: a store, folders of photographs, or folders of pairs."""

from collections.abc import Callable, Sequence
from pathlib import Path

from model.data.luma_set import LumaSet
from model.data.pairs import match_names, pair_folders, read_pair
from model.data.photographs import UnreadablePhotograph, find_photographs, load_luma
from model.data.store import is_store, open_store
from model.errors import UserError
from model.progress import ProgressBar

__all__ = ["are_pairs", "load_images"]


def are_pairs(sources: Sequence[Path]) -> bool:
    """Whether some sources are pairs, or a store of them; they need not be there."""
    return any(pair_folders(path) or (is_store(path) and open_store(path).paired) for path in sources)


def load_images(
    sources: Sequence[Path], smallest: int, on_skip: Callable[[str, str], None] = lambda name, reason: None
) -> LumaSet:
    """Read or map the pictures of some sources.

    Args:
        sources: one store, or folders of pairs (see `PAIR_FOLDERS`), or folders and files of photographs.
        smallest: pictures with a side below this many pixels are left out.
        on_skip: called with the name and the reason for each picture left out.

    Raises:
        UserError: if a source does not exist, sources of different kinds are mixed, or nothing remains.
    """
    stores = [path for path in sources if is_store(path)]
    if stores:
        if len(sources) > 1:
            raise UserError(
                f"{stores[0]} is a store and must be given alone; pack all into one: "
                "python -m model prepare FOLDER FOLDER -o STORE"
            )
        images = open_store(stores[0])
        large = images.at_least(smallest)
        if not len(large):
            raise UserError(f"all {len(images)} pictures of {stores[0]} are smaller than {smallest} pixels")
        if len(large) < len(images):
            on_skip(f"{len(images) - len(large)} pictures of {stores[0]}", f"smaller than {smallest} pixels")
        return large
    pairs = [folders for path in sources if (folders := pair_folders(path))]
    if pairs:
        if len(pairs) < len(sources):
            raise UserError(f"{pairs[0][0].parent} holds pairs, other sources do not; give only one kind")
        return _load_pairs(pairs, smallest, on_skip)
    paths = find_photographs(sources)
    with ProgressBar("reading", len(paths), "photographs") as bar:
        photographs = load_luma(
            paths, smallest, lambda path, reason: on_skip(str(path), reason), lambda path: bar.advance()
        )
    return LumaSet.from_images([str(one.path) for one in photographs], [one.luma for one in photographs])


def _load_pairs(
    folders: Sequence[tuple[Path, Path]], smallest: int, on_skip: Callable[[str, str], None]
) -> LumaSet:
    pairs = [pair for degraded, sharp in folders for pair in match_names(degraded, sharp)]
    names, inputs, targets = [], [], []
    with ProgressBar("reading", len(pairs), "pairs") as bar:
        for pair in pairs:
            try:
                degraded, sharp = read_pair(pair)
                if min(sharp.shape) < smallest:
                    size = f"{sharp.shape[1]} x {sharp.shape[0]}"
                    raise UnreadablePhotograph(f"{size} is smaller than {smallest} pixels")
                names.append(str(pair[1]))
                inputs.append(degraded)
                targets.append(sharp)
            except UnreadablePhotograph as reason:
                on_skip(str(pair[1]), str(reason))
            bar.advance()
    if not names:
        raise UserError(f"none of {len(pairs)} pairs can be used")
    return LumaSet.from_images(names, targets, inputs)
