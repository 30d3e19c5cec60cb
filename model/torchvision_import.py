"""Importing torchvision beside a build of torch it was not compiled for.

PyPI's torchvision is compiled against the CUDA build of torch. Beside a CPU build its compiled operators
cannot be loaded, which alone would be no harm: LPIPS needs the definition of AlexNet and no operator. But
while it is imported, torchvision registers shape functions for `torchvision::nms` and `torchvision::qnms`,
and torch refuses those for operators that nobody has declared. Declaring the two names, without any
implementation, is enough for the import to succeed; calling them would still be an error.
"""

import importlib
import sys
from types import ModuleType

import torch

__all__ = ["import_torchvision"]

_SCHEMAS = {
    "nms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}
# Dropped when this module is: the declarations last as long as the object does.
_declarations: list[torch.library.Library] = []


def import_torchvision() -> ModuleType:
    """Import torchvision, declaring its missing operators only where the import fails for want of them.

    Raises:
        ImportError: if torchvision is not installed, or cannot be imported for another reason.
    """
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::" not in str(error) or _declarations:
            raise ImportError(f"torchvision cannot be imported: {error}") from error
    # The failed attempt leaves half of the package behind.
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
    library = torch.library.Library("torchvision", "DEF")
    _declarations.append(library)
    for name, schema in _SCHEMAS.items():
        library.define(name + schema)
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        raise ImportError(f"torchvision cannot be imported: {error}") from error
