"""LLMDiff-Adapters in an evaluation: what the UNet hears of a language model while a batch is drawn.

All prompts of a run are encoded before the first picture, and the language model leaves memory then.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from ..language_model import choose_device, choose_dtype
from ..language_model_files import ModelInfo, find_model
from ..llmdiff import EncodedPrompt, LLMDiffAdapter, encode_prompts, load_llmdiff
from ..llmdiff.encoder import BlockwiseEncoder
from ..llmdiff.encodings import check_llm
from ..llmdiff.llm import StartTokenizer, open_llm
from ..model_files import fingerprint

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


def check_hearing(hearing: Hearing, prompts: Sequence[str]) -> LLMDiffAdapter:
    """The adapter, if it is sound and fits its language model, which can read these prompts; of the language
    model no weights are loaded.

    Raises:
        AdapterFileError, AdapterMismatchError, KnowledgeError, OSError: something of it is not so.
    """
    adapter, info = load_llmdiff(hearing.adapter), find_model(hearing.llm)
    check_llm(_Known(info.name, info.identity, info.width, info.layers), adapter)
    StartTokenizer(info, _MAX_TOKENS)(list(prompts))
    return adapter


def deaf(arm: str) -> str:
    """That a method and an arm do not go together."""
    return (
        f"arm {arm!r}: this method calls the UNet in ways that an LLMDiff-Adapter cannot follow; leave the "
        "method or the adapter out, such as for a study of its own"
    )


class Listener:
    """Attaches adapters to a pipeline's UNet, batch by batch."""

    def __init__(self, pipeline, guidance_scale: float):
        self._pipeline, self._guided = pipeline, guidance_scale > 1
        self._adapters: dict[Path, LLMDiffAdapter] = {}
        self._encoded: dict[tuple[str, str], EncodedPrompt] = {}
        self._models = lru_cache(find_model)

    def check(self, hearing: Hearing, prompt: str) -> None:
        """As :func:`check_hearing`, and that the adapter fits this UNet."""
        from ..llmdiff.diffusers_unet import attach

        attach(self._pipeline, check_hearing(hearing, [prompt]))

    def about(self, hearing: Hearing) -> dict[str, Any]:
        """What of it decides a picture: JSON values."""
        info: ModelInfo = self._models(hearing.llm)
        return {
            "adapter": fingerprint([("adapter", hearing.adapter)]),
            "strength": hearing.strength,
            "llm": info.identity,
            "llm_dtype": choose_dtype("auto", self._place),
        }

    def encode(self, wanted: Iterable[tuple[Hearing, str]]) -> None:
        """Encode prompts, each once; those that are encoded already are not again."""
        missing: dict[str, dict[Path, dict[str, None]]] = {}
        for hearing, prompt in wanted:
            adapter = self._adapter(hearing.adapter)
            if (adapter.encoding_id, prompt) not in self._encoded:
                missing.setdefault(hearing.llm, {}).setdefault(hearing.adapter, {})[prompt] = None
        for llm, by_adapter in missing.items():
            encoder = BlockwiseEncoder(open_llm(llm, device=str(self._place), max_tokens=_MAX_TOKENS))
            for path, prompts in by_adapter.items():
                for encoded in encode_prompts(encoder, self._adapter(path), list(prompts)):
                    self._encoded[encoded.encoding_id, encoded.prompt] = encoded

    @contextmanager
    def attached(
        self, hearing: Hearing | None, prompts: Sequence[str], negatives: Sequence[str]
    ) -> Iterator[None]:
        """Around a call of the pipeline with these prompts; of ``None`` nothing is heard."""
        if hearing is None:
            yield
            return
        from ..llmdiff.diffusers_unet import attach

        unet, adapter = self._pipeline.unet, self._adapter(hearing.adapter)
        adapter.to(self._pipeline._execution_device, unet.dtype)
        with attach(self._pipeline, adapter) as session:
            session.use(
                self._heard(adapter, prompts),
                self._heard(adapter, negatives) if self._guided else None,
                hearing.strength,
            )
            yield

    def _heard(self, adapter: LLMDiffAdapter, prompts: Sequence[str]) -> list[EncodedPrompt]:
        return [self._encoded[adapter.encoding_id, prompt] for prompt in prompts]

    def _adapter(self, path: Path) -> LLMDiffAdapter:
        if path not in self._adapters:
            self._adapters[path] = load_llmdiff(path)
        return self._adapters[path]

    @property
    def _place(self):
        return choose_device(str(self._pipeline._execution_device))
