"""The HTML report: what is in the file, and what a real browser shows of it."""

import base64
import io
import json
import re
import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from model.evaluation.evaluator import evaluate
from model.evaluation.formats import Table
from model.evaluation.methods import Identity, build_method
from model.evaluation.report import write_report

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture
def table(pairs, setting) -> Table:
    methods = [Identity(), build_method("a<b&c=al:iterations=5", setting)]
    return Table(evaluate(methods, pairs, "pythonq", None), notes=["Blurred </script> & more."])


def data(page: str) -> list:
    return json.loads(re.search(r'type="application/json">(.*?)</script>', page, re.DOTALL)[1])


def pixels(address: str) -> np.ndarray:
    content = base64.b64decode(address.removeprefix("data:image/png;base64,"))
    return np.array(Image.open(io.BytesIO(content)))


def test_every_picture_is_in_the_file(table, pairs, tmp_path):
    page = write_report(tmp_path / "report.html", table, pairs).read_text()
    pictures = data(page)
    assert [picture["name"] for picture in pictures] == ["a", "b", "c"]
    assert list(pictures[0]["versions"]) == ["blurred", "a<b&c", "sharp"]
    for picture, pair in zip(pictures, pairs, strict=True):
        assert np.array_equal(pixels(picture["versions"]["sharp"][0]), pair.sharp)
        assert np.array_equal(pixels(picture["versions"]["blurred"][0]), pair.blurred)
    (one,) = [m for m in table.measurements if (m.method, m.image) == ("a<b&c", "b")]
    assert np.array_equal(pixels(pictures[1]["versions"]["a<b&c"][0]), one.restored)
    assert f"PSNR {one.psnr:.2f} dB" in pictures[1]["versions"]["a<b&c"][1]


def test_nothing_is_loaded_and_names_are_escaped(table, pairs, tmp_path):
    page = write_report(tmp_path / "report.html", table, pairs).read_text()
    assert not re.search(r"(src|href)\s*=\s*[\"']?\s*(https?:)?//", page)
    assert "@import" not in page
    assert "{{" not in page
    assert "<td>a&lt;b&amp;c</td>" in page
    assert "Blurred &lt;/script&gt; &amp; more." in page
    assert page.count("</script>") == 2


def test_large_sets_are_cut_and_that_is_said(table, pairs, tmp_path):
    page = write_report(tmp_path / "report.html", table, pairs, largest=1).read_text()
    assert len(data(page)) == 1
    assert "Shown are the first 1 of 3 pictures." in page


@pytest.mark.skipif(BROWSER is None, reason="no chromium on the PATH to open the report with")
class TestInABrowser:
    @pytest.fixture
    def shot(self, tmp_path):
        def shot(page, state: str) -> np.ndarray:
            target = tmp_path / "shot.png"
            subprocess.run(
                [
                    BROWSER,
                    "--headless",
                    # In a container there is neither a sandbox nor much shared memory.
                    "--no-sandbox",
                    "--disable-dev-shm-usage",
                    "--disable-gpu",
                    f"--user-data-dir={tmp_path / 'profile'}",
                    "--force-device-scale-factor=1",
                    "--window-size=1200,1600",
                    "--virtual-time-budget=3000",
                    f"--screenshot={target}",
                    f"{page.as_uri()}#{state}",
                ],
                check=True,
                capture_output=True,
                timeout=60,
            )
            return np.array(Image.open(target).convert("L"))

        return shot

    @pytest.fixture
    def page(self, table, pairs, tmp_path):
        # Noise: no two pixels are alike, so a place in the page can be told from every other.
        random = np.random.default_rng(0)
        versions = {
            name: random.integers(0, 256, (64, 64), dtype=np.uint8) for name in ("blurred", "a<b&c", "sharp")
        }
        table = replace(
            table, measurements=[replace(one, restored=versions[one.method]) for one in table.measurements]
        )
        page = write_report(
            tmp_path / "report.html", table, [replace(pair, sharp=versions["sharp"]) for pair in pairs]
        )
        return page, versions

    @staticmethod
    def cells(screen: np.ndarray, wanted: np.ndarray, columns: slice) -> np.ndarray:
        """The middles of the enlarged pixels, found by where `wanted`'s columns are."""
        times = 900 // 64
        places = np.ones((screen.shape[0] - 64 * times, screen.shape[1] - 64 * times), dtype=bool)
        for row, column in [(0, 0), (1, 3), (10, 2), (63, 1), (40, 3), (20, 0), (5, 2), (33, 1)]:
            column += columns.start
            y, x = row * times + times // 2, column * times + times // 2
            seen = screen[y : y + places.shape[0], x : x + places.shape[1]]
            places &= np.abs(seen.astype(int) - wanted[row, column]) <= 1
        tops, lefts = np.nonzero(places)
        assert len(tops) > 0, "the picture is not in the page"
        top, left = int(np.median(tops)), int(np.median(lefts))
        middle = times // 2
        return screen[top + middle : top + 64 * times : times, left + middle : left + 64 * times : times]

    def test_the_slider_divides_the_picture(self, page, shot):
        file, versions = page
        left, right = versions["blurred"], versions["sharp"]
        seen = self.cells(shot(file, "picture=b&left=blurred&right=sharp&at=50"), left, slice(0, 31))
        assert np.abs(seen[:, :31].astype(int) - left[:, :31]).max() <= 1
        assert np.abs(seen[:, 33:].astype(int) - right[:, 33:]).max() <= 1

    def test_moving_it_and_choosing_another_version(self, page, shot):
        file, versions = page
        script = """<script>
        part.right.value = "a<b&c"; part.right.dispatchEvent(new Event("change"));
        part.at.value = 25; part.at.dispatchEvent(new Event("input"));
        </script></html>"""
        file.write_text(file.read_text().replace("</html>", script))
        seen = self.cells(shot(file, "left=blurred&right=sharp&at=100"), versions["a<b&c"], slice(20, 63))
        assert np.abs(seen[:, 18:].astype(int) - versions["a<b&c"][:, 18:]).max() <= 1
        assert np.abs(seen[:, :15].astype(int) - versions["blurred"][:, :15]).max() <= 1
