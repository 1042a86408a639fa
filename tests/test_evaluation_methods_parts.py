"""What methods are made of: edges, segmentation maps, weighted texts, and settings that are checked."""

import importlib.util
import json

import numpy as np
import pytest
import torch

from sur_core.evaluation import EvalPrompt
from sur_core.evaluation.methods import KINDS, PromptWeighting, Segmenter, canny, make_method
from sur_core.evaluation.methods.ade20k import CLASSES, palette
from sur_core.evaluation.methods.weighting import _check_read_back, weighted
from tests.evaluation_runs import PROMPTS
from tests.method_models import PLAIN_KINDS, blocks, method, segmenter_folder, table, write_segmenter

# --- edges --------------------------------------------------------------------------------------------------


def square(low: int = 0, high: int = 255) -> np.ndarray:
    pixels = np.full((40, 50, 3), low, np.uint8)
    pixels[10:30, 12:40] = high
    return pixels


def lines(pixels: np.ndarray) -> np.ndarray:
    edges = canny(pixels)
    assert edges.shape == pixels.shape and set(np.unique(edges)) <= {0, 255}
    assert (edges[..., :1] == edges).all()
    return edges[..., 0] > 0


def test_the_outline_of_a_square_is_one_pixel_wide_and_closed():
    from scipy import ndimage

    found = lines(square())
    row, column = found[20], found[:, 25]
    assert row.sum() == 2 and column.sum() == 2
    assert set(np.flatnonzero(row)) <= {11, 12, 39, 40} and set(np.flatnonzero(column)) <= {9, 10, 29, 30}
    _, parts = ndimage.label(~found)
    assert parts == 2, "inside and outside are apart, by steps to the side alone"
    _, lines_found = ndimage.label(found, structure=np.ones((3, 3)))
    assert lines_found == 1


@pytest.mark.parametrize("turn", [1, 2, 3])
def test_edges_turn_with_the_picture(turn):
    pixels = square()
    size = canny(np.rot90(pixels, turn)).astype(bool).sum()
    assert abs(int(size) - int(canny(pixels).astype(bool).sum())) <= 12, "up to the corners and sides taken"


def step(height: int) -> np.ndarray:
    pixels = np.full((20, 20, 3), 100, np.uint8)
    pixels[:, 10:] = 100 + height
    return pixels


def test_thresholds_are_of_sobels_gradient():
    """It weighs a straight step by 4: of 24 grey levels are 96, of 26 are 104, of 51 are 204."""
    assert not lines(step(24)).any()
    assert not lines(step(26)).any(), "weak, and connected with nothing strong"
    assert lines(step(51)).any()
    assert canny(step(26), 90, 100).any()


def test_a_weak_edge_stays_where_it_goes_on_from_a_strong_one():
    pixels = np.zeros((30, 60, 3), np.uint8)
    pixels[15:, :30], pixels[15:, 30:] = 60, 30
    found = lines(pixels)
    assert found[:, 5].any() and found[:, 50].any()
    pixels[:, 25:35] = 0  # parts them
    apart = lines(pixels)
    assert apart[:, 5].any() and not apart[:, 50].any()


def test_an_edge_between_colours_of_equal_brightness_is_seen():
    pixels = np.zeros((20, 20, 3), np.uint8)
    pixels[:, :10, 0], pixels[:, 10:, 1] = 150, 150
    assert lines(pixels)[10].sum() == 1


# --- segmentation maps --------------------------------------------------------------------------------------


def test_the_palette_has_a_colour_for_each_class_from_wall_on():
    colours = palette()
    assert colours.shape == (CLASSES, 3)
    known = {0: (120, 120, 120), 1: (180, 120, 120), 2: (6, 230, 230), 4: (4, 200, 3), 149: (92, 0, 255)}
    for number, colour in known.items():
        assert tuple(colours[number]) == colour
    assert len({tuple(colour) for colour in colours}) == CLASSES - 1, "two classes share a grey"


def test_maps_have_the_colours_of_the_classes_that_the_model_sees():
    from transformers import AutoImageProcessor, SegformerForSemanticSegmentation

    pixels, segmenter = blocks(0, (70, 50)), Segmenter(str(segmenter_folder()))
    found = segmenter.make(pixels)
    assert found.shape == pixels.shape and found.dtype == np.uint8
    model = SegformerForSemanticSegmentation.from_pretrained(segmenter_folder()).eval()
    inputs = AutoImageProcessor.from_pretrained(segmenter_folder())(images=pixels, return_tensors="pt")
    with torch.no_grad():
        logits = model(**inputs).logits
    logits = torch.nn.functional.interpolate(logits, size=(50, 70), mode="bilinear", align_corners=False)
    classes = logits[0].argmax(0).numpy()
    assert len(np.unique(classes)) > 2
    assert np.array_equal(found, palette()[classes])


def test_a_segmenter_is_known_by_its_content(tmp_path):
    other = write_segmenter(tmp_path / "moved")
    assert Segmenter(str(other)).key == Segmenter(str(segmenter_folder())).key
    config = json.loads((other / "preprocessor_config.json").read_text())
    (other / "preprocessor_config.json").write_text(json.dumps({**config, "do_normalize": False}))
    assert Segmenter(str(other)).key != Segmenter(str(segmenter_folder())).key


def test_models_that_make_no_such_maps_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="gone: no such file or folder"):
        Segmenter("/gone")
    with pytest.raises(ValueError, match="config.json is missing; expected a transformers"):
        Segmenter(str(tmp_path))
    few = write_segmenter(tmp_path / "few", classes=21)
    with pytest.raises(ValueError, match="few: knows 21 classes; expected the 150 of ADE20K"):
        Segmenter(str(few))
    broken = write_segmenter(tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(b"x" * 50)
    with pytest.raises(ValueError, match="broken/model.safetensors: not a readable safetensors file"):
        Segmenter(str(broken))
    (broken / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="broken: the segmentation model has no weights"):
        Segmenter(str(broken))


# --- weighted texts -----------------------------------------------------------------------------------------

TRICKY = [
    "a red cat near a blue dog",
    "Red, blue and red-hot (very) things",
    "infrared is not red; nor is reddish",
    "a cat - and dog + show; two red apples.",
    "it's red. (Really red!), 100% red_ish & red/blue: red?",
    "red",
    "a brick-red wall, a red-brown dog - and a red door",
]


def test_weights_stand_on_whole_words_only():
    assert weighted(TRICKY[0], ["red", "blue dog"], 1.3) == "a (red)1.3 cat near a (blue dog)1.3"
    assert weighted(TRICKY[2], ["red"], 0.8) == "infrared is not (red)0.8; nor is reddish"
    assert weighted("a (red) cat", ["red"], 1.5) == "a \\((red)1.5\\) cat"
    assert weighted("a snow-white, white cat", ["white", "snow"], 1.3) == "a snow-white, (white)1.3 cat"


@pytest.mark.parametrize("text", ['a "red" sign', "a red cat-", "red C++ book", "red \\ blue"])
def test_signs_that_compel_would_take_for_its_own_are_refused(text):
    with pytest.raises(ValueError, match="a meaning of its own"):
        weighted(text, ["red"], 1.3)


@pytest.mark.skipif(importlib.util.find_spec("compel") is None, reason="compel is not installed")
@pytest.mark.parametrize("text", TRICKY)
def test_compel_reads_back_the_text_and_the_weights(text):
    from compel import Compel

    parsed = Compel.parse_prompt_string(weighted(text, ["red"], 1.4))
    assert len(parsed.prompts) == 1
    fragments = parsed.prompts[0].children
    plain = " ".join(fragment.text for fragment in fragments)
    assert "".join(plain.split()) == "".join(text.split())
    heavy = [fragment.text.lower() for fragment in fragments if fragment.weight != 1]
    assert heavy and set(heavy) == {"red"}


@pytest.mark.skipif(importlib.util.find_spec("compel") is None, reason="compel is not installed")
@pytest.mark.parametrize("read", ["a (red)1.5 dog", "a snow-(red)1.5 cat", "a (red)1.4 cat", "a red++ cat"])
def test_a_text_that_compel_would_read_otherwise_is_refused(read):
    _check_read_back("a red cat", "a (red)1.5 cat", 1.5)
    with pytest.raises(ValueError, match="compel reads .*; write the weighted prompts into a file"):
        _check_read_back("a red cat", read, 1.5)


@pytest.fixture
def compel_there(monkeypatch):
    monkeypatch.setattr(PromptWeighting, "_require", lambda self: None)


def test_weighted_texts_come_from_a_file(tmp_path, compel_there):
    texts = {prompt.id: f"({prompt.prompt})1.2" for prompt in PROMPTS}
    (tmp_path / "texts.json").write_text(json.dumps(texts))
    lines = "\n".join(f'{name} = "{text}"' for name, text in texts.items())
    (tmp_path / "texts.toml").write_text(lines)
    for name in ("texts.json", "texts.toml"):
        make_method({"kind": "weighting", "texts": name}, tmp_path).check(PROMPTS)
    more = [*PROMPTS, EvalPrompt("x9", "Color", "a cat")]
    with pytest.raises(ValueError, match="texts.json: no weighted text for 1 prompts, such as 'x9'"):
        make_method({"kind": "weighting", "texts": "texts.json"}, tmp_path).check(more)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "not readable as JSON"),
        ("[1]", "one weighted text for each"),
        ('{"c1": 2}', "one weighted text"),
    ],
)
def test_a_damaged_file_of_texts_is_named(content, words, tmp_path, compel_there):
    (tmp_path / "texts.json").write_text(content)
    with pytest.raises(ValueError, match=f"texts.json: .*{words}"):
        make_method({"kind": "weighting", "texts": str(tmp_path / "texts.json")}).check(PROMPTS)


def test_words_that_are_in_no_prompt_are_told(compel_there):
    with pytest.raises(ValueError, match="none of the words purple is in any prompt"):
        make_method({"kind": "weighting", "words": ["purple"]}).check(PROMPTS)


# --- settings -----------------------------------------------------------------------------------------------


def test_every_kind_can_be_made_and_is_named_after_itself_unless_told_otherwise():
    assert set(KINDS) == {*PLAIN_KINDS, "weighting"}
    for kind in KINDS:
        assert method(kind).name == kind
        assert method(kind, name="my own").name == "my own"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "kind is None; expected 'none', 'controlnet-canny'"),
        ({"kind": "self-attention"}, "expected 'none'.* or 'sag'"),
        ({"kind": "controlnet"}, "did you mean 'controlnet-"),
        ({"kind": "none", "scale": 1.0}, "none: unknown setting 'scale'; known are name"),
        ({"kind": "sag", "sacle": 1.0}, "sag: unknown setting 'sacle'.*did you mean 'scale'"),
        ({"kind": "sag", "scale": "much"}, "sag: scale: expected a number, found 'much'"),
        ({"kind": "sag", "scale": -1.0}, "sag: scale: expected a number from 0 to 10"),
        ({"kind": "multidiffusion", "circular": 1}, "circular: expected true or false"),
        ({"kind": "multidiffusion", "width": 1000.0}, "width: expected a whole number"),
        ({"kind": "multidiffusion", "view_batch_size": 0}, "view_batch_size: expected a whole number from 1"),
        ({"kind": "controlnet-canny"}, "controlnet-canny: controlnet is missing"),
        ({"kind": "controlnet-canny", "controlnet": "a/b"}, "expected either conditions.*found neither"),
        (table("controlnet-canny", conditions="x"), "expected either conditions.*found both"),
        (table("controlnet-canny", low=300.0), "expected 0 <= low <= high"),
        (table("controlnet-canny", start=0.5, end=0.5), "0 <= start < end <= 1"),
        (table("controlnet-canny", segmentation_model="x"), "unknown setting 'segmentation_model'"),
        (table("controlnet-seg", segmentation_model=""), "set segmentation_model to a model trained"),
        ({"kind": "weighting"}, "expected either texts.*found neither"),
        ({"kind": "weighting", "words": "red"}, "words: expected a list"),
        ({"kind": "weighting", "words": ["red"], "weight": 0.0}, "weight: expected a number above 0"),
    ],
)
def test_impossible_settings_are_told_in_words(settings, words):
    with pytest.raises(ValueError, match=words):
        make_method(settings)


def test_paths_start_from_the_configurations_folder(tmp_path):
    (tmp_path / "photos").mkdir()
    chosen = make_method({"kind": "controlnet-canny", "controlnet": "a/b", "pictures": "photos"}, tmp_path)
    with pytest.raises(FileNotFoundError, match=f"{tmp_path / 'photos'}: no picture for"):
        chosen.check(PROMPTS)
