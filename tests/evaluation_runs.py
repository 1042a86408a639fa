"""What evaluations of tiny random models need: pipelines, adapters, prompts, a CLIP model, a judge."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import torch

from sur_core import save_adapter
from sur_core.evaluation import EvalPrompt, Evaluation, EvaluationSettings, Verdict, evaluate, open_pipeline
from tests.helpers import random_adapter
from tests.small_data import tiny_model
from tests.tiny_models import write_clip_tokenizer

WIDTHS = {"sd1": {"clip_l": 32}, "sd2": {"clip_h": 48}, "sdxl": {"clip_l": 32, "clip_g": 64}}
PROMPTS = (
    EvalPrompt("c1", "Color", "a red cat near a blue dog", "red cat, blue dog, detailed", {"channel": 0}),
    EvalPrompt("c2", "Color", "a green horse", "green horse, photo", {"channel": 1}),
    EvalPrompt("n1", "Counting", "two birds and three apples", "two birds, three apples", {"channel": 2}),
)
FAST = {"seeds": (3, 5), "steps": 2, "guidance_scale": 5.0, "batch_size": 4, "resamples": 200}
_FILES = tempfile.TemporaryDirectory(prefix="evaluation-")


class ChannelJudge:
    """Right if the colour channel that the truth names is not the weakest of a picture."""

    name = "channel"

    def mark(self, pixels: np.ndarray, prompt: EvalPrompt) -> Verdict:
        means = pixels.reshape(-1, 3).mean(0)
        weakest = int(means.argmin())
        return Verdict(weakest != prompt.truth["channel"], f"weakest is {weakest}", {"means": means.tolist()})


def make_judge() -> ChannelJudge:
    return ChannelJudge()


def make_nothing() -> str:
    return "no judge"


@cache
def pipeline(family: str = "sd1"):
    """A tiny pipeline, opened once; evaluations leave it as it was."""
    return open_pipeline(tiny_model(family), device="cpu")


@cache
def adapter_file(family: str = "sd1", seed: int = 0) -> Path:
    path = Path(_FILES.name) / f"{family}-{seed}.safetensors"
    save_adapter(random_adapter(WIDTHS[family], seed=seed, depth=1, heads=2, feedforward=16), path)
    return path


@cache
def clip_folder() -> Path:
    """A CLIPModel of random weights with tokenizer and image processor."""
    from transformers import CLIPConfig, CLIPModel

    from tests.tiny_models import BOS, EOS, clip_vocabulary

    folder, tokens = Path(_FILES.name) / "clip", clip_vocabulary()[0]
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    special = {"bos_token_id": tokens[BOS], "eos_token_id": tokens[EOS], "pad_token_id": tokens[EOS]}
    config = CLIPConfig(
        text_config={**shape, **special, "vocab_size": len(tokens), "max_position_embeddings": 77},
        vision_config={**shape, "image_size": 32, "patch_size": 8},
        projection_dim=12,
        logit_scale_init_value=2.0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = CLIPModel(config).eval()
        for weight in model.parameters():
            if weight.dim() > 1:  # its own small start would make all pictures alike
                torch.nn.init.normal_(weight, std=weight[0].numel() ** -0.5)
        model.save_pretrained(folder)
    write_clip_tokenizer(folder)
    image_processor().save_pretrained(folder)
    return folder


def image_processor():
    import transformers

    kind = getattr(transformers, "CLIPImageProcessorPil", None) or transformers.CLIPImageProcessor
    return kind(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})


def run(folder, arms, family: str = "sd1", prompts=PROMPTS, **options) -> Evaluation:
    """An evaluation with few steps; settings and arguments of ``evaluate`` by name."""
    fields = EvaluationSettings.__dataclass_fields__
    settings = FAST | {name: value for name, value in options.items() if name in fields}
    others = {name: value for name, value in options.items() if name not in fields}
    model = others.pop("model", None) or pipeline(family)
    return evaluate(EvaluationSettings(folder, **settings), model, prompts, arms, **others)


def pixels_of(found: Evaluation, arm: str) -> list[np.ndarray]:
    from sur_core.evaluation.drawing import read_picture

    return [read_picture(found.file(picture)) for picture in found.of(arm)]


def by_prompt(found, arm: str) -> dict:
    return {(p.prompt_id, p.seed): x for p, x in zip(found.of(arm), pixels_of(found, arm), strict=True)}


def equal(left: dict, right: dict) -> bool:
    return left.keys() == right.keys() and all(np.array_equal(left[key], right[key]) for key in left)
