"""The block-wise encoding over one plain forward of the same language model: its time, and its memory."""

from __future__ import annotations

import time

import torch

from sur_core.language_model import find_blocks
from sur_core.language_model_files import ModelInfo
from sur_core.llmdiff.encoder import BlockwiseEncoder
from sur_core.llmdiff.llm import OpenedLLM

from .live_bytes import LiveBytes

BLOCKS, WIDTH, TOKENS, VOCABULARY = 12, 768, 64, 1000
SHALLOW, DEEP = 2, 16


def measure_encoding(turns: int, batch: int, device: torch.device, dtype: torch.dtype) -> list[float]:
    """Ratio encode / forward of every turn, for a Llama of 12 blocks, 768 wide, and ``batch`` prompts of 64
    tokens. Each turn begins with the other of the two. On the CPU these are core-seconds, so that other
    programs do not count.
    """
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    llm = random_llama(BLOCKS, WIDTH).to(device, dtype)
    encoder, weights = BlockwiseEncoder(opened(llm)), torch.ones(BLOCKS)
    prompts = [chr(ord("a") + row) * (TOKENS - 1) for row in range(batch)]
    ids = torch.tensor(encoder.tokenize(prompts), device=device)

    @torch.no_grad()
    def forward() -> torch.Tensor:
        return llm(input_ids=ids, use_cache=False).last_hidden_state.cpu()

    ratios = []
    for turn in range(-1, turns):
        seconds = {}
        ways = [("encode", lambda: encoder.encode(prompts, weights)), ("forward", forward)]
        for name, way in ways if turn % 2 else ways[::-1]:
            begun = clock()
            way()  # both end with a copy to the CPU, which waits for a GPU
            seconds[name] = clock() - begun
        if turn >= 0:  # the first turn warms up
            ratios.append(seconds["encode"] / seconds["forward"])
    return ratios


def measure_peaks() -> tuple[int, int]:
    """Most bytes of tensors that live at once while two prompts are encoded, by 2 blocks and by 16. Exact;
    what was there before, such as the model's weights, is left out.
    """
    peaks = []
    for blocks in (SHALLOW, DEEP):
        encoder, weights = BlockwiseEncoder(opened(random_llama(blocks, WIDTH // 4))), torch.ones(blocks)
        with LiveBytes() as live:
            encoder.encode(["a" * (TOKENS - 1), "b" * 9], weights)
        peaks.append(live.peak)
    return peaks[0], peaks[1]


def random_llama(blocks: int, width: int) -> torch.nn.Module:
    """Random weights, which take the same time as trained ones."""
    from transformers import LlamaConfig, LlamaModel

    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=blocks,
        num_attention_heads=width // 64,
        num_key_value_heads=width // 192,
    )
    return LlamaModel(config).eval().requires_grad_(False)


def opened(model: torch.nn.Module) -> OpenedLLM:
    config = model.config
    layers, width, positions = config.num_hidden_layers, config.hidden_size, config.max_position_embeddings
    info = ModelInfo("random Llama", "memory", "", layers, width, positions, config, {})
    return OpenedLLM(info, Letters(), model, find_blocks(model, layers))


class Letters:
    """A tokenizer of one token a letter."""

    start = 0

    def __call__(self, prompts: list[str]) -> list[list[int]]:
        return [[self.start, *(ord(letter) % VOCABULARY for letter in prompt)] for prompt in prompts]
