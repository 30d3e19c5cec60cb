"""The drawings: the right pixels and numbers are in them."""

import numpy as np
import pytest
from matplotlib.axes import Axes
from PIL import Image

from model.evaluation import plots
from model.evaluation.evaluator import METRICS, evaluate
from model.evaluation.formats import Table
from model.evaluation.methods import Identity, build_method
from model.evaluation.metrics import sharpness_q
from model.evaluation.published import published
from model.evaluation.table import Row


@pytest.fixture
def table(pairs, setting) -> Table:
    methods = [Identity(), build_method("w=0=al:iterations=2", setting)]
    methods.append(build_method("w=0.1=al:iterations=9", setting))
    return Table(evaluate(methods, pairs, "pythonq", None))


@pytest.fixture
def drawn(monkeypatch):
    """What is handed to matplotlib, by the name of its function."""
    calls: dict[str, list] = {}
    for name in ("imshow", "scatter", "plot", "axvline", "axhline", "add_patch", "fill_between"):
        original = getattr(Axes, name)

        def record(self, *arguments, _name=name, _original=original, **options):
            calls.setdefault(_name, []).append((arguments, options))
            return _original(self, *arguments, **options)

        monkeypatch.setattr(Axes, name, record)
    return calls


def test_all_drawings_are_written_and_are_pictures(table, pairs, tmp_path):
    written = plots.draw_all(tmp_path, table, pairs, "pythonq")
    assert [path.name for path in written] == ["scatter.png", "crops.png", "q_map.png", "sweep.png"]
    for path in written:
        with Image.open(path) as picture:
            assert min(picture.size) > 300
            assert np.asarray(picture.convert("L")).std() > 5


def test_scatter_shows_every_picture_and_the_means(table, drawn, tmp_path):
    plots.draw_scatter(tmp_path / "scatter.png", table.measurements)
    assert len(drawn["scatter"]) == 3
    for (arguments, options), ssim_line, q_line in zip(
        drawn["scatter"], drawn["axvline"], drawn["axhline"], strict=True
    ):
        group = [one for one in table.measurements if one.method == options["label"]]
        assert arguments == ([one.ssim for one in group], [one.q for one in group])
        assert ssim_line[0][0] == pytest.approx(np.mean(arguments[0]))
        assert q_line[0][0] == pytest.approx(np.mean(arguments[1]))


def test_crops_are_of_the_marked_place_without_smoothing(table, pairs, drawn, tmp_path):
    plots.draw_crops(tmp_path / "crops.png", pairs[:2], table.measurements, side=24)
    # For each picture: the whole, then every method and the sharp picture.
    assert len(drawn["imshow"]) == 2 * 5
    assert all(options["interpolation"] == "nearest" for _, options in drawn["imshow"])
    for row, pair in enumerate(pairs[:2]):
        mark = drawn["add_patch"][row][0][0]
        left, top = (int(value + 0.5) for value in mark.get_xy())
        assert (mark.get_width(), mark.get_height()) == (24, 24)
        assert (top, left) == plots.liveliest(pair, 24)
        shown = [arguments[0] for arguments, _ in drawn["imshow"][row * 5 : row * 5 + 5]]
        assert np.array_equal(shown[0], pair.sharp)
        assert np.array_equal(shown[1], pair.blurred[top : top + 24, left : left + 24])
        assert np.array_equal(shown[4], pair.sharp[top : top + 24, left : left + 24])


def test_the_liveliest_place_is_where_blurring_took_most(pairs):
    loss = (pairs[0].sharp / 255 - pairs[0].observed) ** 2
    sums = {
        (top, left): loss[top : top + 20, left : left + 20].sum()
        for top in range(64 - 20 + 1)
        for left in range(64 - 20 + 1)
    }
    assert sums[plots.liveliest(pairs[0], 20)] == pytest.approx(max(sums.values()))


def test_the_mean_of_a_map_is_q(table, pairs, drawn, tmp_path):
    plots.draw_q_maps(tmp_path / "q_map.png", pairs[:1], table.measurements, "pythonq")
    maps = [arguments[0] for arguments, _ in drawn["imshow"]]
    assert [values.shape for values in maps] == [(8, 8)] * 4
    expected = [one.q for one in table.measurements if one.image == pairs[0].name]
    expected.append(sharpness_q(pairs[0].sharp, "pythonq"))
    assert [values.mean() for values in maps] == pytest.approx(expected, rel=1e-5)


def test_the_sweep_is_in_order_of_w_with_the_paper_s_beside_it(drawn, tmp_path):
    rows = [Row((f"w={w}",), dict.fromkeys(METRICS, 1.0 + w), {"psnr": (1.0, 2.0)}) for w in (0.1, 0.0, 0.01)]
    rows += [row for _, row in published("I")]
    plots.draw_sweep(tmp_path / "sweep.png", rows)
    theirs, ours = drawn["plot"][:2]
    assert ours[0][:2] == ([0.0, 0.01, 0.1], [1.0, 1.01, 1.1])
    assert theirs[0][:2] == ([0, 0.001, 0.01, 0.05, 0.1], [35.069, 35.102, 35.101, 34.844, 33.641])
    # Only PSNR has intervals here.
    assert len(drawn["fill_between"]) == 1
