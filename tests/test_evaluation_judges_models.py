"""Real detector classes with random weights: what they see is what transformers says by itself."""

import json

import numpy as np
import pytest
import torch

from sur_core.evaluation import EvalPrompt
from sur_core.evaluation.judges import ask
from sur_core.evaluation.judging import DetectorJudge, DetectorRules, open_detector
from sur_core.surd_build.model_source import load_image_processor, load_tokenizer
from tests.judge_models import LABELS, make_grounding_dino, make_mask2former, make_owlv2
from tests.surd_models import make_clip

SIZES = ((48, 64), (50, 37))
WORDS = ("cat", "red ball")
MAKERS = {"owlv2": make_owlv2, "grounding_dino": make_grounding_dino, "mask2former": make_mask2former}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("detectors")
    return {name: make(root / name) for name, make in MAKERS.items()}


def pictures(size, count: int = 3) -> list[np.ndarray]:
    draw = np.random.default_rng(0)
    return [draw.integers(0, 256, (*size, 3), dtype=np.uint8) for _ in range(count)]


def corners(boxes: torch.Tensor, width: float, height: float) -> torch.Tensor:
    """Center, size in shares -> left, top, right, bottom in pixels, cut to the picture by the caller."""
    x, y, across, down = boxes.unbind(-1)
    sides = [x - across / 2, y - down / 2, x + across / 2, y + down / 2]
    return torch.stack(sides, -1) * torch.tensor([width, height, width, height])


def inside(boxes: torch.Tensor, size) -> torch.Tensor:
    limits = torch.tensor([size[1], size[0]] * 2)
    return boxes.clamp(min=torch.zeros(4)).minimum(limits)


def as_table(found) -> list[tuple]:
    """(label, score, box), rounded: scores of two forward passes differ in the last digit."""
    return sorted((one.label, round(one.score, 4), *(round(side, 2) for side in one.box)) for one in found)


def close(left, right) -> bool:
    if [row[0] for row in left] != [row[0] for row in right]:
        return False
    return np.allclose([row[1:] for row in left], [row[1:] for row in right], atol=0.02)


def by_hand(labels, scores, boxes, threshold) -> list[tuple]:
    rows = []
    for label, score, box in zip(labels, scores.tolist(), boxes.tolist(), strict=True):
        if score > threshold and box[0] < box[2] and box[1] < box[3]:
            rows.append((label, round(score, 4), *(round(side, 2) for side in box)))
    return sorted(rows)


@torch.no_grad()
@pytest.mark.parametrize("size", SIZES)
def test_owlv2_scores_each_words_boxes_in_pixels_of_the_picture(folders, size):
    """The picture is filled up to a square at the right or the bottom, so shares are of its longer side."""
    from transformers import Owlv2ForObjectDetection

    detector = open_detector(folders["owlv2"], device="cpu", batch_size=2)
    model = Owlv2ForObjectDetection.from_pretrained(folders["owlv2"]).eval()
    processor, tokenizer = load_image_processor(detector._source), load_tokenizer(detector._source)
    texts = tokenizer([f"a photo of a {word}" for word in WORDS], padding=True, return_tensors="pt")
    images = pictures(size)
    seen = 0
    for image, found in zip(images, detector.detect(images, WORDS, 0.1), strict=True):
        output = model(pixel_values=processor(images=image, return_tensors="pt")["pixel_values"], **texts)
        boxes = inside(corners(output.pred_boxes[0], max(size), max(size)), size)
        expected = []
        for at, word in enumerate(WORDS):
            scores = output.logits[0, :, at].sigmoid()
            expected += by_hand([word] * len(scores), scores, boxes, 0.1)
        assert close(as_table(found), sorted(expected))
        seen += len(found)
    assert seen > 5, "the weights must give something to compare"


@torch.no_grad()
@pytest.mark.parametrize("size", SIZES)
def test_grounding_dino_is_asked_for_one_phrase_at_a_time(folders, size):
    from transformers import GroundingDinoForObjectDetection

    detector = open_detector(folders["grounding_dino"], device="cpu", batch_size=2)
    model = GroundingDinoForObjectDetection.from_pretrained(folders["grounding_dino"]).eval()
    processor, tokenizer = load_image_processor(detector._source), load_tokenizer(detector._source)
    images, seen = pictures(size), 0
    for image, found in zip(images, detector.detect(images, WORDS, 1e-9), strict=True):
        expected = []
        for word in WORDS:
            texts = tokenizer(f"{word}.", return_tensors="pt")
            output = model(**processor(images=image, return_tensors="pt"), **texts)
            scores = output.logits[0].sigmoid().max(-1).values
            boxes = inside(corners(output.pred_boxes[0], size[1], size[0]), size)
            expected += by_hand([word] * len(scores), scores, boxes, 1e-9)
        assert close(as_table(found), sorted(expected))
        seen += len(found)
    assert seen > 5


@torch.no_grad()
@pytest.mark.parametrize("size", SIZES)
def test_mask2formers_masks_lie_on_the_picture(folders, size):
    """They are the network's own, enlarged to the picture through 384 by 384 pixels."""
    from transformers import Mask2FormerForUniversalSegmentation

    detector = open_detector(folders["mask2former"], device="cpu", batch_size=2)
    model = Mask2FormerForUniversalSegmentation.from_pretrained(folders["mask2former"]).eval()
    processor = load_image_processor(detector._source)
    images, overlaps = pictures(size), []
    for image, found in zip(images, detector.detect(images, list(LABELS.values()), 0.05), strict=True):
        output = model(**processor(images=image, return_tensors="pt"))
        own = torch.nn.functional.interpolate(output.masks_queries_logits, size=(384, 384), mode="bilinear")
        own = torch.nn.functional.interpolate((own > 0).float(), size=size, mode="nearest")[0].bool()
        chances = output.class_queries_logits[0].softmax(-1)[:, :-1]
        for one in found:
            assert one.mask.shape == size and one.mask.any()
            rows, columns = np.nonzero(one.mask)
            assert one.box == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            shares = [_overlap(one.mask, mask.numpy()) for mask in own]
            overlaps.append(max(shares))
            place = list(LABELS.values()).index(one.label)
            assert one.score <= float(chances[int(np.argmax(shares)), place]) + 1e-3
    assert len(overlaps) > 5 and min(overlaps) > 0.99, overlaps


def _overlap(one, other) -> float:
    return (one & other).sum() / max(1, (one | other).sum())


@pytest.mark.parametrize("name", MAKERS)
def test_what_is_seen_does_not_depend_on_the_batch(folders, name):
    images, labels = pictures((48, 64), 5), ["cat", "ball"]
    together = open_detector(folders[name], device="cpu", batch_size=4).detect(images, labels, 1e-6)
    detector = open_detector(folders[name], device="cpu", batch_size=1)
    alone = [detector.detect([image], labels, 1e-6)[0] for image in images]
    assert all(close(as_table(a), as_table(b)) for a, b in zip(together, alone, strict=True))
    assert detector.detect([], labels, 0.1) == []


@pytest.mark.parametrize("name", MAKERS)
def test_a_judge_with_a_real_detector_gives_marks_that_can_be_kept(folders, name):
    judge = DetectorJudge(open_detector(folders[name], device="cpu"), DetectorRules(threshold=1e-6))
    prompt = EvalPrompt("p", "Color", "a ball", truth={"objects": [{"name": "ball", "colors": ["red"]}]})
    judge.check([prompt])
    mark = ask(judge, pictures((48, 64))[0], prompt)
    assert mark.details["seen"]["ball"], "random weights see something everywhere"
    assert sum(mark.details["seen"]["ball"][0]["colors"].values()) == pytest.approx(1, abs=0.1)
    assert judge.about["model"] == name and judge.about["identity"] and judge.about["dtype"] == "fp32"
    json.dumps(judge.about)


def test_a_closed_detector_names_its_own_classes(folders):
    detector = open_detector(folders["mask2former"], device="cpu")
    assert detector.labels == ("cat", "ball", "traffic light")
    prompt = EvalPrompt("p", "Counting", "x", truth={"objects": [{"name": "traffic lamp", "count": 1}]})
    with pytest.raises(ValueError, match="mask2former knows no 'traffic lamp'.*such as traffic light"):
        DetectorJudge(detector).check([prompt])


def test_words_too_long_for_owlv2_are_not_cut_in_silence(folders):
    detector = open_detector(folders["owlv2"], device="cpu")
    with pytest.raises(ValueError, match="reads 40 tokens, and 'zq.*' has more"):
        detector.detect(pictures((48, 64)), ["zq" * 30], 0.1)


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("config.json", "no config.json"),
        ("model.safetensors", "no weights"),
        ("preprocessor_config.json", "image processor"),
    ],
)
def test_an_incomplete_folder_is_told_when_the_judge_is_made(folders, tmp_path, name, file, words):
    copy(folders[name], tmp_path / "model", without=file)
    with pytest.raises((ValueError, OSError), match=words) as caught:
        open_detector(tmp_path / "model", device="cpu")
    assert "model" in str(caught.value)


@pytest.mark.parametrize("name", ["owlv2", "grounding_dino"])
def test_a_missing_tokenizer_is_told(folders, tmp_path, name):
    copy(folders[name], tmp_path / "model", without="vocab")
    with pytest.raises(ValueError, match="tokenizer"):
        open_detector(tmp_path / "model", device="cpu")


def test_damaged_and_missing_weights_are_told(folders, tmp_path):
    from safetensors.torch import load_file, save_file

    copy(folders["owlv2"], tmp_path / "cut", without="model.safetensors")
    whole = (folders["owlv2"] / "model.safetensors").read_bytes()
    (tmp_path / "cut/model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="not a readable safetensors file"):
        open_detector(tmp_path / "cut", device="cpu")
    copy(folders["owlv2"], tmp_path / "less", without="model.safetensors")
    weights = load_file(folders["owlv2"] / "model.safetensors")
    del weights["class_head.dense0.weight"]
    save_file(weights, tmp_path / "less/model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match="class_head.dense0.weight"):
        open_detector(tmp_path / "less", device="cpu").detect(pictures((48, 64)), ["cat"], 0.1)


def test_another_kind_of_model_is_told(tmp_path):
    folder = make_clip(tmp_path / "clip")
    with pytest.raises(ValueError, match="expected a detector of type owlv2, .*found one of type 'clip'"):
        open_detector(folder, device="cpu")


def test_a_wrong_name_is_told(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="no such folder"):
        open_detector(str(tmp_path / "gone"))
    with pytest.raises(
        OSError, match="nobody/no-such-detector.*not fetched|nobody/no-such-detector.*fetched"
    ):
        open_detector("nobody/no-such-detector", local_files_only=True)


def test_a_wrong_device_or_dtype_is_told(folders):
    with pytest.raises(ValueError, match="nowhere"):
        open_detector(folders["owlv2"], device="nowhere")
    with pytest.raises(ValueError, match="dtype is 'fp8'; expected auto or one of fp32"):
        open_detector(folders["owlv2"], device="cpu", dtype="fp8")


def test_too_little_memory_is_told(folders, monkeypatch):
    detector = open_detector(folders["owlv2"], device="cpu")

    def too_much(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(detector._model, "forward", too_much)
    with pytest.raises(ValueError, match="owlv2: 3 pictures at once do not fit.*smaller batch_size"):
        detector.detect(pictures((48, 64)), ["cat"], 0.1)


def copy(source, target, without: str) -> None:
    """A folder's files, except those whose names begin with ``without``."""
    target.mkdir()
    for path in source.iterdir():
        if not path.name.startswith(without):
            (target / path.name).write_bytes(path.read_bytes())
