"""Runs stop, are killed, go on, and leave the same results as if nothing had happened."""

import csv
import json
import os
import re
import signal

import numpy as np
import pytest

from sur_core.evaluation import (
    Arm,
    EvaluationStopped,
    accuracy_table,
    all_tables,
    compare,
    quality_table,
    read_results,
    share_of_gap,
)
from sur_core.evaluation.statistics import NOT_EQUAL_NOTE
from sur_core.evaluation.tables import INDEPENDENT_NOTE, OVER_PICTURES_NOTE
from tests.evaluation_runs import PROMPTS, ChannelJudge, adapter_file, clip_folder, pipeline, pixels_of, run
from tests.helpers import killed_at_a_rename


def arms() -> list[Arm]:
    return [
        Arm("base"),
        Arm("base, complex prompt", text="complex"),
        Arm("SUR, eta 0", adapter=adapter_file()),
        Arm("SUR, eta 0.5", adapter=adapter_file(), eta=0.5),
    ]


FILES = ("results.json", "results.csv", "tables.csv", "tables.md")


def reference() -> list[np.ndarray]:
    draw = np.random.default_rng(0)
    return [draw.integers(0, 256, (64, 64, 3), dtype=np.uint8) for _ in range(4)]


def whole_run(folder, **options):
    return run(folder, arms(), judge=ChannelJudge(), clip=clip_folder(), reference=reference(), **options)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return whole_run(tmp_path_factory.mktemp("finished"))


def drawn(folder) -> dict[str, int]:
    """Every picture's path and inode: one that is written again has another."""
    return {str(path.relative_to(folder)): path.stat().st_ino for path in folder.rglob("images/*/*.png")}


def tables(folder) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in FILES}


# --- stop and go on -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_goes_on_to_the_same_results(finished, tmp_path, number):
    def stop(what, done, total):
        if (what, done) == ("drawing", 8):
            os.kill(os.getpid(), number)

    with pytest.raises(EvaluationStopped, match="goes on") as stopped:
        whole_run(tmp_path, report=stop)
    before = drawn(tmp_path)
    assert stopped.value.signal == number and len(before) == 8
    assert not (tmp_path / "results.json").exists()
    whole_run(tmp_path)
    after = drawn(tmp_path)
    assert before.items() <= after.items() and len(after) == 18
    assert tables(tmp_path) == tables(finished.settings.output_dir)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("writes", [1, 2, 3, 9, 17, 25])
def test_a_killed_run_goes_on_to_the_same_results(finished, tmp_path, writes):
    """Killed just before the file of this number takes its name."""
    pipeline("sd1"), adapter_file(), clip_folder()
    killed_at_a_rename(writes, lambda: whole_run(tmp_path))
    before = drawn(tmp_path)
    assert list(tmp_path.rglob(".unfinished-*")), "the kill must have come in the middle of a write"
    whole_run(tmp_path)
    assert before.items() <= drawn(tmp_path).items()
    assert not list(tmp_path.rglob(".unfinished-*"))
    assert tables(tmp_path) == tables(finished.settings.output_dir)
    pictures = [(tmp_path / path).read_bytes() for path in sorted(drawn(tmp_path))]
    others = finished.settings.output_dir
    assert pictures == [(others / path).read_bytes() for path in sorted(drawn(others))]


def test_more_seeds_and_arms_draw_only_what_is_new(tmp_path):
    run(tmp_path, [Arm("base")], seeds=(3,))
    first, said = drawn(tmp_path), []
    run(tmp_path, arms()[::3], seeds=(3, 5), report=lambda *progress: said.append(progress))
    assert first.items() <= drawn(tmp_path).items() and len(drawn(tmp_path)) == 12
    assert said[0] == ("drawing", 3, 12) and said[-1][1:] == (12, 12)


def test_a_picture_that_a_power_failure_cut_is_drawn_again_and_named(tmp_path, caplog):
    found = run(tmp_path, [Arm("base")])
    path = found.file(found.pictures[0])
    whole = path.read_bytes()
    for rest in (b"", whole[:100], whole[:-4], bytes(len(whole))):
        path.write_bytes(rest)
        caplog.clear()
        run(tmp_path, [Arm("base")])
        assert path.read_bytes() == whole and str(path) in caplog.text


def test_a_damaged_picture_is_named(tmp_path):
    found = run(tmp_path, [Arm("base")])
    path = found.file(found.pictures[0])
    content = bytearray(path.read_bytes())
    content[60:80] = bytes(20)
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"{path.name}: damaged picture.*Delete it"):
        run(tmp_path, [Arm("base")], judge=ChannelJudge())


def test_two_runs_do_not_share_a_folder(tmp_path):
    from filelock import FileLock

    with FileLock(tmp_path / ".running.lock"), pytest.raises(ValueError, match="another run"):
        run(tmp_path, [Arm("base")])
    run(tmp_path, [Arm("base")], prompts=PROMPTS[:1])


def test_progress_is_told_to_its_end(tmp_path):
    said = []
    whole_run(tmp_path, report=lambda *progress: said.append(progress))
    ends = {what: (done, total) for what, done, total in said}
    assert ends == {
        "drawing": (18, 18),
        "judging": (24, 24),
        "CLIP features": (18, 18),
        "reference features": (4, 4),
    }
    for what in ends:
        steps = [done for name, done, _ in said if name == what]
        assert steps == sorted(steps)


# --- what it finds ------------------------------------------------------------------------------------------


def test_every_arm_prompt_and_seed_has_its_picture_and_verdict(finished):
    expected = [(arm.name, p.id, p.type, s) for arm in arms() for p in PROMPTS for s in (3, 5)]
    assert [(p.arm, p.prompt_id, p.type, p.seed) for p in finished.pictures] == expected
    judge, prompts = ChannelJudge(), {prompt.id: prompt for prompt in PROMPTS}
    for arm in arms():
        for picture, pixels in zip(finished.of(arm.name), pixels_of(finished, arm.name), strict=True):
            assert picture.verdict == judge.mark(pixels, prompts[picture.prompt_id])
    assert len({picture.verdict.right for picture in finished.pictures}) == 2


def test_accuracies_and_comparisons_are_those_of_the_verdicts(finished):
    for arm in arms():
        for kind in ("Color", "Counting", "all"):
            right = [p.verdict.right for p in finished.of(arm.name) if kind in ("all", p.type)]
            accuracy = finished.accuracy(arm.name, kind)
            assert (accuracy.right, accuracy.pictures) == (sum(right), len(right))
            assert accuracy.share == pytest.approx(np.mean(right))
    ours, base = finished.of("SUR, eta 0.5"), finished.of("base")
    expected = compare(
        "SUR, eta 0.5",
        "base",
        [float(picture.verdict.right) for picture in ours],
        [float(picture.verdict.right) for picture in base],
        [picture.prompt_id for picture in ours],
        [picture.type for picture in ours],
        type="Color",
        resamples=200,
    )
    assert finished.comparison("SUR, eta 0.5", "Color") == expected
    with pytest.raises(KeyError):
        finished.comparison("base", "Color")


def test_an_arm_at_eta_0_differs_in_nothing(finished):
    same = finished.comparison("SUR, eta 0")
    assert same.difference == 0 and (same.mcnemar.p, same.mcnemar.arm_only) == (1, 0)
    assert "every pair is equal" in same.paired.note
    assert finished.clip_score("SUR, eta 0").share == 0.5
    assert finished.kid("SUR, eta 0").difference == 0
    assert [p.path for p in finished.of("SUR, eta 0")] == [p.path for p in finished.of("base")]


def test_the_closed_gap_is_that_of_the_marks(finished):
    found = finished.gap_closed("SUR, eta 0.5", "base, complex prompt")
    marks = [finished.marks(arm) for arm in ("base", "SUR, eta 0.5", "base, complex prompt")]
    pictures = finished.of("base")
    expected = share_of_gap(
        *marks, [p.prompt_id for p in pictures], [p.type for p in pictures], resamples=200
    )
    assert found == expected


class CountingJudge(ChannelJudge):
    def __init__(self):
        self.marked, self.checked = 0, ()

    def check(self, prompts):
        self.checked = tuple(prompts)

    def mark(self, pixels, prompt):
        self.marked += 1
        return super().mark(pixels, prompt)


def test_a_picture_that_arms_share_is_judged_once_and_the_judge_sees_all_prompts_first(tmp_path):
    judge = CountingJudge()
    run(tmp_path, arms()[::2], judge=judge)
    assert judge.marked == 6 and judge.checked == PROMPTS


def test_without_judge_and_clip_pictures_are_drawn_and_nothing_is_claimed(tmp_path):
    found = run(tmp_path, arms()[:2])
    assert len(found.pictures) == 12
    assert (found.accuracies, found.comparisons, found.clip_scores, found.kids) == ((), (), (), ())
    assert "%" not in all_tables(found)
    with pytest.raises(ValueError, match="not judged"):
        found.marks("base")


# --- what it leaves -----------------------------------------------------------------------------------------


def refuse(constant):
    raise AssertionError(f"{constant} in results.json")


def test_results_json_holds_everything(finished):
    text = (finished.settings.output_dir / "results.json").read_text("utf-8")
    found = json.loads(text, parse_constant=refuse)
    assert found["schema"] == 2 and found["baseline"] == "base"
    assert [arm["name"] for arm in found["arms"]] == [arm.name for arm in arms()]
    assert found["arms"][3]["adapter"] == str(adapter_file())
    assert [prompt["truth"] for prompt in found["prompts"]] == [prompt.truth for prompt in PROMPTS]
    assert found["settings"]["seeds"] == [3, 5] and "output_dir" not in found["settings"]
    for entry, picture in zip(found["pictures"], finished.pictures, strict=True):
        assert entry["verdict"]["right"] == picture.verdict.right
        assert entry["verdict"]["details"] == picture.verdict.details
        assert (entry["path"], entry["cosine"]) == (picture.path, picture.cosine)
        assert (finished.settings.output_dir / entry["path"]).is_file()
    tests = [c for c in found["comparisons"] if (c["arm"], c["type"]) == ("SUR, eta 0", "Color")]
    assert tests[0]["paired"] == {
        "statistic": None,
        "degrees": None,
        "p": None,
        "note": "every pair is equal",
    }
    assert len(found["comparisons"]) == 3 * 3 * 2 and len(found["kids"]) == 4
    for library in ("torch", "diffusers", "transformers"):
        assert library in found["about"]["versions"]


def test_results_csv_has_a_row_a_picture(finished):
    with open(finished.settings.output_dir / "results.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(finished.pictures)
    for row, picture in zip(rows, finished.pictures, strict=True):
        assert (row["arm"], row["prompt_id"], int(row["seed"])) == (
            picture.arm,
            picture.prompt_id,
            picture.seed,
        )
        assert row["right"] == str(int(picture.verdict.right)) and row["why"] == picture.verdict.why
        assert float(row["cosine"]) == picture.cosine
        assert row["clip_share"] == ("" if picture.clip_share is None else repr(picture.clip_share))
    assert rows[6]["text"] == PROMPTS[0].complex


PLAIN = ("difference", "low", "high")


def number(text: str) -> float | None:
    return float(text) if text else None


def test_tables_csv_has_every_figure_of_every_arm_and_type(finished):
    with open(finished.settings.output_dir / "tables.csv", encoding="utf-8", newline="") as file:
        rows = {(row["arm"], row["type"]): row for row in csv.DictReader(file)}
    assert list(rows) == [(arm.name, kind) for arm in arms() for kind in ("Color", "Counting", "all")]
    for (arm, kind), row in rows.items():
        accuracy, score = finished.accuracy(arm, kind), finished.clip_score(arm, kind)
        assert (int(row["right"]), int(row["pictures"])) == (accuracy.right, accuracy.pictures)
        assert float(row["share"]) == accuracy.share and float(row["cosine"]) == score.cosine
        assert number(row["clip_score"]) == score.share
        assert number(row["clip_score_baseline"]) == score.baseline_share
        for prefix, measure in (("", "right"), ("cosine_", "cosine")):
            found = {name: row[name] for name in row if name.startswith(("p_", "paired_", "cosine_", *PLAIN))}
            found = {name: number(text) for name, text in found.items()}
            if arm == "base":
                assert found[f"{prefix}difference"] is None and found[f"{prefix}p_welch"] is None
                continue
            expected = finished.comparison(arm, kind, measure)
            assert found[f"{prefix}difference"] == expected.difference
            for name, interval in (("", expected.over_prompts), ("paired_t_", expected.paired_interval)):
                bounds = found[f"{prefix}{name}low"], found[f"{prefix}{name}high"]
                assert bounds == (interval.low, interval.high)
            for name in ("independent", "welch", "paired"):
                assert found[f"{prefix}p_{name}"] == getattr(expected, name).p
        assert number(row["p_mcnemar"]) == (
            None if arm == "base" else finished.comparison(arm, kind).mcnemar.p
        )
        kid = finished.kid(arm)
        bounds = kid.difference_interval or kid.interval
        values = (kid.value, kid.interval.low, kid.difference, kid.difference and bounds.high)
        names = ("kid", "kid_low", "kid_difference", "kid_difference_high")
        assert tuple(number(row[name]) for name in names) == (values if kind == "all" else (None,) * 4)


def test_tables_csv_without_judge_and_clip_claims_nothing(tmp_path):
    run(tmp_path, arms()[:2])
    with open(tmp_path / "tables.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6
    for row in rows:
        assert {name for name, text in row.items() if text} == {"arm", "type", "pictures"}


def test_what_was_written_is_read_again(finished, tmp_path):
    assert read_results(finished.settings.output_dir) == finished
    bare = run(tmp_path, arms()[:2])
    assert read_results(tmp_path) == bare


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: text[:-100], "damaged.*evaluate again"),
        (lambda text: text.replace('"schema": 2', '"schema": 1'), "schema is 1, expected 2"),
        (lambda text: "[]", "schema is None"),
        (lambda text: text.replace('"right"', '"wrong"'), "damaged.*evaluate again"),
        (lambda text: text.replace('"prompts"', '"words"'), "damaged.*'prompts'"),
        (lambda text: text.replace('"eta": 0.5', '"eta": 5'), "damaged.*found 5"),
    ],
)
def test_results_that_cannot_be_read_are_named(finished, tmp_path, change, words):
    text = (finished.settings.output_dir / "results.json").read_text("utf-8")
    (tmp_path / "results.json").write_text(change(text), "utf-8")
    with pytest.raises(ValueError, match=f"results.json: {words}"):
        read_results(tmp_path)
    with pytest.raises(FileNotFoundError, match="results.json: no such file"):
        read_results(tmp_path / "gone")


def cells(table: str) -> list[list[str]]:
    lines = [line for line in table.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def test_the_accuracy_table_is_laid_out_as_table_2(finished):
    rows = cells(accuracy_table(finished))
    assert rows[0] == ["Arm", "CLIP Score (baseline, arm)", "Color (%)", "Counting (%)", "all (%)"]
    assert [row[0] for row in rows[2:]] == [arm.name for arm in arms()]
    for row, arm in zip(rows[2:], arms(), strict=True):
        for cell, kind in zip(row[2:], ("Color", "Counting", "all"), strict=True):
            assert cell.startswith(f"{100 * finished.accuracy(arm.name, kind).share:.2f}")
    p = finished.comparison("SUR, eta 0.5", "all").independent.p
    assert f"p = {p:.3f}" in rows[5][4]
    assert "p not defined" in rows[4][2]


def test_the_quality_table_tells_kid_and_both_clip_scores(finished):
    rows = cells(quality_table(finished))
    assert rows[0][:3] == ["Arm", "CLIP Score (baseline, arm)", "cosine"] and "KID" in rows[0]
    score, kid = finished.clip_score("SUR, eta 0.5"), finished.kid("SUR, eta 0.5")
    assert rows[5][1] == f"{1 - score.share:.3f}, {score.share:.3f}"
    assert rows[5][4].startswith(f"{kid.value:.5f} [") and rows[5][5].startswith(f"{kid.difference:+.5f} [")


def test_every_table_says_that_p_is_no_proof_of_equality(finished):
    parts = all_tables(finished).split("\n## ")[1:]
    assert [part.splitlines()[0] for part in parts] == [
        "Right pictures",
        "CLIP and quality",
        "Statistics: right pictures",
        "Statistics: CLIP's cosine",
    ]
    assert all(NOT_EQUAL_NOTE in part for part in parts)
    assert all(INDEPENDENT_NOTE in part for part in parts[:2]), (
        "beside the paper's p stands what is wrong with it"
    )
    assert all(OVER_PICTURES_NOTE in part for part in parts[2:]), "and beside all others which one to rely on"
    assert "nan" not in all_tables(finished).lower()
    assert (finished.settings.output_dir / "tables.md").read_text("utf-8") == all_tables(finished)


def test_a_bar_in_a_name_does_not_break_the_tables(tmp_path):
    found = run(tmp_path, [Arm("a | b")], judge=ChannelJudge(), prompts=PROMPTS[:1])
    lines = [line for line in accuracy_table(found).splitlines() if line.startswith("|")]
    assert "a \\| b" in lines[2]
    assert len({len(re.split(r"(?<!\\)\|", line)) for line in lines}) == 1
