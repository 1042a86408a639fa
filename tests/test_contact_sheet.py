"""A contact sheet shows every picture whole, undistorted and under its own label."""

import numpy as np
import pytest
import torch

from sur_core.contact_sheet import contact_sheet, label_pictures
from sur_core.themes import THEMES

COLORS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (0, 255, 255), (255, 0, 255)]


def plain(color, height=40, width=60):
    return torch.tensor(color).float().div(255).expand(height, width, 3)


def place_of(sheet, color):
    """(left, top, width, height) of all pixels of a color, which must fill that box."""
    ys, xs = np.nonzero((np.asarray(sheet) == np.array(color)).all(-1))
    box = (xs.min(), ys.min(), xs.max() - xs.min() + 1, ys.max() - ys.min() + 1)
    assert len(xs) == box[2] * box[3]
    return tuple(map(int, box))


def ink(sheet, theme="dark"):
    """Columns and rows with text: what is neither paper nor picture."""
    different = (np.asarray(sheet).astype(int) - np.array(THEMES[theme].paper)).astype(bool).any(-1)
    for color in COLORS:
        different &= ~(np.asarray(sheet) == np.array(color)).all(-1)
    return np.nonzero(different)


def test_pictures_of_one_size_are_shown_to_the_pixel():
    noise = torch.randint(0, 256, (30, 50, 3), generator=torch.Generator().manual_seed(0))
    sheet = np.asarray(contact_sheet([noise / 255, plain(COLORS[0], 30, 50)], ["noise", "red"]))
    red = place_of(sheet, COLORS[0])
    assert red[2:] == (50, 30)
    left = ink(sheet[red[1] : red[1] + 30])[1].min()
    assert np.array_equal(sheet[red[1] : red[1] + 30, left : left + 50], noise.numpy())


@pytest.mark.parametrize(("columns", "rows"), [(1, 6), (2, 3), (3, 2), (5, 2), (6, 1), (64, 1)])
def test_rows_and_columns_in_reading_order(columns, rows):
    sheet = contact_sheet([plain(color) for color in COLORS], ["x"] * 6, columns)
    places = [place_of(sheet, color) for color in COLORS]
    assert [place[2:] for place in places] == [(60, 40)] * 6
    assert len({top for _, top, _, _ in places}) == rows
    assert sorted(places, key=lambda place: (place[1], place[0])) == places


def test_pictures_of_different_sizes_are_fitted_and_never_distorted():
    sheet = contact_sheet(
        [
            plain(COLORS[0], 40, 80),
            plain(COLORS[1], 100, 50),
            plain(COLORS[2], 100, 80),
            plain(COLORS[3], 5, 10),
        ],
        ["wide", "high", "both", "small"],
    )
    sizes = [place_of(sheet, color)[2:] for color in COLORS[:4]]
    assert sizes == [(80, 40), (50, 100), (80, 100), (80, 40)]


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("labelled", [0, 1])
def test_a_label_stands_over_its_own_picture(theme, labelled):
    labels = ["", ""]
    labels[labelled] = "eta 0.25 and some more words that take several lines"
    sheet = contact_sheet([plain(color, 200, 200) for color in COLORS[:2]], labels, theme=theme)
    assert tuple(np.asarray(sheet)[0, 0]) == THEMES[theme].paper
    rows, columns = ink(sheet, theme)
    left, top, width, _ = place_of(sheet, COLORS[labelled])
    assert left <= columns.min() and columns.max() < left + width
    assert top - 20 < rows.max() < top, "near its picture, not over it"


def test_a_label_wider_than_its_picture_is_not_cut():
    small = [plain(color, 16, 16) for color in COLORS[:2]]
    narrow, wide = contact_sheet(small, ["0", "1"]), contact_sheet(small, ["eta_0.25_long", "1"])
    assert wide.width > narrow.width + 100
    assert place_of(wide, COLORS[0])[2:] == (16, 16)


def test_label_size_is_the_size_of_the_letters():
    heights = []
    for size in (20, 80):
        rows, _ = ink(contact_sheet([plain(COLORS[0], 100, 600)], ["HHH"], label_size=size))
        heights.append(rows.max() - rows.min())
    assert heights[1] / heights[0] == pytest.approx(4, rel=0.1)


def test_batches_of_different_sizes_in_a_list():
    batches = [torch.rand(2, 8, 8, 3), torch.rand(1, 16, 8, 3), torch.rand(3, 8, 8, 3)]
    pictures, labels, _ = label_pictures(batches, ["a", "b", "c"])
    assert labels == ["a, 1", "a, 2", "b", "c, 1", "c, 2", "c, 3"]
    assert torch.equal(pictures[1], batches[0][1]) and torch.equal(pictures[2], batches[1][0])
    assert label_pictures(batches, list("uvwxyz"))[1] == list("uvwxyz")


@pytest.mark.parametrize(
    ("sizes", "columns"), [([1] * 3, 3), ([1] * 9, 3), ([1] * 5, 3), ([4, 4], 4), ([2, 2, 2], 2), ([7], 3)]
)
def test_a_row_for_each_batch_else_nearly_a_square(sizes, columns):
    batches = [torch.rand(size, 8, 8, 3) for size in sizes]
    for labels in (sum(sizes) * ["x"], len(sizes) * ["x"]):
        if len(labels) > 1:
            assert label_pictures(batches, labels)[2] == columns


@pytest.mark.parametrize("count", [0, 1, 3, 7])
def test_too_many_or_too_few_labels_are_told(count):
    with pytest.raises(ValueError, match=f"6 pictures in 2 batches and {count} labels") as caught:
        label_pictures([torch.rand(3, 8, 8, 3)] * 2, ["x"] * count)
    assert "one label for each picture, or one for each batch" in str(caught.value)
    with pytest.raises(ValueError, match="no picture"):
        label_pictures([], [])


def test_transparent_and_grey_pictures():
    clear = torch.cat([plain(COLORS[0]), torch.zeros(40, 60, 1)], -1)
    solid = torch.cat([plain(COLORS[1]), torch.ones(40, 60, 1)], -1)
    sheet = contact_sheet([clear, solid, torch.ones(40, 60, 1)], ["", "", ""])
    assert not (np.asarray(sheet) == np.array(COLORS[0])).all(-1).any()
    assert place_of(sheet, COLORS[1])[2:] == place_of(sheet, (255, 255, 255))[2:] == (60, 40)


@pytest.mark.parametrize("shape", [(40, 60), (40, 60, 2), (0, 60, 3)])
def test_what_is_no_picture_is_refused(shape):
    with pytest.raises(ValueError, match="expected pictures"):
        contact_sheet([torch.rand(shape)], ["x"])


def test_broken_pixels_are_drawn_black():
    sheet = contact_sheet([torch.full((40, 60, 3), float("nan"))], [""], theme="light")
    assert place_of(sheet, (0, 0, 0))[2:] == (60, 40)
