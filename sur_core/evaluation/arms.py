"""Arms: the ways of drawing that are compared. All arms draw the same prompts from the same noise."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..checkpoint import read_passport
from ..conditioning import check_eta
from ..llmdiff.attention import check_strength
from ..llmdiff.checkpoint import is_llmdiff_file, read_llmdiff_passport
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
        llmdiff: LLMDiff-Adapter that drives the UNet, with or without a SUR-adapter, or ``None``.
        strength: its strength, 0..1. The negative prompt is always read by the language model too.
        llm: the language model it reads: folder or hub id.
        negative_prompt: what not to draw; ``""`` means none, and is treated as diffusers treats none.
    """

    name: str
    text: str = "simple"
    adapter: str | os.PathLike | None = None
    eta: float = 0.0
    to_negative: bool = False
    negative_prompt: str = ""
    llmdiff: str | os.PathLike | None = None
    strength: float = 0.0
    llm: str = ""

    def __post_init__(self):
        if not isinstance(self.name, str) or not self.name.strip():
            raise ValueError(f"an arm needs a name that is not empty, found {self.name!r}")
        try:
            if self.text not in TEXTS:
                raise ValueError(f"text is {self.text!r}; expected 'simple' or 'complex'")
            if self.adapter is None and (self.eta or self.to_negative):
                raise ValueError("eta and to_negative need an adapter file; none is given")
            if self.llmdiff is None and (self.strength or self.llm):
                raise ValueError("strength and llm need an LLMDiff-Adapter file; none is given")
            if self.llmdiff is not None and not self.llm:
                raise ValueError(
                    f"{self.llmdiff} is an LLMDiff-Adapter, which reads prompts with a language model; give "
                    "its folder as llm (on the command line: --llm FOLDER)"
                )
            object.__setattr__(self, "eta", check_eta(self.eta))
            object.__setattr__(self, "strength", check_strength(self.strength))
        except ValueError as error:
            raise ValueError(f"arm {self.name!r}: {error}") from None
        for name in ("adapter", "llmdiff"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, Path(getattr(self, name)))

    def text_of(self, prompt: EvalPrompt) -> str:
        """What this arm draws for a prompt."""
        return prompt.prompt if self.text == "simple" else prompt.complex


def adapter_arm(
    name: str, path: str | os.PathLike, amount: float, llm: str = "", to_negative: bool = False, **others
) -> Arm:
    """The arm of an adapter file of either system.

    Args:
        amount: eta of a SUR-adapter, strength of an LLMDiff-Adapter.
        llm: for LLMDiff; with a SUR-adapter it is not used.

    Raises:
        ValueError: an LLMDiff-Adapter without ``llm``, or with ``to_negative``, which is SUR's.
    """
    if not _is_llmdiff(path):
        return Arm(name, adapter=path, eta=amount, to_negative=to_negative, **others)
    if to_negative:
        raise ValueError(
            f"{path}: to_negative is for SUR-adapters; an LLMDiff-Adapter reads every negative prompt"
        )
    return Arm(name, llmdiff=path, strength=amount, llm=str(llm), **others)


def trained_amount(path: str | os.PathLike) -> float | None:
    """With how much of an adapter to draw: a SUR-adapter's eta in training, ``None`` where its file does not
    say; 1 for LLMDiff.
    """
    return 1.0 if _is_llmdiff(path) else read_passport(path).eta


def amount_words(path: str | os.PathLike, amount: float) -> str:
    """``"eta 0.3"`` or, of an LLMDiff-Adapter, ``"strength 0.3"``."""
    return f"{'strength' if _is_llmdiff(path) else 'eta'} {amount:g}"


def system_name(path: str | os.PathLike) -> str:
    """What an adapter file is called in tables by itself."""
    return "LLMDiff" if _is_llmdiff(path) else "SUR"


def check_adapter_files(arm: Arm) -> None:
    """AdapterFileError or OSError if a file is not what the arm takes it for."""
    if arm.adapter is not None:
        read_passport(arm.adapter)
    if arm.llmdiff is not None:
        read_llmdiff_passport(arm.llmdiff)


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


def _is_llmdiff(path: str | os.PathLike) -> bool:
    """A file that cannot be read is none: whoever reads it says what is wrong."""
    try:
        return is_llmdiff_file(path)
    except OSError:
        return False
