"""Answers of people: files that may be merged and files that may not, and what becomes of them."""

import csv
import io
import json
from collections import Counter

import numpy as np
import pytest

from sur_core.evaluation import compare
from sur_core.evaluation.pictures import read_picture
from sur_core.evaluation.sheets import (
    AnswersError,
    find_key,
    make_preference,
    make_sheet,
    merge_marks,
    merge_preferences,
    read_marks,
)
from sur_core.evaluation.sheets.marks_report import marks_csv, write_marks_report
from sur_core.evaluation.sheets.preferences_report import votes_csv, write_preferences_report
from tests.sheet_runs import ARMS, PROMPTS, SEEDS, answer_file, make_results
from train.__main__ import main

BASE, SUR = ARMS


@pytest.fixture
def results(tmp_path):
    return make_results(tmp_path / "runs" / "evaluation")


@pytest.fixture
def sheet(results, tmp_path):
    """The key of a marking sheet."""
    return make_sheet(results, tmp_path / "sheet.html").key


@pytest.fixture
def study(results, tmp_path):
    """The key of a preference study."""
    return make_preference(results, tmp_path / "study.html").key


def prefer(arm):
    """Answers that choose an arm always."""
    return lambda item: "left" if item["left"] == arm else "right"


def preferences(path, key, marker, answers):
    return answer_file(path, key, marker, answers, "sur preference answers")


# --- marks --------------------------------------------------------------------------------------------------


def test_what_was_marked_comes_back_by_arm_and_type(sheet, tmp_path):
    """SUR is right in all pictures and the base in those of one seed."""
    right = lambda item: item["arms"] == [SUR] or item["seed"] == SEEDS[0]  # noqa: E731
    file = answer_file(tmp_path / "a.json", sheet, "Anna", lambda item: "yes" if right(item) else "no")
    marks = merge_marks(sheet, [file])
    found = {(arm, kind): marks.arm(arm, kind) for arm in ARMS for kind in ("Action", "Counting", "all")}
    assert {place: (one.right, one.wrong, one.undecided) for place, one in found.items()} == {
        (BASE, "Action"): (2, 4, 0),
        (BASE, "Counting"): (2, 4, 0),
        (BASE, "all"): (4, 8, 0),
        (SUR, "Action"): (6, 0, 0),
        (SUR, "Counting"): (6, 0, 0),
        (SUR, "all"): (12, 0, 0),
    }
    ours, base = [1.0] * 12, [float(seed == SEEDS[0]) for _ in PROMPTS for seed in SEEDS]
    prompts, types = ([getattr(p, name) for p in PROMPTS for _ in SEEDS] for name in ("id", "type"))
    got, wanted = marks.comparison(SUR), compare(SUR, BASE, ours, base, prompts, types)
    assert got.difference == pytest.approx(2 / 3)
    assert (got.mcnemar, got.over_prompts) == (wanted.mcnemar, wanted.over_prompts)
    assert got.pictures == 12 and got.prompts == 4


@pytest.mark.parametrize(
    ("marks", "right"),
    [
        ("yyn", True),
        ("nny", False),
        ("y", True),
        ("ynu", None),
        ("yu", True),
        ("uun", False),
        ("uu", None),
        ("yynn", None),
    ],
)
def test_the_majority_of_those_who_are_sure_decides(sheet, tmp_path, marks, right):
    words = {"y": "yes", "n": "no", "u": "unsure"}
    files = [
        answer_file(tmp_path / f"{place}.json", sheet, f"person {place}", lambda _, mark=mark: words[mark])
        for place, mark in enumerate(marks)
    ]
    found = merge_marks(sheet, files)
    assert {picture.right for picture in found.pictures} == {right}
    assert len(found.verdicts) == (0 if right is None else 24)
    assert found.arm(SUR).undecided == (12 if right is None else 0)
    assert found.arm(SUR).share == (None if right is None else float(right))


def test_pictures_that_arms_drew_alike_count_for_all_of_them(tmp_path):
    results = make_results(tmp_path / "r", ("base", "eta 0", "b"), ("hand", "hand", "other"))
    key = make_sheet(results, tmp_path / "page.html").key
    file = answer_file(
        tmp_path / "a.json", key, "Anna", lambda item: "yes" if item["seed"] == SEEDS[1] else "no"
    )
    marks = merge_marks(key, [file])
    assert [(marks.arm(arm).right, marks.arm(arm).wrong) for arm in marks.arms] == [(4, 8)] * 3
    assert marks.comparison("eta 0").difference == 0
    rows = list(csv.DictReader(io.StringIO(marks_csv(marks))))
    assert Counter(row["arm"] for row in rows) == dict.fromkeys(marks.arms, 12)


def test_people_are_a_judge_of_the_same_pictures(sheet, results, tmp_path):
    file = answer_file(
        tmp_path / "a.json",
        sheet,
        "Anna",
        lambda item: None if item["seed"] == SEEDS[2] else "yes" if item["arms"] == [SUR] else "no",
    )
    marks = merge_marks(sheet, [file])
    judge, prompts = marks.judge(), {prompt.id: prompt for prompt in PROMPTS}
    assert judge.name == "people (1)"
    for picture in marks.pictures:
        item = picture.item
        pixels = read_picture(results / item.path)
        if item.seed == SEEDS[2]:
            with pytest.raises(ValueError, match=f"seed {item.seed}, is not decided"):
                judge.mark(pixels, prompts[item.prompt_id])
            continue
        verdict = judge.mark(pixels, prompts[item.prompt_id])
        assert verdict.right is (item.arms == (SUR,)) and verdict == marks.verdicts[item.path, item.prompt_id]
        assert verdict.details == {"marks": {"Anna": "yes" if verdict.right else "no"}}
    with pytest.raises(ValueError, match="was not on the marking sheet"):
        judge.mark(np.zeros((8, 8, 3), np.uint8), PROMPTS[0])


def test_merged_marks_are_read_back_and_equal_answers_give_equal_files(sheet, tmp_path):
    files = [
        answer_file(tmp_path / f"{name}.json", sheet, name, lambda item, name=name: said(item, name))
        for name in ("Cleo", "anna", "Ben")
    ]
    marks = merge_marks(sheet, files)
    assert marks.people == ("anna", "Ben", "Cleo")
    one, other = tmp_path / "one", tmp_path / "other"
    write_marks_report(marks, one)
    write_marks_report(merge_marks(sheet, files[::-1]), other)
    assert {path.name for path in one.iterdir()} == {"marks.json", "marks.csv", "tables.csv", "tables.md"}
    for path in one.iterdir():
        assert path.read_bytes() == (other / path.name).read_bytes()
    assert read_marks(one) == marks
    (one / "marks.json").write_text("{}")
    with pytest.raises(ValueError, match="marks.json: expected merged marks"):
        read_marks(one)


def said(item, name) -> str:
    """Something that differs between people and pictures, and is the same every time."""
    return ("yes", "no", "unsure")[sum(map(ord, name + item["prompt_id"])) * item["seed"] % 3]


# --- preferences --------------------------------------------------------------------------------------------


def test_sides_are_turned_back_into_arms(study, tmp_path):
    files = [
        preferences(tmp_path / "a.json", study, "Anna", prefer(SUR)),
        preferences(tmp_path / "b.json", study, "Ben", prefer(BASE)),
        preferences(tmp_path / "c.json", study, "Cleo", lambda item: "none"),
    ]
    found = merge_preferences(study, files)
    ((first, second),) = found.pairs
    assert (first, second) == (BASE, SUR)
    votes = found.votes((BASE, SUR))
    assert (votes.first, votes.second, votes.none) == (12, 12, 12)
    assert votes.share == 0.5 and votes.net_share == 0 and votes.test.p == 1
    assert found.votes((BASE, SUR), person="Anna").share == 1
    assert found.votes((BASE, SUR), "Action", "Ben").first == 6
    assert found.votes((BASE, SUR), person="Cleo").share is None
    left = sum(shown.item.left == SUR for shown in found.shown)
    assert found.sides("Anna")[:2] == (left, 12 - left)
    pairs, fleiss = found.agreements()
    assert [kappa.agreement for kappa in pairs] == [0, 0, 0] and fleiss.value == pytest.approx(-0.5)


def test_several_pairs_of_arms_are_counted_by_themselves(tmp_path):
    results = make_results(tmp_path / "results", ("base", "a", "b"))
    key = make_preference(results, tmp_path / "page.html", reuse=True).key
    likes = lambda item: "left" if item["left"] != "base" else "right"  # noqa: E731
    found = merge_preferences(key, [preferences(tmp_path / "a.json", key, "Anna", likes)])
    for pair in (("base", "a"), ("base", "b")):
        votes = found.votes(pair)
        assert (votes.first, votes.second, votes.none) == (0, 12, 0)
        assert votes.test.p == pytest.approx(2 / 2**12)
        assert votes.net.low == votes.net.high == 1
    rows = list(csv.DictReader(io.StringIO(votes_csv(found))))
    wanted = [(pair, kind, "all") for pair in ("a", "b") for kind in ("Action", "Counting", "all")]
    wanted += [(pair, "all", "Anna") for pair in ("a", "b")]
    assert [(row["second_arm"], row["type"], row["person"]) for row in rows] == wanted


def test_the_net_interval_is_over_prompts_and_not_over_answers(study, tmp_path):
    """Each prompt has its winner: more people on the same prompts do not make the interval narrower."""
    winner = {prompt.id: ARMS[place % 2] for place, prompt in enumerate(PROMPTS)}
    likes = lambda item: prefer(winner[item["prompt_id"]])(item)  # noqa: E731
    files = [preferences(tmp_path / f"{n}.json", study, f"person {n}", likes) for n in range(4)]
    one, four = (merge_preferences(study, files[:count]).votes((BASE, SUR)) for count in (1, 4))
    assert one.net == four.net and one.net.low == -1 and one.net.high == 1
    width = [votes.interval.high - votes.interval.low for votes in (one, four)]
    assert width[1] < 0.6 * width[0]


# --- files that may not be merged ---------------------------------------------------------------------------


def yes(item) -> str:
    return "yes"


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (
            {"kind": "sur preference answers"},
            "holds answers to a preference study.*evaluate preference merge",
        ),
        ({"kind": "holiday pictures"}, "expected answers to a marking sheet as the page saves them"),
        ({"version": 9}, "version 9 of answers to a marking sheet; expected 1"),
        ({"marker": " "}, "marker should be a text"),
        ({"session": None}, "session should be a text, found None"),
        ({"revision": "3"}, "revision should be a whole number, found '3'"),
        ({"answers": ["yes"]}, "answers should be an object, found list"),
        ({"answers": {"x": "perhaps"}}, "the answer to x is 'perhaps', expected one of yes, no, unsure"),
        ({"answers": {"x": ["yes"]}}, "the answer to x is"),
        ({"answers": {"x": "yes"}}, "answers 1 items that .*key.json does not have, such as 'x'"),
        ({"answers": {}}, "none of the files has an answer"),
        ({"study": "0" * 24}, "answers another page than that of"),
    ],
)
def test_a_file_that_is_no_answer_to_this_page_is_refused_by_name(sheet, tmp_path, changed, words):
    file = answer_file(tmp_path / "odd-file.json", sheet, "Anna", yes, changed=changed)
    with pytest.raises(AnswersError if "another page" not in words else ValueError, match=words) as told:
        merge_marks(sheet, [file])
    assert "odd-file.json" in str(told.value) or "none of the files" in str(told.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "damaged, not JSON"),
        ('{"kind": "sur sheet answers", "answers": {"a', "damaged, not JSON.*still in the browser"),
        ("[1, 2]", "found something else"),
        ("[" * 5000, "damaged, not JSON"),
        (b"\xff\xfe\x00", "damaged, not JSON"),
        (None, "no such file"),
    ],
)
def test_damaged_files_are_told(sheet, tmp_path, content, words):
    file = tmp_path / "answers.json"
    if content is not None:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises((ValueError, OSError), match=words) as told:
        merge_marks(sheet, [file])
    assert "answers.json" in str(told.value)


def test_files_of_two_pages_are_not_mixed(sheet, results, tmp_path):
    other = make_sheet(results, tmp_path / "other.html").key
    files = [answer_file(tmp_path / f"{n}.json", key, str(n), yes) for n, key in enumerate((sheet, other))]
    with pytest.raises(AnswersError, match=r"1\.json: answers another page than .*0\.json"):
        merge_marks(sheet, files)


def test_of_a_persons_files_the_newest_counts_and_the_others_are_told(sheet, tmp_path):
    early = answer_file(
        tmp_path / "early.json", sheet, "Anna", lambda i: "no" if i["seed"] == SEEDS[0] else None
    )
    late = answer_file(tmp_path / "late.json", sheet, "Anna", yes)
    for files in ([early, late], [late, early]):
        marks = merge_marks(sheet, files)
        assert marks.people == ("Anna",) and marks.arm(SUR).right == 12
        assert marks.notes == (f"{early}: left out, as {late} is the same person's newer or equal file",)
    assert merge_marks(sheet, [late, late]).arm(SUR).right == 12


def test_a_file_without_answers_is_told(sheet, tmp_path):
    empty = answer_file(tmp_path / "empty.json", sheet, "Ben", lambda item: None)
    marks = merge_marks(sheet, [answer_file(tmp_path / "a.json", sheet, "Anna", yes), empty])
    assert marks.people == ("Anna",) and marks.notes == (f"{empty}: has no answers in it",)


def test_two_beginnings_under_one_name_and_one_under_two_names_are_refused(sheet, tmp_path):
    anna = answer_file(tmp_path / "anna.json", sheet, "Anna", yes)
    again = answer_file(tmp_path / "again.json", sheet, "ANNA", yes, changed={"session": "another one"})
    with pytest.raises(AnswersError, match="has begun twice.*two people"):
        merge_marks(sheet, [anna, again])
    copy = answer_file(tmp_path / "copy.json", sheet, "Ben", yes, changed={"session": "session of Anna"})
    with pytest.raises(AnswersError, match="same answers under two names, '(Anna|Ben)'"):
        merge_marks(sheet, [anna, copy])


def test_no_files_and_a_damaged_key_are_told(sheet, tmp_path):
    with pytest.raises(AnswersError, match="no files of answers"):
        merge_marks(sheet, [])
    file = answer_file(tmp_path / "a.json", sheet, "Anna", yes)
    content = json.loads(sheet.read_text())
    sheet.write_text(json.dumps({**content, "kind": "sur preference study"}))
    with pytest.raises(ValueError, match="expected the key of a sur marking sheet"):
        merge_marks(sheet, [file])
    for key in ("items", "pairs", "secret"):
        sheet.write_text(json.dumps({name: value for name, value in content.items() if name != key}))
        with pytest.raises(ValueError, match=r"key\.json: damaged.*cannot be joined"):
            merge_marks(sheet, [file])
    sheet.write_text(json.dumps(content)[:-5])
    with pytest.raises(ValueError, match=r"key\.json: damaged"):
        merge_marks(sheet, [file])


def test_the_key_is_found_and_where_it_was_looked_for_is_told(sheet, results, tmp_path, monkeypatch):
    file = answer_file(tmp_path / "a.json", sheet, "Anna", yes)
    kind = "sur marking sheet"
    assert find_key([file], kind, results) == sheet
    for folder in (tmp_path, tmp_path / "runs", results):
        monkeypatch.chdir(folder)
        assert find_key([file], kind).resolve() == sheet
    monkeypatch.chdir(tmp_path / "runs")
    (tmp_path / "runs" / "copy" / sheet.relative_to(results)).parent.mkdir(parents=True)
    (tmp_path / "runs" / "copy" / sheet.relative_to(results)).write_bytes(sheet.read_bytes())
    with pytest.raises(AnswersError, match="found 2: .*copy.*Give the results folder.*--results"):
        find_key([file], kind)
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    with pytest.raises(AnswersError, match="in this folder and three below, and found none.*--results"):
        find_key([file], kind)
    with pytest.raises(AnswersError, match="was not made from .*runs.*--results"):
        find_key([file], kind, tmp_path / "runs")


# --- the commands -------------------------------------------------------------------------------------------


def test_the_sheet_command_merges_and_compares_the_judge_with_people(tmp_path, monkeypatch, capsys):
    """The judge is as people are, but finds every picture of one prompt right."""
    right = lambda arm, prompt, seed: arm == SUR or prompt == "id-count"  # noqa: E731
    results = make_results(tmp_path / "results", right=right)
    key = make_sheet(results, tmp_path / "page.html").key
    likes = lambda item: "yes" if item["arms"] == [SUR] else "no"  # noqa: E731
    for name in ("Anna", "Ben"):
        answer_file(tmp_path / f"answers-{name}.json", key, name, likes)
    monkeypatch.chdir(tmp_path)
    assert main(["evaluate", "sheet", "merge", "answers-Anna.json", "answers-Ben.json"]) == 0
    said = capsys.readouterr().out
    tables = (key.parent / "tables.md").read_text()
    for part in ("100.00", "Anna and Ben", "1.000", "Judge: exact", "tables.md"):
        assert part in said
    assert "## The judge against people" in tables and "## Agreement" in tables
    row = next(line for line in tables.splitlines() if line.startswith("| all ") and "24" in line)
    assert [cell.strip() for cell in row.split("|")][2:7] == ["24", "12", "3", "0", "9"]


def test_the_preference_command_merges_into_tables(study, tmp_path, monkeypatch, capsys):
    preferences(tmp_path / "preferences-a.json", study, "Anna", prefer(SUR))
    monkeypatch.chdir(tmp_path)
    assert main(["evaluate", "preference", "merge", "preferences-a.json", "-o", "out"]) == 0
    said = capsys.readouterr().out
    assert "< 0.001" in said and "[75.8, 100.0]" in said and "Which picture is of better quality?" not in said
    found = json.loads((tmp_path / "out" / "preferences.json").read_text())
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "preferences.json", "shown.csv", "tables.csv", "tables.md",
    }  # fmt: skip
    assert [vote["share"] for vote in found["votes"]] == [1.0] * 4
    assert all(shown["choices"] == {"Anna": "second"} for shown in found["shown"])
    rows = list(csv.DictReader((tmp_path / "out" / "shown.csv").open()))
    assert {row["chosen: Anna"] for row in rows} == {SUR}
    assert main(["evaluate", "sheet", "merge", "preferences-a.json"]) == 1
    assert "merge it with evaluate preference merge" in capsys.readouterr().err


def test_equal_preferences_give_equal_files(study, tmp_path):
    files = [preferences(tmp_path / f"{name}.json", study, name, prefer(SUR)) for name in ("b", "a", "c")]
    folders = [tmp_path / "one", tmp_path / "other"]
    for folder, given in zip(folders, (files, files[::-1]), strict=True):
        write_preferences_report(merge_preferences(study, given), folder)
    for path in folders[0].iterdir():
        assert path.read_bytes() == (folders[1] / path.name).read_bytes()


def test_evaluate_itself_goes_on_working(capsys):
    with pytest.raises(SystemExit):
        main(["evaluate", "--help"])
    assert "--prompts" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["evaluate", "sheets", "make"])
    assert "--pretrained-model-name-or-path" in capsys.readouterr().err
