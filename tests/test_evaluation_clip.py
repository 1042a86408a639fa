"""CLIP's cosines and the paper's CLIP Score, by hand from a CLIPModel's own logits."""

import numpy as np
import pytest
import torch

from sur_core.evaluation import Arm, EvalPrompt, ImageTextModel, clip_score_share, cosines
from sur_core.evaluation.image_text import FeatureCache, picture_digest
from tests.evaluation_runs import clip_folder, image_processor, pixels_of, run

TEXTS = ["a red cat", "two blue birds near a house"]


def pictures(count: int, seed: int = 0) -> list[np.ndarray]:
    draw = np.random.default_rng(seed)
    return [draw.integers(0, 256, (40, 48 + 8 * (at % 2), 3), dtype=np.uint8) for at in range(count)]


@pytest.fixture(scope="module")
def model() -> ImageTextModel:
    return ImageTextModel(clip_folder(), batch_size=3)


@torch.no_grad()
def logits(images, texts) -> torch.Tensor:
    """[images, texts], by transformers alone."""
    from transformers import CLIPModel, CLIPTokenizer

    tokens = CLIPTokenizer.from_pretrained(clip_folder())(texts, padding=True, return_tensors="pt")
    pixels = image_processor()(images=images, return_tensors="pt")["pixel_values"]
    return CLIPModel.from_pretrained(clip_folder()).eval()(pixel_values=pixels, **tokens).logits_per_image


def test_cosines_are_the_models_logits_without_their_scale(model):
    images = pictures(5)
    expected = logits(images, TEXTS) / model.logit_scale
    rows = model.image_features(images)
    for at, text in enumerate(TEXTS):
        found = cosines(rows, model.text_features([text]).expand(5, -1))
        assert found == pytest.approx(expected[:, at].double().numpy(), abs=1e-5)
    assert expected.std() > 0.05, "the pictures must differ, or this test shows nothing"


def test_clip_score_is_a_softmax_over_the_two_pictures_of_a_prompt(model):
    ours, base = pictures(4, seed=1), pictures(4, seed=2)
    shares = []
    for at in range(4):
        pair = logits([ours[at], base[at]], [TEXTS[0]])[:, 0]
        shares.append(float(pair.softmax(0)[0]))
    text = model.text_features(TEXTS[:1]).expand(4, -1)
    values = [cosines(model.image_features(images), text) for images in (ours, base)]
    found = clip_score_share(*values, model.logit_scale)
    assert found == pytest.approx(shares, abs=1e-5)
    assert found + clip_score_share(*values[::-1], model.logit_scale) == pytest.approx(1)
    assert clip_score_share(values[0], values[0], model.logit_scale) == pytest.approx(0.5)


def test_clip_score_survives_large_logits():
    assert clip_score_share(np.array([1.0, -1.0]), np.array([-1.0, 1.0]), 5000.0).tolist() == [1.0, 0.0]


def test_features_do_not_depend_on_the_batch_and_padding(model):
    images = pictures(7)
    alone = torch.cat([model.image_features([image]) for image in images])
    assert torch.allclose(model.image_features(images), alone, atol=1e-5)
    texts = torch.cat([model.text_features([text]) for text in TEXTS])
    assert torch.allclose(model.text_features(TEXTS), texts, atol=1e-6)
    assert model.image_features([]).shape == (0, 12) and model.text_features([]).shape == (0, 12)


def test_a_text_that_is_too_long_is_cut_with_a_warning(model, caplog):
    model.text_features(["a red cat " * 60])
    assert "77 tokens only" in caplog.text and "a red cat" in caplog.text


def test_cached_features_are_those_of_equal_pictures(model, tmp_path):
    images = pictures(4)
    cache = FeatureCache(tmp_path, model)
    first = cache.features([images[0], images[1], images[0]])
    assert torch.equal(first[0], first[2]) and not torch.equal(first[0], first[1])
    cache.save()
    stamp = cache.path.stat().st_mtime_ns
    again = FeatureCache(tmp_path, model)
    assert torch.equal(again.features([images[1].copy(), images[0]]), first[[1, 0]])
    again.save()
    assert again.path.stat().st_mtime_ns == stamp, "nothing was new"
    again.features(images)
    again.save()
    assert again.path.stat().st_mtime_ns > stamp
    assert model.fingerprint[:16] in cache.path.name
    cache.path.write_bytes(cache.path.read_bytes()[:100])
    with pytest.raises(ValueError, match="Delete it"):
        FeatureCache(tmp_path, model)


def test_a_pictures_digest_knows_its_shape():
    flat = np.arange(24, dtype=np.uint8)
    assert picture_digest(flat.reshape(2, 4, 3)) != picture_digest(flat.reshape(4, 2, 3))
    assert picture_digest(flat.reshape(2, 4, 3)) == picture_digest(np.asfortranarray(flat.reshape(2, 4, 3)))


@pytest.mark.parametrize(
    "missing", ["config.json", "preprocessor_config.json", "model.safetensors", "vocab.json"]
)
def test_an_incomplete_folder_is_told_in_words(tmp_path, missing):
    for path in clip_folder().iterdir():
        if path.name != missing:
            (tmp_path / path.name).write_bytes(path.read_bytes())
    with pytest.raises((ValueError, OSError), match=str(tmp_path)):
        ImageTextModel(tmp_path)


def test_a_missing_folder_is_told_in_words(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder"):
        ImageTextModel(tmp_path / "gone")


def test_the_run_compares_pairs_of_one_prompt_and_seed_on_the_simple_prompt(model, tmp_path):
    arms = [Arm("base"), Arm("complex", text="complex")]
    found = run(tmp_path, arms, clip=model)
    for at, (ours, base) in enumerate(zip(found.of("complex"), found.of("base"), strict=True)):
        prompt = next(prompt for prompt in found.prompts if prompt.id == ours.prompt_id)
        images = [pixels_of(found, name)[at] for name in ("complex", "base")]
        pair = logits(images, [prompt.prompt])[:, 0]
        assert (ours.prompt_id, ours.seed) == (base.prompt_id, base.seed)
        assert ours.cosine == pytest.approx(float(pair[0]) / model.logit_scale, abs=1e-5)
        assert ours.clip_share == pytest.approx(float(pair.softmax(0)[0]), abs=1e-5)
        assert base.clip_share is None
    for kind in ("Color", "Counting", "all"):
        mean = np.mean([picture.clip_share for picture in found.of("complex", kind)])
        score = found.clip_score("complex", kind)
        assert (score.share, score.baseline_share) == pytest.approx((mean, 1 - mean))
        test = found.comparison("complex", kind, "cosine")
        values = [[p.cosine for p in found.of(arm, kind)] for arm in ("complex", "base")]
        assert (test.mean, test.baseline_mean) == pytest.approx(tuple(map(np.mean, values)))
        assert test.mcnemar is None


def test_kid_of_a_run_is_that_of_its_pictures(model, tmp_path):
    from sur_core.evaluation import kid_value

    reference = pictures(5, seed=8)
    found = run(tmp_path, [Arm("base"), Arm("complex", text="complex")], clip=model, reference=reference)
    others = model.image_features(reference)
    ids = [picture.prompt_id for picture in found.of("base")]
    for arm in ("base", "complex"):
        rows = model.image_features(pixels_of(found, arm))
        assert found.kid(arm).value == pytest.approx(kid_value(rows, others, ids), rel=1e-4)
        assert found.kid(arm).value != pytest.approx(kid_value(rows, others), rel=1e-4)
    assert found.kid("complex").difference == found.kid("complex").value - found.kid("base").value
    assert (found.kid("base").prompts, found.kid("base").references_of_prompts) == (3, 0)


def write_all(folder, images, names):
    from PIL import Image

    folder.mkdir()
    for name, pixels in zip(names, images, strict=True):
        Image.fromarray(pixels).save(folder / f"{name}.png")
    return folder


def test_reference_pictures_may_be_a_folder(model, tmp_path):
    reference = pictures(4, seed=8)
    folder = write_all(tmp_path / "reference", reference, range(4))
    (folder / "notes.txt").write_text("no picture")
    prompts = [EvalPrompt("c", "Color", "a red cat"), EvalPrompt("d", "Color", "a dog")]
    found = [
        run(tmp_path / "out", [Arm("base")], prompts=prompts, clip=model, reference=given)
        for given in (reference, folder)
    ]
    assert found[0].kids == found[1].kids and found[0].kids[0].references == 4
    assert found[0].about["references"] == "4 pictures of no known prompt"


def test_reference_files_named_after_prompts_are_of_these_prompts(model, tmp_path):
    from sur_core.evaluation import kid_value

    reference, names = pictures(5, seed=8), ["c-1", "c-2", "c-x-01", "d-00", "e-1"]
    folder = write_all(tmp_path / "reference", reference, names)
    prompts = [EvalPrompt(id, "Color", f"a {id} cat") for id in ("c", "c-x", "d")]
    found = run(tmp_path / "out", [Arm("base")], prompts=prompts, clip=model, reference=folder)
    rows, others = model.image_features(pixels_of(found, "base")), model.image_features(reference)
    ids, of = [picture.prompt_id for picture in found.pictures], ["c", "c", "c-x", "d", None]
    assert found.kid("base").value == pytest.approx(kid_value(rows, others, ids, of), rel=1e-4)
    assert found.about["references"] == "5 pictures: 4 of 3 of these prompts, 1 of no known prompt"
    assert "5 references, 4 of them of the same prompts" in (tmp_path / "out" / "tables.md").read_text()
    alike = write_all(tmp_path / "alike", reference[:2], ["c-1", "c-2"])
    with pytest.raises(ValueError, match="all reference pictures are of the prompt 'c'"):
        run(tmp_path / "no", [Arm("base")], prompts=prompts, clip=model, reference=alike)
