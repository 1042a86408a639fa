"""Kappa, binomial test and Wilson's interval: published figures, other libraries, first principles."""

import math
from itertools import product

import numpy as np
import pytest
import torch

from sur_core.evaluation.sheets import cohen_kappa, fleiss_kappa
from sur_core.evaluation.sheets.agreement import agreements
from sur_core.evaluation.sheets.intervals import binomial, wilson

# Fleiss' own table (1971 form, as often reprinted): 10 things, 14 raters, 5 categories; kappa 0.210.
FOURTEEN = [
    (0, 0, 0, 0, 14), (0, 2, 6, 4, 2), (0, 0, 3, 5, 6), (0, 3, 9, 2, 0), (2, 2, 8, 1, 1),
    (7, 7, 0, 0, 0), (3, 2, 6, 3, 0), (2, 5, 3, 2, 2), (6, 5, 2, 1, 0), (0, 2, 2, 3, 7),
]  # fmt: skip
# Proportions of Fleiss, Cohen and Everitt (1969) for 200 patients: kappa 0.429, its variance 0.002885.
PATIENTS = np.array([[106, 10, 4], [22, 28, 10], [2, 12, 6]])


def answers_of(table) -> tuple[list, list]:
    """Two people's answers that have this table."""
    pairs = [(i, j) for i, row in enumerate(table) for j, count in enumerate(row) for _ in range(count)]
    return [i for i, _ in pairs], [j for _, j in pairs]


def test_cohens_kappa_is_the_published_one():
    found = cohen_kappa(*answers_of(PATIENTS), ("a", "b"))
    assert (found.items, found.people, found.agreement) == (200, ("a", "b"), pytest.approx(0.70))
    assert found.value == pytest.approx(0.225 / 0.525)
    half = 1.959964 * math.sqrt(0.002885)
    assert found.interval.low == pytest.approx(found.value - half, abs=1e-4)
    assert found.interval.high == pytest.approx(found.value + half, abs=1e-4)
    assert cohen_kappa(*answers_of([[20, 5], [10, 15]])).value == pytest.approx(0.4)


def kappa_of(shares: np.ndarray) -> float:
    expected = shares.sum(0) @ shares.sum(1)
    return (np.trace(shares) - expected) / (1 - expected)


@pytest.mark.parametrize("seed", range(4))
def test_kappa_and_its_error_agree_with_torchmetrics_and_the_delta_method(seed):
    draw = np.random.default_rng(seed)
    table = draw.integers(1, 30, (3, 3))
    first, second = answers_of(table)
    found = cohen_kappa([f"answer {i}" for i in first], [f"answer {j}" for j in second])
    metrics = pytest.importorskip("torchmetrics.functional")
    theirs = metrics.cohen_kappa(torch.tensor(first), torch.tensor(second), task="multiclass", num_classes=3)
    assert found.value == pytest.approx(float(theirs), abs=1e-5)
    shares, step = table / table.sum(), 1e-6
    slopes = np.zeros((3, 3))
    for place in product(range(3), range(3)):
        moved = np.zeros((3, 3))
        moved[place] = step
        slopes[place] = (_free(shares + moved) - _free(shares - moved)) / (2 * step)
    variance = ((shares * slopes**2).sum() - (shares * slopes).sum() ** 2) / table.sum()
    half = 1.959964 * math.sqrt(variance)
    assert found.interval.high - found.value == pytest.approx(half, rel=1e-4)


def _free(weights: np.ndarray) -> float:
    """Kappa as a function of nine free weights."""
    return kappa_of(weights / weights.sum())


def test_fleiss_kappa_is_the_published_one_and_torchmetrics():
    ratings = [[kind for kind, count in enumerate(row) for _ in range(count)] for row in FOURTEEN]
    found = fleiss_kappa(ratings)
    assert found.value == pytest.approx(0.210, abs=5e-4) and found.agreement == pytest.approx(0.378, abs=5e-4)
    nominal = pytest.importorskip("torchmetrics.functional.nominal")
    assert found.value == pytest.approx(float(nominal.fleiss_kappa(torch.tensor(FOURTEEN))), abs=1e-5)


def test_full_agreement_is_one_and_one_answer_throughout_is_not_defined():
    same = ["yes", "no", "yes", "unsure"]
    assert cohen_kappa(same, same).value == fleiss_kappa([[x] * 3 for x in same]).value == 1
    assert cohen_kappa(["yes", "no"], ["no", "yes"]).value == -1
    for found in (cohen_kappa(["yes"] * 5, ["yes"] * 5), fleiss_kappa([["yes"] * 3] * 5)):
        assert found.value is None and found.agreement == 1 and "one and the same answer" in found.note
    assert cohen_kappa([], []).note and fleiss_kappa([]).note
    with pytest.raises(ValueError, match="found 1 and 2"):
        cohen_kappa(["yes"], ["yes", "no"])
    with pytest.raises(ValueError, match="as many answers"):
        fleiss_kappa([["yes", "no"], ["yes"]])


def test_people_are_compared_where_both_have_answered():
    said = {
        "a": {1: "yes", 2: "no", 3: "yes", 4: "no"},
        "b": {1: "yes", 2: "no", 3: "no", 9: "yes"},
        "c": {2: "no", 3: "no", 4: "no", 9: "no"},
    }
    pairs, all_of_them = agreements(said)
    assert [(kappa.people, kappa.items) for kappa in pairs] == [
        (("a", "b"), 3), (("a", "c"), 3), (("b", "c"), 3),
    ]  # fmt: skip
    assert pairs[0].value == pytest.approx(cohen_kappa("ynn", "yny"[:2] + "y").value)
    assert all_of_them.items == 2 and all_of_them.people == ("a", "b", "c")
    assert agreements({"a": said["a"], "b": said["b"]})[1] is None
    assert agreements({"a": said["a"]}) == ((), None)


def exact(hits: int, count: int) -> float:
    """The share of all outcomes of a fair coin that are no likelier than this one."""
    ways = [math.comb(count, k) for k in range(count + 1)]
    return sum(way for way in ways if way <= ways[hits]) / 2**count


@pytest.mark.parametrize(("hits", "misses"), [(0, 1), (9, 1), (12, 0), (30, 18), (46, 43), (251, 199)])
def test_the_binomial_test_is_the_sum_over_what_is_no_likelier(hits, misses):
    found = binomial(hits, misses)
    assert found.p == pytest.approx(exact(hits, hits + misses), rel=1e-9)
    assert found.statistic == hits / (hits + misses)
    assert binomial(misses, hits).p == pytest.approx(found.p)


@pytest.mark.parametrize(("hits", "misses"), [(0, 10), (9, 1), (30, 18), (46, 43)])
def test_wilsons_bounds_are_the_shares_at_which_what_was_seen_is_just_so_unlikely(hits, misses):
    count, seen = hits + misses, hits / (hits + misses)
    for bound in (wilson(hits, misses).low, wilson(hits, misses).high):
        error = math.sqrt(bound * (1 - bound) / count)
        assert abs(seen - bound) == pytest.approx(1.959964 * error, abs=1e-6)


def test_nothing_decided_is_no_number():
    assert binomial(0, 0).p is None and wilson(0, 0).low is None and wilson(0, 0).note
