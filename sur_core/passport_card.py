"""What a passport card says about an adapter file, as plain JSON values; whoever draws the card finds the
words.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path, PurePosixPath, PureWindowsPath

from .checkpoint import read_passport
from .passport import Passport

AUTHORS_MODEL = "Realistic Vision V2.0"
"""The model that the authors' public files belong to."""

LONGEST = 120
"""Characters of a text out of a file that a card shows."""

WARNINGS = ("made_for", "authors_made_for", "model_unknown", "authors_eta_unknown", "eta_unknown")
"""Every code that a warning of a card can have."""


def passport_card(path: str | os.PathLike) -> dict:
    """The facts of a card.

    Returns:
        title: a name for people.
        family: ``"sd1"``, ``"sd2"``, ``"sdxl"``, or ``""``.
        encoders: names of the towers.
        width: features of the base model's embeddings.
        llm, llm_layer, steps, eta: as in :class:`Passport`; ``""`` and None: not known.
        merged_from: number of adapters it was merged from.
        bytes: size of the file.
        sha256: of its content, 64 hex digits.
        warnings: ``{"code": one of WARNINGS, "model": name or ""}``, in the order to show them.

    Texts are one line of at most 120 characters, and never a path of the machine that trained the adapter.

    Raises:
        AdapterFileError, OSError: as :func:`.checkpoint.load_adapter`. Of our ``.safetensors`` only the
            header is checked.
    """
    path = Path(path)
    passport = read_passport(path)
    return {
        "title": _line(passport.title),
        "family": passport.family,
        "encoders": list(passport.widths),
        "width": sum(passport.widths.values()),
        "llm": _line(passport.llm_name),
        "llm_layer": passport.llm_layer,
        "steps": passport.steps,
        "eta": passport.eta,
        "merged_from": len(passport.parents),
        "bytes": path.stat().st_size,
        "sha256": file_sha256(path),
        "warnings": _warnings(passport),
    }


def _warnings(passport: Passport) -> list[dict]:
    found = []
    if passport.base_model:
        found.append({"code": "made_for", "model": _line(passport.base_model)})
    elif passport.source_format == "authors" and passport.family == "sd1":
        found.append({"code": "authors_made_for", "model": AUTHORS_MODEL})
    else:
        found.append({"code": "model_unknown", "model": ""})
    if passport.eta is None:
        authors = passport.source_format == "authors"
        found.append({"code": "authors_eta_unknown" if authors else "eta_unknown", "model": ""})
    return found


def _line(text: str) -> str:
    """One short line. Models may have been named by their folder; whose folder is nobody's business."""
    text = " ".join(text.split()).removeprefix("file:")
    outside = text.startswith(("~", "\\", "./", "../", ".\\", "..\\"))
    if outside or PurePosixPath(text).is_absolute() or PureWindowsPath(text).drive:
        text = PureWindowsPath(text).name  # knows both kinds of slashes
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def file_sha256(path: Path) -> str:
    """64 hex digits. Raises ``OSError``."""
    content = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            content.update(block)
    return content.hexdigest()
