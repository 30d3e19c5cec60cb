"""Tiles: every pixel once, each with its surroundings, all on one grid."""

from collections import defaultdict

import numpy as np
import pytest

from model.photo.tiles import tiles, together


@pytest.mark.parametrize(("height", "width"), [(1, 1), (16, 300), (97, 64), (64, 64), (130, 129)])
@pytest.mark.parametrize(("size", "overlap"), [(64, 16), (16, 0), (32, 48)])
def test_kept_parts_cover_every_pixel_once(height, width, size, overlap):
    count = np.zeros((height, width), dtype=int)
    for tile in tiles(height, width, size, overlap):
        count[tile.kept] += 1
        seen, kept = np.zeros_like(count), np.zeros_like(count)
        seen[tile.seen], kept[tile.kept] = 1, 1
        # The kept part lies inside the seen one, at the place that `inside` says.
        assert np.array_equal(kept[tile.seen][tile.inside], np.ones(kept[tile.kept].shape))
        assert (seen >= kept).all()
        for axis, (kept_span, seen_span) in enumerate(zip(tile.kept, tile.seen, strict=True)):
            assert seen_span.start == max(kept_span.start - overlap, 0)
            assert seen_span.stop == min(kept_span.stop + overlap, (height, width)[axis])
            assert seen_span.start % 16 == 0
    assert (count == 1).all()


@pytest.mark.parametrize(("height", "width"), [(1, 1), (64, 300), (200, 130)])
@pytest.mark.parametrize("pixels", [1, 3 * 64 * 64, 10**9])
def test_tiles_of_one_size_go_together(height, width, pixels):
    parts = list(tiles(height, width, 32, 16))
    groups = list(together(parts, pixels))
    assert sorted(str(part) for group in groups for part in group) == sorted(map(str, parts))
    sizes = defaultdict(list)
    for group in groups:
        ((rows, columns),) = {part.shape for part in group}
        sizes[rows, columns].append(len(group))
    for (rows, columns), counts in sizes.items():
        # All but the last are full.
        assert set(counts[:-1]) <= {max(1, pixels // (rows * columns))}
        assert counts[-1] <= max(1, pixels // (rows * columns))
