"""A causal language model that runs only as deep as one layer: prompts in, one vector each out.

Paper Sec. 3.2: what a large language model knows about a prompt is one of its layers' features, averaged over
the prompt's tokens. Layers are counted as transformers' ``hidden_states`` are: 0 is the embeddings, k the
output of block k, and the last, n, comes after the final norm. Blocks beyond the layer asked for are not
computed, not kept in memory and, for the architectures of ``SHORTENABLE``, not even read.
"""

from __future__ import annotations

import copy
import importlib.util
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from .language_model_files import KnowledgeError, ModelInfo, in_words

log = logging.getLogger(__name__)

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
SPECIAL_TOKENS = ("skip", "include")
SHORTENABLE = frozenset(
    ("gemma", "gemma2", "gemma3_text", "gpt2", "gpt_neox", "llama", "mistral", "olmo", "olmo2")
    + ("phi", "phi3", "qwen2", "qwen3", "stablelm")
)
"""Model types whose blocks do not depend on how many follow: only the first ones need to be loaded."""


@dataclass(frozen=True)
class Tokens:
    """A prompt as the model reads it.

    Attributes:
        ids: token numbers, at most ``max_tokens``.
        counted: which of them the mean is taken over.
        whole: how many there would be without the limit.
    """

    ids: list[int]
    counted: list[bool]
    whole: int


class PromptTokenizer:
    """The model's own tokenizer. ``special="skip"`` leaves out of the mean the tokens it puts around every
    text; a prompt of nothing else keeps them.
    """

    def __init__(self, info: ModelInfo, special: str, max_tokens: int):
        self._name, self._include, self.limit = info.name, special == "include", max_tokens
        self._tokenizer = load_tokenizer(info)
        self._tokenizer.truncation_side = "right"
        if max_tokens <= self._tokenizer.num_special_tokens_to_add():
            raise KnowledgeError(
                f"max_tokens is {max_tokens}, which leaves no room for a prompt's own tokens"
            )

    def __call__(self, prompts: list[str]) -> list[Tokens]:
        """Raises KnowledgeError for a prompt that cannot be written in tokens."""
        try:
            ids, special = self._encode(prompts)
        except (ValueError, TypeError):  # one odd prompt spoils the call for all; find it
            for prompt in prompts if len(prompts) > 1 else ():
                self([prompt])
            raise KnowledgeError(
                f"{self._name}: its tokenizer cannot read the prompt {prompts[0]!r}"
            ) from None
        whole = [len(row) for row in ids]
        for place, length in enumerate(whole):
            if length > self.limit:
                short, mask = self._encode([prompts[place]], truncation=True, max_length=self.limit)
                ids[place], special[place] = short[0], mask[0]
            if not length:
                raise KnowledgeError(
                    f"{self._name}: the prompt {prompts[place]!r} has no tokens, so no vector"
                )
        return [Tokens(*parts) for parts in zip(ids, map(self._counted, special), whole, strict=True)]

    def _encode(self, prompts: list[str], **limit) -> tuple[list[list[int]], list[list[int]]]:
        encoded = self._tokenizer(prompts, return_special_tokens_mask=True, verbose=False, **limit)
        return encoded["input_ids"], encoded["special_tokens_mask"]

    def _counted(self, special: list[int]) -> list[bool]:
        if self._include or all(special):
            return [True] * len(special)
        return [not mark for mark in special]


class _Reached(Exception):
    """Carries the layer asked for out of the model's forward, which ends there."""

    def __init__(self, hidden: torch.Tensor):
        self.hidden = hidden


class LanguageModel:
    """A language model in memory, up to one layer."""

    def __init__(
        self, info: ModelInfo, layer: int, dtype: torch.dtype, device: torch.device, quantize: str = ""
    ):
        """Raises KnowledgeError if it cannot be loaded, also for want of memory.

        Args:
            layer: resolved, 0 to ``info.layers``.
            quantize: ``""``, ``"8bit"`` or ``"4bit"`` (bitsandbytes, on a CUDA GPU).
        """
        self.info, self.layer, self.device = info, layer, device
        self._model = load_model(info, layer, dtype, device, quantize)
        if layer < info.layers:
            blocks = find_blocks(self._model, self._model.config.get_text_config().num_hidden_layers)
            del blocks[max(layer, 1) :]
            if layer:
                blocks[-1].register_forward_hook(_leave_after)
            else:
                blocks[0].register_forward_pre_hook(_leave_before, with_kwargs=True)

    def encode(self, batch: list[Tokens]) -> torch.Tensor:
        """Mean of the layer over each prompt's counted tokens: float32 [B, width] on the CPU.

        Raises:
            torch.cuda.OutOfMemoryError: the batch is too large for the device.
        """
        longest = max(len(tokens.ids) for tokens in batch)
        ids = torch.zeros(len(batch), longest, dtype=torch.long)  # any id will do for padding: it is masked
        real, counted = torch.zeros_like(ids), torch.zeros(len(batch), longest, 1, dtype=torch.bool)
        for row, tokens in enumerate(batch):
            length = len(tokens.ids)
            ids[row, :length], real[row, :length] = torch.tensor(tokens.ids), 1
            counted[row, :length, 0] = torch.tensor(tokens.counted)
        with torch.inference_mode():
            hidden = self._run(ids.to(self.device), real.to(self.device)).float()
            counted = counted.to(self.device)
            # Padding may hold NaN or infinity in half precision, which a product with 0 would keep.
            return (hidden.masked_fill(~counted, 0).sum(1) / counted.sum(1)).cpu()

    def _run(self, ids: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        """The layer's features [B, T, width]."""
        try:
            hidden = self._model(input_ids=ids, attention_mask=real, use_cache=False).last_hidden_state
            if self.layer < self.info.layers:
                raise KnowledgeError(f"{self.info.name}: its forward never reached layer {self.layer}")
        except _Reached as reached:
            hidden = reached.hidden
        if hidden.shape != (*ids.shape, self.info.width):
            raise KnowledgeError(
                f"{self.info.name}: layer {self.layer} gave {tuple(hidden.shape)}, expected "
                f"{(*ids.shape, self.info.width)}. This architecture is not supported"
            )
        return hidden


def find_blocks(model: nn.Module, layers: int) -> nn.ModuleList:
    """The model's list of ``layers`` blocks: the outermost ModuleList of that length.

    Raises:
        KnowledgeError: there is none, or more than one.
    """
    lists = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == layers
    }
    depths = [name.count(".") for name in lists]
    outermost = [module for name, module in lists.items() if name.count(".") == min(depths, default=0)]
    if len(outermost) != 1:
        raise KnowledgeError(
            f"{type(model).__name__}: expected one list of {layers} blocks, found {sorted(lists) or 'none'}; "
            "only the last layer (-1) can be had from this architecture"
        )
    return outermost[0]


def choose_device(device: str) -> torch.device:
    """``"auto"`` is the first GPU, or the CPU without one.

    Raises:
        KnowledgeError: there is no such device.
    """
    if device != "auto":
        try:
            torch.zeros(1, device=device)
        except (RuntimeError, AssertionError) as error:
            reason = str(error).partition("\n")[0]
            raise KnowledgeError(f"the device {device!r} cannot be used here ({reason}); try auto") from error
        return torch.device(device)
    mps = torch.backends.mps.is_available()
    return torch.device("cuda" if torch.cuda.is_available() else "mps" if mps else "cpu")


def choose_dtype(dtype: str, device: torch.device) -> str:
    """``"auto"`` is bf16 on GPUs that compute in it, fp16 on others, fp32 on the CPU."""
    if dtype != "auto":
        return dtype
    if device.type == "cpu":
        return "fp32"
    has_bf16 = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
    return "bf16" if has_bf16 else "fp16"


def _leave_after(block: nn.Module, inputs: tuple, output: object) -> None:
    raise _Reached(output[0] if isinstance(output, tuple) else output)


def _leave_before(block: nn.Module, inputs: tuple, named: dict) -> None:
    raise _Reached(inputs[0] if inputs else named["hidden_states"])


def load_tokenizer(info: ModelInfo):
    """The tokenizer that comes with a model. Raises KnowledgeError if it cannot be read."""
    with in_words(info.source, "tokenizer"):
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(info.source, trust_remote_code=False, **info.arguments)


def load_model(
    info: ModelInfo,
    layer: int,
    dtype: torch.dtype,
    device: torch.device,
    quantize: str = "",
    advice: str = "Choose a layer nearer to 0, 4-bit or 8-bit weights, fp16 or bf16",
) -> nn.Module:
    """The base model without its output head, in eval mode on ``device``.

    Args:
        layer: blocks beyond it are not read where that is possible; ``info.layers`` reads all.
        advice: what to try, besides a smaller model, if it does not fit into memory.

    Raises:
        KnowledgeError: weights are missing, cannot be read or do not fit into memory.
    """
    options = {"config": _shortened(info, layer), "dtype": dtype, **info.arguments}
    if quantize:
        options["quantization_config"] = _quantization(quantize, dtype, device)
    if quantize or device.type != "cpu" and importlib.util.find_spec("accelerate"):
        options["device_map"] = {"": device}  # straight to the GPU, tensor by tensor
    try:
        with in_words(info.source, "weights"), _quiet():
            from transformers import AutoModel

            model, report = AutoModel.from_pretrained(
                info.source, trust_remote_code=False, output_loading_info=True, **options
            )
            if "device_map" not in options:
                model.to(device)
    except (torch.cuda.OutOfMemoryError, MemoryError) as error:
        raise KnowledgeError(
            f"{info.name}: does not fit into the memory of {device}. {advice}, a smaller model, or the CPU"
        ) from error
    if lacking := [*report["missing_keys"], *report["mismatched_keys"]]:
        raise KnowledgeError(
            f"{info.source}: {len(lacking)} weights are missing or of another shape, such as {lacking[0]}. "
            "The download may be incomplete"
        )
    return model.eval()


def _shortened(info: ModelInfo, layer: int):
    """A config with no block beyond the layer, where that changes nothing else."""
    config = copy.deepcopy(info.config)
    if config.model_type in SHORTENABLE and layer < info.layers:
        keep = max(layer, 1)
        if getattr(config, "layer_types", None):
            config.layer_types = config.layer_types[:keep]
        config.num_hidden_layers = keep
    return config


def _quantization(quantize: str, dtype: torch.dtype, device: torch.device):
    if not importlib.util.find_spec("bitsandbytes"):
        raise KnowledgeError(f"{quantize} weights need bitsandbytes: pip install bitsandbytes, or do without")
    if device.type != "cuda":
        raise KnowledgeError(f"{quantize} weights need a CUDA GPU, not {device}; do without")
    from transformers import BitsAndBytesConfig

    if quantize == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' list of the weights left out on purpose; missing ones are checked for here."""
    from transformers.utils import logging as transformers_logging

    before = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(before)
