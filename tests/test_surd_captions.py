"""The step `caption`: what a model writes, whatever the batch, the process or the moment it was stopped."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from sur_core.surd_build.captioner import (
    CHAT_PROMPT,
    Captioner,
    Decoding,
    check_captioner,
    out_of_memory_in_words,
)
from sur_core.surd_build.captions import caption_samples
from sur_core.surd_build.image_feed import ImageFeed, Unusable, read_image
from sur_core.surd_build.manifest import Manifest
from sur_core.surd_build.model_source import find_model
from sur_core.surd_build.samples import read_samples
from sur_core.surd_build.steps import Task
from tests.surd_models import make_blip, make_chat_vlm, make_clip, make_collected, make_git
from train.__main__ import main

ROOT = Path(__file__).resolve().parents[1]
KINDS = {"blip": make_blip, "git": make_git, "chat": make_chat_vlm}
PICTURES = {f"{name}.png": (f"{name}, detailed", "") for name in ("cat", "dog", "bird", "tree", "house")}
SHORT = Decoding(max_new_tokens=10)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("captioners")
    return {kind: make(folder / kind) for kind, make in KINDS.items()}


@pytest.fixture
def work(tmp_path):
    return make_collected(tmp_path / "set", PICTURES)


def find(folder):
    return find_model(str(folder), check_captioner)


def pictures(count: int = 5) -> list:
    from PIL import Image

    draw = np.random.default_rng(1)
    sizes = [(40, 40), (30, 64), (64, 20), (24, 24), (33, 57)][:count]
    return [Image.fromarray(draw.integers(0, 256, (*size, 3), dtype=np.uint8)) for size in sizes]


def write(captioner: Captioner, images: list) -> list[str]:
    return captioner.captions(captioner.pack([captioner.prepare(image) for image in images]))


def caption(work, model, *flags) -> int:
    words = ("surd", "caption", work, "--model", model, "--device", "cpu", "--max-new-tokens", 10, *flags)
    return main([str(word) for word in words])


def captions(work) -> dict[str, str]:
    return {sample.name: sample.simple for sample in read_samples(Manifest(work))}


# --- what is written --------------------------------------------------------------------------------------


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("prompt", ["", "a picture of"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_caption_does_not_depend_on_its_batch(models, kind, prompt, beams):
    captioner = Captioner(find(models[kind]), Decoding(prompt, 10, beams=beams), device="cpu")
    images = pictures()
    together = write(captioner, images)
    assert together == [write(captioner, [image])[0] for image in images]
    assert together == write(captioner, images), "captions are not drawn by lot"
    assert len(set(together)) > 2, "the pictures must matter, or this test shows nothing"
    assert all(line and line == " ".join(line.split()) for line in together)


@torch.inference_mode()
def test_blip_writes_what_transformers_own_example_writes(models):
    from transformers import AutoTokenizer, BlipForConditionalGeneration

    from sur_core.surd_build.model_source import load_image_processor

    model = BlipForConditionalGeneration.from_pretrained(models["blip"]).eval()
    tokenizer, source = AutoTokenizer.from_pretrained(models["blip"]), find(models["blip"])
    for image in pictures(3):
        inputs = load_image_processor(source)(images=image, return_tensors="pt")
        plain = model.generate(**inputs, max_new_tokens=10)
        found = write(Captioner(source, SHORT, device="cpu"), [image])
        assert found == [tokenizer.decode(plain[0], skip_special_tokens=True)]
        words = tokenizer("a picture of", return_tensors="pt")["input_ids"]
        given = model.generate(**inputs, input_ids=words, max_new_tokens=10)
        whole = tokenizer.decode(given[0], skip_special_tokens=True)
        assert whole.startswith("a picture of")
        found = write(Captioner(source, Decoding("a picture of", 10), device="cpu"), [image])
        assert found == [whole.removeprefix("a picture of").strip()]


@torch.inference_mode()
@pytest.mark.parametrize("prompt", ["", "What is it?"])
def test_a_chat_model_is_asked_through_its_template(models, prompt):
    """As in transformers' own example, one picture at a time, from the text of the chat."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    processor = AutoProcessor.from_pretrained(models["chat"])
    model = AutoModelForImageTextToText.from_pretrained(models["chat"]).eval()
    captioner = Captioner(find(models["chat"]), Decoding(prompt, 10), device="cpu")
    text = f"<|begin|>User:<image>{prompt or CHAT_PROMPT}<end_of_utterance>\nAssistant:"
    images, lengths, expected = pictures(), set(), []
    for image in images:
        inputs = processor(text=[text], images=[[image]], return_tensors="pt", add_special_tokens=False)
        length = inputs["input_ids"].shape[1]
        answer = model.generate(**inputs, max_new_tokens=10, do_sample=False)[0, length:]
        expected.append(" ".join(processor.decode(answer, skip_special_tokens=True).split()))
        lengths.add(length)
    assert write(captioner, images) == expected
    assert len(lengths) > 1, "batches must need padding, or this test shows nothing"


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_whose_file_asks_for_sampling_is_greedy_all_the_same(tmp_path, models, kind):
    folder = shutil.copytree(models[kind], tmp_path / "copy")
    settings = json.loads((folder / "generation_config.json").read_text())
    settings |= {"do_sample": True, "temperature": 5.0}
    (folder / "generation_config.json").write_text(json.dumps(settings))
    first, second = (Captioner(find(path), SHORT, device="cpu") for path in (models[kind], folder))
    assert write(first, pictures()) == write(second, pictures())


def test_limits_are_kept(models):
    captioner = Captioner(find(models["chat"]), Decoding(max_new_tokens=6, min_new_tokens=6), device="cpu")
    inputs = captioner.pack([captioner.prepare(image) for image in pictures()])
    tokens = captioner._model.generate(**inputs, max_new_tokens=6, min_new_tokens=6, do_sample=False)
    assert tokens.shape[1] - inputs["input_ids"].shape[1] == 6
    for wrong in ({"beams": 0}, {"max_new_tokens": 0}, {"min_new_tokens": 41}):
        with pytest.raises(ValueError, match="at least one token and one beam"):
            Decoding(**wrong)


@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
def test_the_dtype_asked_for_is_computed_in(models, dtype):
    captioner = Captioner(find(models["blip"]), SHORT, dtype, "cpu")
    assert {weight.dtype for weight in captioner._model.parameters()} == {captioner.dtype}
    assert len(write(captioner, pictures())) == 5


# --- the step ---------------------------------------------------------------------------------------------


def test_every_picture_without_a_plain_prompt_gets_one(models, work, capsys):
    assert caption(work, models["blip"], "--batch-size", 2) == 0
    captioner = Captioner(find(models["blip"]), SHORT, device="cpu")
    for sample in read_samples(Manifest(work)):
        image = read_image(sample.path, sample.facts["sha256"])
        assert sample.simple == write(captioner, [image])[0] and not sample.dropped
    said = capsys.readouterr().out
    assert "5 of 5 pictures have a plain prompt of" in said and "5 done, 0 were done already" in said
    assert Manifest(work).record("model", find(models["blip"]).identity)["name"] == "blip"


def test_a_second_run_does_nothing_and_loads_nothing(models, work):
    assert caption(work, models["blip"]) == 0
    content = (work / "manifest.jsonl").read_bytes()
    broken = (models["blip"] / "model.safetensors").stat().st_mtime_ns
    outcome = caption_samples(Manifest(work), find(models["blip"]), SHORT, device="no such device")
    assert (outcome.done, outcome.kept, outcome.finished) == (0, 5, True)
    assert (work / "manifest.jsonl").read_bytes() == content
    assert (models["blip"] / "model.safetensors").stat().st_mtime_ns == broken


@pytest.mark.parametrize(
    "change, again",
    [
        ({"batch_size": 1}, 0),
        ({"threads": 1}, 0),
        ({"decoding": Decoding(max_new_tokens=9)}, 5),
        ({"decoding": Decoding("a picture of", 10)}, 5),
        ({"decoding": Decoding(max_new_tokens=10, beams=2)}, 5),
        ({"dtype": "bf16"}, 5),
    ],
)
def test_only_what_changes_captions_makes_them_anew(models, work, change, again):
    source = find(models["blip"])
    caption_samples(Manifest(work), source, SHORT, device="cpu")
    outcome = caption_samples(Manifest(work), source, **{"decoding": SHORT, "device": "cpu", **change})
    assert (outcome.done, outcome.kept) == (again, 5 - again)


def test_a_model_is_known_by_its_files_and_not_by_its_place(models, tmp_path):
    first, copied = find(models["blip"]), find(shutil.copytree(models["blip"], tmp_path / "elsewhere"))
    assert first.identity == copied.identity and copied.name == "elsewhere"
    assert find(make_blip(tmp_path / "other", seed=1)).identity != first.identity
    settings = copied.folder / "generation_config.json"
    settings.write_text(settings.read_text() + " ")
    assert find(copied.folder).identity != first.identity


def test_two_processes_write_the_manifest_that_one_writes(models, work, tmp_path):
    alone = shutil.copytree(work, tmp_path / "alone")
    caption_samples(Manifest(alone), find(models["blip"]), SHORT, device="cpu")
    launch = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    words = ("-m", "train", "surd", "caption", work, "--model", models["blip"], "--max-new-tokens", 10)
    settings = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    command = [str(word) for word in (*launch, *words, "--device", "cpu", "--batch-size", 1)]
    done = subprocess.run(command, cwd=ROOT, env=settings, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "3 done, 0 were done already" in done.stdout, "the main process has its share"
    assert (work / "manifest.jsonl").read_bytes() == (alone / "manifest.jsonl").read_bytes()


def test_a_stopped_step_goes_on_to_the_same_manifest(models, work, tmp_path):
    source, whole = find(models["git"]), shutil.copytree(work, tmp_path / "whole")
    caption_samples(Manifest(whole), source, SHORT, device="cpu", batch_size=2)
    after, polls = [], iter([False, False, True])
    outcome = caption_samples(
        Manifest(work), source, SHORT, device="cpu", batch_size=2, stopped=lambda: next(polls)
    )
    assert (outcome.done, outcome.finished) == (4, False) and not Manifest(work).records("caption")
    outcome = caption_samples(
        Manifest(work), source, SHORT, device="cpu", progress=lambda *told: after.append(told)
    )
    assert (outcome.done, outcome.kept, after) == (1, 4, [("caption", 0, 1), ("caption", 1, 1)])
    assert (work / "manifest.jsonl").read_bytes() == (whole / "manifest.jsonl").read_bytes()


def test_prompts_that_came_with_pictures_stay_unless_all_are_asked_for(models, tmp_path):
    mixed = {"a.png": ("a, detailed", "two men on a boat"), "b.png": ("b, detailed", "")}
    work = make_collected(tmp_path / "set", mixed)
    assert caption(work, models["blip"]) == 0
    kept = captions(work)
    assert kept["mine/a.png"] == "two men on a boat" and kept["mine/b.png"]
    assert list(Manifest(work).records("caption")) == [
        sample.id for sample in read_samples(Manifest(work)) if sample.name == "mine/b.png"
    ]
    assert caption(work, models["blip"], "--all") == 0
    everything = captions(work)
    assert everything["mine/a.png"] not in ("two men on a boat", "")
    assert everything["mine/b.png"] == kept["mine/b.png"]
    assert caption(work, models["blip"]) == 0
    assert captions(work) == kept, "without --all the given prompts count again"


def test_pictures_that_were_left_out_are_not_captioned(models, work):
    manifest = Manifest(work)
    first, second, *rest = manifest.records("select").values()
    manifest.add([{**first, "dropped": "too small: 8 x 8"}, {**second, "gone": True}])
    assert caption(work, models["blip"]) == 0
    assert sorted(Manifest(work).records("caption")) == sorted(record["id"] for record in rest)


# --- pictures that cannot be used -------------------------------------------------------------------------


def test_an_unusable_picture_is_left_out_with_its_reason(models, work, capsys):
    source = work.parent / "source"
    (source / "cat.png").unlink()
    shutil.copy(source / "dog.png", source / "bird.png")
    assert caption(work, models["git"], "--batch-size", 2) == 0
    found = {sample.name: sample for sample in read_samples(Manifest(work))}
    assert found["mine/cat.png"].dropped == ("caption", "unreadable file: No such file or directory")
    assert found["mine/bird.png"].dropped[1].startswith("changed file: ")
    assert all(found[f"mine/{name}.png"].simple for name in ("dog", "tree", "house"))
    said = capsys.readouterr().out
    assert "3 of 5 pictures" in said and "dropped: unreadable file 1" in said and "changed file 1" in said


def test_a_file_that_is_no_image_is_named_as_such(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\nnot really")
    assert isinstance(read_image(path, ""), Unusable)
    assert read_image(path, "").reason.startswith("unreadable image: a.png: ")


def test_a_file_that_comes_back_is_captioned_and_nothing_is_done_while_it_is_away(models, work, tmp_path):
    whole = shutil.copytree(work, tmp_path / "whole")
    caption_samples(Manifest(whole), find(models["blip"]), SHORT, device="cpu")
    path = work.parent / "source" / "cat.png"
    away = path.rename(tmp_path / "away.png")
    caption(work, models["blip"])
    content = (work / "manifest.jsonl").read_bytes()
    caption(work, models["blip"])
    assert (work / "manifest.jsonl").read_bytes() == content
    away.rename(path)
    for done in (1, 0):
        outcome = caption_samples(Manifest(work), find(models["blip"]), SHORT, device="cpu")
        assert (outcome.done, outcome.kept) == (done, 5 - done)
    assert captions(work) == captions(whole)


def test_a_model_that_writes_nothing_drops_the_picture_and_says_so(models, work, tmp_path):
    folder = shutil.copytree(models["blip"], tmp_path / "mute")
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    key = next(key for key in weights if key.endswith("cls.predictions.bias"))
    weights[key][config["text_config"]["sep_token_id"]] += 1e4
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    assert caption(work, folder) == 0
    reasons = {sample.dropped for sample in read_samples(Manifest(work))}
    assert reasons == {("caption", "no caption: the model wrote nothing")}


def test_the_next_batch_is_read_while_this_one_is_worked_on(work):
    samples = list(read_samples(Manifest(work)))
    tasks = [Task(sample.id, "", sample) for sample in samples]
    seen = []
    with ImageFeed(lambda image: seen.append(image.size) or image.size, list, threads=2) as feed:
        feed.ahead(tasks[:2])
        feed.ahead(tasks[2:])
        feed._packer.submit(lambda: None).result()  # one thread packs: both batches are behind us
        assert len(seen) == 5
        assert [feed.take(part).pictures for part in (tasks[:2], tasks[2:])] == [
            [read_image(sample.path, "").size for sample in part] for part in (samples[:2], samples[2:])
        ]
        assert len(seen) == 5, "taken, not read again"


# --- mistakes ---------------------------------------------------------------------------------------------


def refused(capsys, *words) -> str:
    assert main(["surd", "caption", *map(str, words)]) == 1
    said = capsys.readouterr().err
    assert said.splitlines()[-1].startswith("error: ") and "Traceback" not in said
    return said


def test_a_folder_into_which_nothing_was_collected_is_refused_and_not_made(models, tmp_path, capsys):
    said = refused(capsys, tmp_path / "none", "--model", models["blip"])
    assert "train surd collect" in said and not (tmp_path / "none").exists()


def test_models_that_cannot_caption_are_refused_in_words(models, work, tmp_path, capsys):
    clip = make_clip(tmp_path / "clip")
    assert "type 'clip', which writes no captions" in refused(capsys, work, "--model", clip)
    assert "no such folder" in refused(capsys, work, "--model", tmp_path / "gone")
    (tmp_path / "empty").mkdir()
    assert "found no config.json" in refused(capsys, work, "--model", tmp_path / "empty")
    said = refused(capsys, work, "--model", "nobody/no-such-model", "--local-files-only")
    assert "nobody/no-such-model" in said and "not downloaded" in said
    assert not Manifest(work).records("caption")


@pytest.mark.parametrize(
    "damage, words",
    [
        (lambda folder: (folder / "model.safetensors").unlink(), "no weights"),
        (lambda folder: (folder / "vocab.txt").unlink(), "tokenizer"),
        (lambda folder: (folder / "preprocessor_config.json").unlink(), "image processor"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json cannot be used"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"0" * 100), "safetensors"),
    ],
)
def test_a_damaged_model_is_told_in_words(models, work, tmp_path, capsys, damage, words):
    folder = shutil.copytree(models["blip"], tmp_path / "damaged")
    damage(folder)
    said = refused(capsys, work, "--model", folder, "--device", "cpu")
    assert words in said and "damaged" in said


def test_a_model_of_the_right_type_but_without_its_weights_is_refused(models, work, tmp_path, capsys):
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(models["blip"], tmp_path / "half")
    weights = load_file(folder / "model.safetensors")
    some = {key: value for key, value in weights.items() if "text_decoder" not in key}
    save_file(some, folder / "model.safetensors", {"format": "pt"})
    said = refused(capsys, work, "--model", folder, "--device", "cpu")
    assert "weights that a BlipForConditionalGeneration needs are missing" in said


def test_a_batch_that_is_too_large_is_told_in_words():
    def told():
        return out_of_memory_in_words("blip", torch.device("cpu"), 64)

    with pytest.raises(ValueError, match="64 pictures at once do not fit .* smaller --batch-size"), told():
        torch.empty(1 << 60)
    with pytest.raises(RuntimeError, match="inconsistent tensor size"), told():
        torch.ones(2) @ torch.ones(3)


def test_impossible_settings_are_refused(models, work, capsys):
    assert "--batch-size must be at least 1" in refused(
        capsys, work, "--model", models["blip"], "--batch-size", 0
    )
    said = refused(capsys, work, "--model", models["blip"], "--device", "cuda:77")
    assert "cannot be used here" in said
