"""The step `clean`: CLIP's choice between both prompts, and the rules that read it."""

import json
import shutil

import numpy as np
import pytest
import torch

from sur_core.surd_build.captions import caption_samples
from sur_core.surd_build.clean import apply_rule, score_samples
from sur_core.surd_build.clip_scores import ClipScorer, check_clip
from sur_core.surd_build.manifest import Manifest, hash_of
from sur_core.surd_build.model_source import find_model, load_image_processor
from sur_core.surd_build.rules import verdict
from sur_core.surd_build.samples import read_samples
from tests.surd_models import make_blip, make_clip, make_collected
from train.__main__ import main

LONG_PROMPT = "a red cat near a blue house " * 30
PAIRS = [
    ("a red cat", "red cat, detailed light"),
    ("two birds", LONG_PROMPT),
    ("a dog", "a dog"),
    ("a photo of a tree", "tree with a house, sky, detailed painting"),
    ("a man sitting", "photo of a man and a woman"),
    ("a small apple", "x" * 75),
    ("ärger, 猫 \ud800", "a woman"),
]
PICTURES = {f"{at}.png": (elaborate, plain) for at, (plain, elaborate) in enumerate(PAIRS)}


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return make_clip(tmp_path_factory.mktemp("models") / "clip")


@pytest.fixture
def work(tmp_path):
    return make_collected(tmp_path / "set", PICTURES)


def find(folder):
    return find_model(str(folder), check_clip)


def pictures(count: int = len(PAIRS)) -> list:
    from PIL import Image

    draw = np.random.default_rng(2)
    return [Image.fromarray(draw.integers(0, 256, (40, 48, 3), dtype=np.uint8)) for _ in range(count)]


def score(scorer: ClipScorer, images: list, pairs: list) -> list[dict]:
    return scorer.scores(scorer.pack([scorer.prepare(image) for image in images]), pairs)


def clean(work, model, *flags) -> int:
    return main(["surd", "clean", *map(str, (work, "--model", model, "--device", "cpu", *flags))])


def dropped(work) -> dict[str, str]:
    return {sample.name: sample.dropped[1] for sample in read_samples(Manifest(work)) if sample.dropped}


# --- the scores -------------------------------------------------------------------------------------------


@torch.inference_mode()
def test_scores_are_the_softmax_over_both_prompts_that_clip_itself_gives(clip):
    from transformers import CLIPModel, CLIPTokenizer

    model, tokenizer = CLIPModel.from_pretrained(clip).eval(), CLIPTokenizer.from_pretrained(clip)
    images, pairs = pictures(6), PAIRS[:6]
    found = score(ClipScorer(find(clip), device="cpu", batch_size=4), images, pairs)
    for image, pair, scores in zip(images, pairs, found, strict=True):
        pixels = load_image_processor(find(clip))(images=image, return_tensors="pt")
        words = tokenizer(list(pair), padding=True, truncation=True, return_tensors="pt")
        logits = model(**pixels, **words).logits_per_image[0]
        cosines = (logits / model.logit_scale.exp()).tolist()
        assert [scores["simple_score"], scores["complex_score"]] == pytest.approx(
            logits.softmax(0).tolist(), abs=1e-4
        )
        assert [scores["simple_cosine"], scores["complex_cosine"]] == pytest.approx(cosines, abs=2e-6)
    assert np.std([scores["simple_score"] for scores in found]) > 0.05, "else this test shows nothing"


def test_a_score_is_the_same_to_the_last_digit_whatever_it_is_scored_with(clip):
    images, scorer = pictures(), ClipScorer(find(clip), device="cpu", batch_size=4)
    together = score(scorer, images[:4], PAIRS[:4]) + score(scorer, images[4:], PAIRS[4:])
    for at in reversed(range(len(PAIRS))):
        assert score(scorer, [images[at]], [PAIRS[at]]) == [together[at]]
    assert score(scorer, images[::-1][:4], PAIRS[::-1][:4]) == together[::-1][:4]


def test_equal_prompts_score_equal_and_stay(clip):
    scorer = ClipScorer(find(clip), device="cpu", batch_size=4)
    for scores in score(scorer, pictures(4), [(text, text) for text, _ in PAIRS[:4]]):
        assert scores["simple_cosine"] == scores["complex_cosine"]
        assert scores["simple_score"] == scores["complex_score"] == 0.5
        assert verdict(scores, "paper") == verdict(scores, "threshold", 0.5) == ""


def test_tokens_of_both_prompts_are_counted_with_clips_marks(clip):
    [short, long] = score(ClipScorer(find(clip), device="cpu"), pictures(2), PAIRS[:2])
    assert (short["simple_tokens"], short["complex_tokens"]) == (3 + 2, 5 + 2)  # the comma is one
    assert long["complex_tokens"] == 30 * 7 + 2


@torch.inference_mode()
@pytest.mark.parametrize("length", [1, 22, 23, 74, 75, 76, 150, 151])
def test_long_prompts_are_cut_or_averaged(clip, length):
    """By hand, with transformers alone: 75 tokens at once between the two marks."""
    from transformers import CLIPModel, CLIPTokenizer

    text = " ".join(np.random.default_rng(length).choice(["cat", "house", "red"], length))
    model, tokenizer = CLIPModel.from_pretrained(clip).eval(), CLIPTokenizer.from_pretrained(clip)
    ids = tokenizer(text, add_special_tokens=False).input_ids
    assert len(ids) == length
    [image] = pictures(1)
    pixels = load_image_processor(find(clip))(images=image, return_tensors="pt")
    seen = model.visual_projection(model.vision_model(**pixels).pooler_output)[0]
    summed, cosines = 0, {}
    for start in range(0, length, 75):
        part = ids[start : start + 75]
        marked = torch.tensor([[tokenizer.bos_token_id, *part, tokenizer.eos_token_id]])
        feature = model.text_projection(model.text_model(input_ids=marked).pooler_output)[0]
        summed = summed + len(part) * feature / feature.norm()
        cosines["mean"] = float(torch.cosine_similarity(seen, summed, dim=0))
        cosines.setdefault("first", cosines["mean"])
    for long, cosine in cosines.items():
        scorer = ClipScorer(find(clip), long, "cpu", batch_size=3)
        [found] = score(scorer, [image], [("a dog", text)])
        assert found["complex_cosine"] == pytest.approx(cosine, abs=2e-6)
        assert found["complex_tokens"] == length + 2
    assert (cosines["first"] == cosines["mean"]) == (length <= 75)


def test_a_prompt_with_nothing_to_read_has_a_score(clip):
    [found] = score(ClipScorer(find(clip), "mean", "cpu"), pictures(1), [(" ", "a cat")])
    assert found["simple_tokens"] == 2 and 0 < found["simple_score"] < 1


# --- the step ---------------------------------------------------------------------------------------------


def test_samples_whose_plain_prompt_fits_worse_are_left_out(clip, work, capsys):
    assert clean(work, clip, "--batch-size", 3) == 0
    lost = dropped(work)
    for sample in read_samples(Manifest(work)):
        worse = sample.scores["simple_cosine"] < sample.scores["complex_cosine"]
        assert (sample.name in lost) == worse
        assert not worse or lost[sample.name].startswith("lower CLIP score: simple 0.")
    assert 0 < len(lost) < len(PAIRS), "some must stay and some go, or this test shows nothing"
    assert "mine/2.png" not in lost, "equal prompts"
    said = capsys.readouterr().out
    assert f"rule paper: kept {len(PAIRS) - len(lost)} of {len(PAIRS)}" in said
    assert f"dropped: lower CLIP score {len(lost)}" in said and "median" in said
    assert "1 elaborate prompts have more than 77 tokens; their beginning was read" in said


def test_another_rule_judges_the_same_scores_without_clip(clip, work):
    assert clean(work, clip) == 0
    scores = dict(Manifest(work).records("clean"))
    simple = {sample.name: sample.scores["simple_score"] for sample in read_samples(Manifest(work))}
    paper, limit = dropped(work), sorted(simple.values())[3]
    for rule, expected in [
        (("--rule", "threshold", "--threshold", limit), {name for name in simple if simple[name] < limit}),
        (("--rule", "threshold", "--threshold", 0.5), set(paper)),
        (("--rule", "off"), set()),
        ((), set(paper)),
    ]:
        outcome = score_samples(Manifest(work), find(clip), device="no such device")
        assert (outcome.done, outcome.kept) == (0, len(PAIRS))
        assert clean(work, clip, *rule) == 0
        assert set(dropped(work)) == expected
        assert Manifest(work).records("clean") == scores
    assert dropped(work) == paper


def test_the_same_rule_again_writes_nothing(clip, work):
    assert clean(work, clip) == 0
    content = (work / "manifest.jsonl").read_bytes()
    assert clean(work, clip) == 0 and apply_rule(Manifest(work)) == 0
    assert (work / "manifest.jsonl").read_bytes() == content


@pytest.mark.parametrize(
    "change, again",
    [
        ({"batch_size": 2}, 0),
        ({"threads": 1}, 0),
        ({"long": "mean"}, len(PAIRS)),
    ],
)
def test_only_what_changes_scores_makes_them_anew(clip, work, change, again):
    score_samples(Manifest(work), find(clip), device="cpu")
    outcome = score_samples(Manifest(work), find(clip), **{"device": "cpu", **change})
    assert (outcome.done, outcome.kept) == (again, len(PAIRS) - again)


def test_a_changed_prompt_is_scored_and_judged_anew(clip, work):
    assert clean(work, clip) == 0
    manifest = Manifest(work)
    record = manifest.records("select")["mine/0.png"]
    manifest.add([{**record, "simple": "a green horse"}])
    outcome = score_samples(manifest, find(clip), device="cpu")
    assert (outcome.done, outcome.kept) == (1, len(PAIRS) - 1)
    found = manifest.record("clean", record["id"])
    assert found["of"] == hash_of("a green horse", record["complex"])


@pytest.mark.parametrize("stop_after", [1, 2])
def test_a_stopped_step_goes_on_to_the_same_manifest(clip, work, tmp_path, stop_after):
    whole = shutil.copytree(work, tmp_path / "whole")
    score_samples(Manifest(whole), find(clip), device="cpu", batch_size=3)
    polls = iter([False] * stop_after + [True])
    outcome = score_samples(
        Manifest(work), find(clip), device="cpu", batch_size=3, stopped=lambda: next(polls)
    )
    assert (outcome.done, outcome.finished) == (3 * stop_after, False)
    score_samples(Manifest(work), find(clip), device="cpu", batch_size=3)
    assert (work / "manifest.jsonl").read_bytes() == (whole / "manifest.jsonl").read_bytes()


def test_a_journal_cut_anywhere_ends_in_the_same_manifest(clip, work, tmp_path):
    """What was lost is scored in batches of other neighbours."""
    whole, cut = shutil.copytree(work, tmp_path / "whole"), tmp_path / "cut"
    score_samples(Manifest(whole), find(clip), device="cpu", batch_size=3)
    polls = iter([False, False, True])
    score_samples(Manifest(work), find(clip), device="cpu", batch_size=3, stopped=lambda: next(polls))
    for keep in (1, 400, 700, 1100, 1500):
        shutil.copytree(work, cut)
        [journal] = (cut / "journals").iterdir()
        journal.write_bytes(journal.read_bytes()[:keep])
        assert score_samples(Manifest(cut), find(clip), device="cpu", batch_size=3).finished
        assert (cut / "manifest.jsonl").read_bytes() == (whole / "manifest.jsonl").read_bytes()
        shutil.rmtree(cut)


def test_captions_are_what_is_cleaned(clip, work, tmp_path):
    from sur_core.surd_build.captioner import Decoding, check_captioner

    work = make_collected(tmp_path / "bare", {"a.png": ("a cat, detailed", ""), "b.png": ("b", "a dog")})
    blip = find_model(str(make_blip(tmp_path / "blip")), check_captioner)
    caption_samples(Manifest(work), blip, Decoding(max_new_tokens=8), device="cpu")
    assert clean(work, clip) == 0
    for sample in read_samples(Manifest(work)):
        assert sample.scores["of"] == hash_of(sample.simple, sample.complex)


def test_an_unusable_picture_is_left_out_under_every_rule_and_comes_back(clip, work, tmp_path):
    path = work.parent / "source" / "2.png"
    away = path.rename(tmp_path / "away.png")
    for rule in ("paper", "off"):
        assert clean(work, clip, "--rule", rule) == 0
        assert dropped(work)["mine/2.png"] == "unreadable file: No such file or directory"
    content = (work / "manifest.jsonl").read_bytes()
    assert clean(work, clip, "--rule", "off") == 0
    assert (work / "manifest.jsonl").read_bytes() == content
    away.rename(path)
    assert clean(work, clip, "--rule", "off") == 0
    assert dropped(work) == {}


# --- mistakes ---------------------------------------------------------------------------------------------


def refused(capsys, *words) -> str:
    assert main(["surd", "clean", *map(str, words)]) == 1
    said = capsys.readouterr().err
    assert said.splitlines()[-1].startswith("error: ") and "Traceback" not in said
    return said


def test_nothing_to_clean_says_what_to_run_first(clip, tmp_path, capsys):
    assert "train surd collect" in refused(capsys, tmp_path / "none", "--model", clip)
    work = make_collected(tmp_path / "set", {"a.png": ("a cat", "")})
    said = refused(capsys, work, "--model", clip, "--device", "cpu")
    assert "none of 1 pictures has a plain prompt yet" in said and "train surd caption" in said


def test_impossible_rules_are_refused_before_anything_is_read(tmp_path, capsys):
    for flags, words in [
        (("--rule", "threshold"), "needs --threshold"),
        (("--rule", "threshold", "--threshold", "1.5"), "from 0 to 1; found 1.5"),
        (("--rule", "threshold", "--threshold", "nan"), "from 0 to 1; found nan"),
        (("--threshold", "0.5"), "counts with --rule threshold only"),
    ]:
        assert words in refused(capsys, tmp_path / "none", *flags)


def test_models_that_are_no_clip_are_refused_in_words(work, clip, tmp_path, capsys):
    blip = make_blip(tmp_path / "blip")
    assert "expected a whole CLIP model" in refused(capsys, work, "--model", blip)
    half = shutil.copytree(clip, tmp_path / "half")
    config = json.loads((half / "config.json").read_text())
    (half / "config.json").write_text(json.dumps({**config, "model_type": "clip_text_model"}))
    assert "found one of type 'clip_text_model'" in refused(capsys, work, "--model", half)
    assert "no such folder" in refused(capsys, work, "--model", tmp_path / "gone")


@pytest.mark.parametrize(
    "file", ["vocab.json", "merges.txt", "preprocessor_config.json", "model.safetensors"]
)
def test_an_incomplete_clip_is_told_in_words(work, clip, tmp_path, capsys, file):
    folder = shutil.copytree(clip, tmp_path / "damaged")
    (folder / file).unlink()
    said = refused(capsys, work, "--model", folder, "--device", "cpu")
    assert "damaged" in said and "Manifest" not in said
    assert not Manifest(work).records("clean")


def test_weights_that_are_no_numbers_are_told_in_words(work, clip, tmp_path, capsys):
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(clip, tmp_path / "broken")
    weights = load_file(folder / "model.safetensors")
    weights["visual_projection.weight"][0, 0] = float("nan")
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    assert "features that are no numbers" in refused(capsys, work, "--model", folder, "--device", "cpu")


def test_weights_in_pytorchs_own_file_are_read_too(clip, tmp_path):
    """As the public ViT-B/32 has them."""
    from safetensors.torch import load_file

    folder = shutil.copytree(clip, tmp_path / "bin")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    first, second = (
        score(ClipScorer(find(path), device="cpu", batch_size=4), pictures(2), PAIRS[:2])
        for path in (clip, folder)
    )
    assert first == second
