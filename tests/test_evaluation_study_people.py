"""What people marked and preferred stands in a study's tables, wherever the answers were merged."""

import json
import re
import shutil

import pytest

from sur_core.evaluation.pictures import read_picture, write_picture
from sur_core.evaluation.report import REPORT, write_report
from sur_core.evaluation.results import read_results
from sur_core.evaluation.sheets import PageOptions, make_preference, make_sheet, merge_marks, read_marks
from sur_core.evaluation.sheets.preference import PROMPT, QUALITY
from sur_core.evaluation.sheets.standing import Drawn, marks_standing
from sur_core.evaluation.study_files import read_study
from sur_core.evaluation.study_tables import VOTES_HEAD, all_tables, quality_table, tables_at_a_glance
from tests.evaluation_runs import adapter_file
from tests.sheet_runs import answer_file, make_results
from tests.small_data import tiny_model
from tests.study_reports import ARMS, METHODS, PROMPTS, SEEDS, make_study
from tests.study_runs import study as run_small_study
from tests.study_runs import write_study_file
from tests.test_demo_report import Page
from train.__main__ import main

BASE, WEAK, STRONG = (arm.name for arm in ARMS)
PREFERENCES = "sur preference answers"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made") / "study"
    found = make_study(folder, methods=METHODS[:2], models=("DM (1.5)",), prompts=(PROMPTS[0], *PROMPTS[2:]))
    write_report(found)
    return found


@pytest.fixture
def study(made, tmp_path, monkeypatch):
    """A study with its report; the working folder is that which it lies in."""
    shutil.copytree(made.folder, tmp_path / "study")
    monkeypatch.chdir(tmp_path)
    return read_study(tmp_path / "study")


def rows_of(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def marked(study, tmp_path) -> list[str]:
    """Two people's files: one finds all of an arm right and nothing else, the other agrees but for a seed."""
    key = make_sheet(study.folder / study.cells[0].folder, tmp_path / "sheet.html").key
    likes = lambda item: "yes" if STRONG in item["arms"] else "no"  # noqa: E731
    answer_file(tmp_path / "a-1.json", key, "Anna", likes)
    answer_file(tmp_path / "a-2.json", key, "Ben", lambda item: "no" if item["seed"] == 7 else likes(item))
    return ["a-1.json", "a-2.json"]


@pytest.mark.parametrize("results", [None, "study", "cell"])
@pytest.mark.parametrize("step", [["merge"], []])
def test_marks_that_are_merged_within_a_study_come_into_its_tables(study, tmp_path, results, step, capsys):
    files, cell = marked(study, tmp_path), study.cells[0]
    places = {"study": study.folder, "cell": study.folder / cell.folder}
    where = [] if results is None else ["--results", str(places[results])]
    before = (study.folder / "study.md").read_text("utf-8")
    assert "## People" not in before and main(["evaluate", "sheet", *step, *files, *where]) == 0
    assert "study.md and report.html: now with what people said" in capsys.readouterr().out
    text = (study.folder / "study.md").read_text("utf-8")
    assert text.startswith(before.rstrip()), "and nothing else has changed"
    people = text.partition("## People")[2]
    assert f"### {cell.model}, {cell.method}" in people and "Judge: lot" in people
    row = next(row for row in rows_of(people) if row[:2] == [STRONG, "all"])
    assert row[2:5] == ["10", "0", "5"], "three seeds of five prompts, one of which they do not agree on"
    told = json.loads((study.folder / "study.json").read_text("utf-8"))["people"]
    marks = read_marks(next((study.folder / cell.folder).glob("sheets/*")))
    counts = {(one["arm"], one["type"]): one["right"] for one in told[0]["marks"][0]["arms"]}
    assert counts == {place: marks.arm(*place).right for place in counts} and counts[STRONG, "all"] == 10
    assert all_tables(read_study(study.folder)) == text


def test_the_report_shows_what_people_said_as_tables(study, tmp_path):
    assert main(["evaluate", "sheet", *marked(study, tmp_path)]) == 0
    page = Page((study.folder / REPORT).read_text("utf-8"))
    tables = [table for table in page.tables if "people" in table["caption"].lower()]
    assert [table["caption"] for table in tables] == [
        "Right pictures by people's marks",
        "Agreement of people with each other",
        "Agreement of the judge with people",
    ]
    shown = [[cell.strip() for cell in row] for table in tables for row in table["rows"]]
    assert [row[2:5] for row in shown if row[:2] == [STRONG, "all"]] == [["10", "0", "5"]]
    people = rows_of((study.folder / "study.md").read_text("utf-8").partition("## People")[2])
    assert shown == [row for row in people if set(row[0]) != {"-"}]


def prefer(arm: str):
    return lambda item: {item["left"]: "left", item["right"]: "right"}.get(arm, "none")


def preferred(study, tmp_path, **options) -> list[str]:
    """Two people's files about one cell: one always likes the strong adapter; the other the baseline, and
    nothing where it is not shown.
    """
    page = tmp_path / f"page{len(options)}.html"
    key = make_preference(study.folder / study.cells[1].folder, page, reuse=True, **options).key
    names = []
    for name, arm in (("Anna", STRONG), ("Ben", BASE)):
        names.append(f"{key.parent.name}-{name}.json")
        answer_file(tmp_path / names[-1], key, name, prefer(arm), PREFERENCES)
    return names


def test_preferences_become_the_last_column_of_table_3(study, tmp_path):
    """Merged as the README has it: by the files' names alone."""
    assert VOTES_HEAD not in quality_table(study)
    assert main(["evaluate", "preference", *preferred(study, tmp_path)]) == 0
    found = read_study(study.folder)
    rows = rows_of(quality_table(found))
    assert rows[0][-2:] == [f"{VOTES_HEAD} Baseline", f"{VOTES_HEAD} Ours"]
    cells = {tuple(row[1:3]): row[-2:] for row in rows[2:]}
    assert cells["none", WEAK] == cells["none", STRONG] == ["-", "-"], "nobody was asked"
    # Anna never saw the arm she likes beside the weak adapter, so Ben alone chose there.
    assert cells["controlnet-canny", WEAK][0] == "100.00"
    base, ours = cells["controlnet-canny", STRONG]
    assert base == "50.00" and ours == "50.00 (p 1.000, 30 answers, 0 none)"
    page = Page((study.folder / REPORT).read_text("utf-8"))
    assert len(page.table("People's preferences")) == 1 + 2 * (len(found.types) + 1)
    shown = [row for table in page.tables if "Table 3" in table["caption"] for row in table["rows"]]
    assert VOTES_HEAD in [cell.strip() for row in shown for cell in row]
    assert any(row[-1].split() == ["50.00", "p", "1.000,", "30", "answers,", "0", "none"] for row in shown)
    told = json.loads((study.folder / "study.json").read_text("utf-8"))["people"]
    votes = told[0]["preferences"][0]["votes"]
    every = next(v for v in votes if v["pair"] == [BASE, STRONG] and v["type"] == v["person"] == "all")
    assert (every["first"], every["second"], every["none"], every["p"]) == (15, 15, 0, 1.0)


def test_a_question_is_a_paragraph_of_the_report_whatever_its_words(study, tmp_path):
    words = "Which one?\n\n| # | Left |\n| - | Right |\n\n# Here"
    files = preferred(study, tmp_path, options=PageOptions(question=words))
    assert main(["evaluate", "preference", *files]) == 0
    text = (study.folder / REPORT).read_text("utf-8")
    assert f'<p class="note">{words} (2 people)</p>' in text


def test_which_picture_shows_the_prompt_better_is_no_question_of_quality(study, tmp_path):
    assert main(["evaluate", "preference", *preferred(study, tmp_path, ask=PROMPT)]) == 0
    found = read_study(study.folder)
    assert VOTES_HEAD not in quality_table(found)
    assert "Which picture shows better what the prompt says? (2 people)" in all_tables(found)


@pytest.mark.parametrize("ask", [QUALITY, PROMPT])
def test_what_is_asked_decides_and_not_the_words_it_is_asked_in(study, tmp_path, ask):
    files = preferred(study, tmp_path, ask=ask, options=PageOptions(question="And which one here?"))
    assert main(["evaluate", "preference", *files]) == 0
    found = read_study(study.folder)
    assert (VOTES_HEAD in quality_table(found)) == (ask == QUALITY)
    assert "And which one here? (2 people)" in all_tables(found)
    told = json.loads((study.folder / "study.json").read_text("utf-8"))["people"][0]
    assert told["preferences"][0]["ask"] == ask and told["left_out"] == []


def edited(path, change):
    """Change the object in a JSON file."""
    found = json.loads(path.read_text("utf-8"))
    change(found)
    path.write_text(json.dumps(found), "utf-8")


def merged_file(study, name="preferences.json"):
    return next((study.folder / "cells").rglob(name))


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("ask", [QUALITY, PROMPT])
def test_answers_of_before_it_was_kept_what_is_asked_are_told_by_the_usual_words(study, tmp_path, ask, own):
    words = {"options": PageOptions(question="And which one here?")} if own else {}
    files = preferred(study, tmp_path, ask=ask, **words)
    key = merged_file(study, "key.json")
    edited(key, lambda found: found.pop("ask"))
    assert main(["evaluate", "preference", *files]) == 0
    edited(merged_file(study), lambda found: found.pop("ask"))
    found = read_study(study.folder)
    assert (VOTES_HEAD in quality_table(found)) == (ask == QUALITY and not own)
    assert ("does not say what was asked for" in all_tables(found)) == own
    edited(key, lambda found: found.update(ask=ask))  # as it is told to do
    assert main(["evaluate", "preference", *files]) == 0
    assert (VOTES_HEAD in quality_table(read_study(study.folder))) == (ask == QUALITY)
    edited(key, lambda found: found.update(ask="beauty"))
    assert main(["evaluate", "preference", *files]) == 1


# --- pictures that are drawn anew ---------------------------------------------------------------------------


def drawn_anew(study, cell, arm: str, seeds=SEEDS):
    """Other pixels under the names that the pictures had."""
    for picture in cell.evaluation.of(arm):
        if picture.seed in seeds:
            path = cell.evaluation.file(picture)
            write_picture(path, 255 - read_picture(path))


def table_3(study) -> dict:
    """{(method, adapter): preferences of baseline and ours}."""
    rows = rows_of(quality_table(study))
    return {tuple(row[1:3]): row[-2:] for row in rows[2:]} if VOTES_HEAD in quality_table(study) else {}


def test_votes_about_pictures_that_are_others_now_are_left_out_and_counted(study, tmp_path, capsys):
    cell, files = study.cells[1], preferred(study, tmp_path)
    assert main(["evaluate", "preference", *files]) == 0
    whole = table_3(read_study(study.folder))
    drawn_anew(study, cell, STRONG, seeds=SEEDS[:1])
    found = read_study(study.folder)
    left = table_3(found)
    assert left[cell.method, WEAK] == whole[cell.method, WEAK]
    assert left[cell.method, STRONG] == ["50.00", "50.00 (p 1.000, 20 answers, 0 none)"]
    words = "5 of 30 pairs of pictures that people chose from, which are no longer those of the results"
    assert words in all_tables(found) and words in tables_at_a_glance(found)
    assert main(["evaluate", "report", str(study.folder)]) == 0
    assert words in Page((study.folder / REPORT).read_text("utf-8")).text
    drawn_anew(study, cell, BASE)
    gone = read_study(study.folder)
    assert table_3(gone) == {} and "30 of 30 pairs of pictures" in all_tables(gone)
    assert "Which picture is of better quality?" not in all_tables(gone)
    capsys.readouterr()
    assert main(["evaluate", "preference", *files]) == 0
    assert "left out: preference study" in capsys.readouterr().out
    told = json.loads((study.folder / "study.json").read_text("utf-8"))["people"]
    assert [one["preferences"] for one in told] == [[]] and "30 of 30 pairs" in told[0]["left_out"][0]


def test_marks_of_pictures_that_are_others_now_count_for_no_arm_and_no_judge(study, tmp_path):
    cell = study.cells[0]
    assert main(["evaluate", "sheet", *marked(study, tmp_path)]) == 0
    drawn_anew(study, cell, STRONG, seeds=SEEDS[1:])
    found = read_study(study.folder)
    (people,) = found.people
    arm = people.marks[0].arm(STRONG)
    assert (arm.right, arm.wrong, arm.undecided) == (0, 0, 5), (
        "the seed on which the two do not agree is left"
    )
    assert people.marks[0].arm(BASE).wrong == 15
    assert "10 of 45 marked pictures" in all_tables(found)
    rows = rows_of(str(people.judges[0]))
    counts = next(row for row in rows if row[0] == "all")
    assert "30" in counts, "fifteen of each arm that is left"


def test_an_arm_that_drew_the_same_as_another_loses_its_marks_by_itself(tmp_path):
    results = make_results(tmp_path / "r", ("base", "eta 0"), ("hand", "hand"))
    key = make_sheet(results, tmp_path / "page.html").key
    file = answer_file(tmp_path / "a.json", key, "Anna", lambda item: "yes")
    found = read_results(results)
    for picture in found.of("base"):
        write_picture(found.file(picture), 255 - read_picture(found.file(picture)))
    marks, words = marks_standing(merge_marks(key, [file]), Drawn(found))
    assert {p.item.arms for p in marks.pictures} == {("eta 0",)} and marks.arm("eta 0").right == 12
    assert {p.item.path for p in marks.pictures} == {p.path for p in found.of("eta 0")}
    assert words.startswith("12 of 24 marked pictures")


def test_pictures_that_cannot_be_looked_at_are_told_by_their_path(study, tmp_path):
    """Files that somebody has deleted, and answers of before the key kept what tells a picture."""
    assert main(["evaluate", "preference", *preferred(study, tmp_path)]) == 0
    whole, cell = table_3(read_study(study.folder)), study.cells[1]
    first, second, *_ = cell.evaluation.of(STRONG)
    cell.evaluation.file(first).unlink()
    cell.evaluation.file(second).write_bytes(b"no picture")
    assert table_3(read_study(study.folder)) == whole

    def without(found):
        for item in found["shown"]:
            del item["left_pixels"], item["right_pixels"]

    edited(merged_file(study), without)
    assert table_3(read_study(study.folder)) == whole

    def renamed(found):
        for picture in found["pictures"]:
            if picture["arm"] == STRONG and picture["seed"] == SEEDS[0]:
                picture["path"] = picture["path"].replace("images/", "images/other-")

    edited(study.folder / cell.folder / "results.json", renamed)
    assert table_3(read_study(study.folder))[cell.method, STRONG][1].endswith(", 20 answers, 0 none)")


def test_another_adapter_of_the_same_name_has_none_of_the_answers(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(adapter_file(seed=0), tmp_path / "a.safetensors")
    given = {
        "models": [{"name": "DM", "path": str(tiny_model("sd1"))}],
        "methods": [{"kind": "none"}],
        "adapters": [{"name": "SUR", "path": str(tmp_path / "a.safetensors"), "etas": [0.5]}],
        "quality": None,
    }
    found = run_small_study(tmp_path, **given)
    key = make_preference(found.folder / found.cells[0].folder, tmp_path / "page.html").key
    answer_file(tmp_path / "x.json", key, "Anna", prefer("SUR, eta 0.5"), PREFERENCES)
    assert main(["evaluate", "preference", "x.json"]) == 0
    assert VOTES_HEAD in (found.folder / "study.md").read_text("utf-8")
    shutil.copy(adapter_file(seed=7), tmp_path / "a.safetensors")
    again = run_small_study(tmp_path, **given)
    pairs = len(json.loads(key.read_text("utf-8"))["items"])
    text = (found.folder / "study.md").read_text("utf-8")
    assert VOTES_HEAD not in text and f"{pairs} of {pairs} pairs of pictures" in text
    assert again.people[0].preferences == ()


@pytest.mark.parametrize("kind", ["sheet", "preference"])
def test_what_is_merged_elsewhere_is_not_said_to_be_in_the_studys_tables(study, tmp_path, kind, capsys):
    files = marked(study, tmp_path) if kind == "sheet" else preferred(study, tmp_path)
    before = {name: (study.folder / name).read_bytes() for name in ("study.md", "study.json", REPORT)}
    assert main(["evaluate", kind, "merge", *files, "-o", "elsewhere"]) == 0
    said = capsys.readouterr().out
    assert "now with what people said" not in said and "study.md: not changed" in said
    assert {name: (study.folder / name).read_bytes() for name in before} == before
    own = merged_file(study, "key.json").parent
    assert main(["evaluate", kind, "merge", *files, "-o", str(own)]) == 0
    assert "now with what people said" in capsys.readouterr().out
    assert b"## People" in (study.folder / "study.md").read_bytes()


def test_without_measures_table_3_is_of_preferences_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = make_study(
        tmp_path / "study", False, (), models=("DM (1.5)",), methods=METHODS[:2], prompts=PROMPTS[:1]
    )
    assert main(["evaluate", "preference", *preferred(found, tmp_path)]) == 0
    page = Page((found.folder / REPORT).read_text("utf-8"))
    assert [words.strip() for words in page.table("Table 3")[0]] == ["Method", "Adapter", VOTES_HEAD]
    assert "## Quality" in (found.folder / "study.md").read_text("utf-8")


def test_a_study_that_is_run_again_keeps_what_people_said(tmp_path):
    given = {
        "models": [{"name": "DM (1.5)", "path": str(tiny_model("sd1"))}],
        "methods": [{"kind": "none"}],
        "quality": None,
    }
    found = run_small_study(tmp_path, **given)
    results = found.folder / found.cells[0].folder
    key = make_sheet(results, tmp_path / "sheet.html").key
    file = answer_file(tmp_path / "a.json", key, "Anna", lambda item: "yes")
    assert main(["evaluate", "sheet", str(file), "--results", str(results)]) == 0
    names = ("study.json", "study.md", "study.csv", REPORT)
    before = {name: (found.folder / name).read_bytes() for name in names}
    assert b"## People" in before["study.md"]
    again = run_small_study(tmp_path, **given)
    assert len(again.people) == 1 and again.people[0].marks[0].people == ("Anna",)
    assert {name: (found.folder / name).read_bytes() for name in names} == before
    (key.parent / "marks.json").write_text("{")
    with pytest.raises(ValueError, match="marks.json: damaged.*merge the answers again"):
        run_small_study(tmp_path, **given)


def test_damaged_marks_are_named_before_anything_is_drawn(tmp_path, capsys):
    from sur_core.evaluation.study import cell_folder

    path = write_study_file(tmp_path)
    bad = tmp_path / "study" / cell_folder("DM (cartoon)", "sag") / "preferences" / "x" / "preferences.json"
    bad.parent.mkdir(parents=True)
    bad.write_text('{"kind": "sur preferences", "version": 1}')
    assert main(["evaluate", "--config", str(path)]) == 1
    assert f"{bad}: damaged" in capsys.readouterr().err and not list(tmp_path.rglob("*.png"))
