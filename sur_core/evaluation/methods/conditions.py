"""Condition images for ControlNets: one a prompt, given or made from a picture."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from ...images import decode_image
from ...surd_images import IMAGE_SUFFIXES
from ..pictures import is_whole, read_picture, write_picture
from ..prompt_sets import EvalPrompt

FOLDER = "conditions"


class Maker(Protocol):
    """Makes condition images. Equal ``key`` makes equal images."""

    key: str

    def make(self, pixels: np.ndarray) -> np.ndarray:
        """The condition image of a picture; both uint8 [H, W, 3]."""


class PictureFolder:
    """A folder with a picture for each prompt, ``<prompt id>.png`` or another usual image format.

    Args:
        path: the folder.
        what: what its pictures are, for errors.
    """

    def __init__(self, path: str | Path, what: str):
        self.path, self._what = Path(path), what

    def check(self, prompts: Sequence[EvalPrompt]) -> None:
        """Read every picture once. OSError or ValueError if one is missing, there twice, or unreadable."""
        for prompt in prompts:
            self.read(prompt)

    def read(self, prompt: EvalPrompt, size: tuple[int, int] | None = None, sharp: bool = False):
        """A prompt's picture, RGB.

        Args:
            size: (width, height) to resize it to; what does not fit is cut off evenly on both sides.
            sharp: keep its colours as they are, mixing none.
        """
        from PIL import Image, ImageOps

        path = self._find(prompt)
        image = decode_image(path.read_bytes(), str(path))
        if size is None or image.size == tuple(size):
            return image
        return ImageOps.fit(image, size, Image.Resampling.NEAREST if sharp else Image.Resampling.LANCZOS)

    def _find(self, prompt: EvalPrompt) -> Path:
        if not self.path.is_dir():
            raise FileNotFoundError(f"{self.path}: no such folder; expected one with {self._what}")
        names = (f"{prompt.id}{suffix}" for suffix in IMAGE_SUFFIXES)
        found = [self.path / name for name in names if (self.path / name).is_file()]
        if not found:
            raise FileNotFoundError(
                f"{self.path}: no picture for the prompt {prompt.id!r}; expected {prompt.id}.png, or another "
                f"image format, among the {self._what}"
            )
        if len(found) > 1:
            raise ValueError(
                f"{self.path}: two pictures for the prompt {prompt.id!r}, {found[0].name} and "
                f"{found[1].name}; keep one"
            )
        return found[0]


def make_conditions(
    prompts: Sequence[EvalPrompt], pictures: PictureFolder, size: tuple[int, int], maker: Maker, folder: Path
) -> None:
    """Make what is missing of :func:`condition_path`. A picture is brought to its size before."""
    for prompt in prompts:
        pixels = np.asarray(pictures.read(prompt, size))
        path = condition_path(prompt, pixels, maker.key, folder)
        if not is_whole(path):
            write_picture(path, maker.make(pixels))


def made_condition(
    prompt: EvalPrompt, pictures: PictureFolder, size: tuple[int, int], key: str, folder: Path
):
    """What :func:`make_conditions` has made for a prompt, as a Pillow image."""
    from PIL import Image

    pixels = np.asarray(pictures.read(prompt, size))
    return Image.fromarray(read_picture(condition_path(prompt, pixels, key, folder)))


def condition_path(prompt: EvalPrompt, pixels: np.ndarray, key: str, folder: Path) -> Path:
    """Where a made condition image lies: named after the prompt, its picture and its maker."""
    content = f"{key}\0{pixels.shape}".encode() + pixels.tobytes()
    digest = hashlib.blake2b(content, digest_size=8).hexdigest()
    return Path(folder) / FOLDER / f"{prompt.id}-{digest}.png"
