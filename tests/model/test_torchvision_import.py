"""Importing torchvision, also beside a torch it was not compiled for."""

import subprocess
import sys

import pytest

from model.torchvision_import import import_torchvision
from tests.model.conftest import ROOT

# A fresh process: whether torchvision is already imported here depends on the tests before.
SCRIPT = """
import sys
try:
    import torchvision
    works_alone = True
except RuntimeError as error:
    assert "torchvision::nms does not exist" in str(error), error
    works_alone = False
from model import torchvision_import as module
assert module.import_torchvision() is module.import_torchvision() is sys.modules["torchvision"]
assert len(module._declarations) == (0 if works_alone else 1), "declared though not needed, or twice"
from torchvision.models import alexnet
print(sum(parameter.numel() for parameter in alexnet(weights=None).features.parameters()))
"""


def test_torchvision_can_be_imported_with_operators_declared_only_at_need():
    process = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert process.returncode == 0, process.stderr
    assert process.stdout.strip() == "2469696"


def test_torchvision_that_is_not_installed_is_an_import_error(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(ImportError):
        import_torchvision()


def test_other_failures_are_import_errors(monkeypatch):
    def broken(name: str):
        raise RuntimeError("something else")

    monkeypatch.setattr("model.torchvision_import.importlib.import_module", broken)
    with pytest.raises(ImportError, match="something else"):
        import_torchvision()
