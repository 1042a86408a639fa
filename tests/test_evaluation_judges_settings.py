"""Judges are made of a few words or a table, and a wrong setting is named."""

import json

import numpy as np
import pytest

from sur_core.evaluation import Arm, EvalPrompt, Verdict, load_judge
from sur_core.evaluation.judges import ask, ask_many
from sur_core.evaluation.judging import NOT_COMPARABLE, DetectorJudge, JudgeByType, VlmJudge, make_judge
from tests.evaluation_runs import PROMPTS, ChannelJudge, run
from tests.judge_models import make_owlv2, make_yes_no_vlm

CUSTOM = "tests.evaluation_runs:make_judge"
PIXELS = np.zeros((40, 48, 3), np.uint8)
COUNTING = EvalPrompt("n", "Counting", "two cats", truth={"objects": [{"name": "cat", "count": 2}]})
ACTION = EvalPrompt("a", "Action", "a cat runs", truth={"subject": "a cat", "action": "running"})


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("judges")
    return {"owlv2": make_owlv2(root / "owlv2"), "vlm": make_yes_no_vlm(root / "vlm")}


def test_a_few_words_make_a_judge(folders):
    detector = make_judge(f"detector:{folders['owlv2']}")
    vlm = make_judge(f"vlm:{folders['vlm']}")
    assert isinstance(detector, DetectorJudge) and detector.name == "detector owlv2"
    assert isinstance(vlm, VlmJudge) and vlm.name == "yes or no by vlm"
    assert isinstance(make_judge(CUSTOM), ChannelJudge)
    assert (detector.about["threshold"], vlm.about["threshold"]) == (0.3, 0.5)


def test_a_table_sets_everything(folders):
    table = {
        "kind": "detector",
        "model": str(folders["owlv2"]),
        "device": "cpu",
        "threshold": 0.12,
        "overlap": 0.4,
    }
    table |= {
        "color_share": 0.2,
        "inner_box": 0.5,
        "batch_size": 3,
        "classes": {"cat": ["cat", "kitten"], "a": "b"},
    }
    judge = make_judge(table)
    expected = {"threshold": 0.12, "overlap": 0.4, "color_share": 0.2, "inner_box": 0.5}
    expected["classes"] = {"cat": ["cat", "kitten"], "a": ["b"]}
    assert expected.items() <= judge.about.items()
    json.dumps(judge.about)
    judge = make_judge(
        {"kind": "vlm", "model": str(folders["vlm"]), "prompt": "{question}!", "threshold": 0.7}
    )
    assert (judge.about["prompt"], judge.about["threshold"]) == ("{question}!", 0.7)


def by_type(folders) -> dict:
    detector = {"kind": "detector", "model": str(folders["owlv2"])}
    types = {"Counting": {**detector, "threshold": 0.2}, "Color": detector}
    return {"kind": "by type", "types": {**types, "Action": {"kind": "vlm", "model": str(folders["vlm"])}}}


def test_each_type_goes_to_its_judge(folders):
    judge = make_judge(by_type(folders))
    judge.check([COUNTING, ACTION])
    pairs = [(PIXELS, ACTION), (PIXELS, COUNTING), (PIXELS, ACTION)]
    marks = ask_many(judge, pairs)
    assert [list(mark.details) for mark in marks] == [["answers"], ["seen"], ["answers"]]
    assert marks == [ask(judge, *pair) for pair in pairs]
    assert judge.name == "Counting: detector owlv2; Color: detector owlv2; Action: yes or no by vlm"
    assert [judge.about[type]["threshold"] for type in ("Counting", "Color", "Action")] == [0.2, 0.3, 0.5]
    with pytest.raises(
        ValueError, match="'x': there is no judge for the type 'Size', only for Counting, Color"
    ):
        judge.check([EvalPrompt("x", "Size", "a big cat")])


def test_types_with_one_model_share_it_in_memory(folders):
    judges = make_judge(by_type(folders))._judges
    assert judges["Counting"]._detector is judges["Color"]._detector


def test_a_judge_may_be_written_in_a_toml_file(folders, tmp_path):
    pytest.importorskip("tomllib", reason="came with Python 3.11")
    path = tmp_path / "judge.toml"
    path.write_text(
        '[judge]\nkind = "by type"\n[judge.types.Counting]\nkind = "detector"\n'
        f'model = "{folders["owlv2"].as_posix()}"\n'
        f'[judge.types.Color]\nkind = "{CUSTOM}"\n'
    )
    judge = make_judge(str(path))
    assert isinstance(judge, JudgeByType) and judge.name == "Counting: detector owlv2; Color: channel"
    path.write_text("[judges]\nkind = 'vlm'\n")
    with pytest.raises(ValueError, match=r"judge.toml: expected a \[judge\] table and nothing else"):
        make_judge(str(path))
    with pytest.raises(FileNotFoundError, match="gone.toml"):
        make_judge(str(tmp_path / "gone.toml"))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ("owlv2", "judge: the kind 'owlv2' is unknown; known are detector, vlm, by type or module:callable"),
        ({"model": "x"}, "judge: expected a table with kind"),
        ({"kind": "detector"}, "judge: detector needs the setting model"),
        ("detector:", "judge.model: expected a text"),
        (
            {"kind": "detector", "model": "x", "treshold": 1},
            "no setting 'treshold'; known are model, revision",
        ),
        ({"kind": "vlm", "model": "x", "overlap": 0.5}, "vlm has no setting 'overlap'"),
        ({"kind": "detector", "model": "x", "threshold": 1.5}, "judge.threshold: expected a number above 0"),
        ({"kind": "detector", "model": "x", "threshold": True}, "judge.threshold: expected a number"),
        ({"kind": "detector", "model": "x", "batch_size": 0}, "batch_size: expected a whole number from 1"),
        ({"kind": "detector", "model": "x", "batch_size": 2.0}, "batch_size: expected a whole number from 1"),
        ({"kind": "detector", "model": "x", "classes": ["cat"]}, "classes: expected a table such as"),
        ({"kind": "detector", "model": "x", "classes": {"cat": []}}, "classes: expected a table such as"),
        (
            {"kind": "detector", "model": "x", "local_files_only": 1},
            "local_files_only: expected true or false",
        ),
        ({"kind": "by type", "types": {}}, "judge.types: expected a table with a table"),
        (
            {"kind": "by type", "types": {"Color": {"kind": "vlm"}}},
            "judge.types.Color: vlm needs the setting model",
        ),
        ({"kind": CUSTOM, "model": "x"}, "no setting 'model'; what a callable makes takes none"),
        ({"kind": "no_such_module:make"}, "no_such_module cannot be imported"),
        ("detector:./no/such/folder", "./no/such/folder: no such folder"),
    ],
)
def test_a_wrong_setting_is_named(settings, words):
    with pytest.raises((ValueError, OSError), match=words):
        make_judge(settings)


def test_marks_of_a_model_say_that_they_are_not_comparable(folders):
    for one in (make_judge(f"detector:{folders['owlv2']}"), make_judge(by_type(folders))):
        assert one.note == NOT_COMPARABLE
    assert JudgeByType({"Color": ChannelJudge()}).note == ""
    for word in ("not comparable", "paper", "GenEval"):
        assert word in NOT_COMPARABLE


class Noted(ChannelJudge):
    note, about = NOT_COMPARABLE, {"threshold": 0.25}

    def __init__(self):
        self.batches = []

    def mark_many(self, pairs):
        self.batches.append(len(pairs))
        return [self.mark(*pair) for pair in pairs]


def test_a_run_asks_for_many_marks_at_once_and_prints_the_note(tmp_path):
    judge = Noted()
    found = run(tmp_path / "noted", [Arm("base"), Arm("again")], judge=judge)
    plain = run(tmp_path / "plain", [Arm("base"), Arm("again")], judge=ChannelJudge())
    assert judge.batches == [len(PROMPTS) * 2], "both arms share their pictures"
    assert [one.verdict for one in found.pictures] == [one.verdict for one in plain.pictures]
    tables = (tmp_path / "noted" / "tables.md").read_text()
    assert NOT_COMPARABLE in tables and '{"threshold": 0.25}' in tables
    assert NOT_COMPARABLE not in (tmp_path / "plain" / "tables.md").read_text()


class Miscounting(ChannelJudge):
    def mark_many(self, pairs):
        return [Verdict(True)]


class Talking(ChannelJudge):
    def mark_many(self, pairs):
        return ["yes" for _ in pairs]


def test_marks_of_many_are_checked_like_single_ones():
    pairs = [(PIXELS, PROMPTS[0])] * 2
    with pytest.raises(ValueError, match="returned 1 verdicts for 2 pictures"):
        ask_many(Miscounting(), pairs)
    with pytest.raises(ValueError, match="returned 'yes' for prompt 'c1'; not a Verdict"):
        ask_many(Talking(), pairs)
    assert ask_many(load_judge(CUSTOM), pairs) == [ask(ChannelJudge(), *pair) for pair in pairs]
