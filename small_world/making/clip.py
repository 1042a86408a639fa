"""The tiny CLIP: a text tower and a picture tower, trained to agree on which caption fits which picture."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch
from torch.nn.functional import log_softmax

from sur_core.atomic import atomic_write

from ..dice import Dice
from ..scenes import canonical
from .captions import caption, sample_captions
from .kept import digest
from .loop import Plan, raise_model
from .pictures import Pool, as_images
from .tokenizers import write_clip_tokenizer
from .vae import POOL

PLAN = Plan(steps=1500, batch_size=192, learning_rate=1.5e-3, weight_decay=0.05, seed=2, bf16=True)
TOKENS = 1000
WIDTH = 64


def raise_clip(
    folder: Path,
    report: Callable[[str, int, int], None],
    device: torch.device,
    plan: Plan = PLAN,
    scenes: Pool = POOL,
):
    """(model, tokenizer) of a trained CLIPModel."""
    from transformers import CLIPTokenizer

    where = folder / "clip-tokenizer"
    if not (where / "tokenizer_config.json").is_file():  # the last file to be written
        write_clip_tokenizer(where, sample_captions(20_000, plan.seed), TOKENS)
    tokenizer = CLIPTokenizer.from_pretrained(where)
    model = new_clip(tokenizer).to(device)
    model.set_attn_implementation("eager")  # for so few tokens and features twice as fast on a CPU
    pool = scenes.pictures(folder, report)
    meanings = [scenes.scene(index).meaning for index in range(scenes.count)]

    def loss_of(step: int, random: torch.Generator) -> torch.Tensor:
        rows = torch.randint(len(pool), (plan.batch_size,), generator=random).sort().values.tolist()
        texts = [
            caption(meanings[row], Dice("clip", plan.seed, step, place)) for place, row in enumerate(rows)
        ]
        words = tokenizer(texts, padding=True, return_tensors="pt").to(device)
        images = as_images(pool[rows], device)
        logits = model(**words, pixel_values=images).logits_per_image.float()
        return _agreement(logits, [meanings[row] for row in rows])

    read = list(sample_captions(64, plan.seed))
    source = digest(scenes.name(), read, tokenizer(read).input_ids)
    raise_model("CLIP", model, loss_of, plan, folder / "clip.pt", report, device, source)
    return model, tokenizer


def new_clip(tokenizer):
    from transformers import CLIPConfig, CLIPModel

    special = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": WIDTH,
        "intermediate_size": 4 * WIDTH,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "max_position_embeddings": 77,
        "projection_dim": 48,
        **special,
    }
    vision = {
        "hidden_size": 64,
        "intermediate_size": 256,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "image_size": 64,
        "patch_size": 8,
        "projection_dim": 48,
    }
    torch.manual_seed(PLAN.seed)
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=48))


def _agreement(logits: torch.Tensor, meanings: list) -> torch.Tensor:
    """CLIP's loss, [B, B] logits; captions that mean the same share the right answer."""
    meanings = [canonical(meaning) for meaning in meanings]
    numbers = {meaning: index for index, meaning in enumerate(dict.fromkeys(meanings))}
    labels = torch.tensor([numbers[meaning] for meaning in meanings], device=logits.device)
    target = (labels[:, None] == labels[None, :]).float()
    target = target / target.sum(dim=1, keepdim=True)
    both = log_softmax(logits, dim=1) + log_softmax(logits.T, dim=1)
    return -(target * both).sum(dim=1).mean() / 2


def write_image_processor(folder: Path) -> None:
    """What a picture goes through before the picture tower: 64 x 64, -1..1."""
    settings = {
        "image_processor_type": "CLIPImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": 64},
        "resample": 3,
        "do_center_crop": True,
        "crop_size": {"height": 64, "width": 64},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "do_convert_rgb": True,
    }
    with atomic_write(folder / "preprocessor_config.json") as file:
        file.write(json.dumps(settings, indent=2).encode())
