"""Reference pictures, which KID compares with, and the prompts they are of."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..images import decode_image
from ..surd_images import IMAGE_SUFFIXES


@dataclass(frozen=True)
class References:
    """Pictures that are read when they are needed.

    Attributes:
        loads: what reads each one, uint8 [H, W, 3].
        prompts: the id of each one's prompt; ``None`` for one of no known prompt.
    """

    loads: tuple[Callable[[], np.ndarray], ...]
    prompts: tuple[str | None, ...]

    def words(self) -> str:
        """How many there are and of what."""
        known = [prompt for prompt in self.prompts if prompt is not None]
        if not known:
            return f"{len(self.loads)} pictures of no known prompt"
        of = f"{len(known)} of {len(set(known))} of these prompts"
        rest = len(self.loads) - len(known)
        return f"{len(self.loads)} pictures: {of}" + (f", {rest} of no known prompt" if rest else "")


def open_references(reference: Sequence[np.ndarray] | str | Path, ids: Collection[str] = ()) -> References:
    """The pictures of a folder, or those given.

    Args:
        ids: of the prompts. A file ``<id>-<digits>`` with one of these ids, such as ``color-003-07.png``, is
            a picture of that prompt.

    Raises:
        ValueError, OSError: fewer than two pictures, or something that is no picture.
    """
    if isinstance(reference, str | Path):
        folder = Path(reference)
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder}: no such folder; expected one with reference pictures")
        paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
        loads = [lambda path=path: _read_any(path) for path in paths]
        name, prompts = str(folder), [_prompt_of(path.stem, ids) for path in paths]
    else:
        for number, pixels in enumerate(reference):
            shape, kind = getattr(pixels, "shape", ()), getattr(pixels, "dtype", type(pixels))
            if len(shape) != 3 or shape[2] != 3 or kind != np.uint8:
                raise ValueError(
                    f"reference picture {number}: expected uint8 [H, W, 3], found {kind} {list(shape)}"
                )
        loads = [lambda pixels=pixels: pixels for pixels in reference]
        name, prompts = "reference pictures", [None] * len(loads)
    if len(loads) < 2:
        raise ValueError(f"{name}: KID needs two reference pictures or more, found {len(loads)}")
    if None not in prompts and len(set(prompts)) < 2:
        raise ValueError(
            f"{name}: all reference pictures are of the prompt {prompts[0]!r}; KID compares pictures of "
            "different prompts. Give references of two prompts or more"
        )
    return References(tuple(loads), tuple(prompts))


def _prompt_of(name: str, ids: Collection[str]) -> str | None:
    id, _, number = name.rpartition("-")
    return id if id in ids and number.isdigit() else None


def _read_any(path: Path) -> np.ndarray:
    return np.asarray(decode_image(path.read_bytes(), str(path)))
