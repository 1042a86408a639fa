"""What tests of the quality measures need: a tiny SigLIP, a regression in LIBSVM's files, and pictures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

WORDS = ("a", "red", "cat", "two", "blue", "birds", "near", "house", "the")
SIGLIP_LENGTH = 8
FEATURES = 36


def pictures(count: int, seed: int = 0) -> list[np.ndarray]:
    draw = np.random.default_rng(seed)
    return [draw.integers(0, 256, (40, 48 + 8 * (at % 2), 3), dtype=np.uint8) for at in range(count)]


def make_siglip(folder: Path, seed: int = 0) -> Path:
    """A SiglipModel of random weights, large enough for other pictures to give other scores."""
    from transformers import SiglipConfig, SiglipModel

    folder = Path(folder)
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {**shape, "vocab_size": len(WORDS) + 2, "max_position_embeddings": SIGLIP_LENGTH}
    text |= {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1, "projection_size": 16}
    config = SiglipConfig(text_config=text, vision_config={**shape, "image_size": 32, "patch_size": 8})
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model = SiglipModel(config).eval()
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.normal_(std=weight[0].numel() ** -0.5)
        model.logit_scale.fill_(0.7)
        model.logit_bias.fill_(-0.4)
    model.save_pretrained(folder)
    _write_word_tokenizer(folder)
    processor = {"image_processor_type": "SiglipImageProcessor", "size": {"height": 32, "width": 32}}
    processor |= {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "resample": 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder


def _write_word_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: at for at, word in enumerate(("<pad>", "</s>", *WORDS))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    ending = {"single": "$A </s>", "special_tokens": [("</s>", 1)]}
    tokenizer.post_processor = processors.TemplateProcessing(**ending)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<pad>"
    ).save_pretrained(folder)


def write_svr(
    folder: Path, vectors: np.ndarray, weights: np.ndarray, low: np.ndarray, high: np.ndarray
) -> tuple[Path, Path]:
    """LIBSVM's files of an SVR of gamma 0.05 and rho -30, ``allmodel`` and ``allrange``; zeros left out."""
    folder.mkdir(parents=True, exist_ok=True)
    head = ["svm_type epsilon_svr", "kernel_type rbf", "gamma 0.05", "nr_class 2"]
    lines = [*head, f"total_sv {len(vectors)}", "rho -30", "SV"]
    for weight, vector in zip(weights, vectors, strict=True):
        entries = [f"{at}:{value:.10g}" for at, value in enumerate(vector, 1) if value]
        lines.append(" ".join([f"{weight:.10g}", *entries]))
    (folder / "allmodel").write_text("\n".join(lines) + "\n")
    bounds = [f"{at} {a:.10g} {b:.10g}" for at, (a, b) in enumerate(zip(low, high, strict=True), 1)]
    (folder / "allrange").write_text("\n".join(["x", "-1 1", *bounds]) + "\n")
    return folder / "allmodel", folder / "allrange"


def random_svr(folder: Path, seed: int = 0, size: int = 5) -> tuple[Path, Path]:
    draw = np.random.default_rng(seed)
    vectors = np.round(draw.uniform(-1, 1, (size, FEATURES)), 4)
    vectors[draw.random(vectors.shape) < 0.2] = 0
    low = np.round(draw.uniform(-0.2, 0.2, FEATURES), 4)
    return write_svr(folder, vectors, np.round(draw.normal(0, 40, size), 4), low, low + 1.5)
