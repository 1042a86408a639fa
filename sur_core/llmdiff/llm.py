"""A decoder-only language model, opened for the block-wise encoding: whole, without its head, and checked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from ..language_model import (
    DTYPES,
    choose_device,
    choose_dtype,
    find_blocks,
    load_model,
    load_tokenizer,
)
from ..language_model_files import KnowledgeError, ModelInfo, find_model
from .blockwise import run_twice

_CHOOSE = "Choose a model such as Llama, Mistral, Qwen or Gemma"
_SHOWN = 40
"""Characters of a prompt that an error quotes."""


class StartTokenizer:
    """Prompts as token numbers: the start token, then the text's own tokens, and no end token.

    The start token is the tokenizer's BOS token or, where it has none (Qwen), its EOS token, whether or not
    the tokenizer puts one before a text by itself. A first token sees only itself, so its Delta (Eq. 2) is
    zero at every block: better a token that means nothing than the prompt's first word. And the empty prompt,
    which guidance needs for its unconditional half, is then still one token long.

    Attributes:
        name: the model's.
        start: number of the start token.
        limit: most tokens of a prompt, the start token counted.
        positions: most tokens the model itself can read; 0 where it does not say.
    """

    def __init__(self, info: ModelInfo, max_tokens: int):
        """Raises KnowledgeError if there are no tokenizer files, or no start token among them."""
        self.name, self.positions, self.limit = info.name, info.positions, max_tokens
        _check_tokenizer_files(info)
        self._tokenizer = load_tokenizer(info)
        start = self._tokenizer.bos_token_id
        self.start = self._tokenizer.eos_token_id if start is None else start
        if self.start is None:
            raise KnowledgeError(
                f"{info.source}: its tokenizer has neither a BOS nor an EOS token, one of which every prompt "
                "must begin with. Add one to tokenizer_config.json or choose another model"
            )

    def __call__(self, prompts: list[str]) -> list[list[int]]:
        """Raises KnowledgeError for a prompt that is no text, cannot be read, or is too long."""
        if isinstance(prompts, str):
            raise KnowledgeError("expected a list of prompts, found one text")
        return [self._read(prompt) for prompt in prompts]

    def _read(self, prompt: str) -> list[int]:
        if not isinstance(prompt, str):
            raise KnowledgeError(f"a prompt must be text, found {repr(prompt)[:_SHOWN]}")
        try:
            read = self._tokenizer(prompt, add_special_tokens=False, verbose=False)["input_ids"]
        except (ValueError, TypeError):
            raise KnowledgeError(f"{self.name}: its tokenizer cannot read {quoted(prompt)}") from None
        ids = [self.start, *read]
        self._check_length(prompt, len(ids))
        return ids

    def _check_length(self, prompt: str, length: int) -> None:
        if 0 < self.positions < length:
            raise KnowledgeError(
                f"{quoted(prompt)} has {length} tokens with the start token, and {self.name} reads at most "
                f"{self.positions}. Shorten the prompt or choose a language model with a longer context"
            )
        if length > self.limit:
            raise KnowledgeError(
                f"{quoted(prompt)} has {length} tokens with the start token for {self.name}, and max_tokens "
                f"is {self.limit}. Shorten the prompt or raise max_tokens"
            )


@dataclass(frozen=True, eq=False)
class OpenedLLM:
    """A language model in memory.

    Attributes:
        model: the base model without its head, in eval mode, without gradients.
        blocks: its blocks, in the order they run.
    """

    info: ModelInfo
    tokenizer: StartTokenizer
    model: nn.Module
    blocks: nn.ModuleList

    @property
    def device(self) -> torch.device:
        """Where the model is now; a host may move it."""
        return next(self.model.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.model.parameters()).dtype


def open_llm(
    model: str | Path,
    dtype: str = "auto",
    device: str = "auto",
    max_tokens: int = 256,
    local_files_only: bool = False,
    check: bool = True,
) -> OpenedLLM:
    """Load a decoder-only language model. Code that comes with a model is never run.

    Args:
        model: a folder in transformers' layout, or a name on the Hugging Face hub.
        dtype: ``"auto"``, ``"fp32"``, ``"fp16"`` or ``"bf16"``.
        device: ``"auto"`` (the first GPU, or the CPU without one) or any of torch's.
        max_tokens: longest prompt, the start token counted.
        local_files_only: never ask the hub.
        check: run :func:`check_llm` now, on ``device``; a host that moves the model first does it later.

    Raises:
        FileNotFoundError, KnowledgeError: there is no such model, it is not decoder-only, its files are not
            complete, or it does not fit into memory.
    """
    if dtype not in ("auto", *DTYPES):
        raise KnowledgeError(f"dtype must be one of auto, {', '.join(DTYPES)}, found {dtype!r}")
    if type(max_tokens) is not int or max_tokens < 2:
        raise KnowledgeError(f"max_tokens must be a whole number from 2, found {max_tokens!r}")
    place = choose_device(device)
    info = find_model(model, local_files_only=local_files_only)
    check_decoder_only(info)
    tokenizer = StartTokenizer(info, max_tokens)
    numbers = DTYPES[choose_dtype(dtype, place)]
    whole = load_model(info, info.layers, numbers, place, advice="Choose fp16 or bf16")
    whole.requires_grad_(False)
    opened = OpenedLLM(info, tokenizer, whole, find_blocks(whole, info.layers))
    if check:
        check_llm(opened)
    return opened


def check_decoder_only(info: ModelInfo) -> None:
    """Raises KnowledgeError for a model whose tokens see those after them, as far as its config tells."""
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    )

    kinds = {info.config.model_type, info.config.get_text_config().model_type}
    if kinds & set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES) and not kinds & set(MODEL_FOR_MASKED_LM_MAPPING_NAMES):
        return
    raise KnowledgeError(
        f"{info.source}: expected a decoder-only language model, found one of type "
        f"{info.config.model_type!r}, which is an encoder or no language model. {_CHOOSE}"
    )


def check_llm(llm: OpenedLLM) -> None:
    """Run a few tokens through a model and see that the encoding holds for it.

    Two texts of four tokens, which differ in the last: a first token's update must be the same in context and
    alone, no token may change with a later one, and some later token must hear those before it. Tolerance:
    half the digits of the model's type.

    Raises:
        KnowledgeError: it does not hold; the message names the block.
    """
    kind, check = type(llm.model).__name__, _Check(llm.info, llm.dtype)
    texts = torch.tensor(_two_texts(llm), device=llm.device)
    try:
        run_twice(llm.model, llm.blocks, texts, check)
    except (KnowledgeError, torch.cuda.OutOfMemoryError):
        raise
    except Exception as error:  # whatever a model that is built differently stumbles over
        reason = str(error).strip().partition("\n")[0]
        raise KnowledgeError(
            f"{llm.info.name}: {kind} is not supported, its blocks cannot be called one by one "
            f"({type(error).__name__}: {reason}). {_CHOOSE}"
        ) from error
    if not check.heard:
        raise KnowledgeError(
            f"{llm.info.name}: in none of its {len(llm.blocks)} blocks does a token hear those before it; "
            f"{kind} is not supported, or its files are damaged. {_CHOOSE}"
        )


def _two_texts(llm: OpenedLLM) -> list[list[int]]:
    known, start = llm.model.get_input_embeddings().num_embeddings, llm.tokenizer.start
    if start >= known or known < 5:
        raise KnowledgeError(
            f"{llm.info.source}: its tokenizer's start token is number {start}, and the model knows {known} "
            "tokens. The tokenizer belongs to another model; download both again"
        )
    a, b, c, d = [token for token in range(5) if token != start][:4]
    return [[start, a, b, c], [start, a, b, d]]


class _Check:
    """Called by :func:`run_twice` after each block; ``heard`` says whether any block mixes tokens."""

    def __init__(self, info: ModelInfo, dtype: torch.dtype):
        self._name, self._dtype, self.heard = info.name, dtype, False
        self._tolerance = torch.finfo(dtype).eps ** 0.5

    def __call__(
        self, number: int, before: torch.Tensor, together: torch.Tensor, alone: torch.Tensor
    ) -> None:
        together, alone = together.double(), alone.double()  # [2, 4, D]
        if not together.isfinite().all() or not alone.isfinite().all():
            raise KnowledgeError(
                f"{self._name}: block {number} gives NaN or infinite numbers in {dtype_words(self._dtype)}. "
                "Load it in bf16 or fp32; if that changes nothing, its files are damaged"
            )
        self.heard |= not torch.equal(together[:, 1:], alone[:, 1:])
        self._refuse(number, together[:, 0], alone[:, 0], "its first token has context")
        self._refuse(number, together[0, :3], together[1, :3], "its tokens see later ones")

    def _refuse(self, number: int, one: torch.Tensor, other: torch.Tensor, found: str) -> None:
        """``one`` and ``other``, [..., D], must be equal."""
        worst = ((one - other).norm(dim=-1) / one.norm(dim=-1).clamp_min(1e-30)).max().item()
        if worst > self._tolerance:
            raise KnowledgeError(
                f"{self._name}: expected a causal language model, but {found} (block {number}, a difference "
                f"of {worst:.2g}). This architecture is not supported. {_CHOOSE}"
            )


def dtype_words(dtype: torch.dtype) -> str:
    """``"fp16"``, as users choose it."""
    return {value: name for name, value in DTYPES.items()}.get(dtype, str(dtype))


def quoted(prompt: str) -> str:
    """A prompt's beginning, for an error: ``the prompt 'a dog'...``."""
    return f"the prompt {prompt[:_SHOWN]!r}{'...' if len(prompt) > _SHOWN else ''}"


def _check_tokenizer_files(info: ModelInfo) -> None:
    """transformers makes up an empty tokenizer for some models whose files are not there."""
    folder = Path(info.source)
    known = ("tokenizer.json", "*.model", "vocab*", "*.tiktoken", "tekken.json", "*.spm")
    if folder.is_dir() and not any(any(folder.glob(name)) for name in known):
        raise KnowledgeError(
            f"{info.source}: found no tokenizer beside the model; expected tokenizer.json or tokenizer.model "
            "there. Copy the model's tokenizer files into its folder, or download the model again"
        )
