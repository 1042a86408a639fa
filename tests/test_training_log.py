"""A log goes on after a crash without gaps or doubles, and what it shows can be read by others."""

import csv

import numpy as np
import pytest
from PIL import Image

from sur_core.training_log import COLUMNS, TrainingLog, draw_curves, read_log


def line(step, stage="full", **more):
    return {
        "step": step,
        "stage": stage,
        "loss": 1 / step,
        "llm": 200.0 - step,
        "learning_rate": 1e-5,
        **more,
    }


def steps(folder) -> list[int]:
    return [int(row["step"]) for row in read_log(folder / "log.csv")]


def write(folder, rows, since=0) -> None:
    log = TrainingLog(folder, since)
    for row in rows:
        log.write(row)
    log.close()


def test_rows_come_back_as_they_were_written(tmp_path):
    values = {"loss": 0.123456789, "cp": 1e-9, "seconds": 12345.678, "validation_loss": float("nan")}
    write(tmp_path, [line(1, "align"), line(2, **values)])
    with open(tmp_path / "log.csv", newline="", encoding="utf8") as file:
        header, first, second = csv.reader(file)
    assert tuple(header) == COLUMNS
    first, second = (dict(zip(header, row, strict=True)) for row in (first, second))
    assert (first["step"], first["stage"], first["validation_loss"]) == ("1", "align", "")
    assert all(float(second[name]) == pytest.approx(values[name], rel=1e-8, nan_ok=True) for name in values)
    assert read_log(tmp_path / "log.csv") == [first, second]


def test_rows_from_after_the_last_saved_state_are_dropped(tmp_path):
    write(tmp_path, [line(step) for step in (2, 4, 6, 8)])
    write(tmp_path, [line(6), line(9)], since=5)
    assert steps(tmp_path) == [2, 4, 6, 9]


def test_a_run_from_the_beginning_forgets_the_old_rows(tmp_path):
    write(tmp_path, [line(2)])
    write(tmp_path, [line(1)])
    assert steps(tmp_path) == [1]


@pytest.mark.parametrize("lost", range(1, 40, 3))
def test_a_line_that_a_crash_cut_off_is_left_out(tmp_path, lost):
    write(tmp_path, [line(step, seconds=step * 1000.5) for step in (10, 20, 30)])
    path = tmp_path / "log.csv"
    path.write_bytes(path.read_bytes()[:-lost])
    assert steps(tmp_path) == [10, 20]
    write(tmp_path, [line(30)], since=25)
    assert steps(tmp_path) == [10, 20, 30]


def test_a_log_that_lost_its_header_or_is_empty_is_begun_anew(tmp_path):
    for content in (b"", b"step,sta"):
        (tmp_path / "log.csv").write_bytes(content)
        write(tmp_path, [line(7)], since=6)
        assert steps(tmp_path) == [7]


def test_no_log_is_no_rows(tmp_path):
    assert read_log(tmp_path / "log.csv") == []


def test_tensorboard_reads_the_events(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    write(tmp_path, [line(2), line(4, validation_loss=0.5), line(6)])
    write(tmp_path, [line(5, loss=9.0)], since=4)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    tags = set(events.Tags()["scalars"])
    assert {"training/loss", "training/llm", "training/learning_rate", "validation/validation_loss"} == tags
    found = [(event.step, event.value) for event in events.Scalars("training/loss")]
    assert found == [(2, 0.5), (4, 0.25), (5, 9.0)], "step 6 came from before the crash"
    assert [event.step for event in events.Scalars("validation/validation_loss")] == [4]


# --- the picture --------------------------------------------------------------------------------------------


def two_stages() -> list[dict]:
    rows = []
    for step in range(10, 610, 10):
        stage, fall = ("align" if step <= 200 else "full"), 1 / (1 + step / 150)
        row = line(step, stage, loss=0.02 + 0.2 * fall, llm=30 + 180 * fall, cp=20 + 40 * fall)
        if stage == "full":
            row["simple"] = 0.15 + 0.05 * fall * np.sin(step)
        if step % 100 == 0:
            row |= {"validation_loss": 0.04 + 0.2 * fall, "validation_llm": 40 + 180 * fall}
            row |= {"validation_cp": 25 + 40 * fall}
            if stage == "full":
                row |= {"validation_simple": 0.16, "validation_simple_without_adapter": 0.19}
        rows.append(row)
    return rows


def colours(path) -> dict[str, int]:
    """How many pixels show each kind of curve."""
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    wanted = {"training": (31, 119, 180), "validation": (255, 127, 14), "without": (127, 127, 127)}
    return {name: int((np.abs(pixels - colour).max(-1) < 12).sum()) for name, colour in wanted.items()}


def test_the_picture_shows_the_curves_of_the_log(tmp_path):
    log = TrainingLog(tmp_path, 0)
    for row in two_stages():
        log.write(row)
    log.draw()
    log.close()
    image = Image.open(tmp_path / "curves.png")
    assert image.size == (1518, 792), "five panels in two rows of three: the total of each stage has its own"
    shown = colours(tmp_path / "curves.png")
    assert shown["training"] > 1500 and shown["validation"] > 500 and shown["without"] > 100
    panels = [image.crop((x, y, x + 506, y + 396)) for y in (0, 396) for x in (0, 506, 1012)]
    for number, panel in enumerate(panels[:5]):
        panel.save(tmp_path / f"{number}.png")
        assert colours(tmp_path / f"{number}.png")["training"] > 200, f"panel {number} has no curve"


def test_panels_without_a_curve_are_left_out(tmp_path):
    rows = [line(step, "align", llm=0.0, loss=1 / step) for step in range(1, 50)]
    write(tmp_path, rows)
    draw_curves(read_log(tmp_path / "log.csv"), tmp_path / "curves.png")
    assert Image.open(tmp_path / "curves.png").size == (506, 396)


def test_a_run_that_just_began_has_a_picture_too(tmp_path):
    for number, rows in enumerate(([], [line(1)], [line(1, loss=float("nan"))])):
        write(tmp_path, rows)
        draw_curves(read_log(tmp_path / "log.csv"), tmp_path / f"{number}.png")
        assert Image.open(tmp_path / f"{number}.png").width > 100


def test_a_log_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "log.csv").mkdir()
    with pytest.raises(OSError, match=r"log\.csv"):
        TrainingLog(tmp_path, 0)
