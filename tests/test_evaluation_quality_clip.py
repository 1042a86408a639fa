"""CLIP Score and SigLIP by hand from the models' own logits, CLIP-IQA against torchmetrics."""

import json
import shutil
import sys

import numpy as np
import pytest
import torch

from sur_core.evaluation.quality import PairMeasure, QualityError, check_measures, make_measures
from tests.evaluation_quality_models import SIGLIP_LENGTH, make_siglip, pictures
from tests.evaluation_runs import clip_folder, image_processor

TEXTS = ["a red cat", "two blue birds near the house"]


@pytest.fixture(scope="module")
def measures() -> dict:
    settings = {"clip": str(clip_folder()), "clip_iqa": {}, "batch_size": 3}
    return {measure.name: measure for measure in make_measures(settings)}


@pytest.fixture(scope="module")
def siglip_folder(tmp_path_factory):
    return make_siglip(tmp_path_factory.mktemp("siglip"))


@torch.no_grad()
def clip_logits(images, texts) -> torch.Tensor:
    """[images, texts], by transformers alone."""
    from transformers import CLIPModel, CLIPTokenizer

    tokens = CLIPTokenizer.from_pretrained(clip_folder())(texts, padding=True, return_tensors="pt")
    pixels = image_processor()(images=images, return_tensors="pt")["pixel_values"]
    return CLIPModel.from_pretrained(clip_folder()).eval()(pixel_values=pixels, **tokens).logits_per_image


def test_clip_scores_logits_and_cosines_are_clips_own(measures):
    images = pictures(5)
    texts = [TEXTS[at % 2] for at in range(5)]
    table = clip_logits(images, TEXTS)
    expected = table[torch.arange(5), torch.arange(5) % 2].double().numpy()
    found = measures["clip_score"].score(images, texts)
    assert found.dtype == np.float64 and found == pytest.approx(expected, abs=1e-4)
    scale = np.exp(2.0)
    assert measures["clip_cosine"].score(images, texts) == pytest.approx(expected / scale, abs=1e-5)
    assert expected.std() > 0.2, "the pictures must differ, or this test shows nothing"


def test_the_papers_clip_score_is_a_softmax_over_a_pair_and_adds_up_to_one(measures):
    ours, base = pictures(4, seed=1), pictures(4, seed=2)
    measure = measures["clip_score"]
    assert isinstance(measure, PairMeasure) and not isinstance(measures["clip_cosine"], PairMeasure)
    scores = [measure.score(images, TEXTS[:1] * 4) for images in (ours, base)]
    pairs = [clip_logits([ours[at], base[at]], TEXTS[:1])[:, 0].softmax(0) for at in range(4)]
    expected = torch.stack(pairs).double().numpy()
    assert measure.shares(*scores) == pytest.approx(expected[:, 0], abs=1e-4)
    assert measure.shares(*scores[::-1]) == pytest.approx(expected[:, 1], abs=1e-4)
    assert measure.shares(*scores) + measure.shares(*scores[::-1]) == pytest.approx(1)
    assert measure.shares(scores[0], scores[0]).tolist() == [0.5] * 4


# --- CLIP-IQA -----------------------------------------------------------------------------------------------


class AsTorchmetricsExpects:
    """A CLIPModel whose features are tensors, as in transformers 4."""

    def __init__(self, model):
        self._model = model

    def to(self, device):
        return self

    def get_text_features(self, *inputs):
        return self._tensor(self._model.get_text_features(*inputs))

    def get_image_features(self, *inputs):
        return self._tensor(self._model.get_image_features(*inputs))

    def _tensor(self, found):
        return found if isinstance(found, torch.Tensor) else found.pooler_output


def torchmetrics_clip():
    from transformers import CLIPModel, CLIPProcessor, CLIPTokenizer

    reader = CLIPProcessor(image_processor(), CLIPTokenizer.from_pretrained(clip_folder()))
    return AsTorchmetricsExpects(CLIPModel.from_pretrained(clip_folder()).eval()), reader


def coloured(count: int) -> list[np.ndarray]:
    """Of other colours and brightness, all of one size."""
    draw = np.random.default_rng(0)
    means = draw.integers(0, 256, (count, 3))
    return [np.clip(draw.normal(mean, 40, (40, 48, 3)), 0, 255).astype(np.uint8) for mean in means]


@pytest.mark.parametrize("anchors", [("Good photo.", "Bad photo."), ("Happy", "Sad")])
def test_clip_iqa_is_what_torchmetrics_computes_of_the_same_weights(anchors):
    functional = pytest.importorskip("torchmetrics.functional.multimodal")
    images = coloured(8)
    stacked = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
    expected = functional.clip_image_quality_assessment(
        stacked.float(), model_name_or_path=torchmetrics_clip, prompts=(anchors,)
    )
    settings = {"clip_iqa": {"model": str(clip_folder()), "anchors": list(anchors)}}
    [measure] = make_measures(settings)
    found = measure.score(images, [""] * 8)
    assert found == pytest.approx(expected.double().numpy(), abs=1e-4)
    if anchors == ("Happy", "Sad"):
        assert ((found > 0.05) & (found < 0.95)).sum() > 1, "nearly all 0 or 1 would show nothing"
    assert all(anchor in measure.note for anchor in anchors)


def test_clip_iqa_with_other_anchors_is_another_measure(measures):
    settings = {"clip_iqa": {"model": str(clip_folder()), "anchors": ["Sharp photo.", "Blurry photo."]}}
    [other] = make_measures(settings)
    prints = {measure.fingerprint for measure in measures.values()} | {other.fingerprint}
    assert len(prints) == len(measures) + 1
    swapped = {"clip_iqa": {"model": str(clip_folder()), "anchors": ["Blurry photo.", "Sharp photo."]}}
    images = pictures(3)
    [reverse] = make_measures(swapped)
    assert other.score(images, [""] * 3) + reverse.score(images, [""] * 3) == pytest.approx(1)


# --- SigLIP -------------------------------------------------------------------------------------------------


@torch.no_grad()
def siglip_logits(folder, images, texts) -> torch.Tensor:
    """[images, texts], by transformers alone; tokens by hand."""
    import transformers
    from transformers import AutoTokenizer, SiglipModel

    kind = getattr(transformers, "SiglipImageProcessorPil", None) or transformers.SiglipImageProcessor
    vocabulary = AutoTokenizer.from_pretrained(folder).get_vocab()
    rows = [[vocabulary[word] for word in text.lower().split()] + [1] for text in texts]
    ids = torch.tensor([row + [0] * (SIGLIP_LENGTH - len(row)) for row in rows])
    pixels = kind.from_pretrained(folder)(images=images, return_tensors="pt")["pixel_values"]
    return SiglipModel.from_pretrained(folder).eval()(input_ids=ids, pixel_values=pixels).logits_per_image


def test_a_siglip_score_is_the_sigmoid_of_its_logit(siglip_folder):
    images, texts = pictures(5), ["a red cat", "Two blue BIRDS near the house"]
    table = siglip_logits(siglip_folder, images, texts)
    expected = torch.sigmoid(table[torch.arange(5), torch.arange(5) % 2].double()).numpy()
    [measure] = make_measures({"siglip": str(siglip_folder), "batch_size": 2})
    found = measure.score(images, [texts[at % 2] for at in range(5)])
    assert found == pytest.approx(expected, abs=1e-5)
    assert np.ptp(found) > 0.02, "the pictures must differ, or this test shows nothing"
    assert measure.score([], []).shape == (0,)


def test_siglip_warns_of_a_text_that_is_cut(siglip_folder, caplog):
    [measure] = make_measures({"siglip": str(siglip_folder)})
    short, long = "a red cat near two blue birds", "a red cat near two blue birds near the house"
    scores = measure.score(pictures(1) * 2, [long, short])
    assert "8 tokens only" in caplog.text and "near the house" in caplog.text
    assert np.isfinite(scores).all()


def test_other_weights_are_another_measure(siglip_folder, tmp_path):
    folders = [siglip_folder, make_siglip(tmp_path / "other", seed=1), tmp_path / "same"]
    shutil.copytree(siglip_folder, folders[2])
    prints = [make_measures({"siglip": str(folder)})[0].fingerprint for folder in folders]
    assert prints[0] == prints[2] != prints[1]


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("siglip", "clip", "type 'clip'; expected 'siglip'"),
        ("clip", "siglip", "name it under siglip"),
        ("clip_iqa", "siglip", "expected 'clip'"),
    ],
)
def test_a_model_of_another_kind_is_told_before_anything_is_loaded(name, kind, words, siglip_folder):
    folder = {"clip": clip_folder(), "siglip": siglip_folder}[kind]
    with pytest.raises(QualityError, match=words):
        check_measures({name: str(folder)})


def test_siglips_own_tokenizer_needs_a_package_and_says_so(siglip_folder, tmp_path, monkeypatch):
    folder = shutil.copytree(siglip_folder, tmp_path / "siglip")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "SiglipTokenizer"}))
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    with pytest.raises(QualityError, match="pip install sentencepiece"):
        check_measures({"siglip": str(folder)})


@pytest.mark.parametrize("missing", ["model.safetensors", "tokenizer.json", "preprocessor_config.json"])
def test_an_incomplete_siglip_is_told_in_words(missing, siglip_folder, tmp_path):
    folder = shutil.copytree(siglip_folder, tmp_path / "siglip")
    (folder / missing).unlink()
    with pytest.raises((ValueError, OSError), match="siglip"):
        make_measures({"siglip": str(folder)})


def test_a_siglip_with_weights_of_another_model_is_told_in_words(siglip_folder, tmp_path):
    folder = shutil.copytree(siglip_folder, tmp_path / "siglip")
    shutil.copy(clip_folder() / "model.safetensors", folder / "model.safetensors")
    with pytest.raises(ValueError, match="siglip: the model cannot be loaded"):
        make_measures({"siglip": str(folder)})


def test_a_measure_is_told_in_one_sentence_each(measures, siglip_folder):
    found = [*measures.values(), *make_measures({"siglip": str(siglip_folder)})]
    for measure in found:
        assert measure.note.endswith(".") and ". " not in measure.note
        assert measure.higher_is_better
    assert "five of the twelve rows" in measures["clip_score"].note
