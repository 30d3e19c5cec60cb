"""Downloads, from a real server on this machine."""

import hashlib
import threading
import zipfile
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from model.data.photographs import find_photographs
from model.errors import UserError
from model.evaluation import download
from model.evaluation.data_sets import DATA_SETS, VARIABLE, locate
from model.evaluation.download import SOURCES, DownloadConfig, listed, run
from tests.photographs import data_folder


class _Quiet(SimpleHTTPRequestHandler):
    asked: list[str]

    def log_message(self, *args):
        self.asked.append(self.path)


@pytest.fixture
def server(photographs, tmp_path, monkeypatch):
    """Serves three photographs as kodak, and an archive of them as div2k; `asked` lists what was fetched."""
    there = tmp_path / "served"
    there.mkdir()
    files = []
    for place, path in enumerate(find_photographs(photographs), start=1):
        (there / f"{place}.png").write_bytes(path.read_bytes())
        files.append((f"kodim{place:02}.png", _checksum(path), f"{place}.png"))
    with zipfile.ZipFile(there / "all.zip", "w") as archive:
        for path in sorted(there.glob("*.png")):
            archive.write(path, f"inside/{path.name}")
    lists = {"kodak": files, "div2k": [("all.zip", _checksum(there / "all.zip"), "all.zip")]}
    handler = type("Handler", (_Quiet,), {"asked": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(there))) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{http.server_port}/"
        for name in lists:
            monkeypatch.setitem(SOURCES, name, replace(SOURCES[name], address=address))
        monkeypatch.setattr(download, "listed", lists.__getitem__)
        yield handler.asked, there
        http.shutdown()


def _checksum(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_data_set_is_fetched_once(server, tmp_path, capsys):
    asked, there = server
    data = tmp_path / "data"
    run(DownloadConfig(names=["Kodak"], data=data))
    assert (data / "kodak" / "kodim02.png").read_bytes() == (there / "2.png").read_bytes()
    assert locate(Path("kodak"), data) == data / "kodak"
    assert "kodak: complete, 3 fetched" in capsys.readouterr().out
    # A file that was damaged is fetched again, and only that.
    asked.clear()
    (data / "kodak" / "kodim03.png").write_bytes(b"half")
    run(DownloadConfig(names=["kodak"], data=data))
    assert asked == ["/3.png"]


def test_an_archive_is_unpacked_and_not_kept(server, tmp_path):
    asked, _ = server
    data = tmp_path / "data"
    for _ in range(2):
        run(DownloadConfig(names=["div2k"], data=data))
    assert asked == ["/all.zip"]
    assert len(find_photographs(locate(Path("div2k"), data))) == 3
    assert not list(data.rglob("*.zip"))


def test_other_content_than_listed_is_refused_and_what_came_before_stays(server, tmp_path):
    _, there = server
    (there / "2.png").write_bytes(b"another picture")
    data = tmp_path / "data"
    with pytest.raises(UserError, match=r"cannot fetch .*/2\.png: .*hash.* run it again"):
        run(DownloadConfig(names=["kodak"], data=data, at_once=1))
    there = {path.name for path in (data / "kodak").iterdir()}
    assert "kodim01.png" in there and "kodim02.png" not in there


def test_no_network_is_one_line(server, tmp_path, monkeypatch):
    monkeypatch.setitem(SOURCES, "kodak", replace(SOURCES["kodak"], address="http://127.0.0.1:9/"))
    with pytest.raises(UserError, match=r"cannot fetch http://127\.0.*/1\.png: no connection\.") as error:
        run(DownloadConfig(names=["kodak"], data=tmp_path, at_once=1))
    assert "\n" not in str(error.value)


def test_bad_words_are_named(tmp_path, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    for config, message in (
        (DownloadConfig(names=["kodac"], data=tmp_path), "did you mean 'kodak'"),
        (DownloadConfig(names=["dpdd"], data=tmp_path), r"dpdd cannot be fetched by a program.*ECCV 2020"),
        (DownloadConfig(data=tmp_path), "which data set"),
        (DownloadConfig(names=["kodak"]), "where to"),
    ):
        with pytest.raises(UserError, match=message):
            run(config)


@pytest.mark.parametrize("name", ["kodak", "bsds500"])
def test_the_lists_are_those_of_the_data_sets_at_hand(name):
    folder = data_folder(name)
    files = {file: checksum for file, checksum, _ in listed(name)}
    assert len(files) == DATA_SETS[name].photographs
    for file, checksum in files.items():
        assert _checksum(folder / file) == checksum
