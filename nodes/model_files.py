"""Where adapter files are: the ``sur_adapters`` model folders, the dropdown, and safe names for saving."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path

import folder_paths

from ..sur_core.checkpoint import SUFFIXES

FOLDER = "sur_adapters"
NOTHING_FOUND = "none in models/sur_adapters"
"""The dropdown's only entry while there is no file."""

log = logging.getLogger(__name__)


def register_folder() -> None:
    """Make ``models/sur_adapters`` known, beside folders named in extra_model_paths.yaml."""
    default = os.path.join(folder_paths.models_dir, FOLDER)
    try:
        os.makedirs(default, exist_ok=True)
    except OSError as error:
        log.warning(
            "SUR: could not create %s (%s); adapters in other configured folders still work", default, error
        )
    # First in the list: that is where adapters are saved.
    folder_paths.add_model_folder_path(FOLDER, default, is_default=True)
    # A folder key that is new to ComfyUI starts with no file endings, which would list every file.
    paths, _ = folder_paths.folder_names_and_paths[FOLDER]
    folder_paths.folder_names_and_paths[FOLDER] = (paths, set(SUFFIXES))


def list_adapters() -> list[str]:
    """Names for the dropdown, subfolders included. Never raises; says so if there is nothing."""
    try:
        names = _filename_list()
    except OSError as error:
        log.warning("SUR: could not list the adapter folders: %s", error)
        names = []
    return names or [NOTHING_FOUND]


def _filename_list() -> list[str]:
    try:
        return folder_paths.get_filename_list(FOLDER)
    except FileNotFoundError:  # ComfyUI's cache asks the age of a folder that has been deleted since
        folder_paths.filename_list_cache.pop(FOLDER, None)
        return folder_paths.get_filename_list(FOLDER)


def adapter_path(name: str) -> Path:
    """The file behind a name from the dropdown. Raises ``FileNotFoundError`` in words."""
    listed = isinstance(name, str) and name.lower().endswith(SUFFIXES)
    path = folder_paths.get_full_path(FOLDER, name) if listed else None
    if path is None:
        folders = ", ".join(folder_paths.get_folder_paths(FOLDER))
        wanted = (
            "No adapter has been chosen" if name == NOTHING_FOUND else f"There is no adapter file {name!r}"
        )
        raise FileNotFoundError(
            f"{wanted} in {folders}. Put a .safetensors or .pt adapter there, press R in the browser to "
            "refresh the list, and choose it in Load SUR Adapter"
        )
    return Path(path)


def save_path(name: str) -> Path:
    """Where an adapter of this name is saved: always inside the first ``sur_adapters`` folder, on every
    system.

    ``name`` may have subfolders and may lack ``.safetensors``.

    Raises:
        ValueError: the name is empty, absolute, leaves the folder, or is not a file name on every system.
    """
    parts = [part.strip() for part in re.split(r"[\\/]", name.strip())]
    if not parts[-1].lower().endswith((".safetensors", ".")):
        parts[-1] += ".safetensors"
    for part in parts:
        if problem := _problem(part):
            raise ValueError(
                f"{name!r} cannot be the name of a saved adapter: {problem}. Give a plain name such as "
                "'my_adapter' or 'mine/my_adapter'; it is saved in models/sur_adapters"
            )
    folder = Path(folder_paths.get_folder_paths(FOLDER)[0])
    path = folder.joinpath(*parts)
    if not path.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"{name!r} leaves the folder {folder} through a link; choose another name")
    return path


_RESERVED = re.compile(r"(con|conin\$|conout\$|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])", re.IGNORECASE)


def _problem(part: str) -> str:
    """Why ``part`` cannot be one piece of a path, or ``""``."""
    stem = part.split(".")[0].rstrip()
    if part in ("", ".", "..") or part.lower() == ".safetensors":
        return "it is absolute, empty in places, or points outside the folder"
    if _RESERVED.fullmatch(stem):
        return f"Windows reserves the name {stem!r}"
    if bad := re.findall(r'[<>:"|?*\x00-\x1f\x7f]', part):
        return f"it contains {bad[0]!r}"
    if part.endswith((".", " ")) or part.startswith("."):
        return "a piece of it starts or ends with a dot"
    if len(part.encode()) > 200:
        return "it is too long"
    return ""
