"""Where LLMDiff's files are: language models, adapters and saved encodings."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import folder_paths

from ..sur_core.llmdiff.checkpoint import SUFFIX
from .model_files import ModelFolder, register_path

ADAPTERS = ModelFolder(
    "llmdiff_adapters",
    (SUFFIX,),
    "LLMDiff adapter",
    "Put the .safetensors file of an LLMDiff adapter there",
    "Load LLMDiff Adapter",
)
ENCODINGS = ModelFolder(
    "llmdiff_encodings",
    (".safetensors",),
    "encoding",
    "Save one with Save LLMDiff Encoding",
    "Load LLMDiff Encoding",
)
LLM = "llm"
NO_LLM = "none in models/llm"
DEPTH = 3
"""Folders deep to look for a language model: models/llm/<maker>/<model>, and one more."""

log = logging.getLogger(__name__)


def register_folders() -> None:
    """Make all three known to ComfyUI."""
    ADAPTERS.register()
    ENCODINGS.register()
    # Other packs keep language models there too; their paths come first and their file endings stay.
    register_path(LLM, first=False)


def list_llms() -> list[str]:
    """Names for the dropdown: folders with a config.json, as ``maker/model``. Never raises."""
    names = {name for root in _roots() for name in _models_in(Path(root), DEPTH)}
    return sorted(names, key=str.casefold) or [NO_LLM]


def llm_path(name: str) -> Path:
    """The folder behind a name from the dropdown. Raises ``FileNotFoundError`` in words."""
    for root in _roots():
        if isinstance(name, str) and name in _models_in(Path(root), DEPTH):
            return Path(root, name)
    wanted = "No language model has been chosen" if name == NO_LLM else f"There is no language model {name!r}"
    raise FileNotFoundError(
        f"{wanted} in {', '.join(_roots())}. Put the folder of a transformers model there (config.json, "
        "weights and tokenizer files), press R in the browser to refresh the list, and choose it in Load LLM "
        "for LLMDiff"
    )


def _roots() -> list[str]:
    """models/llm, what extra_model_paths.yaml names ``llm``, and ``LLM``, as other packs spell it."""
    default = os.path.join(folder_paths.models_dir, LLM)
    known = folder_paths.folder_names_and_paths.items()
    others = [path for key, (paths, _) in known if key.lower() == LLM for path in paths]
    others.append(os.path.join(folder_paths.models_dir, LLM.upper()))
    different = {os.path.realpath(default): default}
    for path in filter(os.path.isdir, others):
        if not any(os.path.samefile(path, seen) for seen in different if os.path.isdir(seen)):
            different[os.path.realpath(path)] = path
    return list(different.values())


def _models_in(folder: Path, depth: int, above: str = "") -> Iterator[str]:
    try:
        inside = sorted(entry for entry in folder.iterdir() if entry.is_dir() and entry.name[0] != ".")
    except OSError as error:
        if folder.exists():
            log.warning("LLMDiff: could not list %s: %s", folder, error)
        return
    for entry in inside:
        if (entry / "config.json").is_file():
            yield above + entry.name
        elif depth > 1:
            yield from _models_in(entry, depth - 1, f"{above}{entry.name}/")
