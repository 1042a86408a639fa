"""A study's file is checked before anything is drawn; what is wrong is told in words."""

import pytest

from sur_core import save_adapter
from sur_core.evaluation.methods import KINDS
from sur_core.evaluation.study_checks import check_study
from sur_core.evaluation.study_config import load_study
from sur_core.evaluation.study_run import cell_folder, run_study
from tests.evaluation_runs import PROMPTS, WIDTHS, adapter_file
from tests.helpers import random_adapter
from tests.method_models import picture_folder, table
from tests.small_data import tiny_model
from tests.study_runs import write_study_file

NONE = [{"kind": "none"}]
PAPERS_METHODS = [
    *("-", "ControlNet (canny)", "ControlNet (seg)"),
    *("Prompt Weighting", "MultiDiffusion", "Self-attention Guidance"),
]


def trained(path, eta: float):
    save_adapter(random_adapter(WIDTHS["sd1"], depth=1, heads=2, feedforward=16, passport={"eta": eta}), path)
    return path


def test_the_example_in_the_configs_is_a_study_of_the_papers_tables(tmp_path):
    """Its paths are the user's to fill in; everything else is read as it stands."""
    from pathlib import Path

    text = (Path(__file__).parents[1] / "train/configs/study_paper.toml").read_text("utf-8")
    adapter = tmp_path / "adapter.safetensors"
    save_adapter(
        random_adapter(WIDTHS["sd1"], depth=1, heads=2, feedforward=16, passport={"eta": 0.1}), adapter
    )
    for line in text.splitlines():
        if line.startswith("path = ") and line.endswith('.safetensors"'):
            text = text.replace(line, f'path = "{adapter}"')
    (tmp_path / "study.toml").write_text(text)
    found = load_study(tmp_path / "study.toml")
    assert [model.name for model in found.models] == ["DM (1.5)", "DM (cartoon)"]
    assert {choice.method.kind for choice in found.methods} == set(KINDS)
    for model in found.models:
        assert [method.name for method in found.methods_of(model)] == PAPERS_METHODS
    assert len(found.prompts) == 45 and len(found.settings.seeds) == 10
    assert {prompt.type for prompt in found.prompts} == {"Action", "Color", "Counting"}
    for model in found.models:
        assert [arm.eta for arm in found.arms(model)] == [0, 0.1]
    assert set(found.judge["types"]) == {"Action", "Color", "Counting"}
    assert {"clip", "clip_iqa", "brisque"} <= set(found.quality)


def test_paths_start_from_the_files_folder_and_seeds_may_be_counted(tmp_path):
    found = load_study(write_study_file(tmp_path, drawing={"seeds": 3, "negative_prompt": "ugly"}))
    assert found.settings.output_dir == tmp_path / "study"
    assert found.settings.seeds == (0, 1, 2)
    assert found.prompts == PROMPTS
    arms = found.arms(found.models[0])
    assert [arm.name for arm in arms] == ["Baseline", "SUR, eta 0", "SUR, eta 0.5"]
    assert {arm.negative_prompt for arm in arms} == {"ugly"}
    assert load_study(write_study_file(tmp_path), tmp_path / "x").settings.output_dir == tmp_path / "x"


def test_etas_are_those_of_the_training_unless_given(tmp_path):
    trained = tmp_path / "trained.safetensors"
    save_adapter(
        random_adapter(WIDTHS["sd1"], depth=1, heads=2, feedforward=16, passport={"eta": 0.25}), trained
    )
    found = load_study(write_study_file(tmp_path, adapters=[{"path": str(trained)}]))
    assert [arm.eta for arm in found.arms(found.models[0])] == [0, 0.25]


ADAPTER = {"path": "{adapter}", "etas": [0.5]}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"modles": []}, "unknown setting 'modles'.*did you mean 'models'"),
        ({"models": []}, r"expected one or more \[\[models\]\] tables, found none"),
        ({"models": [{"name": "x"}]}, r"\[\[models\]\] 1: path is missing"),
        ({"models": [{"path": "x", "varient": "fp16"}]}, "unknown setting 'varient'.*did you mean 'variant'"),
        ({"models": [{"path": "x"}, {"path": "x"}]}, "models: 'x' is there twice"),
        ({"methods": [{"kind": "none"}, {"kind": "none"}]}, "methods: 'none' is there twice"),
        ({"methods": [{"kind": "sag", "scale": "x"}]}, r"\[\[methods\]\] 1: sag: scale: expected a number"),
        ({"methods": [{"kind": "none", "models": ["x"]}]}, "methods: none: models names 'x'; expected names"),
        ({"methods": [{"kind": "magic"}]}, r"\[\[methods\]\] 1: kind is 'magic'; expected"),
        ({"adapters": [{"etas": [0.5]}]}, r"\[\[adapters\]\] 1: path is missing"),
        ({"adapters": [{"path": "gone.pt", "etas": [0.5]}]}, "gone.pt: no such adapter file"),
        ({"adapters": [{"path": "{adapter}"}]}, "does not say with which eta it was trained; set etas"),
        ({"adapters": [{**ADAPTER, "etas": [2.0]}]}, "found 2"),
        ({"adapters": [{**ADAPTER, "etas": [0.5, 0.5]}]}, "etas: 0.5 is there twice"),
        ({"adapters": [{**ADAPTER, "models": ["x"]}]}, "models names 'x'; expected names of"),
        ({"adapters": [ADAPTER, ADAPTER]}, "adapters: 'SUR' is there twice"),
        ({"prompts": "gone.jsonl"}, "gone.jsonl: no such file"),
        ({"prompts": ["prompts.jsonl", "prompts.jsonl"]}, "the id 'c1' occurs twice"),
        ({"prompts": []}, "prompts: expected files or names of sets"),
        ({"types": ["Colour"]}, "types: no prompts of type 'Colour'"),
        ({"drawing": {"seeds": 0}}, "drawing: seeds: expected how many"),
        ({"drawing": {"stepps": 5}}, "drawing: unknown setting 'stepps'.*did you mean 'steps'"),
        ({"drawing": {"steps": 0}}, "drawing: steps: expected a whole number from 1"),
        ({"judge": 5}, "judge: expected a table or a text"),
        ({"output_dir": 5}, "output_dir: expected a text"),
    ],
)
def test_mistakes_in_the_file_are_told(changes, words, tmp_path):
    def filled(value):
        if isinstance(value, dict):
            return {name: filled(part) for name, part in value.items()}
        if isinstance(value, list):
            return [filled(part) for part in value]
        return str(adapter_file()) if value == "{adapter}" else value

    with pytest.raises((ValueError, OSError), match=words) as caught:
        load_study(write_study_file(tmp_path, **filled(changes)))
    assert isinstance(caught.value, OSError) or "study.toml: " in str(caught.value)


def checked(folder, **changes):
    check_study(load_study(write_study_file(folder, **changes)))


def test_what_can_be_known_is_told_before_a_model_is_opened(tmp_path):
    checked(tmp_path, quality=None)
    lacking = [table("controlnet-canny", pictures=str(picture_folder()) + "-gone")]
    with pytest.raises(FileNotFoundError, match="-gone: no such folder"):
        checked(tmp_path, methods=lacking)
    with pytest.raises(ValueError, match="DM .cartoon.' has no adapter to compare with the baseline"):
        checked(tmp_path, adapters=[{"path": str(adapter_file()), "etas": [0.5], "models": ["DM (1.5)"]}])
    with pytest.raises(ValueError, match="unknown setting 'brisk'"):
        checked(tmp_path, quality={"brisk": "x"})


def test_a_judge_that_cannot_be_had_is_told_before_anything_is_drawn(tmp_path):
    with pytest.raises(ValueError, match="no_such_module cannot be imported"):
        run_study(load_study(write_study_file(tmp_path, judge="no_such_module:make")))
    assert not list(tmp_path.rglob("*.png"))


def test_a_wrong_model_adapter_or_method_is_told_before_anything_is_drawn(tmp_path):
    """Also of the last of several models."""
    first, sdxl = {"path": str(tiny_model("sd1"))}, {"path": str(tiny_model("sdxl"))}
    empty = tmp_path / "empty"
    empty.mkdir()
    fits = [{"path": str(adapter_file("sdxl")), "etas": [0.5]}]

    def words(**changes) -> str:
        changes = {"methods": NONE, "judge": None, "quality": None, **changes}
        with pytest.raises((ValueError, OSError)) as caught:
            checked(tmp_path, **changes)
        return str(caught.value)

    assert "/gone/model: no such file or folder" in words(models=[first, {"path": "/gone/model"}])
    assert "not an SD 1.x, SD 2.x or SDXL model" in words(models=[first, {"path": str(empty)}])
    assert "text encoders of this model are 32 | 64 wide" in words(models=[first, sdxl])
    for kind in ("sag", "multidiffusion"):
        said = words(models=[sdxl], adapters=fits, methods=[table(kind)])
        assert f"method '{kind}': diffusers has no such pipeline for SDXL" in said
    lost = [table("controlnet-canny", controlnet="/gone/net")]
    assert "/gone/net: no such file or folder" in words(methods=lost)
    lost = [table("controlnet-seg", segmentation_model=str(picture_folder()))]
    assert "expected a transformers segmentation model" in words(methods=lost)
    lost = [table("multidiffusion", scheduler_of="/gone/scheduler")]
    assert "/gone/scheduler: no such file or folder" in words(methods=lost)


def test_cells_have_folders_of_their_own():
    names = [("a b", "c"), ("a-b", "c"), ("a/b", "c"), ("a", "b--c"), ("a--b", "c"), ("é", "ü"), ("ü", "é")]
    found = [cell_folder(*pair) for pair in names]
    assert len(set(found)) == len(names)
    assert all(name.startswith("cells/") and name.count("/") == 1 and name.isascii() for name in found)
