"""What the passport card says is what the file says, in plain JSON values."""

from __future__ import annotations

import hashlib
import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from sur_core import AdapterFileError, load_adapter, save_adapter
from sur_core.passport_card import LONGEST, WARNINGS, passport_card
from tests.helpers import random_adapter, write_authors_file

KNOWN = {
    "base_model": "Realistic Vision V2.0",
    "eta": 0.3,
    "llm_name": "huggyllama/llama-13b",
    "llm_layer": 39,
    "steps": 5000,
    "title": "kittens",
}


def saved(folder, family="sd1", **passport):
    path = folder / "ours.safetensors"
    save_adapter(random_adapter(family, depth=1, feedforward=8, passport=passport), path)
    return path


def rewritten(path, change):
    """The file with its tensors changed by ``change`` and its passport as it was."""
    with safe_open(path, "pt") as file:
        tensors, metadata = {key: file.get_tensor(key) for key in file.keys()}, file.metadata()  # noqa: SIM118
    save_file(change(tensors), path, metadata=metadata)
    return path


def codes(card: dict) -> list[str]:
    return [warning["code"] for warning in card["warnings"]]


def test_it_says_what_the_file_says(tmp_path):
    path = saved(tmp_path, **KNOWN)
    content = path.read_bytes()
    assert passport_card(path) == {
        "title": "kittens",
        "family": "sd1",
        "encoders": ["clip_l"],
        "width": 768,
        "llm": "huggyllama/llama-13b",
        "llm_layer": 39,
        "steps": 5000,
        "eta": 0.3,
        "merged_from": 0,
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "warnings": [{"code": "made_for", "model": "Realistic Vision V2.0"}],
    }


def test_sdxl_is_as_wide_as_both_its_encoders(tmp_path):
    card = passport_card(saved(tmp_path, "sdxl"))
    assert (card["family"], card["encoders"], card["width"]) == ("sdxl", ["clip_l", "clip_g"], 2048)


def test_what_a_file_does_not_store_is_said_to_be_unknown(tmp_path):
    card = passport_card(saved(tmp_path))
    assert (card["llm"], card["llm_layer"], card["steps"], card["eta"]) == ("", None, None, None)
    assert codes(card) == ["model_unknown", "eta_unknown"]


@pytest.mark.parametrize(
    "folder, eta, warnings",
    [
        ("theirs", None, ["authors_made_for", "authors_eta_unknown"]),
        ("adapterw0.2", 0.2, ["authors_made_for"]),
    ],
)
def test_the_authors_format_warns_of_what_it_lacks(tmp_path, folder, eta, warnings):
    card = passport_card(write_authors_file(tmp_path / folder / "adapter.pt", depth=1, feedforward=8))
    assert (card["family"], card["width"], card["eta"]) == ("sd1", 768, eta)
    assert codes(card) == warnings
    assert card["warnings"][0]["model"] == "Realistic Vision V2.0"


@pytest.mark.parametrize("source", ["sur", "authors"])
@pytest.mark.parametrize("eta", [None, 0.1])
@pytest.mark.parametrize("base_model", ["", "a model"])
@pytest.mark.parametrize("family", ["sd1", "sd2"])
def test_it_warns_of_all_that_the_passport_warns_of(tmp_path, source, eta, base_model, family):
    path = saved(tmp_path, family, source_format=source, eta=eta, base_model=base_model)
    found = passport_card(path)
    sentences = " ".join(load_adapter(path).passport.warnings)
    assert set(codes(found)) <= set(WARNINGS)
    assert any(code.endswith("eta_unknown") for code in codes(found)) == ("eta used in training" in sentences)
    assert ("authors_made_for" in codes(found)) == ("does not name the base model" in sentences)


@pytest.mark.parametrize(
    "written, shown",
    [
        ("/home/someone/models/vision", "vision"),
        ("C:\\Users\\someone\\models\\vision", "vision"),
        ("\\\\server\\share\\someone\\vision", "vision"),
        ("~/someone/vision", "vision"),
        ("  /home/someone/vision/", "vision"),
        ("runwayml/stable-diffusion-v1-5", "runwayml/stable-diffusion-v1-5"),
        ("two\n lines\tof text", "two lines of text"),
        ("x" * 5000, "x" * (LONGEST - 1) + "…"),
    ],
)
def test_a_text_is_one_short_line_without_the_folders_of_another_machine(tmp_path, written, shown):
    card = passport_card(saved(tmp_path, base_model=written, llm_name=written, title=written))
    assert (card["warnings"][0]["model"], card["llm"], card["title"]) == (shown, shown, shown)
    assert "someone" not in json.dumps(card)


def test_the_weights_of_our_files_are_not_loaded(tmp_path, monkeypatch):
    path = saved(tmp_path, **KNOWN)
    monkeypatch.setattr(torch.Tensor, "isfinite", _refuse)  # load_adapter looks at every weight
    with pytest.raises(AssertionError):
        load_adapter(path)
    assert passport_card(path)["steps"] == 5000


def _refuse(*_):
    raise AssertionError("a weight was looked at")


def test_a_safetensors_file_of_another_kind_is_refused_by_its_header(tmp_path, monkeypatch):
    path = tmp_path / "model.safetensors"
    save_file({"lora.weight": torch.zeros(8, 8)}, path)
    monkeypatch.setattr("sur_core.checkpoint.read_tensors", _refuse)
    with pytest.raises(AdapterFileError, match=r"model\.safetensors: not a SUR adapter.*lora\.weight"):
        passport_card(path)


@pytest.mark.parametrize("kept", [0, 4, 100, -100])
def test_a_file_cut_off_anywhere_is_refused_in_words(tmp_path, kept):
    path = saved(tmp_path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(AdapterFileError, match=r"ours\.safetensors: .*again"):
        passport_card(path)


def test_every_value_is_plain_json(tmp_path):
    card = passport_card(saved(tmp_path, **KNOWN))
    assert json.loads(json.dumps(card, allow_nan=False)) == card


@pytest.mark.parametrize(
    "change, said",
    [
        (lambda tensors: {"x": torch.zeros(1)}, "tensors are missing"),
        (lambda tensors: {key: tensor[:1].clone() for key, tensor in tensors.items()}, "should be"),
        (lambda tensors: {key: tensor.to(torch.int32) for key, tensor in tensors.items()}, "floating-point"),
    ],
)
def test_a_passport_over_other_weights_gets_no_card(tmp_path, change, said):
    """The same as loading the file says, so that the card never promises what the node then refuses."""
    path = rewritten(saved(tmp_path, **KNOWN), change)
    with pytest.raises(AdapterFileError, match=said) as told:
        passport_card(path)
    with pytest.raises(AdapterFileError) as loading:
        load_adapter(path)
    assert str(told.value).replace("I32", "torch.int32") == str(loading.value)


@pytest.mark.parametrize(
    "model",
    ["/home/me/x/model", "~/model", "file:///home/me/model", "../../me/model", "C:\\me\\model", "./me/model"],
)
def test_whose_folder_a_model_was_in_is_not_told(tmp_path, model):
    (warning, *_) = passport_card(saved(tmp_path, base_model=model, eta=0.1))["warnings"]
    assert warning["model"] == "model"
