"""Weights that come with a checkout of this repository."""

from pathlib import Path

__all__ = ["FOLDER", "shipped"]

FOLDER = Path(__file__).resolve().parent.parent / "weights"
"""Each file has its card inside (`python -m model info FILE`); README.md says how they were made."""


def shipped(name: str) -> Path:
    """Where the weights of that name are."""
    return FOLDER / f"{name}.safetensors"
