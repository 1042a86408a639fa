"""Which answers are about pictures that results still hold: what was drawn anew since is another picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

from ..evaluation import Evaluation, Picture
from ..pictures import read_picture
from .hiding import digest_of
from .key import PairItem, SheetItem
from .marks import MarkedPicture, Marks
from .preferences import Preferences


class Drawn:
    """An evaluation's pictures as they lie in its folder; each is looked at once."""

    def __init__(self, found: Evaluation):
        self._found = found
        self._by_place = {(p.arm, p.prompt_id, p.seed): p for p in found.pictures}
        self._digest = lru_cache(maxsize=None)(self._look)

    def still(self, arm: str, item: SheetItem | PairItem, pixels: str, path: str) -> Picture | None:
        """The arm's picture of an item's prompt and seed, if it is the one that was shown; else ``None``.

        Args:
            pixels, path: of what was shown. The path decides where there is no digest, as in keys of before
                they were kept, and where the file is gone or damaged: it changes with all that is drawn from.
        """
        picture = self._by_place.get((arm, item.prompt_id, item.seed))
        if picture is None:
            return None
        now = self._digest(picture.path) if pixels else ""
        same = now == pixels if now else picture.path == path
        return picture if same else None

    def _look(self, path: str) -> str:
        try:
            return digest_of(read_picture(self._found.settings.output_dir / path))
        except (ValueError, OSError):
            return ""


def marks_standing(marks: Marks, drawn: Drawn) -> tuple[Marks, str]:
    """Marks of pictures that are still the arms', and in words how many are left out; "" if none. An arm that
    drew another picture since has no part in the marks of the old one.
    """
    pictures = tuple(filter(None, (_standing(picture, drawn) for picture in marks.pictures)))
    before, after = (sum(len(p.item.arms) for p in found) for found in (marks.pictures, pictures))
    people = _people(marks.people, [picture.marks for picture in pictures])
    return replace(marks, pictures=pictures, people=people), _words(before, after, "marked pictures")


def preferences_standing(found: Preferences, drawn: Drawn) -> tuple[Preferences, str]:
    """As :func:`marks_standing`, of pairs of which both pictures are still there."""
    shown = tuple(
        one
        for one in found.shown
        if drawn.still(one.item.left, one.item, one.item.left_pixels, one.item.left_path)
        and drawn.still(one.item.right, one.item, one.item.right_pixels, one.item.right_path)
    )
    people = _people(found.people, [one.answers for one in shown])
    words = _words(len(found.shown), len(shown), "pairs of pictures that people chose from")
    return replace(found, shown=shown, people=people), words


def _standing(picture: MarkedPicture, drawn: Drawn) -> MarkedPicture | None:
    item = picture.item
    found = [drawn.still(arm, item, item.pixels, item.path) for arm in item.arms]
    same = [one for one in found if one is not None]
    if not same:
        return None
    arms = tuple(one.arm for one in same)
    return replace(picture, item=replace(item, arms=arms, path=same[0].path))


def _people(names: Sequence[str], answers: Sequence) -> tuple[str, ...]:
    """Those who have said anything of what is left."""
    return tuple(name for name in names if any(name in given for given in answers))


def _words(before: int, after: int, what: str) -> str:
    if before == after:
        return ""
    return (
        f"{before - after:,} of {before:,} {what}, which are no longer those of the results: drawn anew, and "
        "different, or not drawn any more"
    )
