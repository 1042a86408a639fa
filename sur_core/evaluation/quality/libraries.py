"""Measures that other packages compute, where they are installed: pyiqa and piq."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from .brisque import NOTE as BRISQUE_NOTE
from .measure import QualityError, identity

NON_COMMERCIAL = "pyiqa's code and weights are licensed for non-commercial use only"
_IQA_NOTE = "CLIP-IQA, 0 to 1, higher is better, on the ResNet-50 CLIP of its authors"


@dataclass(frozen=True)
class _Known:
    """A measure of a library: its name there, its direction, and what the report says of it."""

    call: str
    higher_is_better: bool
    note: str


LIBRARIES: dict[str, dict[str, _Known]] = {
    "pyiqa": {
        "musiq": _Known(
            "musiq",
            True,
            "MUSIQ trained on KonIQ-10k, about 0 to 100, higher is better: a transformer's guess at people's "
            "ratings of photos",
        ),
        "brisque": _Known("brisque", False, BRISQUE_NOTE),
        "clip_iqa": _Known("clipiqa", True, _IQA_NOTE),
    },
    "piq": {
        "brisque": _Known("brisque", False, f"{BRISQUE_NOTE}; piq halves pictures by dropping pixels"),
        "clip_iqa": _Known("CLIPIQA", True, _IQA_NOTE),
    },
}
_TORCHVISION = "pip install torchvision from where torch came from, then"
_INSTALL = {
    "pyiqa": f"{_TORCHVISION} pyiqa, if its licence allows your use: {NON_COMMERCIAL}",
    "piq": f"{_TORCHVISION} piq (licensed under Apache 2.0)",
}


class LibraryMeasure:
    """A measure as ``library`` computes it, one picture at a time; its weights are fetched when it is made.

    Args:
        name: ``"musiq"``, ``"brisque"`` or ``"clip_iqa"``.
        library: ``"pyiqa"`` or ``"piq"``.

    Raises:
        QualityError (a ValueError): not installed, or it cannot make this measure.
    """

    reads_text = False

    def __init__(self, name: str, library: str, device: str | torch.device = "cpu"):
        module, known = import_library(library, name), LIBRARIES[library][name]
        self.name, self.higher_is_better = name, known.higher_is_better
        self._device = torch.device(device)
        version = getattr(module, "__version__", "unknown")
        licence = f"; {NON_COMMERCIAL}" if library == "pyiqa" else ""
        self.note = f"{known.note}; computed by {library} {version}{licence}."
        self.fingerprint = identity(name, library, version)
        try:
            self._call = getattr(self, f"_open_{library}")(module, known.call)
        except (torch.OutOfMemoryError, MemoryError):
            raise
        except Exception as error:  # a library can fail in any way while it fetches and reads weights
            raise QualityError(
                f"{name}: {library} {version} could not make it ({error}). It fetches its weights from the "
                "network on first use: run once where there is a network, or leave this measure out"
            ) from error

    @torch.no_grad()
    def score(self, pictures: Sequence[np.ndarray], texts: Sequence[str]) -> np.ndarray:
        return np.array([self._score(picture) for picture in pictures], np.float64)

    def _score(self, picture: np.ndarray) -> float:
        pixels = torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)[None]
        try:
            return float(self._call(pixels.to(self._device).float() / 255))
        except AssertionError:
            # How piq says that a distribution has no spread, as in a picture of one colour.
            if self.name != "brisque":
                raise
            return float("nan")

    def _open_pyiqa(self, module, name: str):
        return module.create_metric(name, device=self._device)

    def _open_piq(self, module, name: str):
        found = getattr(module, name)
        if isinstance(found, type):
            return found().to(self._device)
        return lambda pixels: found(pixels, reduction="none")


def import_library(library: str, name: str):
    """The module. QualityError in words if it is unknown, not installed, or has no such measure."""
    able = [each for each, measures in LIBRARIES.items() if name in measures]
    if library not in able:
        raise QualityError(f"{name}.library: expected {' or '.join(able)}, found {library!r}")
    try:
        return importlib.import_module(library)
    except ImportError as error:
        raise QualityError(
            f"{name}: {library} cannot be imported ({error}); {_INSTALL[library]}. Or leave this measure out"
        ) from error
