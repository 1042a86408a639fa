"""BRISQUE's 36 features against piq's numbers and a slow computation; its regression by hand."""

import math

import numpy as np
import pytest
from scipy.signal import convolve2d

from sur_core.evaluation.quality import Brisque, QualityError, brisque_features, read_svr
from sur_core.evaluation.quality.nss import halve, to_luminance
from tests.evaluation_quality_models import FEATURES, random_svr, write_svr

# fmt: off
BY_PIQ = {
    "ramp": [
        10, 0.4827178, 1.384, -0.08313165, 0.2815394, 0.1770778,
        1.373, -0.08321769, 0.2828401, 0.1778839, 1.352, -0.04315321,
        0.2549094, 0.2003942, 1.291, -0.05060254, 0.2724876, 0.2064064,
        2.084, 0.1228132, 0.608, 0.06959847, 0.006930704, 0.03968238,
        0.631, 0.06958135, 0.00635382, 0.03758383, 0.683, 0.05651843,
        0.008097199, 0.03235909, 0.643, 0.05212832, 0.008844703, 0.03201288,
    ],
    "checkerboard": [
        10, 0.3229354, 1.549, -0.05030973, 0.1693216, 0.1198933,
        1.55, -0.05054081, 0.1684689, 0.1189736, 1.816, -0.1006984,
        0.1727809, 0.08293574, 1.836, -0.1022983, 0.1723476, 0.08157618,
        10, 0.4653816, 10, -0.002765075, 0.2260515, 0.2230065,
        10, -0.0007555727, 0.2229444, 0.222116, 10, -0.01861957,
        0.2284069, 0.2081936, 10, -0.02264754, 0.2331451, 0.2084226,
    ],
    "noise": [
        10, 0.797768, 1.451, -0.1057804, 0.6864771, 0.4760282,
        1.483, -0.1005681, 0.6724329, 0.4743451, 1.409, -0.04564884,
        0.6378721, 0.5454772, 1.379, -0.02900193, 0.6194767, 0.5606111,
        3.767, 0.6427993, 1.101, -0.02245396, 0.3940042, 0.3560031,
        1.053, -0.002681978, 0.3646684, 0.3601587, 1.011, -0.01607224,
        0.4038299, 0.375534, 1.01, -0.06048885, 0.4345337, 0.3293141,
    ],
    "hills": [
        3.147, 0.3743808, 0.965, 0.1249026, 0.07386583, 0.2025296,
        0.989, 0.1774888, 0.04710027, 0.2197099, 0.951, -0.08088125,
        0.1772861, 0.09313746, 0.958, -0.07720322, 0.1732301, 0.09352714,
        2.696, 0.3645877, 0.931, 0.1900948, 0.02949727, 0.1985808,
        0.926, 0.2200918, 0.02855693, 0.2367257, 0.958, -0.009186851,
        0.1164374, 0.1076454, 0.957, -0.005865679, 0.1128452, 0.1072794,
    ],
}
# fmt: on
"""By piq 0.8.0 (``_natural_scene_statistics``, in float64) on the pictures below and on their halves by piq's
``imresize``, which follows MATLAB's."""


def reference_pictures() -> dict[str, np.ndarray]:
    """Luminance [H, W], uint8."""
    draw = np.random.default_rng(12)
    rows, columns = np.mgrid[0:64, 0:80]
    hills = np.cumsum(np.cumsum(draw.normal(size=(61, 75)), 0), 1)
    grain = draw.integers(0, 20, (64, 80))
    found = {
        "ramp": rows * 2 + columns + grain,
        "checkerboard": ((rows // 8 + columns // 8) % 2) * 180 + 30 + grain,
        "noise": draw.integers(0, 256, (64, 80)),
        "hills": 255 * (hills - hills.min()) / np.ptp(hills),
    }
    return {name: picture.astype(np.uint8) for name, picture in found.items()}


def even_pictures() -> dict[str, np.ndarray]:
    """With areas in which the luminance does not vary, or varies evenly."""
    rows, columns = np.mgrid[0:33, 0:40]
    disc = ((rows - 16) ** 2 + (columns - 20) ** 2 < 90) * 200 + 20
    return {
        "ramp": (rows * 3 + columns * 2).astype(np.uint8),
        "checkerboard": (((rows // 8 + columns // 8) % 2) * 180 + 30).astype(np.uint8),
        "disc": disc.astype(np.uint8),
    }


# --- the same, slowly ---------------------------------------------------------------------------------------


def cubic(x: float) -> float:
    x = abs(x)
    if x <= 1:
        return 1.5 * x**3 - 2.5 * x**2 + 1
    return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0.0


def half_matrix(size: int) -> np.ndarray:
    """MATLAB's imresize by 0.5 along one side, as a matrix [ceil(size / 2), size]."""
    found = np.zeros((math.ceil(size / 2), size))
    mirror = [*range(size), *range(size - 1, -1, -1)]
    for row in range(len(found)):
        centre = 2 * (row + 0.5) - 0.5
        for column in range(math.floor(centre) - 6, math.floor(centre) + 8):
            found[row, mirror[column % (2 * size)]] += 0.5 * cubic((column - centre) / 2)
    return found / found.sum(1, keepdims=True)


def slow_features(picture: np.ndarray) -> list[float]:
    x, found = picture.astype(float), []
    grid = np.linspace(0.2, 10, 9801)
    for _ in range(2):
        found += slow_statistics(x, grid)
        x = half_matrix(x.shape[0]) @ x @ half_matrix(x.shape[1]).T
    return found


def slow_statistics(x: np.ndarray, grid: np.ndarray) -> list[float]:
    axis = np.exp(-(np.arange(-3, 4) ** 2) / (2 * (7 / 6) ** 2))
    window = np.outer(axis, axis) / np.outer(axis, axis).sum()
    mean = convolve2d(x, window, "same")
    z = (x - mean) / (np.sqrt(np.abs(convolve2d(x * x, window, "same") - mean**2)) + 1)
    z[np.abs(z) < 1e-9] = 0
    g = math.gamma
    wanted = np.mean(z**2) / np.mean(np.abs(z)) ** 2
    ratio = np.array([g(1 / a) * g(3 / a) / g(2 / a) ** 2 for a in grid])
    found = [grid[np.abs(ratio - wanted).argmin()], np.mean(z**2)]
    height, width = z.shape
    for down, right in ((0, 1), (1, 0), (1, 1), (-1, 1)):
        pairs = [
            z[i, j] * z[(i - down) % height, (j - right) % width] for i in range(height) for j in range(width)
        ]
        left = math.sqrt(np.mean([p * p for p in pairs if p < 0]))
        rest = math.sqrt(np.mean([p * p for p in pairs if p > 0]))
        s = left / rest
        wanted = (
            np.mean(np.abs(pairs)) ** 2 / np.mean(np.square(pairs)) * (s**3 + 1) * (s + 1) / (s * s + 1) ** 2
        )
        a = grid[np.abs(1 / ratio - wanted).argmin()]
        mean = (rest - left) * g(2 / a) / g(1 / a) * math.sqrt(g(1 / a) / g(3 / a))
        found += [a, mean, left**2, rest**2]
    return found


@pytest.mark.parametrize("name", BY_PIQ)
def test_features_are_those_of_a_published_implementation(name):
    picture = reference_pictures()[name]
    assert brisque_features(picture) == pytest.approx(BY_PIQ[name], rel=1e-6, abs=1e-8)
    assert np.array_equal(brisque_features(np.stack([picture] * 3, -1)), brisque_features(picture))


@pytest.mark.parametrize("name", even_pictures())
def test_even_areas_count_as_zero_whatever_rounding_makes_of_them(name):
    picture = even_pictures()[name]
    assert brisque_features(picture) == pytest.approx(slow_features(picture), rel=1e-7, abs=1e-10)


@pytest.mark.parametrize("shape", [(16, 24), (17, 23), (5, 8), (1, 2)])
def test_half_the_size_is_matlabs(shape):
    picture = np.random.default_rng(0).random(shape)
    expected = half_matrix(shape[0]) @ picture @ half_matrix(shape[1]).T
    assert halve(picture) == pytest.approx(expected, abs=1e-12)


def test_luminance_is_whole_and_rounded():
    pixels = np.array(
        [[[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255], [1, 2, 3], [7, 7, 7]]], np.uint8
    )
    assert to_luminance(pixels).tolist() == [[76, 150, 29, 255, 2, 7]]


def test_features_change_with_what_they_are_to_measure():
    sharp = reference_pictures()["hills"].astype(float)
    noisy = np.clip(sharp + np.random.default_rng(1).normal(0, 25, sharp.shape), 0, 255)
    blurred = convolve2d(sharp, np.full((5, 5), 1 / 25), "same", "symm")
    variance = [brisque_features(picture.astype(np.uint8))[1] for picture in (blurred, sharp, noisy)]
    assert variance == sorted(variance), "noise raises, blur lowers the normalised luminance's variance"


# --- regression ---------------------------------------------------------------------------------------------


BY_LIBSVM = """svm_type epsilon_svr
kernel_type rbf
gamma 0.5
nr_class 2
total_sv 6
rho -0.95685195988806326
probA 0.92519749857163391
SV
-4.7891132037920183 1:0.51550137 2:0.16996714
-3.0664624878893458 1:-0.68776616 3:0.5
-1.0465980977331153 1:-0.88345466 2:-0.94222234 3:-1
2.6827650766599374 1:0.21511999 2:-0.93645669 3:-0.5
4.3531036066899542 1:0.99854335
1.8663051060645888 1:0.31909836 2:0.18651237 3:0.5
"""
"""Fitted and saved by LIBSVM 3.37."""


def test_a_model_of_libsvm_predicts_as_there(tmp_path):
    (tmp_path / "model").write_text(BY_LIBSVM)
    (tmp_path / "ranges").write_text("x\n-1 1\n1 -1 1\n2 -1 1\n3 0 4\n")
    regression = read_svr(tmp_path / "model", tmp_path / "ranges", 3)
    found = regression.predict(np.array([0.25, -0.5, 3.5]))  # 3.5 of 0 to 4 is 0.75 of -1 to 1
    assert found == pytest.approx(1.1038434442334952, rel=1e-12)


def test_a_score_is_the_regression_of_the_scaled_features(tmp_path):
    draw = np.random.default_rng(3)
    vectors, weights = np.round(draw.uniform(-1, 1, (4, FEATURES)), 3), np.array([50.0, -20.5, 3.25, 10])
    vectors[1, 4:20] = 0
    low, high = np.round(draw.uniform(-0.2, 0.1, FEATURES), 3), np.round(draw.uniform(0.5, 4, FEATURES), 3)
    measure = Brisque(*write_svr(tmp_path, vectors, weights, low, high))
    picture = reference_pictures()["hills"]
    expected = 30.0
    for vector, weight in zip(vectors, weights, strict=True):
        square = 0.0
        for x, v, a, b in zip(brisque_features(picture), vector, low, high, strict=True):
            square += (-1 + 2 * (x - a) / (b - a) - v) ** 2
        expected += weight * math.exp(-0.05 * square)
    found = measure.score([np.stack([picture] * 3, -1)] * 2, ["", ""])
    assert found == pytest.approx([expected] * 2) and abs(expected - 30) > 1e-3
    assert not measure.higher_is_better and "lower is better (although the paper" in measure.note


def test_a_feature_that_never_varied_counts_as_zero(tmp_path):
    vectors, low, high = np.full((1, FEATURES), 0.5), np.zeros(FEATURES), np.ones(FEATURES)
    high[3] = low[3]
    regression = read_svr(*write_svr(tmp_path, vectors, np.array([1.0]), low, high), FEATURES)
    features = np.full(FEATURES, 0.75)
    assert regression.predict(features) == pytest.approx(30 + math.exp(-0.05 * 0.25))


def test_a_picture_of_one_colour_has_no_score(tmp_path):
    measure = Brisque(*random_svr(tmp_path))
    flat = [np.full((40, 40, 3), value, np.uint8) for value in (0, 90, 255)]
    textured = np.stack([reference_pictures()["noise"]] * 3, -1)
    found = measure.score([*flat, textured], [""] * 4)
    assert np.isnan(found[:3]).all() and np.isfinite(found[3])


def test_other_files_are_another_measure(tmp_path):
    first, same, other = (
        Brisque(*random_svr(tmp_path / name, seed)) for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert first.fingerprint == same.fingerprint != other.fingerprint


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("epsilon_svr", "c_svc", "svm_type c_svc, expected epsilon_svr"),
        ("kernel_type rbf", "kernel_type linear", "kernel_type linear"),
        ("gamma 0.05", "gamma much", "no number"),
        ("rho -30\n", "", "rho"),
        ("total_sv 5", "total_sv 774", "774 support vectors, found 5"),
        ("SV\n", "vectors\n", "no line 'SV'"),
        ("36:", "37:", "no support vector of 36 features"),
        ("2:", "two:", "no support vector"),
    ],
)
def test_a_damaged_model_is_told_in_words(tmp_path, old, new, words):
    model, ranges = random_svr(tmp_path)
    content = model.read_text()
    assert old in content
    model.write_text(
        content.replace(old, new, 1) if old != "SV\n" else content.replace("\nSV\n", "\nvectors\n")
    )
    with pytest.raises(QualityError, match=words) as caught:
        Brisque(model, ranges)
    assert str(model) in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("x\n", "", "no line 'x'"),
        ("\n36 ", "\n37 ", "feature 37 of 36"),
        ("\n35 ", "\n34 ", r"not found: \[35\]"),
        ("-1 1\n", "-1 one\n", "not the ranges"),
    ],
)
def test_damaged_ranges_are_told_in_words(tmp_path, old, new, words):
    model, ranges = random_svr(tmp_path)
    ranges.write_text(ranges.read_text().replace(old, new, 1))
    with pytest.raises(QualityError, match=words) as caught:
        Brisque(model, ranges)
    assert str(ranges) in str(caught.value)


def test_ranges_of_the_target_are_passed_over(tmp_path):
    model, ranges = random_svr(tmp_path)
    plain = read_svr(model, ranges, FEATURES)
    ranges.write_text("y\n0 100\n3.5 80\n" + ranges.read_text())
    again = read_svr(model, ranges, FEATURES)
    assert np.array_equal(plain.low, again.low) and (again.lower, again.upper) == (-1, 1)


def test_files_that_are_not_there_or_no_text(tmp_path):
    model, ranges = random_svr(tmp_path)
    with pytest.raises(FileNotFoundError, match="gone"):
        Brisque(tmp_path / "gone", ranges)
    model.write_bytes(bytes(range(256)))
    with pytest.raises(QualityError, match="not a text file"):
        Brisque(model, ranges)
