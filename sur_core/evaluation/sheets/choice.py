"""Which pictures of an evaluation people are shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..evaluation import Evaluation, Picture
from ..pictures import read_picture
from ..results import RESULTS, read_results
from .hiding import digest_of


@dataclass(frozen=True)
class Choice:
    """A part of an evaluation.

    Attributes:
        arms, types: only these; all if empty.
        per_prompt: pictures of each prompt and arm, those of the first seeds; 0 for all.
    """

    arms: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    per_prompt: int = 0

    def __post_init__(self):
        for name in ("arms", "types"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if not isinstance(self.per_prompt, int) or self.per_prompt < 0:
            raise ValueError(f"per_prompt: expected a whole number, 0 or more, found {self.per_prompt!r}")

    def arms_of(self, found: Evaluation) -> tuple[str, ...]:
        """The chosen arms in the evaluation's order. ValueError for one that is not there."""
        return _chosen(self.arms, [arm.name for arm in found.arms], "arm", found)

    def pictures_of(self, found: Evaluation) -> tuple[Picture, ...]:
        """ValueError if a name is wrong or nothing is left."""
        arms = self.arms_of(found)
        types = _chosen(self.types, found.types, "type", found)
        seeds = list(dict.fromkeys(picture.seed for picture in found.pictures))
        seeds = seeds[: self.per_prompt or None]
        pictures = tuple(
            picture
            for picture in found.pictures
            if picture.arm in arms and picture.type in types and picture.seed in seeds
        )
        if not pictures:
            raise ValueError(f"{found.settings.output_dir}: there are no pictures to show")
        return pictures


def _chosen(wanted: Sequence[str], known: Sequence[str], what: str, found: Evaluation) -> tuple[str, ...]:
    if strange := [name for name in wanted if name not in known]:
        names = "; ".join(known)
        raise ValueError(
            f"{found.settings.output_dir}: there is no {what} {strange[0]!r}; there are: {names}"
        )
    return tuple(name for name in known if not wanted or name in wanted)


def open_results(folder: Path) -> Evaluation:
    """As :func:`read_results`; of a study, it is told which folders have results of their own."""
    if not (folder / RESULTS).is_file() and (folder / "study.json").is_file():
        cells = sorted(path.parent.relative_to(folder).as_posix() for path in folder.rglob(RESULTS))
        raise ValueError(
            f"{folder}: is a study; a page is made from the results of one of its cells: {', '.join(cells)}"
        )
    return read_results(folder)


@dataclass(frozen=True)
class Seen:
    """A picture file as it was found: its ``digest``, which tells its pixels, and its ``size`` (w, h)."""

    digest: str
    size: tuple[int, int]


def look_at(found: Evaluation, pictures: Sequence[Picture], report) -> dict[str, Seen]:
    """{path: what is there}. ValueError: one is missing or damaged."""
    paths = list(dict.fromkeys(picture.path for picture in pictures))
    seen = {}
    for done, path in enumerate(paths, start=1):
        pixels = read_pixels(found, path)
        seen[path] = Seen(digest_of(pixels), (pixels.shape[1], pixels.shape[0]))
        report("looking at pictures", done, len(paths))
    return seen


def read_pixels(found: Evaluation, path: str) -> np.ndarray:
    """uint8 [H, W, 3]. ValueError: it is missing or damaged."""
    file = found.settings.output_dir / path
    if not file.is_file():
        raise ValueError(
            f"{file}: this picture is missing, though the results name it. Run the same evaluation again, "
            "which draws what is missing"
        )
    return read_picture(file)


def size_remark(pictures: Sequence[Picture], seen: dict[str, Seen]) -> str:
    """What to tell if an arm can be known by the size of its pictures; "" if not."""
    sizes: dict[str, set] = {}
    for picture in pictures:
        sizes.setdefault(picture.arm, set()).add(seen[picture.path].size)
    if len({frozenset(found) for found in sizes.values()}) == 1:
        return ""
    told = "; ".join(
        f"{arm}: {', '.join(f'{w} x {h}' for w, h in sorted(found))}" for arm, found in sizes.items()
    )
    return f"the arms' pictures differ in size, by which people can tell them apart ({told})"
