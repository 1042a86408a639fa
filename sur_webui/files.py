"""Where the web UI's adapter files are, what they are called in the list, and their short hashes."""

from __future__ import annotations

import logging
import os
from functools import lru_cache
from pathlib import Path

from sur_core.checkpoint import SUFFIXES
from sur_core.passport_card import file_sha256

FOLDER = "sur_adapters"
NONE = "None"
"""The list's first entry: no adapter."""
HASH_DIGITS = 10
"""As many as the hosts show of a checkpoint's SHA-256, and the passport card in ComfyUI of an adapter's."""

log = logging.getLogger(__name__)


def adapter_folders(models: str | os.PathLike, comfyui: str = "") -> list[Path]:
    """The folders to look in: the host's own, then ComfyUI's where one is configured.

    Args:
        models: the host's folder for models.
        comfyui: what the user has entered in Settings: ComfyUI's own folder, its ``models``, or a folder with
            adapters. Empty for none. What cannot be used is logged and left out.
    """
    folders = [Path(models) / FOLDER]
    if entered := comfyui.strip().strip('"'):
        try:
            path = _inside(Path(entered).expanduser())
            if path.is_dir():
                folders.append(path)
            else:
                log.warning("SUR-adapter: there is no folder %s; correct ComfyUI's folder in Settings", path)
        except (OSError, RuntimeError, ValueError) as error:  # another user's folder, ~nobody, a NUL
            log.warning(
                "SUR-adapter: the folder %r cannot be used (%s); correct ComfyUI's folder in Settings",
                entered,
                error,
            )
    return folders


def make_folder(models: str | os.PathLike) -> None:
    """The host's own folder for adapters, wherever its models are. A failure is only logged."""
    folder = Path(models) / FOLDER
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        log.warning("SUR-adapter: could not make the folder %s for adapters (%s)", folder, error)


def _inside(path: Path) -> Path:
    """The folder of adapters in what may be ComfyUI's own folder or its ``models``."""
    if (path / "models").is_dir():
        return path / "models" / FOLDER
    return path / FOLDER if path.name == "models" else path


def list_adapters(folders: list[Path]) -> dict[str, Path]:
    """Every adapter file by its name in the list, such as ``mine/kittens.safetensors``. Never raises.

    Subfolders are searched. Of two files with one name the one in the earlier folder is listed.
    """
    found: dict[str, Path] = {}
    for folder in folders:
        for path in _files(folder):
            name = path.relative_to(folder).as_posix()
            if found.setdefault(name, path) != path:
                log.warning("SUR-adapter: %s is hidden by %s, which has the same name", path, found[name])
    return found


def find_adapter(name: str, folders: list[Path]) -> Path:
    """The file behind a name from the list.

    Raises:
        FileNotFoundError: there is none, in words for the user. Names that are not listed, such as paths, are
            never opened.
    """
    listed = list_adapters(folders)
    if name in listed:
        return listed[name]
    wanted = "No adapter has been chosen" if name == NONE else f"There is no adapter file {name!r}"
    raise FileNotFoundError(
        f"{wanted} in {' or '.join(map(str, folders))}. Put a .safetensors or .pt adapter there, press the "
        "refresh button beside the list in 'SUR-adapter', and choose it; or untick 'Enable'"
    )


def short_hash(path: Path) -> str:
    """The first digits of the file's SHA-256. Read once for each state of the file. Raises ``OSError``."""
    state = path.stat()
    return _hash(path, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=256)
def _hash(path: Path, _changed: int, _size: int) -> str:
    return file_sha256(path)[:HASH_DIGITS]


def _files(folder: Path) -> list[Path]:
    """Adapter files below ``folder``, sorted; hidden ones and folders that cannot be read are left out."""
    found: list[Path] = []
    seen: set[str] = set()
    for where, below, names in os.walk(folder, followlinks=True, onerror=_report):
        real = os.path.realpath(where)
        below[:] = [] if real in seen else sorted(name for name in below if not name.startswith("."))
        if real not in seen:
            seen.add(real)  # links may lead in a circle
            found += [Path(where, name) for name in names if _is_adapter(name)]
    return sorted(found, key=lambda path: path.relative_to(folder).as_posix().casefold())


def _is_adapter(name: str) -> bool:
    return name.lower().endswith(SUFFIXES) and not name.startswith(".")


def _report(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        log.warning("SUR-adapter: a folder with adapters cannot be read: %s", error)
