"""Other people's logs, copied in."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..manifest import SurdBuildError
from ..reviews import log_path, read_log
from .book import append_whole, hold_log, open_log


@dataclass(frozen=True)
class Merged:
    """What became of one file: its ``reviewer``, actions ``added``, those ``known`` already, and those about
    ``foreign`` samples, which were not taken.
    """

    reviewer: str
    added: int
    known: int
    foreign: int


def merge_logs(folder: Path, files: Sequence[Path], ids: Collection[str]) -> list[Merged]:
    """Add other people's actions to ``folder/review``; what is there is never overwritten.

    A log that was merged before adds what is new in it. A torn last line is left out.

    Args:
        folder: the work folder.
        files: review logs from other copies of the work folder.
        ids: samples there are; actions about others are refused.

    Raises:
        SurdBuildError: a file is no log; all its samples are foreign; another log of that name is there; it
            is open in a running review. Files before it in the list are merged.
        OSError: it cannot be read or written.
    """
    for file in files:
        _check(folder, Path(file), ids)
    return [_merge(folder, Path(file), ids) for file in files]


def _check(folder: Path, file: Path, ids: Collection[str]) -> None:
    theirs = read_log(file)
    target = log_path(folder, theirs.reviewer)
    if theirs.actions and not any(action.id in ids for action in theirs.actions):
        raise SurdBuildError(
            f"{file}: none of its {len(theirs.actions):,} actions is about a sample of {folder}; it belongs "
            "to another data set"
        )
    if target.exists() and (ours := read_log(target)).name != theirs.name:
        raise SurdBuildError(
            f"{file}: {target} is another log, also by {ours.reviewer!r}, and is not overwritten. If two "
            f'people share that name, change "reviewer" in the first line of {file}'
        )


def _merge(folder: Path, file: Path, ids: Collection[str]) -> Merged:
    theirs = read_log(file)
    target = log_path(folder, theirs.reviewer)
    lock = hold_log(target)
    try:
        opened, ours = open_log(target, theirs.reviewer, theirs.name)
        with opened:
            known = {action.mark for action in ours.actions}
            ours_to_be = [action for action in theirs.actions if action.id in ids]
            new = [action for action in ours_to_be if action.mark not in known]
            append_whole(opened, b"".join(action.line() for action in new))
    finally:
        lock.release()
    foreign = len(theirs.actions) - len(ours_to_be)
    return Merged(theirs.reviewer, len(new), len(ours_to_be) - len(new), foreign)
