"""Tiny random language models of every family the block-wise encoding is tested with."""

from __future__ import annotations

from pathlib import Path

import torch

LAYERS, WIDTH, POSITIONS, WINDOW = 3, 32, 96, 5

_ROTARY = {"intermediate_size": 48, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8}
_ALL_HEADS = {"intermediate_size": 48, "num_attention_heads": 4}
_MIXED = {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}
_GEMMA = _ROTARY | _MIXED | {"sliding_window": WINDOW, "query_pre_attn_scalar": 8}
FAMILIES = {
    "llama": ("llama", _ROTARY),
    "llama, all heads": ("llama", _ALL_HEADS),
    "qwen2": ("qwen2", _ROTARY),
    "qwen2, window": (
        "qwen2",
        _ROTARY | {"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 1},
    ),
    "qwen3": ("qwen3", _ROTARY),
    "gemma": ("gemma", _ROTARY),
    "gemma2": ("gemma2", _GEMMA),
    "gemma3": ("gemma3_text", _GEMMA),
    "mistral": ("mistral", _ROTARY | {"sliding_window": None}),
    "mistral, window": ("mistral", _ROTARY | {"sliding_window": WINDOW}),
    "phi": ("phi", _ALL_HEADS | {"partial_rotary_factor": 0.5}),
    "phi3": ("phi3", _ALL_HEADS | {"sliding_window": WINDOW}),
    "gpt2": ("gpt2", {"n_head": 4}),
    "gpt_neox": ("gpt_neox", _ALL_HEADS),
    "gpt_neox, one after the other": ("gpt_neox", _ALL_HEADS | {"use_parallel_residual": False}),
    "opt": ("opt", {"ffn_dim": 48, "num_attention_heads": 4, "word_embed_proj_dim": WIDTH}),
    "bloom": ("bloom", {"n_head": 4}),
    "falcon": ("falcon", {"num_attention_heads": 4}),
    "falcon, alibi": ("falcon", {"num_attention_heads": 4, "alibi": True}),
    "olmo2": ("olmo2", _ROTARY),
    "stablelm": ("stablelm", _ALL_HEADS | {"num_key_value_heads": 4, "partial_rotary_factor": 0.5}),
    "mixtral": ("mixtral", _ROTARY | {"num_local_experts": 4, "num_experts_per_tok": 2}),
}
"""Name to transformers' model type and its config's values; windows are shorter than the tests' prompts."""


def write_tokenizer(folder: Path, **special: str) -> Path:
    """One token a byte after the special ones (``bos_token="<s>"``), which are put around no text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate([*dict.fromkeys(special.values()), *letters])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
    return folder


def write_llm(folder: Path, family: str = "llama", layers: int = LAYERS, **changes) -> Path:
    """A model of one family in transformers' layout, with a tokenizer."""
    from transformers import AutoConfig, AutoModel

    kind, odd = FAMILIES[family]
    sizes = {"hidden_size": WIDTH, "num_hidden_layers": layers, "max_position_embeddings": POSITIONS}
    sizes |= {"vocab_size": 300, "pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 1}
    config = AutoConfig.for_model(kind, **(sizes | odd | changes))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModel.from_config(config, dtype=torch.float32).eval()
        with torch.no_grad():  # a fresh model's blocks change next to nothing
            for weight in model.parameters():
                weight.add_(torch.randn_like(weight) * (0.3 if weight.ndim > 1 else 0.1))
    model.save_pretrained(folder)
    return write_tokenizer(folder, bos_token="<s>", eos_token="</s>", pad_token="<s>")


def open_double(folder: Path, attention: str = "sdpa", **options):
    """``open_llm``, then every weight and buffer in float64."""
    from sur_core.llmdiff.llm import open_llm

    llm = open_llm(folder, dtype="fp32", device="cpu", local_files_only=True, **options)
    llm.model.set_attn_implementation(attention)
    if hasattr(llm.model, "set_experts_implementation"):  # the fast ones know no float64
        llm.model.set_experts_implementation("eager")
    llm.model.double()
    return llm
