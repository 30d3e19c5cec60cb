"""Tiles: every pixel once, each with its surroundings, all on one grid."""

import numpy as np
import pytest

from model.photo.tiles import tiles


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
