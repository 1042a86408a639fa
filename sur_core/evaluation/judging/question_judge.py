"""A judge that asks an image-text model yes-or-no questions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import numpy as np

from ..judges import Verdict
from ..prompt_sets import EvalPrompt, PromptSetError
from .models import NOT_COMPARABLE, RULES
from .questions import questions_of
from .truth import read_truth
from .yes_or_no import Answer


class Answers(Protocol):
    """What :class:`VlmJudge` asks; :class:`.yes_or_no.YesNoModel` is one."""

    name: str

    def answers(self, pairs: Sequence[tuple[np.ndarray, str]]) -> list[Answer]:
        """An answer for each (picture uint8 [H, W, 3], question)."""


class VlmJudge:
    """Marks a picture right if a model says yes to every question of its prompt's truth.

    :mod:`.questions` makes the questions, and :class:`.yes_or_no.YesNoModel` tells how an answer is measured.
    A verdict's details give each question with ``yes``, the probability of yes against no, and ``answered``,
    that of either among all next tokens.

    Args:
        threshold: ``yes`` from here on is a yes.
    """

    note = NOT_COMPARABLE

    def __init__(self, model: Answers, threshold: float = 0.5):
        self._model, self._threshold = model, threshold
        self.name = f"yes or no by {model.name}"
        self.about: dict[str, Any] = {
            "model": model.name,
            "identity": getattr(model, "identity", ""),
            "dtype": getattr(model, "dtype", ""),
            "device": getattr(getattr(model, "device", None), "type", ""),
            "batch_size": getattr(model, "batch_size", 0),
            "rules": RULES,
            "prompt": getattr(model, "prompt", ""),
            "threshold": threshold,
        }
        """All that a mark depends on besides the picture and the prompt, JSON values."""

    def check(self, prompts: Iterable[EvalPrompt]) -> None:
        """PromptSetError that names the prompt whose truth asks nothing."""
        for prompt in prompts:
            _questions(prompt)

    def mark(self, pixels: np.ndarray, prompt: EvalPrompt) -> Verdict:
        """Judge one picture, uint8 [H, W, 3]."""
        return self.mark_many([(pixels, prompt)])[0]

    def mark_many(self, pairs: Sequence[tuple[np.ndarray, EvalPrompt]]) -> list[Verdict]:
        """A verdict for each picture and prompt; all questions go to the model together."""
        asked = [[(pixels, question) for question in _questions(prompt)] for pixels, prompt in pairs]
        answers = iter(self._model.answers([pair for of_picture in asked for pair in of_picture]))
        return [
            self._verdict([(question, next(answers)) for _, question in of_picture]) for of_picture in asked
        ]

    def _verdict(self, answers: list[tuple[str, Answer]]) -> Verdict:
        denied = [(question, answer) for question, answer in answers if not answer.yes >= self._threshold]
        why = "; ".join(f"{question} yes {100 * answer.yes:.0f}%" for question, answer in denied)
        details = [
            {"question": question, "yes": round(answer.yes, 4), "answered": round(answer.answered, 4)}
            for question, answer in answers
        ]
        return Verdict(not denied, why, {"answers": details})


def _questions(prompt: EvalPrompt) -> tuple[str, ...]:
    questions = questions_of(read_truth(prompt))
    if not questions:
        raise PromptSetError(
            f"prompt {prompt.id!r} of type {prompt.type!r}: its truth has nothing to ask for; give it "
            "objects, subject and action, or questions"
        )
    return questions
