"""Where this pack's files are: a folder of ComfyUI's models for each kind, its dropdown, and safe names for
saving.
"""

from __future__ import annotations

import logging
import os
import re
from dataclasses import dataclass
from pathlib import Path

import folder_paths

from ..sur_core.checkpoint import SUFFIXES

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ModelFolder:
    """One folder of ComfyUI's models.

    Attributes:
        key: its name under ``models``, and in extra_model_paths.yaml.
        suffixes: of the files in it.
        kind: what one of them is called.
        put: what to put there, and where from.
        node: the display name of the node whose dropdown lists them.
    """

    key: str
    suffixes: tuple[str, ...]
    kind: str
    put: str
    node: str

    @property
    def nothing_found(self) -> str:
        """The dropdown's only entry while there is no file."""
        return f"none in models/{self.key}"

    def register(self) -> None:
        """Make the folder known, beside folders named in extra_model_paths.yaml."""
        register_path(self.key)
        # A folder key that is new to ComfyUI starts with no file endings, which would list every file.
        paths, _ = folder_paths.folder_names_and_paths[self.key]
        folder_paths.folder_names_and_paths[self.key] = (paths, set(self.suffixes))

    def names(self) -> list[str]:
        """Names for the dropdown, subfolders included. Never raises; says so if there is nothing."""
        try:
            names = self._filename_list()
        except OSError as error:
            log.warning("SUR: could not list the folders of models/%s: %s", self.key, error)
            names = []
        return names or [self.nothing_found]

    def path(self, name: str) -> Path:
        """The file behind a name from the dropdown. Raises ``FileNotFoundError`` in words."""
        listed = isinstance(name, str) and name.lower().endswith(self.suffixes)
        path = folder_paths.get_full_path(self.key, name) if listed else None
        if path is None:
            folders = ", ".join(folder_paths.get_folder_paths(self.key))
            chosen = name != self.nothing_found
            wanted = f"There is no {self.kind} file {name!r}" if chosen else f"No {self.kind} has been chosen"
            raise FileNotFoundError(
                f"{wanted} in {folders}. {self.put}, press R in the browser to refresh the list, and choose "
                f"it in {self.node}"
            )
        return Path(path)

    def save_path(self, name: str) -> Path:
        """Where a file of this name is saved: always inside the first of the folders, on every system.

        ``name`` may have subfolders and may lack ``.safetensors``.

        Raises:
            ValueError: the name is empty, absolute, leaves the folder, or is not a file name on every system.
        """
        parts = [part.strip() for part in re.split(r"[\\/]", name.strip())]
        if not parts[-1].lower().endswith((".safetensors", ".")):
            parts[-1] += ".safetensors"
        for part in parts:
            if problem := _problem(part):
                example = f"my_{self.kind}".lower().replace(" ", "_")
                raise ValueError(
                    f"{name!r} cannot be the name of a saved {self.kind}: {problem}. Give a plain name such "
                    f"as '{example}' or 'mine/{example}'; it is saved in models/{self.key}"
                )
        folder = Path(folder_paths.get_folder_paths(self.key)[0])
        path = folder.joinpath(*parts)
        if not path.resolve().is_relative_to(folder.resolve()):
            raise ValueError(f"{name!r} leaves the folder {folder} through a link; choose another name")
        return path

    def _filename_list(self) -> list[str]:
        try:
            return folder_paths.get_filename_list(self.key)
        except FileNotFoundError:  # ComfyUI's cache asks the age of a folder that has been deleted since
            folder_paths.filename_list_cache.pop(self.key, None)
            return folder_paths.get_filename_list(self.key)


def register_path(key: str, first: bool = True) -> None:
    """Make ``models/<key>`` and tell ComfyUI of it; what others said of the key stays.

    Args:
        first: before folders named elsewhere: that is where files are saved.
    """
    default = os.path.join(folder_paths.models_dir, key)
    try:
        os.makedirs(default, exist_ok=True)
    except OSError as error:
        log.warning("SUR: could not create %s (%s); other configured folders still work", default, error)
    folder_paths.add_model_folder_path(key, default, is_default=first)


SUR_ADAPTERS = ModelFolder(
    "sur_adapters",
    SUFFIXES,
    "adapter",
    "Put a .safetensors or .pt adapter there",
    "Load SUR Adapter",
)
FOLDER = SUR_ADAPTERS.key
NOTHING_FOUND = SUR_ADAPTERS.nothing_found
register_folder = SUR_ADAPTERS.register
list_adapters = SUR_ADAPTERS.names
adapter_path = SUR_ADAPTERS.path
save_path = SUR_ADAPTERS.save_path


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
