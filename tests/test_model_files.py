"""The files of a base model: folders, one-file checkpoints and hub ids, told apart, or refused with words."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from sur_core.backend import PARTS
from sur_core.diffusers_backend import open_backend
from tests.backend_calls import FAMILIES, PROMPTS, call, drawn, make_families, networks, refusal
from tests.tiny_models import make_tiny, write_single_file


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    return make_families(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module", params=FAMILIES)
def folder(request, folders) -> Path:
    return folders[request.param]


@pytest.fixture
def copy(folders, tmp_path) -> Path:
    """An SD 1.x folder that a test may spoil."""
    return Path(shutil.copytree(folders["sd1"], tmp_path / "model"))


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
