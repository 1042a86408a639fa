"""Scores are computed once, whoever asks; a table of them has scipy's tests and Holm's correction."""

import itertools
import sqlite3
import threading

import numpy as np
import pytest
import torch
from scipy import stats

from sur_core.evaluation import compare
from sur_core.evaluation.correction import holm
from sur_core.evaluation.quality import (
    PairMeasure,
    QualityError,
    ScoreCache,
    ScoreComparison,
    compare_scores,
    score_pictures,
)
from tests.evaluation_quality_models import pictures


class Brightness:
    """A measure whose scores are known, that counts what it is asked."""

    name, higher_is_better, reads_text, note, fingerprint = "brightness", True, True, "Bright.", "b1"

    def __init__(self, **others):
        self.asked: list[int] = []
        self.__dict__.update(others)

    def score(self, images, texts) -> np.ndarray:
        self.asked.append(len(images))
        return np.array([self._score(*each) for each in zip(images, texts, strict=True)])

    def _score(self, image, text) -> float:
        return image.mean() / 3 + len(text) * self.reads_text if image.any() else np.nan


class Share(Brightness):
    name = "share"

    def shares(self, scores, baseline):
        return scores / (scores + baseline)


def loads(images):
    return [lambda image=image: image for image in images]


# --- scores of pictures -------------------------------------------------------------------------------------


def test_a_second_run_computes_nothing_and_finds_the_same_numbers(tmp_path):
    images, texts = pictures(70), [f"text {'x' * (at % 3)}" for at in range(70)]
    first, second = Brightness(), Brightness()
    path, steps = tmp_path / "deep" / "scores.sqlite", []
    found = score_pictures(
        first, loads(images), texts, ScoreCache(path), report=lambda *step: steps.append(step)
    )
    assert found == pytest.approx(
        [image.mean() / 3 + len(text) for image, text in zip(images, texts, strict=True)]
    )
    assert (first.asked, steps) == ([64, 6], [("brightness", 64, 70), ("brightness", 70, 70)])
    again = score_pictures(second, loads(images[::-1]), texts[::-1], ScoreCache(path))
    assert np.array_equal(again[::-1], found) and second.asked == []
    assert np.array_equal(score_pictures(Brightness(), loads(images), texts), found)


def test_an_interrupted_run_keeps_what_it_had_and_ends_with_the_same_numbers(tmp_path):
    images, texts, cache = pictures(150), ["a"] * 150, ScoreCache(tmp_path / "scores.sqlite")

    def stop():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        score_pictures(Brightness(), loads(images), texts, cache, pause=stop)
    rest = Brightness()
    found = score_pictures(rest, loads(images), texts, cache)
    assert rest.asked == [64, 22]
    assert np.array_equal(found, score_pictures(Brightness(), loads(images), texts))


@pytest.mark.parametrize(
    ("change", "computed"),
    [({}, 0), ({"fingerprint": "b2"}, 3), ({"reads_text": False}, 3)],
)
def test_a_score_is_known_by_picture_measure_and_text(tmp_path, change, computed):
    cache, images = ScoreCache(tmp_path / "scores.sqlite"), pictures(3)
    score_pictures(Brightness(), loads(images), ["a"] * 3, cache)
    other = Brightness(**change)
    score_pictures(other, loads([image.copy() for image in images]), ["a"] * 3, cache)
    assert sum(other.asked) == computed
    third = Brightness(**change)
    score_pictures(third, loads(images), ["b"] * 3, cache)
    assert sum(third.asked) == (3 if third.reads_text else 0)


def test_equal_pictures_are_scored_once_and_what_is_not_defined_is_kept(tmp_path):
    cache, measure = ScoreCache(tmp_path / "scores.sqlite"), Brightness()
    black = np.zeros((8, 8, 3), np.uint8)
    images = [*pictures(1), black, *pictures(1), black.reshape(4, 16, 3)]
    found = score_pictures(measure, loads(images), ["a"] * 4, cache)
    assert measure.asked == [3] and found[0] == found[2] and np.isnan(found[[1, 3]]).all()
    again = score_pictures(measure, loads(images), ["a"] * 4, cache)
    assert measure.asked == [3] and np.array_equal(again, found, equal_nan=True)


def test_several_at_once_use_one_file(tmp_path):
    path, images, failed = tmp_path / "scores.sqlite", pictures(40), []

    def work(start):
        try:
            for at in range(start, 40, 2):
                score_pictures(Brightness(), loads(images[at : at + 1]), ["a"], ScoreCache(path))
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(start,)) for start in (0, 1, 0)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    last = Brightness()
    score_pictures(last, loads(images), ["a"] * 40, ScoreCache(path))
    assert not failed and last.asked == []


def test_a_damaged_file_of_scores_is_told_in_words(tmp_path):
    path = tmp_path / "scores.sqlite"
    path.write_bytes(b"no database at all" * 300)
    with pytest.raises(QualityError, match=r"scores.sqlite: damaged .*Delete it"):
        ScoreCache(path)
    other = tmp_path / "other.sqlite"
    with sqlite3.connect(other) as base:
        base.execute("CREATE TABLE scores (something TEXT)")
    with pytest.raises((QualityError, OSError), match="other.sqlite"):
        ScoreCache(other).known(["a"])
    with pytest.raises(OSError, match="could not be read or written"):
        (tmp_path / "folder.sqlite").mkdir()
        ScoreCache(tmp_path / "folder.sqlite")


@pytest.mark.parametrize("kind", [torch.OutOfMemoryError, MemoryError])
def test_no_memory_is_told_in_words(kind):
    measure = Brightness()
    measure._score = lambda image, text: (_ for _ in ()).throw(kind("no room"))
    with pytest.raises(QualityError, match="not enough memory.*Lower quality.batch_size"):
        score_pictures(measure, loads(pictures(1)), ["a"])


def test_a_text_for_each_picture_is_asked_for():
    with pytest.raises(QualityError, match="2 pictures but 1 texts"):
        score_pictures(Brightness(), loads(pictures(2)), ["a"])


# --- tables -------------------------------------------------------------------------------------------------

PROMPTS = [f"p{at // 3}" for at in range(36)]
TYPES = ["Action"] * 18 + ["Color"] * 18
ARMS = ("base", "SUR", "canny", "canny + SUR")
PAIRS = [("SUR", "base"), ("canny + SUR", "canny")]


def some_scores(seed: int = 0) -> dict[str, dict[str, np.ndarray]]:
    draw = np.random.default_rng(seed)
    base = draw.normal(5, 1, 36)
    return {
        name: {
            arm: base + draw.normal(shift, 0.5, 36) for shift, arm in zip((0, 0.4, -1, -1), ARMS, strict=True)
        }
        for name in ("brightness", "share", "noise")
    }


def measures() -> list:
    return [Brightness(), Share(), Brightness(name="noise", higher_is_better=False)]


def table(scores, **options) -> list[ScoreComparison]:
    return compare_scores(measures(), scores, PAIRS, PROMPTS, TYPES, resamples=300, **options)


def test_a_table_has_every_measure_of_every_pair_with_scipys_tests():
    scores = some_scores()
    rows = table(scores)
    expected = list(itertools.product(("brightness", "share", "noise"), PAIRS))
    assert [(row.measure, (row.arm, row.baseline)) for row in rows] == expected
    for row in rows:
        if row.measure == "share":
            continue
        ours, base = scores[row.measure][row.arm], scores[row.measure][row.baseline]
        found = row.comparison
        assert found.difference == pytest.approx((ours - base).mean())
        assert found.independent.p == pytest.approx(stats.ttest_ind(ours, base).pvalue)
        assert found.welch.p == pytest.approx(stats.ttest_ind(ours, base, equal_var=False).pvalue)
        assert found.paired.p == pytest.approx(stats.ttest_rel(ours, base).pvalue)
        assert found.over_prompts.low < found.difference < found.over_prompts.high
        assert found == compare(
            row.arm, row.baseline, ours, base, PROMPTS, TYPES, measure=row.measure, resamples=300
        )


def test_the_correction_is_over_the_whole_table_for_each_test():
    rows = table(some_scores())
    for test in ("independent", "welch", "paired"):
        p_values = [getattr(row.comparison, test).p for row in rows]
        assert [getattr(row, f"holm_{test}") for row in rows] == holm(p_values)
    more = table(some_scores(), kinds=("all", "Action", "Color"))
    assert len(more) == 3 * len(rows)
    assert [row.type for row in more[:3]] == ["all", "Action", "Color"]
    for row in rows:
        same = next(
            each for each in more if (each.measure, each.arm, each.type) == (row.measure, row.arm, "all")
        )
        assert same.holm_paired >= row.holm_paired, "more rows make it stricter"


def test_lower_may_be_better():
    rows = {(row.measure, row.arm): row for row in table(some_scores())}
    assert rows["brightness", "SUR"].comparison.difference > 0 < rows["brightness", "SUR"].gain
    assert rows["noise", "SUR"].comparison.difference > 0 > rows["noise", "SUR"].gain


def test_of_shares_only_the_paired_test_is_made():
    scores = some_scores()
    row = next(row for row in table(scores) if row.measure == "share")
    share = scores["share"]["SUR"] / (scores["share"]["SUR"] + scores["share"]["base"])
    found = row.comparison
    assert isinstance(Share(), PairMeasure) and not isinstance(Brightness(), PairMeasure)
    assert (found.mean, found.baseline_mean) == pytest.approx((share.mean(), 1 - share.mean()))
    assert found.paired.p == pytest.approx(stats.ttest_1samp(share, 0.5).pvalue)
    for test in (found.independent, found.welch):
        assert test.p is None and "add up to one" in test.note
    assert row.holm_independent is None and row.holm_paired is not None


def test_pairs_without_a_score_are_left_out_and_counted():
    scores = some_scores()
    scores["brightness"]["SUR"][[0, 20]] = np.nan
    scores["brightness"]["base"][20] = np.nan
    row = table(scores)[0]
    keep = [at for at in range(36) if at not in (0, 20)]
    ours, base = scores["brightness"]["SUR"][keep], scores["brightness"]["base"][keep]
    assert (row.undefined, row.comparison.pictures) == (2, 34)
    assert row.comparison.paired.p == pytest.approx(stats.ttest_rel(ours, base).pvalue)
    scores["brightness"]["SUR"][:] = np.nan
    row = table(scores)[0]
    assert (row.comparison, row.undefined, row.gain, row.holm_paired) == (None, 36, None, None)


def test_equal_arms_are_told_apart_by_no_test():
    scores = some_scores()
    scores["brightness"]["SUR"] = scores["brightness"]["base"].copy()
    row = table(scores)[0]
    assert (row.gain, row.comparison.paired.p, row.holm_paired) == (0, None, None)
    assert "every pair is equal" in row.comparison.paired.note


def test_lengths_and_types_that_do_not_fit_are_told_in_words():
    scores = some_scores()
    with pytest.raises(ValueError, match="brightness: no pictures of type 'Counting'.*Action"):
        table(scores, kinds=("Counting",))
    scores["brightness"]["SUR"] = scores["brightness"]["SUR"][:-1]
    with pytest.raises(ValueError, match="found 35 and 36"):
        table(scores)
