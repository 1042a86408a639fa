"""A judge that gives every type of prompts to a judge of its own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from ..judges import Judge, Verdict, ask_many
from ..prompt_sets import EvalPrompt, PromptSetError


class JudgeByType:
    """Gives every picture to the judge of its prompt's type.

    Args:
        judges: by type. Types that no prompt has are allowed.
    """

    def __init__(self, judges: Mapping[str, Judge]):
        self._judges = dict(judges)
        self.name = "; ".join(f"{type}: {judge.name}" for type, judge in self._judges.items())
        notes = dict.fromkeys(getattr(judge, "note", "") for judge in self._judges.values())
        self.note = " ".join(filter(None, notes))
        self.about = {type: getattr(judge, "about", {}) for type, judge in self._judges.items()}

    def check(self, prompts: Iterable[EvalPrompt]) -> None:
        """ValueError for a type without a judge, and what its judge raises."""
        for prompt in prompts:
            getattr(self._judge(prompt), "check", lambda _: None)([prompt])

    def mark(self, pixels: np.ndarray, prompt: EvalPrompt) -> Verdict:
        return self._judge(prompt).mark(pixels, prompt)

    def mark_many(self, pairs: Sequence[tuple[np.ndarray, EvalPrompt]]) -> list[Verdict]:
        """A verdict for each; those of one type together."""
        for _, prompt in pairs:
            self._judge(prompt)
        verdicts: dict[int, Verdict] = {}
        for type, judge in self._judges.items():
            places = [at for at, (_, prompt) in enumerate(pairs) if prompt.type == type]
            marks = ask_many(judge, [pairs[at] for at in places])
            verdicts |= dict(zip(places, marks, strict=True))
        return [verdicts[at] for at in range(len(pairs))]

    def _judge(self, prompt: EvalPrompt) -> Judge:
        if prompt.type not in self._judges:
            raise PromptSetError(
                f"prompt {prompt.id!r}: there is no judge for the type {prompt.type!r}, only for "
                f"{', '.join(self._judges)}"
            )
        return self._judges[prompt.type]
