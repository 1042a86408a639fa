"""The prompt sets that come along can be loaded by name, drawn by CLIP whole, and judged."""

import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from sur_core.evaluation import load_prompts, types_of
from sur_core.evaluation.judging import DetectorJudge, VlmJudge, read_truth
from sur_core.evaluation.shipped_prompts import SHIPPED, shipped_prompts

NUMBERS = {"two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "pair": 2, "trio": 3}
NUMBERS |= {"single": 1, "goat": 1}


class AnyWords:
    """A detector that can be asked for anything, and sees nothing."""

    name, labels, usual_threshold = "any words", None, 0.5

    def detect(self, pictures, labels, threshold):
        return [[] for _ in pictures]


class NoAnswers:
    name = "no answers"


@pytest.mark.parametrize("name", SHIPPED)
def test_a_set_is_loaded_by_its_name_or_as_a_file(name):
    prompts = load_prompts(name)
    assert prompts == load_prompts(Path(name)) == load_prompts(shipped_prompts(name))
    assert load_prompts(name, ["Color"]) == tuple(one for one in prompts if one.type == "Color")
    assert set(types_of(prompts)) == {"Action", "Color", "Counting"}
    assert len({one.prompt for one in prompts}) == len(prompts)


def test_our_own_set_has_fifteen_prompts_of_each_type_as_the_papers_has():
    assert Counter(one.type for one in load_prompts("narrative")) == {
        "Action": 15,
        "Color": 15,
        "Counting": 15,
    }


def test_the_papers_set_has_what_it_prints():
    prompts = load_prompts("paper")
    tables = Counter((one.id.split("-")[0], one.type) for one in prompts)
    assert tables == {(table, type): 3 for table, type in tables}
    assert ("table8", "Action") not in tables and len(tables) == 5
    assert "Giraffes eating trees." in [one.prompt for one in prompts]


def test_a_file_of_such_a_name_can_be_meant(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("paper").write_text('{"id": "mine", "type": "Color", "prompt": "a red cat"}\n')
    assert [one.id for one in load_prompts("./paper")] == ["mine"]
    assert load_prompts("paper")[0].id == "table7-counting-1"
    with pytest.raises(FileNotFoundError, match="papr.*one of paper, narrative"):
        load_prompts("papr")


@pytest.mark.parametrize("name", SHIPPED)
def test_every_truth_can_be_judged_by_a_judge_of_its_kind(name):
    prompts = load_prompts(name)
    VlmJudge(NoAnswers()).check(prompts)
    seen = [one for one in prompts if one.type != "Action"]
    judge = DetectorJudge(AnyWords())
    judge.check(seen)
    black = np.zeros((8, 8, 3), np.uint8)
    assert not any(judge.mark(black, one).right for one in seen), "nothing can be right without being seen"


@pytest.mark.parametrize("name", SHIPPED)
def test_a_truth_says_what_its_prompt_says(name):
    for one in load_prompts(name):
        truth, words = read_truth(one), re.findall(r"[a-z-]+", one.prompt.lower())
        numbers = [NUMBERS[word] for word in words if word in NUMBERS]
        colors = {color for wanted in truth.objects for color in wanted.colors}
        assert bool(truth.action) == (one.type == "Action")
        if one.type == "Counting":
            counts = sorted(wanted.count for wanted in truth.objects)
            # "a set of four teacups and saucers" counts both
            assert counts == sorted(numbers * (len(counts) // len(numbers))), one.prompt
        if one.type == "Color":
            assert all(any(color in word for word in words) for color in colors), one.prompt
            assert colors and all(wanted.colors for wanted in truth.objects)


def test_the_sets_are_in_the_package():
    tomllib = pytest.importorskip("tomllib", reason="came with Python 3.11")
    root = Path(__file__).parent.parent
    tools = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]
    patterns = tools["package-data"]["sur_core.evaluation"]
    packed = {path for pattern in patterns for path in (root / "sur_core/evaluation").glob(pattern)}
    assert {shipped_prompts(name) for name in SHIPPED} <= packed
    assert "sur_core.evaluation.judging" in tools["packages"]
