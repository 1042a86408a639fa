"""Verdicts that are remembered, so that a study that was stopped asks no judge twice."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from .image_text import picture_digest
from .judges import Judge, Verdict, ask, ask_many
from .prompt_sets import EvalPrompt
from .versions import marking_versions

log = logging.getLogger(__name__)


class RememberingJudge:
    """A judge that keeps its verdicts in a file, one a line; a line that a kill has cut is asked again.

    Only a judge that tells by ``about`` what its marks depend on is remembered: those of this library do.

    Args:
        path: the file, made when needed.
    """

    def __init__(self, judge: Judge, path: str | Path):
        self._judge, self._path = judge, Path(path)
        self.name, self.note = judge.name, getattr(judge, "note", "")
        self.about = about = getattr(judge, "about", {})
        self._identity = None
        if _is_known(about):
            self._identity = json.dumps([judge.name, about, marking_versions()], sort_keys=True)
        self._known = self._read() if self._identity else {}

    def check(self, prompts: Iterable[EvalPrompt]) -> None:
        getattr(self._judge, "check", lambda _: None)(prompts)

    def mark(self, pixels: np.ndarray, prompt: EvalPrompt) -> Verdict:
        return self.mark_many([(pixels, prompt)])[0]

    def mark_many(self, pairs: Sequence[tuple[np.ndarray, EvalPrompt]]) -> list[Verdict]:
        """A verdict for each; what is new is kept. If anything is, all are asked for: what a model looks at
        together may change its last digits, and how much is known after a kill is chance.
        """
        if self._identity is None:
            return ask_many(self._judge, pairs) if len(pairs) > 1 else [ask(self._judge, *pairs[0])]
        keys = [self._key(pixels, prompt) for pixels, prompt in pairs]
        if not self._known.keys() >= set(keys):
            found = zip(keys, ask_many(self._judge, pairs), strict=True)
            self._keep({key: verdict for key, verdict in found if key not in self._known})
        return [self._known[key] for key in keys]

    def _key(self, pixels: np.ndarray, prompt: EvalPrompt) -> str:
        parts = (self._identity, picture_digest(pixels), json.dumps(asdict(prompt), sort_keys=True))
        return hashlib.blake2b("\0".join(parts).encode(), digest_size=16).hexdigest()

    def _keep(self, verdicts: Mapping[str, Verdict]) -> None:
        self._known.update(verdicts)
        if not verdicts:
            return
        lines = [json.dumps({"key": key, **asdict(verdict)}) for key, verdict in verdicts.items()]
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with open(self._path, "a", encoding="utf-8") as file:
            # A line break first, because a kill may have cut the last line.
            file.write("\n" + "\n".join(lines) + "\n")

    def _read(self) -> dict[str, Verdict]:
        found: dict[str, Verdict] = {}
        if not self._path.is_file():
            return found
        for line in self._path.read_text("utf-8", errors="replace").splitlines():
            try:
                entry = json.loads(line) if line.strip() else None
                if entry:
                    key = entry.pop("key")
                    found[key] = Verdict(**entry)
            except (ValueError, KeyError, TypeError, AttributeError):
                log.warning("%s: a damaged line is left out; its picture is judged again", self._path)
        return found


def _is_known(about: Any) -> bool:
    if not isinstance(about, Mapping) or not about:
        return False
    return "model" in about or all(_is_known(part) for part in about.values())
