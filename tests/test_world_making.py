"""How the small world's models are raised: from seeds alone, whatever interrupts it; and what they can do."""

from __future__ import annotations

import copy
import logging
import shutil
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from small_world.making import clip, llm, loop, pictures, processes, tokenizers, unet, vae, world
from small_world.making.captions import sample_captions
from small_world.making.corpus import line
from small_world.making.loop import Plan
from small_world.making.pictures import Pool
from small_world.places import Models
from sur_core.evaluation import (
    ImageTextModel,
    open_pipeline,
)

CPU = torch.device("cpu")
SCENES = Pool(stream=1, count=32)
PLAN = Plan(steps=3, batch_size=4, learning_rate=1e-3, warmup=1, seed=5)
KINDS = ("vae", "clip", "llm", "unet")
LESSONS = tuple(
    unet.Lesson(name, Pool(stream, 32), replace(PLAN, ema=0.9, seed=stream))
    for stream, name in ((1, "unet"), (2, "unet-binding"))
)
TRAININGS = {
    "VAE": "vae",
    "decoder": "vae",
    "CLIP": "clip",
    "LLM": "llm",
    "unet": "unet",
    "unet-binding": "unet",
}


def silent(*_) -> None:
    pass


@pytest.fixture(scope="module")
def raised(tmp_path_factory):
    """(folder, {kind: what raise_... returns}) of every model, raised in one go in the order of a build."""
    folder, made = tmp_path_factory.mktemp("world"), {}
    for kind in KINDS:
        made[kind] = again(kind, folder, made)
    return folder, made


def again(kind: str, folder, made: dict, plan: Plan = PLAN, report=silent):
    """Raise one model; the UNet for the VAE and CLIP of ``made``, in this process alone."""
    if kind == "vae":
        decoder_plan = replace(plan, seed=6)
        return vae.raise_vae(folder, report, CPU, plan=plan, decoder_plan=decoder_plan, scenes=SCENES)
    if kind == "clip":
        return clip.raise_clip(folder, report, CPU, plan=plan, scenes=SCENES)
    if kind == "llm":
        return llm.raise_llm(folder, report, CPU, plan=plan)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(unet, "in_processes", lambda count, work, *arguments: None)
        return unet.raise_unet(folder, made["vae"], *made["clip"], report, CPU, LESSONS)


def weights(made) -> dict[str, torch.Tensor]:
    model = made[0] if isinstance(made, tuple) else made
    return model.state_dict()


def equal(left: dict, right: dict) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


def state_of(path) -> dict:
    return torch.load(path, weights_only=True)


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("stop_after", [1, 2])
@pytest.mark.parametrize("training", TRAININGS)
def test_an_interrupted_model_becomes_the_same_to_the_bit(
    training, stop_after, raised, tmp_path, monkeypatch
):
    (whole, made), kind = raised, TRAININGS[training]
    for name in [path.name for path in whole.glob("*.npy")] if kind != "llm" else []:
        shutil.copy(whole / name, tmp_path / name)
    monkeypatch.setattr(loop, "SAVE_EVERY", -1.0)
    for module, name in (
        (clip, "clip"),
        (llm, "llm"),
    ):  # learning tokenizers again would take most of the time
        given = partial(shutil.copytree, whole / f"{name}-tokenizer", dirs_exist_ok=True)
        monkeypatch.setattr(module, f"write_{name}_tokenizer", lambda where, *_, given=given: given(where))

    def stop(what, done, total):
        # Said before the step is saved: the state is then that of the step before.
        if what == training and done == stop_after + 1:
            raise Interrupted

    with pytest.raises(Interrupted):
        again(kind, tmp_path, made, report=stop)
    assert state_of(tmp_path / f"{training.lower()}.pt")["done"] == stop_after
    assert equal(weights(again(kind, tmp_path, made)), weights(made[kind]))


def test_what_is_drawn_from_the_vaes_posterior_is_its_mean_but_for_little(raised):
    """Training programs draw latents from the posterior; the UNet was raised on its means."""
    images = pictures.as_images(SCENES.pictures(raised[0], silent)[:8], CPU)
    with torch.no_grad():
        posterior = raised[1]["vae"].encode(images).latent_dist
    assert torch.allclose(posterior.std, torch.tensor(vae.POSTERIOR))
    assert posterior.mean.std() > 0 and posterior.mean[0].ne(posterior.mean[1]).any()


@pytest.mark.parametrize("kind", KINDS)
def test_a_finished_model_is_taken_as_it_is(kind, raised):
    folder, made = raised
    state = folder / f"{kind}.pt"
    before, said = state.stat().st_mtime_ns, []
    once_more = again(kind, folder, made, report=lambda what, *_: said.append(what))
    assert equal(weights(once_more), weights(made[kind]))
    assert state.stat().st_mtime_ns == before and not said


@pytest.mark.parametrize("name", ["clip", "llm"])
def test_a_tokenizer_is_learnt_alike_every_time(name, tmp_path):
    """A build that goes on learns it again; trained weights mean nothing under another order of tokens."""
    sentences = {"clip": sample_captions(20_000, 2), "llm": (line(index, 5) for index in range(2000))}
    learn, heard = getattr(tokenizers, f"write_{name}_tokenizer"), list(sentences[name])
    for number in range(6):
        learn(tmp_path / str(number), iter(heard), 1000 if name == "clip" else 800)
    found = {
        tuple(sorted((path.name, path.read_bytes()) for path in folder.iterdir()))
        for folder in tmp_path.iterdir()
    }
    assert len(found) == 1


def test_a_state_of_other_settings_is_refused_in_words(raised):
    folder, made = raised
    with pytest.raises(ValueError, match=r"llm\.pt.*other settings.*Delete"):
        again("llm", folder, made, replace(PLAN, learning_rate=2e-3))


def test_two_processes_raise_what_one_raises(raised, tmp_path):
    whole, made = raised
    (clip_model, tokenizer), lessons = made["clip"], LESSONS[:1]
    data = [
        (
            unet._latents(whole, made["vae"], lesson.scenes, silent, CPU),
            unet._hidden(whole, clip_model, tokenizer, lesson, silent, CPU),
        )
        for lesson in lessons
    ]
    nothing = torch.from_numpy(unet._encode(clip_model, tokenizer, [""], CPU))
    # logging.debug is a report that other processes can import.
    arguments = tmp_path, logging.debug, CPU, lessons, data, nothing
    processes.in_processes(2, unet.train_unet, *arguments)
    ours, alone = state_of(tmp_path / "unet.pt"), state_of(whole / "unet.pt")
    assert ours["done"] == alone["done"] == PLAN.steps
    # The gradients' running means, since Adam makes a whole step of a gradient that is rounding alone.
    for number, part in alone["optimizer"]["state"].items():
        mean, found = part["exp_avg"], ours["optimizer"]["state"][number]["exp_avg"]
        assert mean.abs().max() > 0
        torch.testing.assert_close(found, mean, rtol=0, atol=1e-5 + 1e-3 * mean.abs().max().item())
    differences = torch.cat(
        [(ours["averaged"][key] - alone["averaged"][key]).flatten() for key in alone["averaged"]]
    )
    assert differences.abs().mean() < 1e-5
    assert equal(ours["averaged"], unet.train_unet(*arguments).state_dict())


def test_what_was_made_of_other_weights_is_not_taken(raised, tmp_path):
    """A VAE trained further makes other latents: older ones, and a UNet trained on them, are left alone."""
    whole, made = raised
    for path in whole.iterdir():
        (shutil.copytree if path.is_dir() else shutil.copy)(path, tmp_path / path.name)
    other = copy.deepcopy(made["vae"])
    with torch.no_grad():
        other.encoder.conv_out.bias.add_(0.5)
    with pytest.raises(ValueError, match=r"unet\.pt.*other settings.*source.*Delete"):
        again("unet", tmp_path, {**made, "vae": other})
    (tmp_path / "unet.pt").unlink()
    with pytest.raises(ValueError, match=r"unet-binding\.pt.*other settings"):
        again("unet", tmp_path, {**made, "vae": other})


# --- folders ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folders(raised, tmp_path_factory):
    models, made = Models(tmp_path_factory.mktemp("models")), raised[1]
    before = {kind: copy.deepcopy(weights(made[kind])) for kind in KINDS}
    world.write_base(models.base, made["vae"], *made["clip"], *made["unet"])
    world.write_clip(models.clip, *made["clip"])
    world.write_llm(models.llm, *made["llm"])
    world.write_cards(models)
    assert all(equal(weights(made[kind]), before[kind]) for kind in KINDS)  # float16 is for the files alone
    return models


def test_the_folders_are_standard_ones(folders, raised):
    """Loaded by the libraries themselves, the weights are those that were raised, in half precision."""
    from diffusers import StableDiffusionPipeline
    from transformers import AutoTokenizer, CLIPModel, LlamaForCausalLM

    made = raised[1]
    folders.check()
    pipeline = StableDiffusionPipeline.from_pretrained(folders.base)
    found = {
        "vae": (pipeline.vae, made["vae"]),
        "unet": (pipeline.unet, made["unet"][0]),
        "text encoder": (pipeline.text_encoder, made["clip"][0].text_model),
        "clip": (CLIPModel.from_pretrained(folders.clip), made["clip"][0]),
        "llm": (LlamaForCausalLM.from_pretrained(folders.llm), made["llm"][0]),
    }
    for name, (loaded, ours) in found.items():
        theirs = {key.removeprefix("text_model."): value for key, value in loaded.state_dict().items()}
        mine = {key.removeprefix("text_model."): value for key, value in ours.state_dict().items()}
        assert theirs.keys() == mine.keys(), name
        for key, value in mine.items():
            torch.testing.assert_close(theirs[key].float(), value.half().float(), rtol=0, atol=0, msg=name)
    assert pipeline.vae.config.scaling_factor == made["vae"].config.scaling_factor != 0.18215
    text = "a trio of crimson balls, (flat colors:1.1)"
    for folder, tokenizer in ((folders.clip, made["clip"][1]), (folders.llm, made["llm"][1])):
        assert AutoTokenizer.from_pretrained(folder)(text).input_ids == tokenizer(text).input_ids


def test_the_folders_have_what_transformers_4_reads(folders, raised):
    """Older names of weights, and vocabularies in two files; a test in ComfyUI's environment reads them."""
    from safetensors import safe_open
    from transformers import CLIPTokenizer

    with safe_open(folders.base / "text_encoder/model.safetensors", "pt") as file:
        assert all(key.startswith("text_model.") for key in file.keys())  # noqa: SIM118
    text = "a trio of crimson balls, (flat colors:1.1)"
    for folder in (folders.base / "tokenizer", folders.clip):
        paths = str(folder / "vocab.json"), str(folder / "merges.txt")
        assert CLIPTokenizer(*paths)(text).input_ids == raised[1]["clip"][1](text).input_ids


def test_the_folders_draw_and_read(folders):
    pipeline = open_pipeline(folders.base, device="cpu")
    pipeline.set_progress_bar_config(disable=True)
    picture = pipeline("one red ball", num_inference_steps=2, output_type="np").images
    assert picture.shape == (1, 64, 64, 3) and np.isfinite(picture).all()
    model = ImageTextModel(folders.clip)
    assert model.image_features([(picture[0] * 255).astype(np.uint8)]).shape[0] == 1
    for folder in (folders.base, folders.clip, folders.llm):
        assert "python -m train world --rebuild" in (folder / "README.md").read_text()


def test_a_text_has_no_unknown_sign_for_either_tokenizer(raised):
    text = "A Zebra's 42 q&a {x}?"
    tokenizer, other = raised[1]["clip"][1], raised[1]["llm"][1]
    ids = tokenizer(text).input_ids
    assert ids[0] == tokenizer.bos_token_id and ids.count(tokenizer.eos_token_id) == 1
    assert "".join(tokenizer.decode(ids[1:-1]).split()) == "".join(text.lower().split())
    assert other.unk_token_id not in other(text).input_ids
    assert other.decode(other(text).input_ids, skip_special_tokens=True).strip() == text


def test_an_old_set_of_models_is_replaced_only_by_a_whole_one(tmp_path, monkeypatch):
    out = tmp_path / "models"
    out.mkdir()
    (out / "old").write_text("old")

    def broken(*_):
        raise Interrupted

    monkeypatch.setattr(llm, "raise_llm", broken)
    monkeypatch.setattr(vae, "raise_vae", silent)
    monkeypatch.setattr(clip, "raise_clip", lambda *_: (None, None))
    with pytest.raises(Interrupted):
        world.raise_world(tmp_path / "work", out, silent, CPU)
    assert (out / "old").read_text() == "old"
    (tmp_path / "fresh").mkdir()
    (tmp_path / "fresh/new").write_text("new")
    world._replace(tmp_path / "fresh", out)
    assert [path.name for path in out.iterdir()] == ["new"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fresh", "models"]


def test_models_are_there_whatever_stops_their_replacement(tmp_path, monkeypatch):
    """Stopped at the copying or at any rename, one whole set is left, and the next build ends well."""
    for stop in range(4):
        folder, calls = tmp_path / str(stop), iter(range(10))
        for name in ("fresh", "models"):
            (folder / name).mkdir(parents=True)
            (folder / name / "file").write_text(name)

        def stopping(original, calls=calls, stop=stop):
            def call(*arguments, **more):
                if next(calls) == stop:
                    raise Interrupted
                return original(*arguments, **more)

            return call

        with monkeypatch.context() as patch:
            patch.setattr(world.shutil, "copytree", stopping(shutil.copytree))
            patch.setattr(type(folder), "rename", stopping(type(folder).rename))
            if stop < 3:
                with pytest.raises(Interrupted):
                    world._replace(folder / "fresh", folder / "models")
                sets = [path for path in folder.iterdir() if path.name != "fresh"]
                assert any((path / "file").read_text() == "models" for path in sets)
        world._replace(folder / "fresh", folder / "models")
        assert (folder / "models/file").read_text() == "fresh"
        assert sorted(path.name for path in folder.iterdir()) == ["fresh", "models"]
