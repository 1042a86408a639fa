"""Where what a configuration file names lies."""

from __future__ import annotations

from pathlib import Path


def beside(model: str, folder: str | Path) -> str:
    """A model's path from ``folder`` if it lies there; otherwise as it is, such as a hub id."""
    path = Path(folder, Path(model).expanduser())
    return str(path) if model and path.exists() else model
