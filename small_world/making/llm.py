"""The tiny language model: a Llama that has read what words mean and has never seen a picture."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from .corpus import facts, line
from .kept import digest
from .loop import Plan, raise_model
from .tokenizers import write_llm_tokenizer

PLAN = Plan(steps=1500, batch_size=48, learning_rate=3e-3, weight_decay=0.05, seed=4, bf16=True)
TOKENS = 840
LINES = 3  # lines in a sample, so that the model also meets what comes after a full stop


def raise_llm(folder: Path, report: Callable[[str, int, int], None], device: torch.device, plan: Plan = PLAN):
    """(model, tokenizer) of a trained LlamaForCausalLM."""
    from transformers import AutoTokenizer

    where = folder / "llm-tokenizer"
    if not (where / "tokenizer_config.json").is_file():
        write_llm_tokenizer(where, (line(index, plan.seed) for index in range(20_000)), TOKENS)
    tokenizer = AutoTokenizer.from_pretrained(where)
    model = new_llm(tokenizer).to(device)
    model.set_attn_implementation("eager")  # as in clip.py

    def loss_of(step: int, random: torch.Generator) -> torch.Tensor:
        first = step * plan.batch_size * LINES
        texts = [
            " ".join(line(first + sample * LINES + number, plan.seed) for number in range(LINES))
            for sample in range(plan.batch_size)
        ]
        words = tokenizer(texts, padding=True, return_tensors="pt").to(device)
        labels = words.input_ids.masked_fill(words.attention_mask == 0, -100)
        return model(input_ids=words.input_ids, attention_mask=words.attention_mask, labels=labels).loss

    read = [line(index, plan.seed) for index in range(64)]
    source = digest(read, tokenizer(read).input_ids)
    raise_model("LLM", model, loss_of, plan, folder / "llm.pt", report, device, source)
    return model, tokenizer


def new_llm(tokenizer):
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(PLAN.seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=96,
        intermediate_size=192,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config)


@torch.no_grad()
def facts_known(model, tokenizer) -> float:
    """Share of the world's facts whose answer is the model's most probable next word, 0..1."""
    right = 0
    for question, answer in facts():
        ids = tokenizer(question, return_tensors="pt").input_ids
        expected = tokenizer(f"{question} {answer}").input_ids[ids.shape[1]]
        right += int(model(input_ids=ids).logits[0, -1].argmax()) == expected
    return right / len(facts())
