"""A study: models x methods x adapters, one file, tables as in the paper; stopped, killed and split alike."""

import csv
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from html import unescape
from pathlib import Path

import numpy as np
import pytest

from sur_core.evaluation import Arm, EvaluationStopped, compare, read_results
from sur_core.evaluation.statistics import NOT_EQUAL_NOTE
from sur_core.evaluation.study import TESTS
from sur_core.evaluation.study_files import COLUMNS, read_study
from sur_core.evaluation.study_tables import all_tables, prompt_table, quality_table, semantic_table
from sur_core.evaluation.study_verdicts import RememberingJudge
from tests import study_runs
from tests.evaluation_runs import PROMPTS, ChannelJudge, adapter_file, by_prompt, equal, run
from tests.helpers import killed_at_a_rename
from tests.method_models import method
from tests.small_data import tiny_model
from tests.study_runs import FILES, KINDS, MODELS, study, write_study_file
from train.__main__ import main

ROOT = Path(__file__).resolve().parents[1]
ARMS = ("SUR, eta 0", "SUR, eta 0.5")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return study(tmp_path_factory.mktemp("finished"))


def written(folder: Path) -> dict[str, bytes]:
    """Every table and picture, and the results of every cell."""
    found = {name: (folder / name).read_bytes() for name in FILES}
    for pattern in ("cells/*/results.json", "cells/*/tables.csv", "cells/*/images/*/*.png"):
        found |= {str(path.relative_to(folder)): path.read_bytes() for path in folder.glob(pattern)}
    return found


# --- what it finds ------------------------------------------------------------------------------------------


def test_every_model_under_every_method_is_an_evaluation_of_its_own(finished, tmp_path):
    assert [(cell.model, cell.method) for cell in finished.cells] == [
        (model, kind) for model in MODELS for kind in KINDS
    ]
    arms = [Arm("Baseline")] + [Arm(f"SUR, eta {eta:g}", adapter=adapter_file(), eta=eta) for eta in (0, 0.5)]
    cell = finished.cell("DM (1.5)", "controlnet-canny")
    own = run(tmp_path, arms, method=method("controlnet-canny"), judge=study_runs.make_judge())
    for name in ("Baseline", *ARMS):
        assert equal(by_prompt(cell.evaluation, name), by_prompt(own, name))
    assert cell.evaluation.pictures == own.pictures
    assert cell.evaluation.comparisons == own.comparisons
    assert cell.evaluation == read_results(finished.folder / cell.folder)


def test_baseline_and_sur_at_eta_0_are_equal_in_every_cell_and_the_models_are_not(finished):
    for cell in finished.cells:
        base = by_prompt(cell.evaluation, "Baseline")
        assert equal(base, by_prompt(cell.evaluation, "SUR, eta 0"))
        assert not equal(base, by_prompt(cell.evaluation, "SUR, eta 0.5"))
    first, second = (by_prompt(finished.cell(model, "sag").evaluation, "Baseline") for model in MODELS)
    assert not any(np.array_equal(first[key], second[key]) for key in first)


def holm_by_hand(p_values: list) -> list:
    """Each p times how many are as large or larger, and no smaller than what smaller ones became."""
    known = [p for p in p_values if p is not None]
    times = [p * sum(other >= p for other in known) for p in known]
    return [
        None if p is None else min(1, max(t for t, other in zip(times, known, strict=True) if other <= p))
        for p in p_values
    ]


def test_holms_correction_is_over_each_whole_table(finished):
    counted = [row for row in finished.accuracies if row.comparison.type != "all"]
    assert len(counted) == len(finished.cells) * len(ARMS) * 2
    for test in TESTS:
        p_values = [getattr(row.comparison, test).p for row in counted]
        assert [row.holm[test] for row in counted] == pytest.approx(holm_by_hand(p_values))
    assert all(not row.holm for row in finished.accuracies if row.comparison.type == "all")
    assert len(finished.qualities) == len(finished.cells) * len(ARMS) * len(finished.measures)
    assert holm_by_hand([0.04, None, 0.01, 0.03]) == [0.06, None, 0.03, 0.06]


def test_clip_score_stands_in_table_2_and_is_not_counted_in_the_correction_of_table_3(finished):
    """Twelve and twelve of the table's own measures, and twelve CLIP Scores among themselves."""
    measures = {measure.name for measure in finished.measures}
    families = [measures - {"clip_score"}, {"clip_score"}]
    assert all(families)
    for test, family in itertools.product(TESTS[:-1], families):
        rows = [row.score for row in finished.qualities if row.score.measure in family]
        assert len(rows) == len(finished.cells) * len(ARMS) * len(family)
        found = [row.comparison and getattr(row.comparison, test).p for row in rows]
        adjusted = [getattr(row, f"holm_{test}") for row in rows]
        assert adjusted == pytest.approx(holm_by_hand(found))
        assert any(p is not None for p in adjusted) == (
            family != {"clip_score"} or test in ("paired", "by_prompt")
        )
    words = "CLIP Scores, which stand in Table 2, are adjusted among themselves, all others as in Table 3."
    assert all_tables(finished).count(words) == 1
    page = unescape((finished.folder / "report.html").read_text("utf-8"))
    assert page.count(words) == 1


def test_measures_are_compared_as_their_scores_say(finished):
    cell = finished.cell("DM (cartoon)", "none")
    size = len(cell.evaluation.pictures) // 3
    scores, pictures = np.array(cell.scores["brisque"]), cell.evaluation.pictures[:size]
    assert np.array_equal(scores[:size], scores[size : 2 * size], equal_nan=True), "eta 0 is the baseline"
    expected = compare(
        "SUR, eta 0.5",
        "Baseline",
        scores[2 * size :],
        scores[:size],
        [picture.prompt_id for picture in pictures],
        [picture.type for picture in pictures],
        measure="brisque",
        resamples=200,
    )
    assert finished.quality(cell, "SUR, eta 0.5", "brisque").score.comparison == expected
    assert [measure.name for measure in finished.measures] == ["clip_score", "clip_cosine", "brisque"]
    assert [measure.higher_is_better for measure in finished.measures] == [True, True, False]


def test_an_adapter_is_compared_under_its_models_only(tmp_path):
    adapters = [
        {"path": str(adapter_file()), "etas": [0.5], "models": ["DM (1.5)"]},
        {"path": str(adapter_file(seed=1)), "etas": [0.25], "models": ["DM (cartoon)"]},
    ]
    found = study(tmp_path, adapters=adapters, methods=[{"kind": "none"}], judge=None, quality=None)
    assert [[arm.name for arm in cell.arms] for cell in found.cells] == [["SUR, eta 0.5"], ["SUR, eta 0.25"]]
    with pytest.raises(KeyError):
        found.cell("DM (1.5)", "sag")
    assert (found.accuracies, found.qualities, found.measures) == ((), (), ())
    assert "%" not in all_tables(found)


# --- what it leaves -----------------------------------------------------------------------------------------


def test_what_was_written_is_read_again(finished):
    found = read_study(finished.folder)
    assert found.cells == finished.cells
    assert found == replace(finished, config=json.loads(json.dumps(finished.config)))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: text[:-100], "damaged.*run the study again"),
        (lambda text: text.replace('"schema": 1', '"schema": 7'), "schema is 7, expected 1"),
        (lambda text: text.replace('"measures"', '"numbers"'), "damaged.*'measures'"),
    ],
)
def test_a_damaged_study_is_named(finished, tmp_path, change, words):
    copied = shutil.copytree(finished.folder, tmp_path / "study", ignore=shutil.ignore_patterns("*.png"))
    assert read_study(copied).cells[0].scores == finished.cells[0].scores
    (copied / "study.json").write_text(change((copied / "study.json").read_text("utf-8")), "utf-8")
    with pytest.raises(ValueError, match=f"study.json: {words}"):
        read_study(copied)
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_study(tmp_path / "gone")


def test_study_csv_has_every_comparison_with_all_its_figures(finished):
    with open(finished.folder / "study.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert len(rows) == len(finished.accuracies) + len(finished.qualities)
    for row, found in zip(rows, finished.accuracies, strict=False):
        comparison = found.comparison
        assert (row["table"], row["model"], row["method"]) == ("2", found.model, found.method)
        assert (row["arm"], row["type"]) == (comparison.arm, comparison.type)
        assert float(row["mean"]) == comparison.mean
        assert float(row["difference"]) == comparison.difference
        for test in TESTS:
            p = getattr(comparison, test).p
            assert row[f"p_{test}"] == ("" if p is None else repr(p))
            adjusted = found.holm.get(test)
            assert row[f"holm_{test}"] == ("" if adjusted is None else repr(adjusted))
    last, score = rows[-1], finished.qualities[-1].score
    assert (last["table"], last["measure"], last["holm_mcnemar"]) == ("3", score.measure, "")
    assert float(last["mean_baseline"]) == score.comparison.baseline_mean


def cells_of(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def test_table_2_has_a_row_for_each_model_method_and_adapter_and_baseline_beside_ours(finished):
    rows = cells_of(semantic_table(finished))
    assert rows[0] == [
        *("Pre-trained Model", "Controlled Method", "Adapter", "CLIP Score Baseline", "CLIP Score Ours"),
        *("Color (%) Baseline", "Color (%) Ours", "Counting (%) Baseline", "Counting (%) Ours"),
    ]
    expected = [[model, kind, arm] for model in MODELS for kind in KINDS for arm in ARMS]
    assert [row[:3] for row in rows[2:]] == expected
    assert {row[column][-1] for row in rows[2:] for column in (4, 6, 8)} > {"="}
    for row in rows[2:]:
        cell = finished.cell(row[0], row[1])
        base = cell.evaluation.accuracy("Baseline", "Color").share
        ours = cell.evaluation.accuracy(row[2], "Color").share
        sign = "↑" if ours > base else "↓" if ours < base else "="
        assert row[5:7] == [f"{100 * base:.2f}", f"{100 * ours:.2f} {sign}"]
        assert float(row[3]) + float(row[4].split()[0]) == pytest.approx(1, abs=0.0011)


def test_table_3_has_each_measures_means_and_the_papers_test(finished):
    rows = cells_of(quality_table(finished))
    assert rows[0][3:] == [
        *("clip_cosine (higher is better) Baseline", "clip_cosine (higher is better) Ours (p > 0.05?)"),
        *("brisque (lower is better) Baseline", "brisque (lower is better) Ours (p > 0.05?)"),
    ]
    marks = set()
    for row in rows[2:]:
        score = finished.quality(finished.cell(row[0], row[1]), row[2], "brisque").score
        assert row[5] == f"{score.comparison.baseline_mean:.3f}"
        assert row[6].startswith(f"{score.comparison.mean:.3f} (")
        p = score.comparison.independent.p
        if p is not None:
            assert f"{'✓' if p > 0.05 else '✗'} p " in row[6]
            marks.add(p)
    assert len(marks) > 2


def test_table_7_has_each_prompts_share(finished):
    parts = prompt_table(finished).split("### ")[1:]
    assert len(parts) == len(finished.cells)
    cell = finished.cell("DM (1.5)", "none")
    part = next(part for part in parts if part.startswith("DM (1.5), none\n"))
    rows = cells_of(part)
    assert rows[0] == ["Type", "Prompt", "Accuracy", *(f"Accuracy ({arm})" for arm in ARMS)]
    assert [row[:2] for row in rows[2:]] == [[prompt.type, prompt.prompt] for prompt in PROMPTS]
    for row, prompt in zip(rows[2:], PROMPTS, strict=True):
        for text, arm in zip(row[2:], ("Baseline", *ARMS), strict=True):
            right = [p.verdict.right for p in cell.evaluation.of(arm) if p.prompt_id == prompt.id]
            assert text == f"{100 * np.mean(right):.2f}%"


def test_every_table_says_that_p_is_no_proof_of_equality(finished):
    text = (finished.folder / "study.md").read_text("utf-8")
    assert text == all_tables(finished)
    parts = {part.splitlines()[0]: part for part in text.split("\n## ")[1:]}
    assert len(parts) == 5
    for title, part in parts.items():
        assert NOT_EQUAL_NOTE in part or "Table 7" in title
        assert "nan" not in part.lower()
    assert "ControlNet " in text and "sag_scale 0.75" in text and str(tiny_model("sd1", 1)) in text


# --- stopped, killed, split ---------------------------------------------------------------------------------


class StopAt:
    """Sends this process a signal when some progress has been told."""

    def __init__(self, what: str, number: int = signal.SIGINT):
        self._what, self._number, self.stopped = what, number, False

    def __call__(self, what, done, total):
        if re.search(self._what, what) and not self.stopped:
            self.stopped = True
            os.kill(os.getpid(), self._number)


STOPS = [
    ("DM .1.5., none: drawing", signal.SIGINT),
    ("DM .cartoon., sag: drawing", signal.SIGTERM),
    ("DM .1.5., controlnet-canny: judging", signal.SIGTERM),
    ("DM .cartoon., none: brisque", signal.SIGINT),
]


@pytest.mark.parametrize(("what", "number"), STOPS)
def test_a_stopped_study_goes_on_to_the_same_tables(finished, tmp_path, what, number):
    with pytest.raises(EvaluationStopped, match="the same command goes on") as stopped:
        study(tmp_path, report=StopAt(what, number))
    assert stopped.value.signal == number
    assert not (tmp_path / "study" / "study.md").exists()
    before = {path: path.stat().st_ino for path in tmp_path.rglob("*.png")}
    assert before
    study(tmp_path)
    after = {path: path.stat().st_ino for path in tmp_path.rglob("*.png")}
    assert before.items() <= after.items(), "nothing is drawn twice"
    assert without_paths(written(tmp_path / "study")) == without_paths(written(finished.folder))


def without_paths(files: dict[str, bytes]) -> dict[str, bytes]:
    """The measures' files lie in the folder of the study itself, which its own file names."""
    return {
        name: re.sub(rb'"/[^"]*/svr/all(model|range)"', b'"svr"', content)
        if name == "study.json"
        else content
        for name, content in files.items()
    }


@pytest.mark.parametrize("writes", [3, 30, 60, 101])
def test_a_killed_study_goes_on_to_the_same_tables(finished, tmp_path, writes):
    """Killed just before the file of this number takes its name."""
    killed_at_a_rename(writes, lambda: study(tmp_path))
    assert list(tmp_path.rglob(".unfinished-*")), "the kill must have come in the middle of a write"
    study(tmp_path)
    assert not list(tmp_path.rglob(".unfinished-*.tmp"))
    assert without_paths(written(tmp_path / "study")) == without_paths(written(finished.folder))


ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "HF_HUB_OFFLINE": "1"}
TWO = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "train")


def test_two_processes_make_the_tables_of_one(finished, tmp_path):
    """Segmentation maps are made by one while the other waits."""
    methods = [study_runs.table(kind) for kind in ("none", "controlnet-seg")]
    path = write_study_file(tmp_path / "two", methods=methods)
    command = f"python -m train evaluate --config {path}"
    alone = study(tmp_path / "one", methods=methods, command=command)
    ran = subprocess.run(
        [*TWO, "evaluate", "--config", path], cwd=ROOT, env=ENVIRONMENT, capture_output=True, timeout=500
    )
    assert ran.returncode == 0, ran.stderr.decode()[-3000:]
    assert ran.stdout.decode().count("all tables: ") == 1, "the main process alone speaks"
    assert without_paths(written(tmp_path / "two" / "study")) == without_paths(written(alone.folder))


def test_each_of_two_processes_draws_a_part(tmp_path):
    from sur_core.processes import Processes

    found = []
    for rank in (0, 1):
        folder = tmp_path / str(rank)
        run(folder, [Arm("base")], processes=Processes(rank, 2))
        found.append({path.relative_to(folder) for path in folder.rglob("*.png")})
        assert (folder / "results.json").exists() == (rank == 0)
    assert len(found[0]) == len(found[1]) == 3 and not found[0] & found[1]


# --- verdicts are remembered --------------------------------------------------------------------------------


def test_a_judge_that_says_what_it_depends_on_is_asked_once(tmp_path):
    options = {"judge": "tests.study_runs:make_known_judge", "methods": [{"kind": "none"}], "quality": None}
    study_runs.LOG.clear()
    first = study(tmp_path, **options)
    asked = len(study_runs.LOG)
    assert asked == len(MODELS) * len(PROMPTS) * 2 * 2, "eta 0 is the baseline's own picture"
    again = study(tmp_path, **options)
    assert len(study_runs.LOG) == asked
    assert again == first
    assert "not comparable with anything" in again.remarks
    settings = '{"model": "channel", "identity": "1"}'
    assert again.about["judge settings"] == settings
    assert (again.folder / "study.md").read_text("utf-8").count(settings) == 1
    assert "known " + settings in unescape((again.folder / "report.html").read_text("utf-8"))
    with open(tmp_path / "study" / "verdicts.jsonl", "r+b") as file:
        file.truncate((tmp_path / "study" / "verdicts.jsonl").stat().st_size - 20)
    assert study(tmp_path, **options) == first
    assert len(study_runs.LOG) == asked + asked // len(MODELS), "what is judged with the lost one"


def test_verdicts_of_another_judge_picture_or_truth_are_not_taken(tmp_path):
    pixels, other = (np.full((8, 8, 3), level, np.uint8) for level in (10, 20))
    judge = study_runs.KnownJudge()
    remembered = RememberingJudge(judge, tmp_path / "verdicts.jsonl")
    pairs = [(pixels, PROMPTS[0]), (other, PROMPTS[0]), (pixels, replace(PROMPTS[0], truth={"channel": 2}))]
    for pair in [*pairs, *pairs]:
        assert remembered.mark(*pair) == ChannelJudge().mark(*pair)
    assert judge.asked == 3
    changed = study_runs.KnownJudge()
    changed.about = {"model": "channel", "identity": "2"}
    RememberingJudge(changed, tmp_path / "verdicts.jsonl").mark(*pairs[0])
    assert changed.asked == 1
    unknown = RememberingJudge(ChannelJudge(), tmp_path / "none.jsonl")
    assert unknown.mark(*pairs[0]) == ChannelJudge().mark(*pairs[0])
    assert not (tmp_path / "none.jsonl").exists()


# --- the command --------------------------------------------------------------------------------------------


def test_the_command_prints_the_tables_and_goes_on(tmp_path, capsys):
    changes = {"methods": [{"kind": "none"}], "models": [{"path": str(tiny_model("sd1"))}]}
    path = write_study_file(tmp_path, **changes)
    assert main(["evaluate", "--config", str(path), "--output-dir", str(tmp_path / "elsewhere")]) == 0
    said = capsys.readouterr().out
    assert "| SUR, eta 0.5 " in said and "Color (%) Ours" in said and "brisque" in said
    assert str(tmp_path / "elsewhere" / "study.md") in said
    assert not (tmp_path / "study").exists()
    before = {path: path.stat().st_ino for path in tmp_path.rglob("*.png")}
    assert main(["evaluate", "--config", str(path), "--output-dir", str(tmp_path / "elsewhere")]) == 0
    assert before == {path: path.stat().st_ino for path in tmp_path.rglob("*.png")}


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ([], "--pretrained-model-name-or-path is missing; give it, or a whole study by --config FILE"),
        (["--config", "gone.toml"], "gone.toml: no such file; expected a study's settings"),
        (["--config", "{study}", "--steps", "4"], "--steps does not go with --config; set it in"),
        (["--config", "{study}", "--adapter", "x.pt"], "--adapter does not go with --config"),
    ],
)
def test_contradicting_flags_are_told(tmp_path, capsys, flags, words):
    path = write_study_file(tmp_path)
    capsys.readouterr()
    assert main(["evaluate", *(flag.replace("{study}", str(path)) for flag in flags)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and words in error and "Traceback" not in error
