"""Settings to measures: what is wrong or missing is told in words, before anything is loaded or drawn."""

import sys

import numpy as np
import pytest
import torch

from sur_core.evaluation.quality import QualityError, check_measures, make_measures
from tests.evaluation_quality_models import make_siglip, pictures, random_svr
from tests.evaluation_runs import clip_folder

PYIQA = """
import torch
__version__ = "9.9"
class Metric:
    lower_better = False
    def __call__(self, pixels):
        assert pixels.shape[:2] == (1, 3) and 0 <= pixels.min() and pixels.max() <= 1
        return pixels.mean(dim=(1, 2, 3)) * 100
def create_metric(name, device=None):
    if name != "musiq":
        raise RuntimeError("no weights of " + name)
    return Metric()
"""
PIQ = """
import torch
__version__ = "9.8"
def brisque(x, data_range=1.0, reduction="mean"):
    assert x.max() <= data_range and x.std() > 0
    return 100 * x.mean(dim=(1, 2, 3))
class CLIPIQA(torch.nn.Module):
    def forward(self, x):
        return x.mean(dim=(1, 2, 3)).unsqueeze(1)
"""


@pytest.fixture
def libraries(tmp_path, monkeypatch):
    """Stand-ins with the real ones' calls: neither pyiqa nor piq runs without torchvision and a download."""
    (tmp_path / "pyiqa.py").write_text(PYIQA)
    (tmp_path / "piq.py").write_text(PIQ)
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("pyiqa", "piq"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield
    for name in ("pyiqa", "piq"):
        sys.modules.pop(name, None)


def test_every_measure_by_its_settings(tmp_path, libraries):
    model, ranges = random_svr(tmp_path / "svr")
    settings = {
        "musiq": {"library": "pyiqa"},
        "brisque": {"model": str(model), "ranges": ranges},
        "clip_iqa": {},
        "siglip": {"model": make_siglip(tmp_path / "siglip")},
        "clip": str(clip_folder()),
        "device": "cpu",
        "local_files_only": True,
    }
    check_measures(settings)
    measures = make_measures(settings)
    names = ["clip_score", "clip_cosine", "siglip", "clip_iqa", "brisque", "musiq"]
    assert [measure.name for measure in measures] == names
    assert [measure.name for measure in measures if not measure.higher_is_better] == ["brisque"]
    assert [measure.name for measure in measures if measure.reads_text] == names[:3]
    assert len({measure.fingerprint for measure in measures}) == 6
    images = pictures(3)
    for measure in measures:
        found = measure.score(images, ["a red cat"] * 3)
        assert found.shape == (3,) and found.dtype == np.float64 and np.isfinite(found).all()
        assert measure.score(images[1:2], ["a red cat"]) == pytest.approx(found[1:2], rel=1e-4)


def test_nothing_asked_for_is_nothing():
    assert make_measures({}) == []
    check_measures({"device": "cpu"})


def test_a_model_too_large_for_the_device_is_told_in_words(monkeypatch):
    from sur_core.evaluation.quality import registry

    def full(*arguments):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(registry, "ImageTextModel", full)
    with pytest.raises(QualityError, match="clip: its model does not fit into the memory of cpu"):
        make_measures({"clip": str(clip_folder())})


# --- libraries ----------------------------------------------------------------------------------------------


def test_musiq_is_pyiqas_and_says_what_its_licence_allows(libraries):
    [measure] = make_measures({"musiq": {"library": "pyiqa"}})
    images = pictures(2)
    expected = [image.astype(float).mean() / 2.55 for image in images]
    assert measure.score(images, ["", ""]) == pytest.approx(expected, rel=1e-5)
    assert "non-commercial" in measure.note and "pyiqa 9.9" in measure.note


def test_brisque_and_clip_iqa_may_be_piqs(libraries):
    settings = {name: {"library": "piq"} for name in ("brisque", "clip_iqa")}
    iqa, brisque = make_measures(settings)
    images = [*pictures(1), np.zeros((20, 20, 3), np.uint8)]
    expected = images[0].astype(float).mean() / 255
    assert iqa.score(images[:1], [""]) == pytest.approx([expected], rel=1e-5)
    found = brisque.score(images, ["", ""])
    assert found[0] == pytest.approx(100 * expected, rel=1e-5) and np.isnan(found[1])
    assert not brisque.higher_is_better and "piq 9.8" in brisque.note and "non-commercial" not in brisque.note


@pytest.mark.parametrize(
    ("name", "library", "words"),
    [
        ("musiq", "pyiqa", "torchvision.*then pyiqa.*non-commercial"),
        ("brisque", "piq", r"torchvision.*then piq \(licensed under Apache"),
    ],
)
def test_a_package_that_is_not_installed_is_told_with_its_licence(name, library, words, monkeypatch):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(QualityError, match=words):
        check_measures({name: {"library": library}})


def test_a_library_without_its_weights_is_told_in_words(libraries):
    with pytest.raises(QualityError, match=r"no weights of clipiqa.*run once where there is a network"):
        make_measures({"clip_iqa": {"library": "pyiqa"}})


# --- words --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"clips": "x"}, "unknown setting 'clips'; expected clip, siglip"),
        ({"clip": 3}, "quality.clip: expected a text or a table, found 3"),
        ({"clip": {}}, "clip: model is missing: a folder"),
        ({"clip": {"model": "x", "size": 3}}, "unknown setting 'size'; expected model, revision"),
        ({"clip_iqa": {}}, "clip_iqa: no model; name one, or a library, or set clip"),
        ({"clip_iqa": {"model": "x", "library": "piq"}}, "leave out model, or library"),
        ({"clip_iqa": {"model": "x", "anchors": ["good"]}}, "expected two texts"),
        ({"clip_iqa": {"library": "torch"}}, "clip_iqa.library: expected pyiqa or piq, found 'torch'"),
        ({"brisque": {"model": "x"}}, "brisque: ranges is missing: the LIBSVM files"),
        ({"musiq": {}}, 'taken with library = "pyiqa" only'),
        ({"musiq": {"library": "piq"}}, "expected pyiqa, found 'piq'"),
        ({"batch_size": 0}, "batch_size: expected a whole number from 1, found 0"),
        ({"batch_size": True}, "found True"),
        ({"device": "abacus"}, "quality.device: 'abacus' is not usable here"),
    ],
)
def test_wrong_settings_are_told_in_words(settings, words):
    with pytest.raises(QualityError, match=words):
        check_measures(settings)


def test_a_gpu_that_is_not_there_is_told_in_words():
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(QualityError, match=r"'cuda' is not usable here .*; try 'cpu'"):
        check_measures({"device": "cuda"})
    check_measures({"device": "auto"})


@pytest.mark.parametrize("name", ["clip", "siglip", "clip_iqa"])
def test_a_folder_that_is_not_there_or_no_model_is_told_in_words(name, tmp_path):
    with pytest.raises(OSError, match="no such folder"):
        check_measures({name: str(tmp_path / "gone")})
    with pytest.raises(ValueError, match="no config.json"):
        check_measures({name: str(tmp_path)})


def test_files_that_are_not_there_are_told_before_anything_is_made(tmp_path):
    with pytest.raises(FileNotFoundError, match="allmodel: no such file"):
        check_measures(
            {"brisque": {"model": str(tmp_path / "allmodel"), "ranges": str(tmp_path / "allrange")}}
        )


def test_a_clip_without_safetensors_is_told_how_to_get_them(tmp_path):
    for path in clip_folder().iterdir():
        if path.suffix != ".safetensors":
            (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "pytorch_model.bin").write_bytes(b"weights")
    with pytest.raises(QualityError, match="model.safetensors, found none; load it with transformers"):
        check_measures({"clip": str(tmp_path)})


def test_a_model_on_a_hub_that_is_not_asked_is_told_in_words():
    with pytest.raises(OSError, match="nobody/nothing"):
        check_measures({"siglip": "nobody/nothing", "local_files_only": True})
