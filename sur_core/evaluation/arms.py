"""Arms: the ways of drawing that are compared. All arms draw the same prompts from the same noise."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..conditioning import check_eta
from .prompt_sets import EvalPrompt

TEXTS = ("simple", "complex")


@dataclass(frozen=True)
class Arm:
    """One way of drawing.

    Attributes:
        name: unique; the column or row it has in tables.
        text: which of a prompt's texts is drawn: ``"simple"`` or ``"complex"``.
        adapter: adapter file that corrects the text's embedding, or ``None``.
        eta: its strength, 0..1 (Eq. 7). With 0 the pictures are those of the arm without an adapter.
        to_negative: correct the negative prompt's embedding too, as the authors' code does.
        negative_prompt: what not to draw; ``""`` means none, and is treated as diffusers treats none.
    """

    name: str
    text: str = "simple"
    adapter: str | os.PathLike | None = None
    eta: float = 0.0
    to_negative: bool = False
    negative_prompt: str = ""

    def __post_init__(self):
        if not isinstance(self.name, str) or not self.name.strip():
            raise ValueError(f"an arm needs a name that is not empty, found {self.name!r}")
        try:
            if self.text not in TEXTS:
                raise ValueError(f"text is {self.text!r}; expected 'simple' or 'complex'")
            if self.adapter is None and (self.eta or self.to_negative):
                raise ValueError("eta and to_negative need an adapter file; none is given")
            object.__setattr__(self, "eta", check_eta(self.eta))
        except ValueError as error:
            raise ValueError(f"arm {self.name!r}: {error}") from None
        if self.adapter is not None:
            object.__setattr__(self, "adapter", Path(self.adapter))

    def text_of(self, prompt: EvalPrompt) -> str:
        """What this arm draws for a prompt."""
        return prompt.prompt if self.text == "simple" else prompt.complex


def check_arms(arms: Sequence[Arm], prompts: Sequence[EvalPrompt]) -> None:
    """ValueError if there is no arm, two share a name, or a text to draw is missing."""
    if not arms:
        raise ValueError("no arms to draw; give at least the base model, Arm('base')")
    names = [arm.name for arm in arms]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"two arms are called {twice[0]!r}; give each a name of its own")
    for arm in arms:
        without = [prompt.id for prompt in prompts if not arm.text_of(prompt)]
        if without:
            raise ValueError(
                f"arm {arm.name!r} draws complex prompts, but {len(without)} prompts have none, such as "
                f"{without[0]!r}; add 'complex' to the prompt set or leave the arm out"
            )
