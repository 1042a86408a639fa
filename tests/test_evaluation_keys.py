"""What decides a picture is in its key; what cannot be drawn is refused in words."""

import copy

import pytest
import torch

from sur_core import AdapterMismatchError
from sur_core.evaluation import Arm, EvalPrompt
from sur_core.evaluation.pipeline_identity import pipeline_fingerprint
from tests.evaluation_runs import PROMPTS, adapter_file, image_processor, pipeline, run
from tests.small_data import tiny_model


def paths(folder, arm=None, **options) -> list[str]:
    arm = arm or Arm("x", adapter=adapter_file(), eta=0.5, negative_prompt="a car")
    options = {"prompts": PROMPTS[:1], "seeds": (3,), **options}
    return [picture.path for picture in run(folder, [arm], **options).pictures]


def changed_model(part: str):
    model = copy.copy(pipeline("sd1"))
    model.register_modules(**{part: copy.deepcopy(getattr(model, part))})
    return model, getattr(model, part)


def test_the_key_knows_everything_that_decides_a_picture(tmp_path):
    adapter, base = adapter_file(), paths(tmp_path)
    unet_changed, unet = changed_model("unet")
    with torch.no_grad():
        next(unet.parameters()).flatten()[0] += 1e-3
    changes = {
        "steps": {"steps": 3},
        "guidance": {"guidance_scale": 4.0},
        "scheduler": {"scheduler": "ddim"},
        "size": {"width": 72},
        "clip skip": {"clip_skip": 2},
        "text": {"prompts": PROMPTS[1:2]},
        "weights": {"model": unet_changed},
        "eta": {"arm": Arm("x", adapter=adapter, eta=0.4, negative_prompt="a car")},
        "adapter": {"arm": Arm("x", adapter=adapter_file(seed=1), eta=0.5, negative_prompt="a car")},
        "negative": {"arm": Arm("x", adapter=adapter, eta=0.5)},
        "to negative": {"arm": Arm("x", adapter=adapter, eta=0.5, negative_prompt="a car", to_negative=True)},
        "seed": {"seeds": (4,)},
    }
    # Of another batch size a picture differs by rounding at most, often not at all.
    assert paths(tmp_path, batch_size=2) != base
    found = {name: paths(tmp_path, **change)[0] for name, change in changes.items()}
    assert len(set(found.values()) | set(base)) == len(changes) + 1, found
    files = {path: (tmp_path / path).read_bytes() for path in [*base, *found.values()]}
    assert len(set(files.values())) == len(files), "each of these changes the picture too"


def test_the_key_knows_nothing_else(tmp_path):
    moved = tmp_path / "moved.safetensors"
    moved.write_bytes(adapter_file().read_bytes())
    arm = Arm("another name", adapter=moved, eta=0.5, negative_prompt="a car")
    prompt = EvalPrompt("other", "Other", PROMPTS[0].prompt, "x", 5)
    assert paths(tmp_path / "b", arm, prompts=[prompt]) == paths(tmp_path / "a")


def test_a_models_fingerprint_is_of_its_content_not_its_place(tmp_path):
    import shutil

    from sur_core.evaluation import open_pipeline

    copied = shutil.copytree(tiny_model("sd1"), tmp_path / "copy")
    assert pipeline_fingerprint(open_pipeline(copied)) == pipeline_fingerprint(pipeline("sd1"))
    assert pipeline_fingerprint(open_pipeline(copied, dtype="bf16")) != pipeline_fingerprint(pipeline("sd1"))
    for part in ("unet", "vae", "text_encoder"):
        model, module = changed_model(part)
        before = pipeline_fingerprint(model)
        with torch.no_grad():
            list(module.parameters())[-1].flatten()[0] += 1e-3
        assert pipeline_fingerprint(model) != before, part


# --- what cannot be drawn ---


@pytest.mark.parametrize(
    ("adapter", "model"), [("sd2", "sd1"), ("sdxl", "sd1"), ("sdxl", "sd2"), ("sd1", "sdxl")]
)
@pytest.mark.parametrize("eta", [0.0, 0.5])
def test_an_adapter_for_another_model_is_refused_before_drawing(adapter, model, eta, tmp_path):
    arms = [Arm("base"), Arm("SUR", adapter=adapter_file(adapter), eta=eta)]
    with pytest.raises(AdapterMismatchError, match=str(adapter_file(adapter))):
        run(tmp_path, arms, model)
    assert not list(tmp_path.rglob("*.png"))


def test_a_missing_adapter_is_named_before_drawing(tmp_path):
    with pytest.raises(FileNotFoundError, match="gone.safetensors"):
        run(tmp_path, [Arm("base"), Arm("SUR", adapter=tmp_path / "gone.safetensors", eta=0.5)])
    assert not list(tmp_path.rglob("*.png"))


def test_a_model_that_draws_nan_is_not_judged(tmp_path):
    model, vae = changed_model("vae")
    with torch.no_grad():
        vae.decoder.conv_out.bias.fill_(float("nan"))
    with pytest.raises(ValueError, match="NaN"):
        run(tmp_path, [Arm("base")], model=model)
    assert not list(tmp_path.rglob("*.png"))


def test_what_a_safety_checker_blacks_out_is_not_judged(tmp_path):
    from diffusers import StableDiffusionPipeline

    class Flags(torch.nn.Module):
        device, dtype = torch.device("cpu"), torch.float32

        def forward(self, clip_input, images):
            return images, [True] * len(images)

    parts = {name: part for name, part in pipeline("sd1").components.items() if part is not None}
    checked = StableDiffusionPipeline(
        **{**parts, "safety_checker": Flags(), "feature_extractor": image_processor()}
    )
    with pytest.raises(ValueError, match="safety_checker=None"):
        run(tmp_path, [Arm("base")], model=checked)


def test_a_pipeline_that_takes_no_embeddings_is_refused(tmp_path):
    from diffusers import DDPMPipeline

    model = DDPMPipeline(pipeline("sd1").unet, pipeline("sd1").scheduler)
    with pytest.raises(ValueError, match="DDPMPipeline takes no prompt_embeds"):
        run(tmp_path, [Arm("base")], model=model)


def test_clip_skip_beyond_the_text_encoder_is_refused(tmp_path):
    with pytest.raises(ValueError, match="clip_skip 9"):
        run(tmp_path, [Arm("base")], clip_skip=9)
    with pytest.raises(ValueError, match="clip_skip 2"):
        run(tmp_path, [Arm("base")], "sdxl", clip_skip=2)


def test_prompts_that_clip_cuts_are_told(tmp_path):
    long = EvalPrompt("long", "Color", "a red cat " * 40)
    found = run(tmp_path, [Arm("base")], prompts=[long, PROMPTS[0]])
    assert len(found.remarks) == 1 and "1 prompts" in found.remarks[0] and "a red cat" in found.remarks[0]
    assert "a red cat a red cat" in (tmp_path / "tables.md").read_text()
