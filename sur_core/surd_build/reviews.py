"""People's decisions: one append-only log for each reviewer, read together."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Decision:
    """What people have decided about a sample.

    Attributes:
        verdict: "keep", "drop", or "" if only texts were edited.
        simple, complex: edited prompts, "" where unchanged.
        by: the reviewer whose word counts.
        at: when, ISO 8601 in UTC.
        disagree: other reviewers who decided otherwise.
    """

    verdict: str
    simple: str
    complex: str
    by: str
    at: str
    disagree: tuple[str, ...] = ()


def read_decisions(folder: Path) -> dict[str, Decision]:
    """{sample id: decision} of all logs in ``folder/review``."""
    return {}
