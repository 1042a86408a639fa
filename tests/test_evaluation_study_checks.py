"""What would stop a study after hours is told before any weights are read; where paths start, and devices."""

import json
import shutil
from pathlib import Path

import pytest

from sur_core.evaluation.judging import make_judge
from sur_core.evaluation.judging.settings import settled
from sur_core.evaluation.quality.registry import measures_beside
from sur_core.evaluation.study_checks import check_study
from sur_core.evaluation.study_config import load_study, with_device
from tests.evaluation_quality_models import random_svr
from tests.evaluation_runs import adapter_file, clip_folder
from tests.judge_models import make_owlv2
from tests.method_models import PLAIN_KINDS, controlnet_folder, picture_folder, segmenter_folder, table
from tests.small_data import tiny_model
from tests.study_runs import write_study_file
from train.__main__ import parse
from train.evaluate import _judge_settings

# --- where paths start --------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Everything a study names, beside its file; the working folder is another."""
    study = tmp_path / "study"
    for name, source in (("dm", tiny_model("sd1")), ("net", controlnet_folder()), ("clip", clip_folder())):
        shutil.copytree(source, study / "models" / name)
    shutil.copytree(picture_folder(), study / "photos")
    shutil.copytree(segmenter_folder(), study / "models" / "seg")
    shutil.copy(adapter_file(), study / "adapter.safetensors")
    random_svr(study / "svr")
    make_owlv2(study / "judges" / "owlv2")
    judge = '[judge]\nkind = "by type"\n[judge.types.Color]\nkind = "detector"\nmodel = "owlv2"\n'
    (study / "judges" / "judge.toml").write_text(judge)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    return study


def test_every_path_of_a_study_starts_from_its_file(folder):
    methods = [table(kind, controlnet="models/net", pictures="photos") for kind in ("controlnet-canny",)]
    methods.append(table("controlnet-seg", controlnet="models/net", pictures="photos"))
    methods[-1]["segmentation_model"] = "models/seg"
    methods.append({**table("multidiffusion"), "scheduler_of": "models/dm"})
    svr = {"model": "svr/allmodel", "ranges": "svr/allrange"}
    assert sorted(path.name for path in (folder / "svr").iterdir()) == ["allmodel", "allrange"]
    path = write_study_file(
        folder,
        models=[{"name": "DM", "path": "models/dm"}],
        methods=methods,
        adapters=[{"path": "adapter.safetensors", "etas": [0.5]}],
        judge="judges/judge.toml",
        quality={"clip": "models/clip", "clip_iqa": {"model": "models/clip"}, "brisque": svr},
    )
    found = load_study(path)
    check_study(found)  # which opens all but the judge
    assert found.models[0].path == str(folder / "models/dm")
    assert found.quality["clip"] == found.quality["clip_iqa"]["model"] == str(folder / "models/clip")
    assert found.quality["brisque"] == {name: str(folder / place) for name, place in svr.items()}
    assert found.judge["types"]["Color"]["model"] == str(folder / "judges/owlv2")
    assert make_judge(found.judge_settings).name == "Color: detector owlv2"


def test_names_on_the_hub_stay_what_they_are(folder):
    names = {"clip": "openai/clip-vit-large-patch14", "siglip": {"model": "google/siglip2"}, "clip_iqa": {}}
    assert measures_beside(names, folder) == names
    assert settled("vlm:a/b", folder) == {"kind": "vlm", "model": "a/b"}
    assert settled("module:callable", folder) == {"kind": "module:callable"}
    assert settled({"kind": "vlm", "model": ""}, folder)["model"] == "", "the folder itself is no model"


# --- where judges and measures compute ----------------------------------------------------------------------

TWO = {"kind": "by type", "types": {"A": {"kind": "vlm", "model": "a/b"}, "B": {"kind": "m:c"}}}
OWN = {"kind": "detector", "model": "a/b", "device": "cuda:1"}


def test_judges_and_measures_compute_where_the_pictures_are_drawn_unless_told_otherwise(tmp_path):
    drawing = {"seeds": 1, "device": "cpu"}
    one = load_study(write_study_file(tmp_path, drawing=drawing, judge=TWO, quality={"clip": "a/b"}))
    assert one.judge_settings["types"] == {"A": {**TWO["types"]["A"], "device": "cpu"}, "B": {"kind": "m:c"}}
    assert one.quality_settings["device"] == "cpu"
    own = {"judge": OWN, "quality": {"clip": "a/b", "device": "cuda:1"}}
    other = load_study(write_study_file(tmp_path, drawing=drawing, **own))
    assert (other.judge_settings["device"], other.quality_settings["device"]) == ("cuda:1", "cuda:1")
    for found in (one, other):
        moved = with_device(found, "cuda:2")
        assert moved.settings.device == moved.quality_settings["device"] == "cuda:2"
        judge = moved.judge_settings
        assert judge.get("device", judge.get("types", {}).get("A", {}).get("device")) == "cuda:2"


@pytest.mark.parametrize(("flags", "device"), [([], "auto"), (["--device", "cuda:2"], "cuda:2")])
def test_the_commands_own_judge_goes_where_the_command_says(flags, device):
    found = _judge_settings(parse(["evaluate", "--judge", "vlm:a/b", *flags]))
    assert found.get("device", "auto") == device
    assert _judge_settings(parse(["evaluate", "--judge", "m:c", *flags])) == {"kind": "m:c"}


# --- what cannot work ---------------------------------------------------------------------------------------


def changed(source: Path, folder: Path, file: str, **changes) -> str:
    """A copy of a model with other values in one of its configurations."""
    copied = shutil.copytree(source, folder)
    content = json.loads((copied / file).read_text("utf-8"))
    (copied / file).write_text(json.dumps({**content, **changes}), "utf-8")
    return str(copied)


def without(source: Path, folder: Path, pattern: str, content: bytes | None = None) -> str:
    """A copy of a model whose file of that pattern is gone, or cut."""
    copied = shutil.copytree(source, folder)
    (path,) = copied.glob(pattern)
    path.unlink() if content is None else path.write_bytes(content)
    return str(copied)


SD1, SD2 = tiny_model("sd1"), tiny_model("sd2")
SAFE, CUT = "*.safetensors", b"x" * 99


def euler(folder):
    file = "scheduler/scheduler_config.json"
    return changed(SD1, folder, file, _class_name="EulerDiscreteScheduler")


CASES = {
    "sag, scheduler of the settings": lambda place: (
        {"methods": [table("sag")], "drawing": {"scheduler": "euler"}},
        "method 'sag': .*wrong for the scheduler euler; set scheduler to 'ddim'",
    ),
    "sag, the second model's own scheduler": lambda place: (
        {"methods": [table("sag")], "models": [{"path": str(SD1)}, {"path": euler(place)}]},
        "wrong for the scheduler EulerDiscreteScheduler",
    ),
    "sag, no attention": lambda place: (
        {
            "methods": [table("sag")],
            "models": [
                {"path": changed(SD1, place, "unet/config.json", mid_block_type="UNetMidBlock2D")},
            ],
        },
        "the UNet of this model has no self-attention in its middle",
    ),
    "multidiffusion, two schedulers": lambda place: (
        {
            "methods": [{**table("multidiffusion"), "scheduler_of": str(SD2)}],
            "drawing": {"scheduler": "ddim"},
        },
        "scheduler_of says whose scheduler to take.*'ddim' for all",
    ),
    "multidiffusion, one view": lambda place: (
        {"methods": [{"kind": "multidiffusion"}]},
        "256 x 64 is a single view",
    ),
    "a ControlNet of another family": lambda place: (
        {
            "methods": [{"kind": "none"}, table("controlnet-canny")],
            "models": [{"path": str(SD2)}],
            "adapters": [{"path": str(adapter_file("sd2")), "etas": [0.5]}],
        },
        "this ControlNet is for another family of models .cross_attention_dim is 32",
    ),
    "a ControlNet without weights": lambda place: (
        {"methods": [table("controlnet-canny", controlnet=without(controlnet_folder(), place, SAFE))]},
        "the model has no weights",
    ),
    "a ControlNet that is cut": lambda place: (
        {"methods": [table("controlnet-canny", controlnet=without(controlnet_folder(), place, SAFE, CUT))]},
        "not a readable safetensors file",
    ),
    "a segmentation model without weights": lambda place: (
        {"methods": [table("controlnet-seg", segmentation_model=without(segmenter_folder(), place, SAFE))]},
        "has no weights",
    ),
    "no UNet": lambda place: (
        {"models": [{"path": str(SD1)}, {"path": without(SD1, place, "unet/config.json")}]},
        "has no unet/config.json",
    ),
    "no weights of the VAE": lambda place: (
        {"models": [{"path": str(SD1)}, {"path": without(SD1, place, "vae/*.safetensors")}]},
        "vae has no weights",
    ),
    "a UNet that is cut": lambda place: (
        {"models": [{"path": str(SD1)}, {"path": without(SD1, place, "unet/*.safetensors", CUT)}]},
        "not a readable safetensors file.*download it again",
    ),
    "an unknown scheduler": lambda place: (
        {
            "models": [
                {"path": changed(SD1, place, "scheduler/scheduler_config.json", _class_name="GoneScheduler")}
            ]
        },
        "'GoneScheduler' is unknown to diffusers",
    ),
    "a size that does not fit": lambda place: (
        {"drawing": {"width": 500}},
        "width 500: expected a multiple of 8",
    ),
    "clip skip": lambda place: (
        {"drawing": {"clip_skip": 9}},
        "clip_skip 9: expected 1 for SDXL, and at most 3",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_cannot_work_is_told_before_a_model_is_opened(case, tmp_path):
    """``check_study`` alone says it, which loads no weights."""
    changes, words = CASES[case](tmp_path / "copy")
    changes = {"methods": [{"kind": "none"}], "judge": None, "quality": None, **changes}
    with pytest.raises((ValueError, OSError), match=words):
        check_study(load_study(write_study_file(tmp_path / "study", **changes)))


def test_the_same_study_without_the_mistake_passes(tmp_path):
    """So that each of the above is told for its own reason."""
    methods = [table(kind) for kind in PLAIN_KINDS]
    check_study(load_study(write_study_file(tmp_path / "study", methods=methods, judge=None, quality=None)))
