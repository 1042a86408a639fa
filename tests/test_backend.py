"""The frozen base model: what diffusers computes, nothing that trains, only what is needed in memory."""

import gc
import shutil
import weakref
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from sur_core.backend import PARTS, Backend
from sur_core.diffusers_backend import open_backend
from sur_core.model_files import ModelFileError
from tests.backend_calls import FAMILIES, PROMPTS, call, drawn, make_families, networks, refusal
from tests.tiny_models import write_single_file


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    return make_families(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module", params=FAMILIES)
def folder(request, folders) -> Path:
    return folders[request.param]


def pipeline(folder):
    from diffusers import DiffusionPipeline

    found = DiffusionPipeline.from_pretrained(folder, local_files_only=True)
    found.set_progress_bar_config(disable=True)
    return found


# --- the same numbers as diffusers ---


@pytest.mark.parametrize("clip_skip", [1, 2])
def test_text_is_what_the_pipeline_encodes(folder, clip_skip):
    if clip_skip > 1 and folder.name == "sdxl":
        assert "expected 1 or more, and 1 for SDXL" in refusal(folder, clip_skip=2)
        return
    backend = open_backend(folder, clip_skip=clip_skip)
    encoded = backend.encode_text(PROMPTS)
    oracle = pipeline(folder)
    if not hasattr(oracle.text_encoder, "text_model"):  # where its clip skip still looks for the final norm
        object.__setattr__(oracle.text_encoder, "text_model", oracle.text_encoder)
    # Diffusers counts skipped layers, AUTOMATIC1111 the layer taken.
    options = {"clip_skip": clip_skip - 1 or None, "num_images_per_prompt": 1, "device": "cpu"}
    with torch.no_grad():
        expected = oracle.encode_prompt(PROMPTS, do_classifier_free_guidance=False, **options)
    torch.testing.assert_close(torch.cat(list(encoded.hidden.values()), -1), expected[0], rtol=0, atol=1e-6)
    assert {name: value.shape[-1] for name, value in encoded.hidden.items()} == backend.widths
    if folder.name == "sdxl":
        torch.testing.assert_close(encoded.pooled, expected[2], rtol=0, atol=1e-6)
    else:
        assert encoded.pooled is None


def test_the_mask_ends_with_the_first_end_token_whatever_pads(folder):
    mask = open_backend(folder).encode_text(PROMPTS).mask
    assert mask.dtype == torch.bool and mask.shape == (3, 77)
    assert mask.sum(-1).tolist() == [8, 77, 2], "start, six words, end; truncated; start, end"
    assert mask[0, :8].all()


def test_the_posterior_is_the_vae_s_own_scaled(folder):
    backend, vae = open_backend(folder), pipeline(folder).vae
    pixels = drawn(2, 3, 64, 32).clamp(-1, 1)
    found = backend.encode_image(pixels)
    with torch.no_grad():
        expected = vae.encode(pixels).latent_dist
    scale = vae.config.scaling_factor
    torch.testing.assert_close(found.mean, expected.mean * scale)
    torch.testing.assert_close(found.std, expected.std * scale)
    assert found.mean.shape == (
        2,
        backend.latent_channels,
        64 // backend.vae_factor,
        32 // backend.vae_factor,
    )
    with torch.no_grad():
        decoded = vae.decode(expected.mean).sample.clamp(-1, 1)
    torch.testing.assert_close(backend.decode_latents(found.mean), decoded)


def test_the_noise_schedule_is_the_scheduler_s(folder):
    backend, scheduler = open_backend(folder), pipeline(folder).scheduler
    torch.testing.assert_close(backend.alphas_cumprod, scheduler.alphas_cumprod)
    assert backend.prediction_type == scheduler.config.prediction_type
    assert backend.default_resolution == 64


def test_images_are_the_pipeline_s_own_with_ddim(folder):
    from diffusers import DDIMScheduler

    backend, oracle = open_backend(folder), pipeline(folder)
    oracle.scheduler = DDIMScheduler.from_config(oracle.scheduler.config)
    ours = sampled(backend, seeds=[7])[0]
    options = {"negative_prompt": PROMPTS[2], "num_inference_steps": 3, "guidance_scale": 4.0}
    if folder.name == "sdxl":
        oracle.register_to_config(force_zeros_for_empty_prompt=False)
    generator = torch.Generator().manual_seed(7)
    theirs = oracle(PROMPTS[0], height=64, width=64, generator=generator, **options).images[0]
    difference = max(abs(a - b) for a, b in zip(ours.tobytes(), theirs.tobytes(), strict=True))
    assert difference <= 1


def sampled(backend, seeds, rows=(0, 0)) -> list:
    encoded = backend.encode_text(PROMPTS)
    hidden = torch.cat(list(encoded.hidden.values()), dim=-1)
    pooled = [None, None] if encoded.pooled is None else [encoded.pooled[[row]] for row in (rows[0], 2)]
    options = {"steps": 3, "guidance_scale": 4.0, "resolution": 64}
    return backend.sample_images(hidden[[rows[0]]], hidden[[2]], *pooled, seeds=list(seeds), **options)


def test_an_image_depends_on_its_seed_and_text_alone(folder):
    backend = open_backend(folder)
    alone, again = sampled(backend, [3])[0], sampled(backend, [5, 3])
    assert alone.tobytes() == again[1].tobytes() != again[0].tobytes()
    assert sampled(backend, [3], rows=(1, 1))[0].tobytes() != alone.tobytes()


# --- frozen ---


def test_the_gradient_reaches_the_text_and_no_weight(folder):
    backend = open_backend(folder)
    arguments = call(backend)
    backend.predict_noise(**arguments).square().mean().backward()
    assert arguments["hidden"].grad.abs().amax((1, 2)).min() > 0
    backend.load()
    modules = networks(backend)
    assert len(modules) == (4 if folder.name == "sdxl" else 3)
    assert not any(module.training for network in modules for module in network.modules())
    weights = [weight for network in modules for weight in network.parameters()]
    assert not any(weight.requires_grad or weight.grad is not None for weight in weights)


@pytest.mark.parametrize("when", ["before", "after"])
def test_gradient_checkpointing_changes_no_gradient(folders, when):
    gradients, saved = [], []
    for checkpointing in (False, True):
        backend = open_backend(folders["sd1"])
        if when == "after":
            backend.load("unet")
        if checkpointing:
            backend.enable_gradient_checkpointing()
        arguments, count = call(backend), []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda x, c=count: (c.append(x.numel()), x)[1], lambda x: x
        ):
            output = backend.predict_noise(**arguments)
        output.square().mean().backward()
        gradients.append(arguments["hidden"].grad)
        saved.append(sum(count))
    torch.testing.assert_close(*gradients)
    assert saved[1] < saved[0] / 2, "nothing was recomputed"


def test_a_sample_s_prediction_does_not_depend_on_its_batch(folder):
    backend = open_backend(folder)
    arguments = call(backend)
    together = backend.predict_noise(**arguments)
    for index in range(2):
        alone = backend.predict_noise(**{name: value[[index]] for name, value in arguments.items()})
        torch.testing.assert_close(alone[0], together[index], rtol=1e-4, atol=1e-5)
    encoded = backend.encode_text(PROMPTS)
    for index, prompt in enumerate(PROMPTS):
        for tower, hidden in backend.encode_text([prompt]).hidden.items():
            torch.testing.assert_close(hidden[0], encoded.hidden[tower][index], rtol=1e-4, atol=1e-5)


def test_the_text_matters_to_the_unet(folder):
    backend = open_backend(folder)
    arguments = call(backend)
    moved = {**arguments, "hidden": arguments["hidden"].flip(0)}
    difference = backend.predict_noise(**moved) - backend.predict_noise(**arguments)
    assert difference.std() > 0.05 and difference.isfinite().all()


def test_global_random_numbers_are_left_alone(folder):
    torch.manual_seed(5)
    state = torch.get_rng_state()
    backend = open_backend(folder)
    backend.load()
    backend.predict_noise(**call(backend))
    backend.encode_image(torch.zeros(1, 3, 32, 32))
    sampled(backend, [1])
    backend.parameter_count("unet")
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_half_precision_answers_in_float32_close_to_full(folder, dtype):
    exact, half = open_backend(folder), open_backend(folder, dtype=dtype, vae_dtype=dtype)
    expected, found = exact.predict_noise(**call(exact)), half.predict_noise(**call(half))
    assert found.dtype == torch.float32
    assert (found - expected).std() < 0.1 * expected.std()
    pixels = drawn(1, 3, 32, 32).clamp(-1, 1)
    latents = half.encode_image(pixels).mean
    assert latents.dtype == torch.float32
    torch.testing.assert_close(latents, exact.encode_image(pixels).mean, rtol=0, atol=0.02)


# --- parts ---


def test_parts_load_when_used_and_leave_when_released(folder):
    backend = open_backend(folder)
    assert isinstance(backend, Backend)
    assert not any(map(backend.loaded, PARTS))
    backend.encode_text(["a cat"])
    assert [part for part in PARTS if backend.loaded(part)] == ["text"]
    backend.encode_image(torch.zeros(1, 3, 32, 32))
    backend.predict_noise(**call(backend))
    modules = [weakref.ref(module) for part in PARTS for module in backend._part(part).values()]
    assert len(modules) > 3 and all(module() is not None for module in modules)
    backend.release("text", "vae")
    assert [part for part in PARTS if backend.loaded(part)] == ["unet"]
    backend.release()
    gc.collect()
    assert not any(module() is not None for module in modules)
    assert backend.encode_text(["a cat"]).mask.any(), "a released part comes back"
    with pytest.raises(ValueError, match="txet"):
        backend.load("txet")


@pytest.mark.parametrize("one_file", [False, True])
def test_the_text_needs_no_other_weights(folders, tmp_path, one_file):
    """They are broken here, so reading them would fail."""
    source = folders["sd1"]
    if one_file:
        path = write_single_file(source, tmp_path / "x.safetensors")
        tensors = load_file(path)
        kept = [key for key in tensors if not key.startswith("model.diffusion_model.middle_block")]
        save_file({key: tensors[key] for key in kept}, path)
        backend = open_backend(path, single_file_config=str(source))
    else:
        copied = Path(shutil.copytree(source, tmp_path / "model"))
        (copied / "unet/diffusion_pytorch_model.safetensors").write_bytes(b"broken")
        backend = open_backend(copied)
    assert backend.encode_text(["a cat"]).hidden["clip_l"].isfinite().all()
    backend.encode_image(torch.zeros(1, 3, 32, 32))
    with pytest.raises(ModelFileError, match="unet"):
        backend.load("unet")


def test_what_is_said_without_weights_is_true(folder):
    backend = open_backend(folder)
    counts = {part: backend.parameter_count(part) for part in PARTS}
    unet = backend.unet_on_meta()
    assert {weight.device.type for weight in unet.parameters()} == {"meta"}
    assert unet(**backend.meta_inputs(3, 128))[0].shape == (3, 4, 16, 16)
    assert not any(map(backend.loaded, PARTS))
    for part in PARTS:
        weights = [weight for network in networks(backend, [part]) for weight in network.parameters()]
        assert counts[part] == sum(weight.numel() for weight in weights)
    words = {"sd1": "SD 1.x", "sd2": "SD 2.x", "sdxl": "SDXL"}[folder.name]
    assert words in backend.describe() and backend.family == folder.name


# --- refusals ---


@pytest.mark.parametrize(
    "options", [{"dtype": "float32"}, {"vae_dtype": "half"}, {"family": "sd3"}, {"prediction_type": "sample"}]
)
def test_impossible_options_are_refused(folders, options):
    with pytest.raises(ValueError, match=next(iter(options.values()))):
        open_backend(folders["sd1"], **options)


def test_impossible_inputs_are_refused(folders):
    backend = open_backend(folders["sdxl"])
    with pytest.raises(ValueError, match="pooled"):
        backend.predict_noise(**call(backend, pooled=None))
    with pytest.raises(ValueError, match="expected 96"):
        backend.predict_noise(**call(backend, hidden=torch.zeros(2, 77, 32)))
    with pytest.raises(ValueError, match="multiples of 8"):
        backend.encode_image(torch.zeros(1, 3, 60, 64))
    with pytest.raises(ValueError, match="list"):
        backend.encode_text("a cat")
    with pytest.raises(ValueError, match="steps|seeds"):
        backend.sample_images(
            torch.zeros(2, 77, 96),
            torch.zeros(1, 77, 96),
            torch.zeros(1, 64),
            torch.zeros(1, 64),
            seeds=[1, 2, 3],
            steps=1,
            guidance_scale=1.0,
            resolution=64,
        )
