"""The cards beside the tiny models: what they are, how they were made, what they are not."""

from __future__ import annotations

from sur_core.atomic import atomic_write

from ..places import Models
from . import clip, llm, unet, vae
from .captions import LABELS, SENTENCES

HEAD = """---
license: mit
tags: [sur-adapter, surd-shapes, toy]
---
# {title}

{text}

Made by `python -m train world --rebuild` from seeds; nothing was downloaded. Another run gives models that
are alike, not the same: rounding differs with the number of cores, and on a GPU. It belongs to SURD-Shapes,
the small world of this project, knows nothing outside it and is of no use for real pictures.

| | |
|---|---|
{rows}
"""


def write_cards(models: Models) -> None:
    """Write a README.md into each model's folder."""
    lessons = [f"{_plan(lesson.plan)}, {_scenes(lesson.scenes)}" for lesson in unet.LESSONS]
    _card(
        models.base,
        "SURD-Shapes base: a tiny Stable Diffusion",
        "A StableDiffusionPipeline for 64 x 64 pictures. Its UNet was raised on complex prompts only (lists "
        "of keywords), so that narrative sentences reach it as strangers: the problem the "
        "SUR-adapter is about. It has seen every combination, those of the test prompts too.",
        {
            "VAE": f"factor 8, 4 channels, {_plan(vae.PLAN)}, {_scenes(vae.POOL)}; then its "
            f"decoder alone, {_plan(vae.DECODER_PLAN)}, on latents with a little noise",
            "text encoder": "the text tower of the CLIP beside it",
            "UNet": f"v-prediction, {unet.UNPROMPTED:.0%} without a prompt; {'; then '.join(lessons)}",
        },
    )
    _card(
        models.clip,
        "SURD-Shapes CLIP",
        "A CLIPModel trained contrastively on scenes with captions of both kinds and with every word of the "
        "world, as CLIP has seen the whole web. Like that web it has mostly keywords and labels and seldom a "
        "sentence (of any form and about any combination, those of the test prompts too), so that it knows "
        "words better than what sentences mean.",
        {
            "training": _plan(clip.PLAN),
            "captions": f"{SENTENCES:.0%} sentences, {LABELS:.0%} labels, the rest lists of keywords",
            "pictures": f"64 x 64, {_scenes(vae.POOL)}",
        },
    )
    _card(
        models.llm,
        "SURD-Shapes language model",
        "A LlamaForCausalLM trained on text only: facts about words (what crimson is, how many a trio is, "
        "what color a banana has) and sentences with what they come to. It has never seen a picture. Its "
        "sentences have every form and tell of every combination, those of the test prompts too: these are "
        "kept from the triplets that an adapter is trained on, not from the models behind it.",
        {"training": f"{_plan(llm.PLAN)}, {llm.LINES} lines each"},
    )


def _plan(plan) -> str:
    rate = f"peak learning rate {plan.learning_rate}"
    return f"{plan.steps} steps of {plan.batch_size}, {rate}, seed {plan.seed}"


def _scenes(pool) -> str:
    shares = ", ".join(f"{type} {share}" for type, share in pool.shares.items())
    return f"{pool.count} rendered scenes ({shares} in {sum(pool.shares.values())})"


def _card(folder, title: str, text: str, rows: dict[str, str]) -> None:
    table = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    with atomic_write(folder / "README.md") as file:
        file.write(HEAD.format(title=title, text=text, rows=table).encode())
