"""The prompt sets that come with the library, by name.

``paper``: the examples that the paper prints, three of each type from Table 7 (which Table 1 shortens) and
three each for Color and Counting from Table 8. Table 8's Action prompts are not in it: they are not legible
in the text that it was written from.

``narrative``: fifteen prompts each for Action, Color and Counting in the manner of the paper, whose own
forty-five were not published.

The truth beside each prompt is in both cases ours; :mod:`.judging.truth` says how it is written. A set of
your own is a file of the same form.
"""

from __future__ import annotations

import os
from pathlib import Path

SHIPPED = ("paper", "narrative")

_FOLDER = Path(__file__).parent / "prompt_files"


def shipped_prompts(name: str | os.PathLike) -> Path | None:
    """The file of a set that comes with the library; ``None`` for any other name or path.

    A file of yours that is called ``paper`` is meant by ``./paper``.
    """
    return _FOLDER / f"{name}.jsonl" if os.fspath(name) in SHIPPED else None
