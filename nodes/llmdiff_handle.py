"""A language model and an LLMDiff adapter inside ComfyUI, moved by its memory management."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace

import comfy.model_management as memory
import torch
from comfy.model_patcher import ModelPatcher
from torch import nn

from ..sur_core.language_model import DTYPES, choose_dtype
from ..sur_core.language_model_files import KnowledgeError, ModelInfo, find_model
from ..sur_core.llmdiff import EncodedPrompt, LLMDiffAdapter, encode_prompts, load_llmdiff
from ..sur_core.llmdiff.encoder import BlockwiseEncoder
from ..sur_core.llmdiff.encodings import check_llm as check_fit
from ..sur_core.llmdiff.llm import StartTokenizer, check_decoder_only, check_llm, open_llm
from .handle import AdapterPatcher

DEVICES = ("auto", "gpu", "cpu")
"""Where text encoders run, where pictures are drawn, the CPU. The first is the CPU with --lowvram."""


class LLMHandle:
    """What travels along an LLMDIFF_LLM wire: a folder, opened when the first prompt needs it.

    Attributes:
        path: the model's folder.
        dtype: name of its type, ``"fp32"``, ``"fp16"`` or ``"bf16"``.
    """

    def __init__(self, path: Path, dtype: str = "auto", device: str = "auto", max_tokens: int = 256):
        self.path, self.max_tokens = path, max_tokens
        self._device, self._away = _places(device)
        self.dtype = choose_dtype(dtype, self._device)
        self._encoder: BlockwiseEncoder | None = None
        self._patcher: ModelPatcher | None = None

    @cached_property
    def info(self) -> ModelInfo:
        """Read from the model's small files. Errors as :func:`find_model`."""
        found = find_model(self.path, local_files_only=True)
        check_decoder_only(found)
        return found

    @cached_property
    def _tokenizer(self) -> StartTokenizer:
        return StartTokenizer(self.info, self.max_tokens)

    @property
    def key(self) -> tuple[str, ...]:
        """Changes with all that an encoding depends on besides prompt and adapter."""
        return (self.info.identity, self.dtype, str(self._device))

    @property
    def is_open(self) -> bool:
        """Whether the weights are in memory."""
        return self._encoder is not None

    def check(self, adapter: LLMDiffAdapter, text: str) -> None:
        """All that can be refused without the weights, which take long to read. Errors as :meth:`encode`."""
        info = self.info
        check_fit(
            SimpleNamespace(name=info.name, identity=info.identity, width=info.width, blocks=info.layers),
            adapter,
        )
        self._tokenizer([text])

    def encode(self, adapter: LLMDiffAdapter, text: str) -> EncodedPrompt:
        """Move the weights to where they run, and encode a prompt.

        Raises:
            AdapterMismatchError: the adapter reads another language model.
            KnowledgeError: the model or the prompt cannot be read, or there is not enough memory.
        """
        self.check(adapter, text)
        try:
            return encode_prompts(self._ready(), adapter, [text])[0]
        except torch.cuda.OutOfMemoryError as error:
            raise KnowledgeError(
                f"{self.info.name}: does not fit into the memory of {self._device}. Set the device of Load "
                "LLM for LLMDiff to cpu, choose bf16 or fp16 there, or a smaller model"
            ) from error

    def _ready(self) -> BlockwiseEncoder:
        first = self._encoder is None
        if first:
            # Under inference mode, weights could never be changed in place again.
            with torch.inference_mode(False):
                opened = open_llm(
                    self.path, self.dtype, "cpu", self.max_tokens, local_files_only=True, check=False
                )
            # Like an adapter, it is either here or there: its layers cannot fetch weights one by one.
            patcher = AdapterPatcher(_Held(opened.model), self._device, self._away)
        else:
            opened, patcher = self._encoder.llm, self._patcher
        memory.load_models_gpu([patcher], force_full_load=True)
        if first:
            check_llm(opened)
            self._encoder, self._patcher = BlockwiseEncoder(opened), patcher
        return self._encoder


def _places(device: str) -> tuple[torch.device, torch.device]:
    """Where a model runs, and where it waits, for one of :data:`DEVICES`."""
    cpu = torch.device("cpu")
    if device == "cpu":
        return cpu, cpu
    runs = memory.get_torch_device() if device == "gpu" else memory.text_encoder_device()
    return runs, memory.text_encoder_offload_device()


class _Held(nn.Module):
    """ModelPatcher notes the device on its model, which transformers' models do not allow."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model


class LLMDiffHandle:
    """What travels along an LLMDIFF_ADAPTER wire.

    Attributes:
        adapter: of the type and at the place of the first model it was put on, since a copy of its own would
            take as much memory again. The few single numbers are float32 always.
    """

    def __init__(self, path: str | os.PathLike):
        """Errors as :func:`load_llmdiff`."""
        self._path = path
        self.adapter = load_llmdiff(path)
        self._patchers: dict[tuple[torch.dtype, torch.device], ModelPatcher] = {}

    def patcher(self, dtype: torch.dtype, device: torch.device, away: torch.device) -> ModelPatcher:
        """The adapter as a model of this type that runs on ``device``; one for all nodes. A second type is
        read from the file again. Errors as :func:`load_llmdiff`.
        """
        found = self._patchers.get((dtype, device))
        if found is None:
            with torch.inference_mode(False):
                adapter = load_llmdiff(self._path) if self._patchers else self.adapter
                found = AdapterPatcher(adapter.to(dtype), device, away)
            self._patchers[dtype, device] = found
        return found


def compute_dtype(model: ModelPatcher) -> torch.dtype:
    """The type a UNet computes in, which is not that of its weights where those are cast."""
    inner = model.model
    told = inner.get_dtype_inference() if hasattr(inner, "get_dtype_inference") else None
    found = told or getattr(inner, "manual_cast_dtype", None) or model.model_dtype()
    return found if found in DTYPES.values() else torch.float16
