"""The small world's models in the repository: small, in standard form, and able to do their work."""

from __future__ import annotations

import numpy as np
import torch

from small_world.dice import Dice
from small_world.judge import make_judge
from small_world.making import llm
from small_world.making.captions import caption
from small_world.places import PROMPT_SETS, Models
from small_world.render import render
from small_world.scenes import TYPES, meanings, place, to_truth
from sur_core.evaluation import (
    Arm,
    EvalPrompt,
    EvaluationSettings,
    ImageTextModel,
    cosines,
    evaluate,
    load_prompts,
    open_pipeline,
)
from tests.small_world_scenes import some_scenes

CPU = torch.device("cpu")


def test_the_models_are_small_half_precision_and_have_cards():
    from safetensors import safe_open

    files = sorted(Models().root.rglob("*.safetensors"))
    assert sum(path.stat().st_size for path in files) <= 12e6
    for path in files:
        with safe_open(path, framework="pt") as file:
            kinds = {file.get_slice(key).get_dtype() for key in file.keys()}  # noqa: SIM118
        assert kinds <= {"F16", "I64"}, path
    for folder in (Models().base, Models().clip, Models().llm):
        assert (folder / "README.md").read_text().startswith("---\nlicense: mit")


def test_the_language_model_knows_the_worlds_facts():
    from transformers import AutoTokenizer, LlamaForCausalLM

    model = LlamaForCausalLM.from_pretrained(Models().llm).float().eval()
    assert llm.facts_known(model, AutoTokenizer.from_pretrained(Models().llm)) >= 0.95


def test_what_the_vae_gives_back_is_judged_right():
    from small_world.making.pictures import as_images

    model, judge, right = open_pipeline(Models().base, device="cpu").vae, make_judge(), []
    scenes = [scene for kind in TYPES for scene in some_scenes(kind, 60, "vae")]
    with torch.no_grad():
        for start in range(0, len(scenes), 30):
            part = scenes[start : start + 30]
            images = as_images(np.stack([render(scene) for scene in part]), CPU)
            decoded = model.decode(model.encode(images).latent_dist.mean).sample
            found = ((decoded / 2 + 0.5).clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy()
            for scene, pixels in zip(part, found, strict=True):
                truth = EvalPrompt("x", scene.meaning.type, "x", truth=to_truth(scene.meaning))
                right.append(judge.mark(pixels, truth).right)
    assert np.mean(right) >= 0.99


def test_clip_finds_the_right_caption_among_a_hundred():
    everything = [meaning for kind in TYPES for meaning in meanings(kind)]
    chosen = Dice("clip test").shuffled(everything)[:100]
    model = ImageTextModel(Models().clip)
    images = model.image_features(
        [render(place(meaning, Dice("clip test", number))) for number, meaning in enumerate(chosen)]
    )
    texts = model.text_features(
        [caption(meaning, Dice("clip caption", number)) for number, meaning in enumerate(chosen)]
    )
    table = np.stack([cosines(images, text.expand(100, -1)) for text in texts], axis=1)
    assert (table.argmax(1) == np.arange(100)).mean() >= 0.9


def test_the_base_draws_what_complex_prompts_say_and_plain_ones_far_less(tmp_path):
    """One picture of each of the paper's prompts; the benchmark has the figures, with their spread."""
    prompts = load_prompts(PROMPT_SETS["paper"])
    settings = EvaluationSettings(tmp_path, seeds=(0,), steps=12, guidance_scale=2.0, batch_size=45)
    arms = [Arm("simple"), Arm("complex", text="complex")]
    found = evaluate(settings, Models().base, prompts, arms, judge=make_judge())
    assert found.accuracy("complex").share >= 0.8
    assert found.accuracy("simple").share <= 0.55
