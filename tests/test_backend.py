"""The frozen base model: what diffusers computes, nothing that trains, only what is needed in memory."""

import gc
import json
import os
import shutil
import weakref
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from sur_core.backend import PARTS, Backend
from sur_core.diffusers_backend import open_backend
from sur_core.model_files import ModelFileError
from tests.tiny_models import make_tiny, write_single_file

FAMILIES = ("sd1", "sd2", "sdxl")
PROMPTS = ["a red cat on a ball", "two blue birds, détaillé " + "near the house " * 40, ""]


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    kinds = {"sd1": "epsilon", "sd2": "v_prediction", "sdxl": "epsilon"}
    return {family: make_tiny(root / family, family, prediction_type=kinds[family]) for family in FAMILIES}


@pytest.fixture(scope="module", params=FAMILIES)
def folder(request, folders) -> Path:
    return folders[request.param]


@pytest.fixture
def copy(folders, tmp_path) -> Path:
    """An SD 1.x folder that a test may spoil."""
    return Path(shutil.copytree(folders["sd1"], tmp_path / "model"))


def drawn(*shape, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def refusal(model, **options) -> str:
    """With which words a model is refused, at the latest when all of it is loaded; they name the model."""
    with pytest.raises((ValueError, OSError)) as caught:
        open_backend(model, **{"local_files_only": True, **options}).load()
    assert str(model) in str(caught.value)
    return str(caught.value)


def call(backend, batch: int = 2, **changes) -> dict:
    """Arguments of predict_noise; hidden asks for a gradient."""
    encoded = backend.encode_text(PROMPTS[:batch])
    arguments = {
        "noisy": drawn(batch, 4, 8, 8),
        "timesteps": torch.tensor([20, 800])[:batch],
        "hidden": torch.cat(list(encoded.hidden.values()), dim=-1).requires_grad_(),
    }
    if backend.family == "sdxl":
        arguments |= {"pooled": encoded.pooled, "time_ids": torch.tensor([[64, 64, 0, 0, 64, 64]] * batch)}
    return arguments | changes


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


def networks(backend, parts=PARTS) -> list[torch.nn.Module]:
    found = [module for part in parts for module in backend._part(part).values()]
    return [module for module in found if isinstance(module, torch.nn.Module)]


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


# --- fingerprints ---

CHANGES = {
    "text": ["text_encoder/model.safetensors", "text_encoder/config.json", "tokenizer/vocab.json"],
    "vae": ["vae/diffusion_pytorch_model.safetensors", "vae/config.json"],
    "unet": ["unet/diffusion_pytorch_model.safetensors", "unet/config.json"],
}


@pytest.mark.parametrize("part,changed", [(part, file) for part in PARTS for file in CHANGES[part]])
def test_a_fingerprint_changes_with_its_own_files_only(copy, part, changed):
    before = {name: open_backend(copy).fingerprint(name) for name in PARTS}
    assert len(set(before.values())) == 3
    with open(copy / changed, "ab") as file:
        file.write(b" ")
    after = {name: open_backend(copy).fingerprint(name) for name in PARTS}
    assert [name for name in PARTS if before[name] != after[name]] == [part]


def test_fingerprints_follow_content_not_place(folders, copy):
    here, there = open_backend(folders["sd1"]), open_backend(copy)
    assert all(here.fingerprint(part) == there.fingerprint(part) for part in PARTS)
    assert not any(map(here.loaded, PARTS))
    skipping = open_backend(copy, clip_skip=2)
    assert [skipping.fingerprint(part) == here.fingerprint(part) for part in PARTS] == [False, True, True]


# --- one-file checkpoints ---


@pytest.mark.parametrize("ending", ["safetensors", "ckpt"])
def test_a_one_file_checkpoint_is_the_same_model(folder, tmp_path, ending):
    path = write_single_file(folder, tmp_path / f"model.{ending}")
    ours, theirs = open_backend(path, single_file_config=str(folder)), open_backend(folder)
    assert ours.family == theirs.family and ours.prediction_type == theirs.prediction_type
    left, right = ours.encode_text(PROMPTS), theirs.encode_text(PROMPTS)
    assert all(torch.equal(left.hidden[tower], right.hidden[tower]) for tower in theirs.widths)
    assert left.pooled is right.pooled is None or torch.equal(left.pooled, right.pooled)
    pixels = drawn(1, 3, 32, 32)
    assert torch.equal(ours.encode_image(pixels).mean, theirs.encode_image(pixels).mean)
    assert torch.equal(ours.predict_noise(**call(ours)), theirs.predict_noise(**call(theirs)))
    fingerprints = {ours.fingerprint(part) for part in PARTS}
    assert len(fingerprints) == 3
    with open(path, "r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\xff")
    assert not fingerprints & {ours.fingerprint(part) for part in PARTS}


def test_the_names_old_public_models_use_are_understood(copy, folders, tmp_path):
    """SD 1.5 as published: a prefix and a table of positions in CLIP, other words for the VAE's attention."""
    clip, vae = copy / "text_encoder/model.safetensors", copy / "vae/diffusion_pytorch_model.safetensors"
    renamed = {
        f"text_model.{key.removeprefix('text_model.')}": value for key, value in load_file(clip).items()
    }
    positions = {"text_model.embeddings.position_ids": torch.arange(77)[None]}
    save_file(renamed | positions, clip, metadata={"format": "pt"})
    words = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    tensors = load_file(vae)
    for new, old in words.items():
        tensors = {key.replace(new, old): value for key, value in tensors.items()}
    assert any("proj_attn" in key for key in tensors)
    save_file(tensors, vae, metadata={"format": "pt"})
    path = write_single_file(folders["sd1"], tmp_path / "old.safetensors")
    more = {"cond_stage_model.transformer.text_model.embeddings.position_ids": torch.arange(77)[None]}
    save_file(load_file(path) | more | {"betas": torch.ones(3), "model_ema.decay": torch.ones(())}, path)
    expected, pixels = open_backend(folders["sd1"]), drawn(1, 3, 32, 32)
    for backend in (open_backend(copy), open_backend(path, single_file_config=str(copy))):
        assert torch.equal(*(b.encode_text(PROMPTS).hidden["clip_l"] for b in (backend, expected)))
        assert torch.equal(backend.encode_image(pixels).mean, expected.encode_image(pixels).mean)


@pytest.mark.parametrize(
    "keys,prediction,last", [((), "epsilon", 0.0047), (("v_pred", "ztsnr"), "v_prediction", 0)]
)
def test_a_file_can_say_what_it_predicts(folders, tmp_path, keys, prediction, last):
    path = write_single_file(folders["sdxl"], tmp_path / "x.safetensors")
    save_file(load_file(path) | {key: torch.zeros(0) for key in keys}, path)
    backend = open_backend(path, single_file_config=str(folders["sdxl"]))
    assert backend.prediction_type == prediction
    assert backend.alphas_cumprod[-1].item() == pytest.approx(last, abs=1e-4)


def test_half_precision_files_compute_in_the_type_asked_for(folders, tmp_path):
    path = write_single_file(folders["sd1"], tmp_path / "half.safetensors")
    save_file({key: value.half() for key, value in load_file(path).items()}, path)
    backend = open_backend(path, single_file_config=str(folders["sd1"]))
    expected = open_backend(folders["sd1"])
    found = backend.predict_noise(**call(backend))
    assert {weight.dtype for network in networks(backend) for weight in network.parameters()} == {
        torch.float32
    }
    torch.testing.assert_close(found, expected.predict_noise(**call(expected)), rtol=0, atol=0.05)


class RunsCode:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (self.marker,)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("name", ["evil.ckpt", "evil.safetensors", "unet/diffusion_pytorch_model.bin"])
def test_a_pickle_that_would_run_code_does_not(copy, name, zipped):
    marker = str(copy / "it_ran")
    path = copy / name
    if path.parent.name == "unet":
        (copy / "unet/diffusion_pytorch_model.safetensors").unlink()
    torch.save({"state_dict": {"a": RunsCode(marker)}}, path, _use_new_zipfile_serialization=zipped)
    model = copy if path.parent.name == "unet" else path
    message = refusal(model, single_file_config=str(copy))
    assert "weights_only" not in message, "torch's advice to switch its protection off"
    assert not os.path.exists(marker)
    torch.load(path.rename(copy / "as.pt"), weights_only=False)
    assert os.path.exists(marker), "the file was not dangerous to begin with"


# --- refusals ---


@pytest.mark.parametrize(
    "asked,found", [("sd1", "SDXL"), ("sdxl", "SD 1.x"), ("sd1", "SD 2.x"), ("sd2", "SD 1.x")]
)
def test_another_family_than_asked_for_is_refused(folders, asked, found):
    family = {"SDXL": "sdxl", "SD 1.x": "sd1", "SD 2.x": "sd2"}[found]
    message = refusal(folders[family], family=asked)
    assert f"{asked} asked for" in message and f"is {found}" in message
    assert open_backend(folders[family], family=family).family == family


@pytest.mark.parametrize("family,width", [("sd1", 768), ("sd2", 1024)])
def test_real_widths_tell_the_family(tmp_path, family, width):
    backend = open_backend(make_tiny(tmp_path, family, cross_attention_real=True))
    assert backend.family == family and list(backend.widths.values()) == [width]


@pytest.mark.parametrize(
    "name,words",
    [
        ("nowhere/at/all", "no such file or folder"),
        ("./nowhere", "no such file or folder"),
        ("gone.safetensors", "no such file or folder"),
        ("somebody/some-model", "offline"),
        ("some body/mod:el", "possible hub id"),
    ],
)
def test_a_model_that_is_not_there(name, words):
    assert words in refusal(name)


def test_a_folder_that_is_no_model(tmp_path):
    assert "not an SD 1.x, SD 2.x or SDXL model" in refusal(tmp_path)


def edit(path: Path, **changes) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_other_kinds_of_models_are_refused(copy, folders, tmp_path):
    assert "inpainting" in refusal(make_tiny(tmp_path / "inpaint", in_channels=9))
    refiner = Path(shutil.copytree(folders["sdxl"], tmp_path / "refiner"))
    shutil.rmtree(refiner / "text_encoder")
    assert "refiner" in refusal(refiner)
    edit(
        copy / "model_index.json",
        _class_name="FluxPipeline",
        transformer=["diffusers", "FluxTransformer2DModel"],
    )
    assert "FluxPipeline" in refusal(copy)


SPOILED = {
    "text_encoder/config.json": ({"architectures": ["T5EncoderModel"]}, "CLIP"),
    "unet/config.json": ({"cross_attention_dim": 64}, "different models"),
    "scheduler/scheduler_config.json": ({"beta_start": None}, "no betas"),
    "vae/config.json": ({"latent_channels": 16}, "inpainting or editing"),
}


@pytest.mark.parametrize("file", SPOILED)
def test_configurations_that_do_not_fit_are_refused(copy, file):
    changes, words = SPOILED[file]
    edit(copy / file, **changes)
    assert words in refusal(copy)


@pytest.mark.parametrize("file", ["unet/config.json", "scheduler/scheduler_config.json", "vae/config.json"])
def test_missing_and_broken_configurations(copy, file):
    (copy / file).write_text("{ this is no json")
    assert "not readable as JSON" in refusal(copy)
    (copy / file).unlink()
    assert "Expected" in refusal(copy)


WEIGHTS = ["unet/diffusion_pytorch_model", "vae/diffusion_pytorch_model", "text_encoder/model"]


@pytest.mark.parametrize("file", WEIGHTS)
def test_damaged_missing_and_incomplete_weights(copy, file):
    path = copy / f"{file}.safetensors"
    whole, tensors = path.read_bytes(), load_file(path)
    for size in (0, 5, 1000, len(whole) - 1):
        path.write_bytes(whole[:size])
        assert "truncated" in refusal(copy)
    save_file(dict(list(tensors.items())[1:]), path)
    assert "incomplete" in refusal(copy)
    save_file({name: value.repeat(2) if value.dim() == 1 else value for name, value in tensors.items()}, path)
    refusal(copy)
    path.unlink()
    assert "has no weights" in refusal(copy)
    path.with_suffix(".fp16.safetensors").write_bytes(whole)
    assert "set variant to one of ['fp16']" in refusal(copy)


def test_a_variant_is_found_by_its_name(copy, folders):
    for name in WEIGHTS:
        (copy / f"{name}.safetensors").rename(copy / f"{name}.fp16.safetensors")
    backend = open_backend(copy, variant="fp16")
    expected = open_backend(folders["sd1"])
    assert torch.equal(backend.predict_noise(**call(backend)), expected.predict_noise(**call(expected)))


def test_a_tokenizer_that_is_missing(copy):
    shutil.rmtree(copy / "tokenizer")
    assert "tokenizer" in refusal(copy)


@pytest.fixture
def hub_copy(folders, tmp_path, monkeypatch) -> Path:
    """The SD 1.x folder as the hub's cache keeps a downloaded somebody/model."""
    import huggingface_hub

    commit = "0123456789" * 4
    home = tmp_path / "models--somebody--model"
    shutil.copytree(folders["sd1"], home / "snapshots" / commit)
    (home / "refs").mkdir()
    (home / "refs/main").write_text(commit)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    return home / "snapshots" / commit


def test_a_hub_id_is_its_downloaded_folder(hub_copy, folders):
    backend = open_backend("somebody/model", local_files_only=True)
    expected = open_backend(folders["sd1"])
    assert backend.name == "somebody/model"
    assert [backend.fingerprint(part) for part in PARTS] == [expected.fingerprint(part) for part in PARTS]
    assert torch.equal(backend.predict_noise(**call(backend)), expected.predict_noise(**call(expected)))
    (hub_copy / "unet/diffusion_pytorch_model.safetensors").unlink()
    assert "allow the network" in refusal("somebody/model")
    assert "somebody/model" in refusal("somebody/model", revision="other")


@pytest.mark.parametrize("ending", ["safetensors", "ckpt"])
def test_damaged_one_file_checkpoints(folders, tmp_path, ending):
    config = {"single_file_config": str(folders["sd1"])}
    path = write_single_file(folders["sd1"], tmp_path / f"x.{ending}")
    whole = path.read_bytes()
    for content in (b"", whole[:1000], whole[: len(whole) // 2], whole[:-1], b"<html>404</html>" * 99):
        path.write_bytes(content)
        assert "truncated" in refusal(path, **config)


def test_one_file_checkpoints_of_other_kinds(folders, tmp_path):
    config = {"single_file_config": str(folders["sd1"])}
    tensors = load_file(write_single_file(folders["sd1"], tmp_path / "whole.safetensors"))

    def changed(name, keep, **more):
        save_file({key: value for key, value in tensors.items() if keep(key)} | more, tmp_path / name)
        return refusal(tmp_path / name, **config)

    assert "A LoRA" in changed("lora.safetensors", lambda key: False, lora_up=torch.ones(1))
    assert "no text weights" in changed("a.safetensors", lambda key: not key.startswith("cond_stage"))
    assert "no vae weights" in changed("b.safetensors", lambda key: not key.startswith("first_stage"))
    assert "incomplete" in changed("c.safetensors", lambda key: "final_layer_norm" not in key)
    assert "unet" in changed("d.safetensors", lambda key: "middle_block" not in key)
    channels = {"model.diffusion_model.input_blocks.0.0.weight": torch.zeros(16, 9, 3, 3)}
    assert "inpainting" in changed("e.safetensors", lambda key: True, **channels)
    wrong = refusal(tmp_path / "whole.safetensors", single_file_config=str(folders["sd2"]))
    assert "single_file_config" in wrong
    assert "offline" in refusal_without_config(tmp_path / "whole.safetensors")


def refusal_without_config(path) -> str:
    with pytest.raises(OSError) as caught:
        open_backend(path, local_files_only=True)
    return str(caught.value)


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
