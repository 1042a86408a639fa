"""A study's report: one page that stands alone, shows the study's figures and runs nothing it is told."""

import csv
import io
import math
import re
import shutil
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from sur_core.evaluation import Arm
from sur_core.evaluation.report import PROMPTS as PROMPTS_FILE
from sur_core.evaluation.report import REPORT, write_report
from sur_core.evaluation.report.cases import case_parts
from sur_core.evaluation.report.making import to_toml
from sur_core.evaluation.report.pictures import Thumbnails
from sur_core.evaluation.report.summary import findings, headline, verdict
from sur_core.evaluation.statistics import ALL, FEW_PROMPTS_NOTE, NOT_EQUAL_NOTE
from sur_core.evaluation.study import TESTS
from sur_core.evaluation.study_files import read_study
from sur_core.evaluation.tables import INDEPENDENT_NOTE, p_words
from sur_core.page_elements import readable
from tests.small_data import tiny_model
from tests.study_reports import (
    ARMS,
    CONFIG,
    HOSTILE,
    MEASURES,
    METHODS,
    NOTE,
    PROMPTS,
    SEEDS,
    entries_of,
    make_study,
)
from tests.study_runs import study as run_small_study
from tests.test_demo_report import Page
from train.__main__ import main

FEW = {"methods": METHODS[:2]}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return make_study(tmp_path_factory.mktemp("study"), **FEW)


@pytest.fixture(scope="module")
def text(study):
    written = write_report(study)
    assert [path.name for path in written] == [REPORT, PROMPTS_FILE]
    return written[0].read_text("utf-8")


@pytest.fixture(scope="module")
def page(text):
    return Page(text)


def words(cell: str) -> str:
    return re.sub(r"\s+", " ", cell).strip()


def grouped(rows: list[list[str]]) -> list[tuple[str, list[str]]]:
    """(group, cells) of every row beneath a group's name."""
    found, group = [], None
    for row in rows:
        if len(row) == 1:
            group = words(row[0])
        elif group is not None:
            found.append((group, [words(cell) for cell in row]))
    return found


# --- figures ------------------------------------------------------------------------------------------------


def test_table_2_is_the_studys(page, study):
    rows = page.table("Table 2")
    assert [words(cell) for cell in rows[0]] == [
        *("Method", "Adapter", "CLIP Score", "Action (%)", "Color (%)", "Counting (%)", "all (%)")
    ]
    assert [words(cell) for cell in rows[1]] == ["Baseline", "Ours"] * 5
    found = grouped(rows)
    assert len(found) == len(entries_of(study)) == 8
    for (model, row), (cell, arm) in zip(found, entries_of(study), strict=True):
        assert (model, *row[:2]) == (cell.model, cell.method, arm)
        shares = study.quality(cell, arm, "clip_score").score.comparison
        assert float(row[2]) == pytest.approx(shares.baseline_mean, abs=5e-4)
        assert float(row[3].split()[0]) == pytest.approx(shares.mean, abs=5e-4)
        for base, ours, kind in zip(row[4::2], row[5::2], (*study.types, ALL), strict=True):
            drawn = {name: cell.evaluation.accuracy(name, kind).share for name in ("Baseline", arm)}
            interval = cell.evaluation.comparison(arm, kind).over_prompts
            assert base == f"{100 * drawn['Baseline']:.2f}"
            change = 100 * (drawn[arm] - drawn["Baseline"])
            arrow = "=" if abs(change) < 1e-9 else "↑" if change > 0 else "↓"
            assert ours == (
                f"{100 * drawn[arm]:.2f} {arrow} {change:+.2f} "
                f"[{100 * interval.low:+.1f}, {100 * interval.high:+.1f}]"
            )


def test_table_3_has_every_measure_its_direction_and_the_papers_test(page, study):
    tables = [table["rows"] for table in page.tables if "Table 3" in table["caption"]]
    assert len(tables) == 2, "four measures are two tables of two"
    heads = [words(cell) for rows in tables for cell in rows[0][2:]]
    assert heads == [
        f"{m.name} ({'higher' if m.higher_is_better else 'lower'} is better)" for m in MEASURES[1:]
    ]
    at_or_below = set()
    for rows, measures in zip(tables, (MEASURES[1:3], MEASURES[3:]), strict=True):
        for (model, row), (cell, arm) in zip(grouped(rows), entries_of(study), strict=True):
            assert (model, *row[:2]) == (cell.model, cell.method, arm)
            for base, ours, measure in zip(row[2::2], row[3::2], measures, strict=True):
                score = study.quality(cell, arm, measure.name).score
                p = score.comparison.independent.p
                assert base == f"{score.comparison.baseline_mean:.3f}"
                assert ours.startswith(f"{score.comparison.mean:.3f} {score.comparison.difference:+.3f} [")
                mark = "✓" if p > 0.05 else "✗"
                over, adjusted = score.comparison.by_prompt.p, score.holm_by_prompt
                assert f" {mark} p {p_words(p)}, Holm {p_words(score.holm_independent)} over" in ours
                assert ours.endswith(f" over prompts p {p_words(over)}, Holm {p_words(adjusted)}")
                at_or_below.add(p <= 0.05)
    assert at_or_below == {True, False}
    assert page.text.count(INDEPENDENT_NOTE) == 1 and page.text.count(MEASURES[0].note) == len(MEASURES)


def test_table_7_has_each_prompts_share(page, study):
    tables = [table for table in page.tables if table["caption"].startswith("Right pictures by prompt")]
    assert len(tables) == len(study.cells)
    for table, cell in zip(tables, study.cells, strict=True):
        assert f"{cell.model}, {cell.method}; {len(SEEDS)} pictures" in table["caption"]
        found = grouped(table["rows"])
        assert [kind for kind, _ in found] == [prompt.type for prompt in PROMPTS]
        for (_, row), prompt in zip(found, PROMPTS, strict=True):
            assert row[0] == words(readable(prompt.prompt))
            for share, arm in zip(row[1:], ARMS, strict=True):
                marks = [p.verdict.right for p in cell.evaluation.of(arm.name) if p.prompt_id == prompt.id]
                assert share == f"{100 * np.mean(marks):.2f}%"


def test_every_test_stands_with_its_p_and_holms(page, study):
    found = grouped(page.table("Tests of right pictures"))
    assert len(found) == len(study.accuracies)
    for (model, cells), row in zip(found, study.accuracies, strict=True):
        assert (model, *cells[:3]) == (row.model, row.method, row.comparison.arm, row.comparison.type)
        for shown, test in zip(cells[-len(TESTS) :], TESTS, strict=True):
            p = getattr(row.comparison, test).p
            both = p is not None and row.comparison.type != ALL
            assert shown == p_words(p) + (f" {p_words(row.holm[test])}" if both else "")
    found = grouped(page.table("Tests of measures"))
    assert len(found) == len(study.qualities)
    for (model, cells), row in zip(found, study.qualities, strict=True):
        score, comparison = row.score, row.score.comparison
        assert (model, *cells[:3]) == (row.model, row.method, score.arm, score.measure)
        assert cells[3:5] == [str(comparison.pictures), str(score.undefined)]
        assert [float(cell) for cell in cells[5:8]] == pytest.approx(
            [comparison.baseline_mean, comparison.mean, comparison.difference], abs=5e-5
        )
        for shown, test in zip(cells[1 - len(TESTS) :], TESTS[:-1], strict=True):
            p = getattr(comparison, test).p
            adjusted = getattr(score, f"holm_{test}")
            assert shown == p_words(p) + (f" {p_words(adjusted)}" if p is not None else "")
    assert any(row.score.undefined for row in study.qualities)
    assert page.text.count(NOT_EQUAL_NOTE) == 3


def test_a_gain_is_told_only_where_interval_and_test_over_prompts_say_so(study):
    told = set()
    for row in study.qualities:
        found, bounds = row.score.comparison, row.score.comparison.over_prompts
        sign = 1 if row.score.higher_is_better else -1
        sure = not bounds.low <= 0 <= bounds.high, found.by_prompt.p <= 0.05
        expected = "unclear" if not all(sure) else "gain" if row.score.gain > 0 else "loss"
        assert verdict(found, sign) == expected
        told.add(sure)
    assert (True, False) in told, "six prompts are few"
    lines = dict(line.split(": of ", 1) for line in findings(study) if ": of " in line)
    for measure in MEASURES:
        rows = [row for row in study.qualities if row.score.measure == measure.name]
        sign = 1 if measure.higher_is_better else -1
        told = re.findall(r"\d+", lines[measure.name])
        kinds = [verdict(row.score.comparison, sign) for row in rows]
        assert [int(count) for count in told] == [
            len(rows),
            *(kinds.count(kind) for kind in ("gain", "loss", "unclear")),
        ]
    assert lines["siglip"].endswith("8 a gain, 0 a loss, 0 cannot be told.")
    turned = dict(line.split(": of ", 1) for line in findings(siglip_lower(study)) if ": of " in line)
    assert turned["siglip"].endswith("0 a gain, 8 a loss, 0 cannot be told.")
    assert turned["brisque"] == lines["brisque"]


def siglip_lower(study):
    """The same, but lower is better of the measure that adapters raise: a study with losses."""
    measures = tuple(
        replace(m, higher_is_better=m.higher_is_better != (m.name == "siglip")) for m in study.measures
    )
    sign = {m.name: m.higher_is_better for m in measures}
    rows = tuple(
        replace(row, score=replace(row.score, higher_is_better=sign[row.score.measure]))
        for row in study.qualities
    )
    return replace(study, measures=measures, qualities=rows)


def test_the_csv_has_every_prompts_change_by_every_measure(study, text):
    rows = list(csv.DictReader(io.StringIO((study.folder / PROMPTS_FILE).read_text("utf-8"), newline="")))
    assert len(rows) == (1 + len(MEASURES)) * len(entries_of(study)) * len(PROMPTS)
    cell, seen = study.cells[-1], 0
    for row in rows:
        if (row["model"], row["method"], row["arm"]) != (cell.model, cell.method, ARMS[2].name):
            continue
        pictures = cell.evaluation.pictures
        values = {}
        for arm in (ARMS[0].name, ARMS[2].name):
            at = [n for n, p in enumerate(pictures) if (p.arm, p.prompt_id) == (arm, row["prompt_id"])]
            values[arm] = (
                [float(pictures[n].verdict.right) for n in at]
                if row["measure"] == "right"
                else [cell.scores[row["measure"]][n] for n in at]
            )
        pairs = [(b, o) for b, o in zip(*values.values(), strict=True) if not math.isnan(b + o)]
        base, ours = np.mean(pairs, axis=0)
        assert int(row["pictures"]) == len(pairs)
        assert [float(row["mean_baseline"]), float(row["mean"])] == pytest.approx([base, ours])
        assert float(row["gain"]) == pytest.approx(
            base - ours if row["measure"] == "brisque" else ours - base
        )
        seen += 1
    assert seen == (1 + len(MEASURES)) * len(PROMPTS)


@pytest.mark.parametrize("losses", [False, True])
def test_a_figure_is_colored_only_where_it_is_told_a_gain_or_a_loss(page, study, losses, tmp_path):
    if losses:
        study = replace(siglip_lower(study), folder=tmp_path)
        page = Page(write_report(study)[0].read_text("utf-8"))
    shown = Counter(tag["class"] for tag in page.all("small") if tag.get("class") in ("yes", "no"))
    expected = Counter()
    for row in study.accuracies:
        # Twice in Table 2, once among the tests.
        expected[verdict(row.comparison)] += 3
    for row in study.qualities:
        sign = 1 if row.score.higher_is_better else -1
        expected[verdict(row.score.comparison, sign)] += 3
    assert (shown["yes"], shown["no"]) == (expected["gain"], expected["loss"])
    assert expected["unclear"] and expected["loss" if losses else "gain"]


def test_the_page_says_how_a_gain_is_told_and_that_intervals_over_few_prompts_are_too_narrow(page):
    rule = (
        "where the 95% interval over prompts excludes zero and the p of the paired t-test over prompts is "
        "0.05 or less"
    )
    assert page.text.count(rule) == 3, "what came out, Table 2 and Table 3"
    assert page.text.count(FEW_PROMPTS_NOTE) == 3, "what came out, and both tables of tests"


@pytest.mark.parametrize(
    ("arms", "title"),
    [
        ([{"adapter": "a"}], "A study of SUR-adapters"),
        ([{"llmdiff": "b", "llm": "c"}], "A study of LLMDiff-Adapters"),
        ([{"llmdiff": "b", "llm": "c"}, {"adapter": "a"}], "A study of SUR-adapters and LLMDiff-Adapters"),
        ([{"llmdiff": "b", "llm": "c", "adapter": "a"}], "A study of SUR-adapters and LLMDiff-Adapters"),
    ],
)
def test_the_title_names_the_systems_that_are_compared(study, tmp_path, arms, title):
    new = [replace(ARMS[0]), *(Arm(f"arm {n}", **given) for n, given in enumerate(arms))]
    cell = study.cells[0]
    names = {old.name: arm.name for old, arm in zip(ARMS, new, strict=False)}
    found = replace(
        cell.evaluation,
        arms=tuple(new),
        pictures=tuple(replace(p, arm=names[p.arm]) for p in cell.evaluation.pictures if p.arm in names),
    )
    only = replace(cell, evaluation=found, scores={})
    other = replace(study, folder=tmp_path, cells=(only,), measures=(), accuracies=(), qualities=())
    text = write_report(other)[0].read_text("utf-8")
    assert f"<title>{title}</title>" in text and f"<h1>{title}</h1>" in text


# --- one file that runs and loads nothing -------------------------------------------------------------------


def test_nothing_is_loaded_and_nothing_that_people_wrote_is_run(page, text):
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"script", "link", "iframe", "object", "form", "i"} and tags >= {
        "img",
        "table",
        "details",
    }
    for _, attributes in page.elements:
        assert attributes.get("src", "data:").startswith("data:")
        assert attributes.get("href", "#").startswith("#")
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
    policy = next(a["content"] for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; style-src 'sha256-") and "img-src data:;" in policy
    assert "http:" not in text and "https:" not in text and "@import" not in text and "url(" not in text
    ids = {attributes["id"] for _, attributes in page.elements if "id" in attributes}
    assert {attributes["href"][1:] for _, attributes in page.elements if "href" in attributes} <= ids


def test_texts_of_people_are_text(page, text):
    shown = readable(HOSTILE)
    assert shown != HOSTILE and "\x00" not in text
    assert page.text.count(shown) >= 2 + 4, "in its grid, its tables"
    assert NOTE in page.text and "saw <i>nothing</i> of it" in page.text
    assert {cell for table in page.tables for row in table["rows"] for cell in map(words, row)} >= {
        "DM <cartoon>"
    }
    assert any("saw <i>nothing</i> of it" in image["alt"] for image in page.all("img"))
    assert "</pre><script>" in page.text and "</pre><script>" not in text


def test_the_same_study_gives_the_same_bytes(study, text, tmp_path):
    before = {name: (study.folder / name).read_bytes() for name in (REPORT, PROMPTS_FILE)}
    assert before[REPORT].decode() == text
    copied = shutil.copytree(study.folder, tmp_path / "elsewhere")
    (copied / REPORT).unlink()
    write_report(read_study(copied))
    assert {name: (copied / name).read_bytes() for name in before} == before


def test_the_page_says_what_was_compared_and_how_it_was_made(page, study):
    settings = {row[0].strip(): words(row[1]) for row in page.table("Drawing, judging")}
    assert settings["prompts"] == "2 Action, 2 Color, 2 Counting" and settings["seeds"] == "7, 11, 13"
    assert settings["versions"] == study.about["versions"] and settings["negative prompt"] == "blurry"
    assert settings["judge"] == 'lot {"threshold": 0.5}'
    adapters = [[words(cell) for cell in row] for row in page.table("Adapters")[1:]]
    assert [row[:3] for row in adapters] == [[a.name, str(a.adapter), f"{a.eta:g}"] for a in ARMS[1:]]
    assert [row[1].strip() for row in page.table("Models")[1:]] == [
        f"models/{c.model}" for c in study.cells[::2]
    ]
    assert "python -m train evaluate --config study.toml" in page.text
    assert "2 models, 2 methods, 6 prompts from 3 seeds: 216 pictures" in headline(study)
    assert headline(study) in page.text


@pytest.mark.parametrize(
    "document",
    [
        CONFIG,
        {},
        {"prompts": 'a\nb\t"\\', "judge": "vlm:x", "drawing": {"steps": 2, "guidance_scale": 1e-05}},
        {"methods": [{"kind": "none", "models": []}], "quality": {"a b": {"c": [1.5, True]}, "": {}}},
    ],
)
def test_the_studys_file_on_the_page_reads_as_it_was(document):
    tomllib = pytest.importorskip("tomllib", reason="came with Python 3.11")
    assert tomllib.loads(to_toml(document)) == document


# --- less ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("judged", [False, True])
@pytest.mark.parametrize("measures", [(), MEASURES[:1], MEASURES[1:2]])
def test_without_judge_or_measures_there_is_still_a_report(tmp_path, judged, measures):
    found = make_study(
        tmp_path, judged, measures, methods=METHODS[:1], models=("DM (1.5)",), prompts=PROMPTS[:3]
    )
    page = Page(write_report(found)[0].read_text("utf-8"))
    captions = " ".join(table["caption"] for table in page.tables)
    assert ("Table 2" in captions) == bool(judged or measures[:1] == MEASURES[:1])
    assert ("by prompt" in captions) == judged == ("Tests of right" in captions)
    assert ("Tests of measures" in captions) == bool(measures)
    assert ("Table 3" in captions) == (measures == MEASURES[1:2])
    assert ("No judge looked at these pictures" in page.text) != judged
    assert ("No measure of quality was taken" in page.text) != bool(measures)
    assert ("there is no worst and no best" in page.text) == (not judged and not measures)
    assert len(page.all("img")) >= 3 * len(ARMS)
    assert ("✓ right" in page.text) == judged
    assert not re.search(r"\bnan\b", page.text, re.I)


def test_prompts_that_none_gained_are_told(study):
    same = replace(study, cells=tuple(_all_right(cell) for cell in study.cells))
    text = " ".join(part for element in case_parts(same, Thumbnails()) for part in element.itertext())
    assert "No prompt lost." in text and "No prompt gained." in text


def _all_right(cell):
    right = [replace(p, verdict=replace(p.verdict, right=True)) for p in cell.evaluation.pictures]
    return replace(cell, evaluation=replace(cell.evaluation, pictures=tuple(right)))


# --- the command --------------------------------------------------------------------------------------------


def test_the_command_writes_the_page_anew_from_the_disk(study, text, tmp_path, capsys):
    copied = shutil.copytree(study.folder, tmp_path / "study")
    (copied / REPORT).write_text("old")
    assert main(["evaluate", "report", str(copied)]) == 0
    assert (copied / REPORT).read_text("utf-8") == text
    assert str(copied / REPORT) in capsys.readouterr().out
    assert main(["evaluate", "report", str(tmp_path)]) == 1
    assert "study.json: no such file; expected a folder that a study has filled" in capsys.readouterr().err


def test_a_study_ends_with_its_report(tmp_path):
    models = [{"name": "<DM>", "path": str(tiny_model("sd1"))}]
    found = run_small_study(tmp_path, models=models, methods=[{"kind": "none"}])
    written = (found.folder / REPORT).read_bytes()
    page = Page(written.decode())
    row = grouped(page.table("Table 2"))[1]
    share = found.cells[0].evaluation.accuracy("SUR, eta 0.5").share
    assert row[0] == "<DM>" and row[1][-1].startswith(f"{100 * share:.2f} ")
    assert "resamples = 200" in page.text and page.all("img")
    assert main(["evaluate", "report", str(found.folder)]) == 0
    assert (found.folder / REPORT).read_bytes() == written
