"""The store: what goes in comes out, whatever ends the writing, and damage is noticed."""

import json

import numpy as np
import pytest
from PIL import Image

from model.data.luma_set import LumaSet
from model.data.photographs import read_luma
from model.data.prepare import PrepareConfig, prepare
from model.data.sources import load_images
from model.data.store import StoreWriter, open_store, verify_store
from model.errors import UserError


def pack(photographs, out, **changes) -> None:
    prepare(PrepareConfig(photographs=[photographs], out=out, smallest=32, **changes))


@pytest.fixture
def store(photographs, tmp_path):
    pack(photographs, tmp_path / "store")
    return tmp_path / "store"


@pytest.fixture
def pairs(photographs, tmp_path):
    for place, sharper in (("input", False), ("target", True)):
        for name in ("a.png", "b.jpg"):
            path = tmp_path / "pairs" / place / "scene" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            luma = read_luma(photographs / name)
            Image.fromarray(luma if sharper else luma // 2).save(path.with_suffix(".png"))
    return tmp_path / "pairs"


def test_photographs_come_back_as_they_were_read(photographs, store):
    images = open_store(store)
    assert isinstance(images.target, np.memmap)
    assert [name.rpartition("/")[2] for name in images.names] == ["a.png", "b.jpg", "c.webp"]
    for index, name in enumerate(images.names):
        assert np.array_equal(images.image(index), read_luma(photographs.__class__(name)))
    assert list(verify_store(store)) == [None] * 3


def test_folder_and_store_train_on_the_same(photographs, store):
    from_folder, from_store = load_images([photographs], 32), load_images([store], 32)
    assert from_folder.names == from_store.names
    assert np.array_equal(from_folder.target, from_store.target)


def test_pairs_come_back_and_are_recognised(pairs, tmp_path):
    pack(pairs, tmp_path / "store")
    for images in (open_store(tmp_path / "store"), load_images([pairs], 32)):
        assert images.paired and len(images) == 2
        for index in range(2):
            assert np.array_equal(images.image(index, degraded=True), images.image(index) // 2)


@pytest.mark.parametrize("cut", ["after a whole picture", "in a picture", "in the journal"])
def test_interrupted_packing_goes_on(photographs, tmp_path, cut, capsys):
    pack(photographs, tmp_path / "whole")
    out = tmp_path / "cut"
    with StoreWriter(out) as writer:
        name = str(photographs / "a.png")
        writer.add(name, read_luma(photographs / "a.png"))
    if cut == "in a picture":
        with (out / "target.u8").open("ab") as file:
            file.write(b"half of the next")
    if cut == "in the journal":
        with (out / "journal.jsonl").open("a") as file:
            file.write('{"name": "b.jp')
    with pytest.raises(UserError, match="unfinished store; run the same"):
        open_store(out)
    pack(photographs, out)
    assert "1 of 3 pictures are there already" in capsys.readouterr().out
    for file in ("target.u8", "journal.jsonl", "store.json"):
        assert (out / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()


def test_journal_that_promises_more_than_there_is_is_not_believed(photographs, tmp_path):
    out = tmp_path / "store"
    with StoreWriter(out) as writer:
        writer.add(str(photographs / "a.png"), read_luma(photographs / "a.png"))
    (out / "target.u8").write_bytes(b"short")
    pack(photographs, out)
    assert list(verify_store(out)) == [None] * 3


def test_broken_pictures_are_listed(photographs, tmp_path, capsys):
    folder = tmp_path / "mixed"
    folder.mkdir()
    (folder / "good.png").write_bytes((photographs / "a.png").read_bytes())
    (folder / "bad.png").write_bytes(b"nothing")
    Image.fromarray(np.zeros((20, 300), np.uint8)).save(folder / "small.png")
    pack(folder, tmp_path / "store")
    output = capsys.readouterr().out
    assert "bad.png: not a picture" in output and "small.png: 300 x 20 is smaller than 32" in output
    assert "1 photographs" in output and "2 left out" in output
    assert len(open_store(tmp_path / "store")) == 1
    notes = [json.loads(line) for line in (tmp_path / "store/journal.jsonl").read_text().splitlines()]
    assert {note["name"].rpartition("/")[2] for note in notes if "broken" in note} == {"bad.png", "small.png"}


def test_damage_is_noticed(store):
    with (store / "target.u8").open("r+b") as file:
        file.seek(30_000)
        byte = file.read(1)
        file.seek(30_000)
        file.write(bytes([byte[0] ^ 1]))
    damaged = list(verify_store(store))
    assert [name is not None for name in damaged] == [False, True, False]
    with (store / "target.u8").open("ab") as file:
        file.write(b"more")
    with pytest.raises(UserError, match="bytes instead of"):
        open_store(store)


def test_other_versions_and_changed_journals_are_refused(store):
    index = json.loads((store / "store.json").read_text())
    (store / "store.json").write_text(json.dumps({**index, "format": "qkernel-luma-store/0"}))
    with pytest.raises(UserError, match="version 'qkernel-luma-store/0', this program reads"):
        open_store(store)
    (store / "store.json").write_text(json.dumps(index))
    with (store / "journal.jsonl").open("a") as file:
        file.write("\n")
    with pytest.raises(UserError, match="not the one the store was finished with"):
        open_store(store)


def test_finished_stores_and_other_folders_are_not_replaced(photographs, store, tmp_path):
    with pytest.raises(UserError, match="holds a finished store"):
        pack(photographs, store)
    pack(photographs, store, overwrite=True)
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.tex").write_text("years")
    with pytest.raises(UserError, match="not a store and is not replaced"):
        pack(photographs, precious, overwrite=True)
    assert (precious / "thesis.tex").exists()


def test_full_disk_loses_nothing(photographs, tmp_path, monkeypatch):
    luma = read_luma(photographs / "a.png")
    with StoreWriter(tmp_path / "store") as writer:
        writer.add("first", luma)
        plane = writer._planes[0]

        class Full:
            def write(self, content):
                raise OSError(28, "No space left on device")

        writer._planes[0] = Full()
        with pytest.raises(UserError, match="No space left on device; the 1 pictures before are safe"):
            writer.add("second", luma)
        writer._planes[0] = plane
    with StoreWriter(tmp_path / "store") as writer:
        assert list(writer.done) == ["first"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("missing", "1 of 2 pictures have no partner in .*input, e.g. .*b.png"),
        ("extra", "have no partner in .*target"),
        ("size", "differ in size: 100 x 90 and 160 x 144"),
    ],
)
def test_pairs_that_do_not_match_are_named(pairs, tmp_path, change, message):
    place = pairs / "input" / "scene"
    if change == "missing":
        (place / "b.png").unlink()
    if change == "extra":
        (place / "more.png").write_bytes((place / "b.png").read_bytes())
    if change == "size":
        Image.fromarray(np.zeros((90, 100), np.uint8)).save(place / "b.png")
    for attempt in (lambda: pack(pairs, tmp_path / "store"), lambda: load_images([pairs], 32)):
        with pytest.raises(UserError, match=message):
            attempt()


def test_kinds_of_sources_are_not_mixed(photographs, pairs, store):
    with pytest.raises(UserError, match="is a store and must be given alone"):
        load_images([store, photographs], 32)
    with pytest.raises(UserError, match="holds pairs, other sources do not"):
        load_images([photographs, pairs], 32)


def test_pictures_smaller_than_the_crop_are_left_out(store):
    noted = []
    with pytest.raises(UserError, match=r"all 3 pictures of .* are smaller than 145 pixels"):
        load_images([store], 145)
    mixed = LumaSet.from_images(["a", "b"], [np.zeros((9, 9), np.uint8), np.zeros((20, 20), np.uint8)])
    assert mixed.at_least(10).names == ("b",)
    assert noted == []
