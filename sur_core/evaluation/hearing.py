"""LLMDiff-Adapters in an evaluation: what the UNet hears of a language model while a batch is drawn.

All prompts of a run are encoded before the first picture, and the language model leaves memory then. A
picture depends on nothing but itself: every prompt is encoded alone, and prompts are padded to lengths of
their own, since rounding differs with the shapes that are computed.
"""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ..language_model import choose_device, choose_dtype
from ..language_model_files import KnowledgeError, find_model
from ..llmdiff import EncodedPrompt, LLMDiffAdapter, LLMDiffConfig, encode_prompts, load_llmdiff
from ..llmdiff.encoder import BlockwiseEncoder
from ..llmdiff.encodings import check_encodings, check_llm
from ..llmdiff.llm import StartTokenizer, check_decoder_only, open_llm
from ..model_files import fingerprint, whole_weights
from .memory import room_for
from .settings import EvaluationSettings

SPAN = 32
"""Prompts are padded to whole numbers of as many tokens."""
_MAX_TOKENS = 256


class Hearing(NamedTuple):
    """An LLMDiff-Adapter's file, its strength, and the language model it reads: a folder or a hub id."""

    adapter: Path
    strength: float
    llm: str


class _Known(NamedTuple):
    """What :func:`check_llm` asks of a language model, of one that is not loaded."""

    name: str
    identity: str
    width: int
    blocks: int


class _Reader(NamedTuple):
    """What decides an encoding besides adapter and prompt."""

    identity: str
    dtype: str
    device: str


_remembered: dict[tuple[_Reader, str, str], EncodedPrompt] = {}
"""By reader, the adapter's ``encoding_id`` and prompt: a study opens its models anew for every method."""


def check_hearing(adapter: LLMDiffAdapter, llm: str, prompts: Sequence[str]) -> None:
    """That an adapter fits its language model, which can read these prompts and has weights; none are loaded.

    Raises:
        AdapterMismatchError, KnowledgeError, ModelFileError, OSError: something of it is not so.
    """
    info = find_model(llm)
    check_decoder_only(info)
    check_llm(_Known(info.name, info.identity, info.width, info.layers), adapter)
    StartTokenizer(info, _MAX_TOKENS)(list(prompts))
    folder = Path(info.source)  # of a name on the hub, weights would have to be fetched for it
    if folder.is_dir() and not whole_weights(folder):
        raise KnowledgeError(f"{folder}: the language model has no weights there; copy it again")


def is_deaf_to_text(config: LLMDiffConfig, strength: float) -> bool:
    """Whether with such an adapter nothing that is done to the text encoder's words can change a picture."""
    return config.clip == "drop" and strength == 1


def deaf(arm: str) -> str:
    """That a method and an arm do not go together."""
    return (
        f"arm {arm!r}: this method calls the UNet in ways that an LLMDiff-Adapter cannot follow; leave the "
        "adapter out here (in a study: give it `methods`)"
    )


def without_effect(arm: str, what: str) -> str:
    """That something is done to a text encoder that is not heard."""
    return (
        f"arm {arm!r}: at strength 1 its LLMDiff-Adapter takes the text encoder's place, so that {what} "
        "would change nothing. Lower the strength, or leave one of them out (in a study: give the adapter "
        "`methods`)"
    )


class Listener:
    """Attaches adapters to a pipeline's UNet, batch by batch."""

    def __init__(self, pipeline, settings: EvaluationSettings):
        self._pipeline, self._settings = pipeline, settings
        distilled = pipeline.unet.config.get("time_cond_proj_dim") is not None  # guided without negative rows
        self._guided = settings.guidance_scale > 1 and not distilled
        self._adapters: dict[Path, LLMDiffAdapter] = {}
        self._info = lru_cache(find_model)

    def check(self, hearing: Hearing, prompts: Sequence[str]) -> LLMDiffAdapter:
        """The adapter. As :func:`check_hearing`, and it must be sound and fit this UNet."""
        from ..llmdiff.diffusers_unet import attach

        adapter = self._adapter(hearing.adapter)
        check_hearing(adapter, hearing.llm, prompts)
        attach(self._pipeline, adapter)
        return adapter

    def about(self, hearing: Hearing) -> dict[str, Any]:
        """What of it decides a picture: JSON values."""
        return {
            "adapter": fingerprint([("adapter", hearing.adapter)]),
            "strength": hearing.strength,
            "llm": self._reader(hearing)._asdict(),
            "span": SPAN,
        }

    def encode(self, wanted: Iterable[tuple[Hearing, str]]) -> None:
        """Encode prompts, each once; those that are encoded already are not again."""
        missing: dict[tuple[str, _Reader], dict[Path, dict[str, None]]] = {}
        for hearing, prompt in wanted:
            reader = self._reader(hearing)
            if (reader, self._adapter(hearing.adapter).encoding_id, prompt) not in _remembered:
                missing.setdefault((hearing.llm, reader), {}).setdefault(hearing.adapter, {})[prompt] = None
        for (llm, reader), by_adapter in missing.items():
            ways = "Set llm_device to cpu, where it reads slowly, or give a smaller model"
            with room_for(f"the language model {llm}", reader.device, ways):
                self._encode(llm, reader, by_adapter)

    def span(self, hearing: Hearing | None, prompts: Sequence[str]) -> int:
        """Tokens that encoded prompts are padded to together."""
        if hearing is None:
            return 0
        return max(-(-len(self._heard(hearing, prompt).tokens) // SPAN) * SPAN for prompt in prompts)

    @contextmanager
    def attached(
        self, hearing: Hearing | None, prompts: Sequence[str], negatives: Sequence[str]
    ) -> Iterator[None]:
        """Around a call of the pipeline with these prompts, of one span; of ``None`` nothing is heard."""
        if hearing is None:
            yield
            return
        from ..llmdiff.diffusers_unet import attach

        unet, adapter = self._pipeline.unet, self._adapter(hearing.adapter)
        adapter.to(self._pipeline._execution_device, unet.dtype)
        texts = [*(negatives if self._guided else ()), *prompts]  # diffusers puts the negative ones first
        encoded = [self._heard(hearing, text) for text in texts]
        check_encodings(adapter, encoded)
        with torch.no_grad():
            tokens = adapter.prepare([one.tokens for one in encoded], self.span(hearing, texts))
        with attach(self._pipeline, adapter) as session:
            session.use_tokens(tokens, hearing.strength)
            yield

    def batch_key(self, hearing: Hearing | None, prompt: str, negative: str) -> tuple[Hearing | None, int]:
        """Pictures of one key can be drawn together."""
        return hearing, self.span(hearing, [prompt, negative] if self._guided else [prompt])

    def _encode(self, llm: str, reader: _Reader, by_adapter: dict[Path, dict[str, None]]) -> None:
        opened = open_llm(llm, reader.dtype, reader.device, _MAX_TOKENS)
        encoder = BlockwiseEncoder(opened, batch_tokens=1)
        for path, prompts in by_adapter.items():
            for encoded in encode_prompts(encoder, self._adapter(path), list(prompts)):
                _remembered[reader, encoded.encoding_id, encoded.prompt] = encoded
        del opened, encoder  # before the next is loaded
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _heard(self, hearing: Hearing, prompt: str) -> EncodedPrompt:
        return _remembered[self._reader(hearing), self._adapter(hearing.adapter).encoding_id, prompt]

    def _reader(self, hearing: Hearing) -> _Reader:
        """In the type of numbers that the adapter learnt from, where its file says it."""
        chosen = self._settings.llm_device
        place = choose_device(str(self._pipeline._execution_device) if chosen == "auto" else chosen)
        learnt = self._adapter(hearing.adapter).passport.extra.get("llmdiff_training.llm_dtype", "auto")
        return _Reader(self._info(hearing.llm).identity, choose_dtype(learnt, place), str(place))

    def _adapter(self, path: Path) -> LLMDiffAdapter:
        if path not in self._adapters:
            self._adapters[path] = load_llmdiff(path)
        return self._adapters[path]
