"""Holm's correction against its definition in another form, figures by hand, and what it promises."""

import itertools
import math

import numpy as np
import pytest

from sur_core.evaluation.correction import holm


def by_rejection(p_values: list[float], place: int) -> float:
    """The smallest level at which Holm's procedure, walked step by step, rejects a hypothesis."""

    def rejects(level: float) -> bool:
        left = sorted(range(len(p_values)), key=lambda at: p_values[at])
        while left and p_values[left[0]] * len(left) <= level * (1 + 1e-12):
            if left.pop(0) == place:
                return True
        return False

    levels = [p * m for p, m in itertools.product(p_values, range(1, len(p_values) + 1)) if p * m < 1]
    return min((level for level in levels if rejects(level)), default=1.0)


@pytest.mark.parametrize(("seed", "size"), [(0, 1), (1, 2), (2, 5), (3, 9), (4, 9)])
def test_an_adjusted_p_is_the_level_at_which_the_procedure_rejects(seed, size):
    draw = np.random.default_rng(seed)
    p_values = (draw.random(size) ** 3).tolist()
    if size > 4:
        p_values[1] = p_values[3]
    expected = [by_rejection(p_values, place) for place in range(size)]
    assert holm(p_values) == pytest.approx(expected, rel=1e-9)


def test_figures_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_tests_that_are_not_defined_do_not_count():
    assert holm([None, 0.02, None, 0.04]) == [None, 0.04, None, 0.04]
    assert holm([None]) == [None]


def test_order_is_kept_and_no_p_gets_smaller():
    p_values = np.random.default_rng(7).random(12).tolist()
    adjusted = holm(p_values)
    assert all(new >= old for old, new in zip(p_values, adjusted, strict=True))
    assert max(adjusted) <= 1
    order = np.random.default_rng(8).permutation(12)
    assert holm([p_values[at] for at in order]) == [adjusted[at] for at in order]


def test_false_findings_stay_rare_where_nothing_is_there():
    draw = np.random.default_rng(3)
    tables = draw.random((4000, 10))
    found = np.mean([min(holm(table.tolist())) <= 0.05 for table in tables])
    assert found == pytest.approx(1 - (1 - 0.005) ** 10, abs=0.012)
    assert np.mean(tables.min(1) <= 0.05) > 0.35, "without correction they are not rare"


@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan])
def test_what_is_no_probability_is_refused(value):
    with pytest.raises(ValueError, match="from 0 to 1"):
        holm([0.2, value])
