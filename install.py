"""Run by ComfyUI Manager after the pack has been copied into place, and by AUTOMATIC1111 and Forge at every
start.

Checks what the pack needs, makes the folders for adapters and language models, and says what to do next. It
installs nothing, uses no network, and may be run again at any time: ``python install.py``.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

NEEDED = ("torch", "numpy", "safetensors")
OLDEST_PYTHON = (3, 10)
NEXT_STEPS = {
    "custom_nodes": "Restart once to load the pack. After that, press R in the browser to see new adapters.",
    "extensions": "New adapters appear after the refresh button beside the list in 'SUR-adapter'.",
}
"""What to do next in ComfyUI and in AUTOMATIC1111 or Forge, by the folder each keeps its packs in."""


def problems() -> list[str]:
    """What is missing, as sentences."""
    found = [
        f"The package {name!r} is missing. ComfyUI and AUTOMATIC1111 bring it; run this with their Python."
        for name in NEEDED
        if find_spec(name) is None
    ]
    if sys.version_info < OLDEST_PYTHON:
        found.append(f"Python {sys.version.split()[0]} is too old; 3.10 or newer is needed.")
    return found


def adapter_folder(pack: Path) -> Path | None:
    """``models/sur_adapters`` of the program the pack stands in, made if needed; None outside of one."""
    program = pack.parent.parent
    if pack.parent.name not in NEXT_STEPS or not (program / "models").is_dir():
        return None
    folder = program / "models" / "sur_adapters"
    folder.mkdir(exist_ok=True)
    return folder


def llmdiff_folders(pack: Path) -> list[Path]:
    """The folders of ComfyUI's LLMDiff nodes, made if needed; none outside of a ComfyUI."""
    models = pack.parent.parent / "models"
    if pack.parent.name != "custom_nodes" or not models.is_dir():
        return []
    folders = [models / name for name in ("llmdiff_adapters", "llm", "llmdiff_encodings")]
    for folder in folders:
        folder.mkdir(exist_ok=True)
    return folders


def main() -> int:
    found = problems()
    for problem in found:
        print(f"[SUR-adapter] {problem}")
    # Not resolved: a pack that is linked into place belongs to the folder that holds the link.
    pack = Path(__file__).absolute().parent
    try:
        folder = adapter_folder(pack)
        llmdiff = llmdiff_folders(pack)
    except OSError as error:
        print(f"[SUR-adapter] Could not make the folder for adapters: {error}")
        return 1
    where = folder or "models/sur_adapters of your ComfyUI, AUTOMATIC1111 or Forge"
    print(f"[SUR-adapter] Put adapters (.safetensors or the authors' .pt) into {where}.")
    if llmdiff:
        print(f"[SUR-adapter] Put LLMDiff adapters into {llmdiff[0]}, language models into {llmdiff[1]}.")
    if next_step := NEXT_STEPS.get(pack.parent.name):
        print(f"[SUR-adapter] {next_step}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
