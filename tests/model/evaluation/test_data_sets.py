"""Data sets by name."""

import shutil
from pathlib import Path

import pytest

from model.data.photographs import find_photographs
from model.errors import UserError
from model.evaluation.data_sets import VARIABLE, incomplete, locate
from tests.photographs import data_folder


@pytest.fixture
def data(photographs, tmp_path):
    shutil.copytree(photographs, tmp_path / "data" / "kodak")
    return tmp_path / "data"


def test_a_name_is_found_in_the_folder_of_the_option_or_the_variable(data, photographs, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    assert locate(Path("Kodak"), data) == data / "kodak"
    with pytest.raises(UserError, match="Name the folder that holds it with --data or QKERNEL_DATA"):
        locate(Path("kodak"), None)
    monkeypatch.setenv(VARIABLE, str(data))
    assert locate(Path("kodak"), None) == data / "kodak"
    # A path that is there is itself, whatever it is called.
    assert locate(photographs, data) == photographs


def test_unknown_names_and_missing_sets_are_named(data):
    with pytest.raises(UserError, match=r"no data set has that name; did you mean 'kodak'\?"):
        locate(Path("kodac"), data)
    with pytest.raises(UserError, match=r"bsds500 is not in .*: none of bsds500, BSDS500"):
        locate(Path("bsds500"), data)


def test_an_incomplete_copy_is_noticed(data):
    path = Path("kodak")
    found = find_photographs(data / "kodak")
    assert incomplete(path, found) == "kodak has 24 photographs, 3 are there"
    assert incomplete(path, found * 8) == ""
    assert incomplete(data, found) == ""


def test_the_data_sets_at_hand_are_complete():
    data = data_folder("kodak").parent
    for name in ("kodak", "bsds500"):
        path = Path(name)
        assert incomplete(path, find_photographs(locate(path, data))) == ""
