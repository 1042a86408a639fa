"""Knowledge vectors built from tiny language models, and what transformers says to the same prompts."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest
import torch

from sur_core.knowledge import KnowledgeError, build_knowledge
from tests.tiny_models import make_tiny_llm

LAYERS, WIDTH = 4, 48
PROMPTS = [
    "a cat",
    "three red balls on the table, in the style of a very old and detailed photo",
    "ü",
    "a dog and a horse near a tree",
    "__metadata__",
    "keys",
    "a <s> b",
]


def make_llms(folder: Path) -> dict[str, Path]:
    return {kind: make_tiny_llm(folder / kind, LAYERS, WIDTH, kind) for kind in ("llama", "gpt2", "qwen2")}


@functools.cache
def plain_model(folder: Path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    return AutoTokenizer.from_pretrained(folder), model


def plain_vector(folder: Path, prompt: str, layer: int, special: str = "skip") -> np.ndarray:
    """The prompt alone through the whole model, as transformers' users would do it."""
    tokenizer, model = plain_model(folder)
    ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        hidden = model(input_ids=ids, output_hidden_states=True).hidden_states[layer][0]
    has_start = folder.name == "llama"
    return hidden[has_start and special == "skip" and len(hidden) > 1 :].mean(0).numpy()


def build(path, llm, prompts=PROMPTS, layer=-1, **options):
    options = {"device": "cpu", "store_dtype": "fp32", **options}
    return build_knowledge(prompts, path, llm, layer, **options)


def refusal(call, *arguments, **options) -> str:
    with pytest.raises((KnowledgeError, OSError)) as caught:
        call(*arguments, **options)
    return str(caught.value)
