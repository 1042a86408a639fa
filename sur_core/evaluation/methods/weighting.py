"""Prompt weighting by compel: some words of a prompt count for more or less.

The weights act on the text encoder's embeddings, and an adapter corrects what comes out, as it does for a
CONDITIONING in ComfyUI. At eta 0 the embeddings are compel's own, bit for bit.
"""

from __future__ import annotations

import importlib.util
import json
import math
import re
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path

import torch

from ...model_structure import ModelStructure
from ..prompt_sets import EvalPrompt
from ..settings import EvaluationSettings
from ..toml_files import read_toml_file
from .method import Context, Method, Opened

_SIGNS = re.compile(r'["\\]|(?<=\w)[+-]+(?!\w)')


class PromptWeighting(Method):
    """Needs the package compel, which is not among the requirements. Complex prompts are drawn as they are.

    Args:
        texts: TOML or JSON file with a weighted text in compel's syntax for each prompt,
            ``prompt id = "a (red)1.3 cat"``; or
        words: that get ``weight`` wherever they stand in a prompt.
        weight: above 1 for more, below for less.
    """

    kind = "weighting"
    is_of_text_encoder = True

    def __init__(
        self, name: str = "", *, texts: str | Path = "", words: Sequence[str] = (), weight: float = 1.2
    ):
        super().__init__(name)
        if bool(texts) == bool(words):
            raise ValueError(
                "expected either texts, a file with a weighted text for each prompt, or words that get the "
                f"weight; found {'both' if texts else 'neither'}"
            )
        if not 0 < weight <= 10:
            raise ValueError(f"weight: expected a number above 0 and up to 10, found {weight!r}")
        if isinstance(words, str) or not all(isinstance(word, str) and word.strip() for word in words):
            raise ValueError(f"words: expected a list of words, found {words!r}")
        self._file, self._words, self._weight = texts and Path(texts), tuple(words), float(weight)
        self._texts: dict[str, str] = {}

    def check(self, prompts: Sequence[EvalPrompt]) -> None:
        self._require()
        self._texts = self._from_file(prompts) if self._file else self._from_words(prompts)

    def check_model(self, source, structure: ModelStructure, settings: EvaluationSettings) -> None:
        _check_skip(settings.clip_skip)

    def open(self, base, context: Context) -> Opened:
        self.check(context.prompts)
        weights = _Compel(base, self._texts, context.settings.clip_skip)
        words = f"texts of {self._file}" if self._file else f"{self._weight:g} on {', '.join(self._words)}"
        about = {"compel": _version()}
        return Opened(base, weights=weights, about=about, words={"weights": f"{words}, before the adapter"})

    def _require(self) -> None:
        if importlib.util.find_spec("compel") is None:
            raise ValueError(
                f"method {self.name!r} needs compel, which is not installed; pip install compel, or leave "
                "the method out"
            )

    def _from_file(self, prompts: Sequence[EvalPrompt]) -> dict[str, str]:
        texts = _read_texts(self._file)
        if missing := [prompt.id for prompt in prompts if prompt.id not in texts]:
            raise ValueError(
                f"{self._file}: no weighted text for {len(missing)} prompts, such as {missing[0]!r}; "
                "expected an entry for each prompt id"
            )
        return {prompt.id: texts[prompt.id] for prompt in prompts}

    def _from_words(self, prompts: Sequence[EvalPrompt]) -> dict[str, str]:
        found = {prompt.id: weighted(prompt.prompt, self._words, self._weight) for prompt in prompts}
        if not any(f"){self._weight:g}" in text for text in found.values()):
            raise ValueError(
                f"method {self.name!r}: none of the words {', '.join(self._words)} is in any prompt, so "
                "nothing would be weighted"
            )
        for prompt in prompts:
            _check_read_back(prompt.prompt, found[prompt.id], self._weight)
        return found


def weighted(text: str, words: Sequence[str], weight: float) -> str:
    """The text in compel's syntax, with ``weight`` on every occurrence of the words. A part of a compound
    with hyphens is no occurrence: after one, compel would take the brackets for letters.

    ValueError if the text has signs that compel would read as its own and offers no way to write.
    """
    if found := _SIGNS.search(text):
        raise ValueError(
            f"compel gives {found.group()!r} in {text!r} a meaning of its own; write the weighted prompts "
            "into a file yourself and set texts"
        )
    either = "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))
    pieces, end = [], 0
    for match in re.finditer(rf"(?<![\w-])(?:{either})(?![\w-])", text, re.IGNORECASE):
        pieces += [_escaped(text[end : match.start()]), f"({_escaped(match.group())}){weight:g}"]
        end = match.end()
    return "".join([*pieces, _escaped(text[end:])])


def _check_read_back(plain: str, text: str, weight: float) -> None:
    """ValueError if compel reads from ``text`` other words than those of ``plain``, or other weights."""
    from compel import Compel

    parsed = Compel.parse_prompt_string(text)
    parts = [part for prompt in getattr(parsed, "prompts", ()) for part in getattr(prompt, "children", ())]
    words = "".join(str(getattr(part, "text", "")) for part in parts)
    weights = {float(getattr(part, "weight", math.nan)) for part in parts}
    if "".join(words.split()) != "".join(plain.split()) or not weights <= {1.0, weight}:
        raise ValueError(
            f"compel reads {text!r} as {words!r} with the weights {sorted(weights)}; write the weighted "
            "prompts into a file yourself and set texts"
        )


def _escaped(text: str) -> str:
    return re.sub(r"([()])", r"\\\1", text)


class _Compel:
    """compel on the text encoders of a pipeline, each text cut at 77 tokens as elsewhere."""

    def __init__(self, pipeline, texts: Mapping[str, str], clip_skip: int):
        from compel import Compel, ReturnedEmbeddingsType

        self._texts = texts
        is_sdxl = getattr(pipeline, "text_encoder_2", None) is not None
        kinds = {
            1: ReturnedEmbeddingsType.LAST_HIDDEN_STATES_NORMALIZED,
            2: ReturnedEmbeddingsType.PENULTIMATE_HIDDEN_STATES_NORMALIZED,
        }
        _check_skip(clip_skip)
        kind = kinds[clip_skip]
        if is_sdxl:
            kind = ReturnedEmbeddingsType.PENULTIMATE_HIDDEN_STATES_NON_NORMALIZED
        numbers = ("", "_2") if is_sdxl else ("",)
        self._encoders = [
            Compel(
                tokenizer=getattr(pipeline, f"tokenizer{number}"),
                text_encoder=getattr(pipeline, f"text_encoder{number}"),
                returned_embeddings_type=kind,
                truncate_long_prompts=True,
                device=pipeline._execution_device,
            )
            for number in numbers
        ]

    def text(self, prompt: EvalPrompt) -> str:
        return self._texts[prompt.id]

    @torch.no_grad()
    def hidden(self, text: str) -> torch.Tensor:
        try:
            return torch.cat([encoder(text) for encoder in self._encoders], dim=-1)
        except (ValueError, RuntimeError, TypeError) as error:
            raise ValueError(f"compel cannot read the weighted text {text!r} ({error})") from error


def _check_skip(clip_skip: int) -> None:
    if clip_skip not in (1, 2):
        raise ValueError(f"clip_skip {clip_skip}: compel knows 1 and 2 only")


def _version() -> str:
    try:
        return metadata.version("compel")
    except metadata.PackageNotFoundError:  # a folder on the path
        return "unknown"


def _read_texts(path: Path) -> dict[str, str]:
    if path.suffix.lower() == ".toml":
        found = read_toml_file(path, "a weighted text for each prompt id")
    else:
        try:
            found = json.loads(path.read_text("utf-8-sig"))
        except FileNotFoundError:
            raise FileNotFoundError(
                f"{path}: no such file; expected a weighted text for each prompt id"
            ) from None
        except ValueError as error:
            raise ValueError(f"{path}: not readable as JSON: {error}") from error
    if not isinstance(found, dict) or not all(isinstance(text, str) for text in found.values()):
        raise ValueError(f"{path}: expected one weighted text for each prompt id, and nothing else")
    return found
