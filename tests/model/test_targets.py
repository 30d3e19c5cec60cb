"""Which pictures of a folder are restored, where results go, and what is found out before any work."""

from pathlib import Path

import pytest
from PIL import Image

from model.errors import UserError
from model.photo.config import DeblurConfig
from model.photo.targets import find_targets


@pytest.fixture
def folder(tmp_path) -> Path:
    """Three pictures, two of one name."""
    for name in ("a.png", "b.jpg", "sub/a.png"):
        write(tmp_path / "photos" / name)
    return tmp_path / "photos"


def write(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (4, 4)).save(path)


def found(folder: Path, *sources: Path, **changes) -> dict[str, str]:
    """Originals and results by their places below the parent of a folder."""
    targets = find_targets(DeblurConfig(photographs=list(sources or [folder]), **changes))
    below = folder.parent
    return {
        str(original.relative_to(below)): str(target.relative_to(below))
        for original, target in targets.of.items()
    }


def test_a_folder_is_finished_later_and_its_results_are_no_originals(folder, tmp_path):
    everything = {
        "photos/a.png": "photos/a_deblurred.png",
        "photos/b.jpg": "photos/b_deblurred.jpg",
        "photos/sub/a.png": "photos/sub/a_deblurred.png",
    }
    assert found(folder) == everything
    write(folder / "a_deblurred.png")
    write(folder / "sub" / "a_deblurred.png")
    assert found(folder) == {"photos/b.jpg": "photos/b_deblurred.jpg"}
    notes = find_targets(DeblurConfig(photographs=[folder])).notes
    assert notes == [f"{folder}: 2 of 3 were restored before; --overwrite does them again"]
    assert found(folder, overwrite=True) == everything
    elsewhere = found(folder, out=tmp_path / "out")
    assert elsewhere.keys() == everything.keys()
    # Named by itself, any picture is an original; so is one that only ends like a result.
    assert list(found(folder, folder / "a_deblurred.png")) == ["photos/a_deblurred.png"]
    write(folder / "c_deblurred.png")
    assert "photos/c_deblurred.png" in found(folder)


@pytest.mark.parametrize("out", ["out", "photos/out"])
def test_subfolders_are_made_again_below_out(folder, tmp_path, out):
    wanted = {
        "photos/a.png": f"{out}/a_deblurred.png",
        "photos/b.jpg": f"{out}/b_deblurred.jpg",
        "photos/sub/a.png": f"{out}/sub/a_deblurred.png",
    }
    assert found(folder, out=tmp_path / out) == wanted
    for target in wanted.values():
        write(tmp_path / target)
    assert found(folder, out=tmp_path / out) == {}
    assert found(folder, out=tmp_path / out, overwrite=True) == wanted


def test_an_original_is_no_target(folder):
    with pytest.raises(UserError, match="is one of the originals; give its folder, another --out"):
        found(folder, out=folder, suffix="", overwrite=True)
    write(folder / "a_deblurred.png")
    with pytest.raises(UserError, match="is one of the originals"):
        found(folder, folder, folder / "a_deblurred.png", overwrite=True)


def test_pictures_that_are_left_out_are_counted(folder):
    for name in ("x.heic", "y.HEIC", "z.gif", ".hidden.bmp", "notes.txt"):
        (folder / name).touch()
    notes = find_targets(DeblurConfig(photographs=[folder])).notes
    assert notes == [f"{folder}: left out 1 .gif, 2 .heic; convert them to TIFF or JPEG first"]


def test_a_folder_that_cannot_be_written_is_named(folder, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    for out in (tmp_path / "file", tmp_path / "file" / "folder"):
        with pytest.raises(UserError, match=f"cannot make the folder {out}: .*; give another --out"):
            found(folder, out=out)
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(UserError, match=f"the folder {folder} cannot be written; give another with --out"):
        found(folder)


@pytest.mark.parametrize("suffix", ["/x", "../x", "a/b"])
def test_a_suffix_is_no_way_to_another_folder(suffix):
    with pytest.raises(UserError, match="--suffix must be part of a file's name"):
        DeblurConfig(photographs=[Path("x.jpg")], suffix=suffix).check()
