"""Versions of the libraries that decide a score's or a mark's last digits."""

from __future__ import annotations

from importlib import metadata

_LIBRARIES = ("torch", "torchvision", "transformers", "numpy", "scipy", "pillow")


def marking_versions() -> list[str]:
    """Of each library that models are asked and pictures are read with; "" for one that is not installed."""
    found = []
    for name in _LIBRARIES:
        try:
            found.append(metadata.version(name))
        except metadata.PackageNotFoundError:
            found.append("")
    return found
