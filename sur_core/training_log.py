"""What a run leaves for people to look at: log.csv, TensorBoard events, and a picture of the loss curves."""

from __future__ import annotations

import csv
import io
import logging
from pathlib import Path

from .atomic import atomic_write
from .training_config import STAGES

log = logging.getLogger(__name__)

COLUMNS = (
    "step",
    "stage",
    "epoch",
    "learning_rate",
    "loss",
    "llm",
    "cp",
    "simple",
    "gradient_norm",
    "samples_per_second",
    "seconds",
    "validation_loss",
    "validation_llm",
    "validation_cp",
    "validation_simple",
    "validation_simple_without_adapter",
)
"""Columns of log.csv, means since the row before; the validation columns are filled where a validation took
place. SUR: ``loss`` is Eq. 10, ``llm`` Eq. 5, ``cp`` Eq. 9, ``simple`` Eq. 8. LLMDiff: ``loss``, ``simple``
are its Eq. 5, the error of the noise prediction; ``llm`` and ``cp`` are 0."""


class TrainingLog:
    """Writes log.csv, and TensorBoard events where tensorboard is installed."""

    def __init__(self, folder: Path, step: int, panels: dict[str, str] | None = None):
        """
        Args:
            step: where the run begins or goes on; rows beyond it, from before a crash, are dropped.
            panels: as :func:`draw_curves`.
        """
        self._panels = panels
        self.path = Path(folder) / "log.csv"
        rows = [row for row in read_log(self.path) if int(row["step"]) <= step] if step else []
        with atomic_write(self.path) as file:
            file.write(_csv_text([dict(zip(COLUMNS, COLUMNS, strict=True)), *rows]).encode("utf8"))
        self._events, self._waiting = None, []
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            log.info("tensorboard is not installed; the curves are in log.csv and curves.png")
        else:
            self._events = SummaryWriter(str(Path(folder) / "tensorboard"), purge_step=step + 1)

    def write(self, row: dict[str, float | int | str]) -> None:
        """Append a row; its ``step`` is needed, every other column may be missing."""
        self._waiting.append(row)
        try:
            with open(self.path, "a", encoding="utf8", newline="") as file:
                file.write(_csv_text(self._waiting))
            self._waiting.clear()
        except PermissionError:  # Windows, while a spreadsheet has it open: written with the next row
            log.warning("%s is in use; its rows are written later", self.path)
        except OSError as error:
            raise type(error)(error.errno, f"could not write ({error.strerror})", str(self.path)) from error
        if self._events is not None:
            for name, value in row.items():
                if name not in ("step", "stage"):
                    group = "validation" if name.startswith("validation") else "training"
                    self._events.add_scalar(f"{group}/{name}", float(value), int(row["step"]))

    def draw(self) -> None:
        """Write curves.png from log.csv."""
        draw_curves(read_log(self.path), self.path.with_name("curves.png"), self._panels)

    def close(self) -> None:
        if self._events is not None:
            self._events.close()


def read_log(path: Path) -> list[dict[str, str]]:
    """Rows of a log.csv; a last line that a crash cut off is left out."""
    if not path.exists():
        return []
    text = path.read_text("utf8")
    rows = csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1]))
    return [row for row in rows if (row.get("step") or "").isdigit()]


def draw_curves(rows: list[dict[str, str]], path: Path, panels: dict[str, str] | None = None) -> None:
    """A picture of the losses over the steps: training and validation, a panel for each loss.

    Does nothing but say so where matplotlib is not installed.

    Args:
        panels: column -> title; each column under its own name if none are given.
    """
    titles = panels or {name: name for name in ("loss", "llm", "cp", "simple")}
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        log.info("matplotlib is not installed; the curves are in log.csv only")
        return
    parts = {stage: [row for row in rows if row["stage"] == stage] for stage in STAGES}
    both = all(parts.values())
    panels = [  # (column, title, rows); sums of different losses would not share an axis
        ("loss", f"{titles['loss']}{f', stage {stage}' if both else ''}", part)
        for stage, part in parts.items()
        if part and "loss" in titles
    ]
    others = [(name, title) for name, title in titles.items() if name != "loss"]
    panels += [(name, title, parts["full"] if name == "simple" else rows) for name, title in others]
    panels = [panel for panel in panels if any(float(row[panel[0]] or 0) for row in panel[2])]
    columns, lines = min(3, len(panels)) or 1, -(-len(panels) // 3) or 1
    figure = Figure(figsize=(4.6 * columns, 3.6 * lines), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(lines, columns, squeeze=False).flatten()
    for axis, (column, title, part) in zip(axes, panels, strict=False):
        for stage_rows in filter(None, ([r for r in part if r["stage"] == stage] for stage in STAGES)):
            axis.plot(*_points(stage_rows, column), linewidth=1, color="tab:blue", label="training")
            dots = {"marker": "o", "markersize": 3, "color": "tab:orange", "label": "validation"}
            axis.plot(*_points(stage_rows, f"validation_{column}"), **dots)
        if column == "simple" and (base := _points(part, "validation_simple_without_adapter"))[1]:
            axis.axhline(base[1][0], linestyle="--", color="tab:gray", label="validation, without adapter")
        if both and part is rows:
            axis.axvline(int(parts["align"][-1]["step"]), color="lightgray", label="end of stage align")
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("step")
        axis.grid(alpha=0.3)
        handles = dict(zip(*reversed(axis.get_legend_handles_labels()), strict=True))
        axis.legend(handles.values(), handles.keys(), fontsize=7)
    for axis in axes[len(panels) :]:
        axis.remove()
    with atomic_write(path) as file:
        figure.savefig(file, format="png", dpi=110)


def _points(rows: list[dict[str, str]], column: str) -> tuple[list[int], list[float]]:
    filled = [row for row in rows if row.get(column) not in (None, "")]
    return [int(row["step"]) for row in filled], [float(row[column]) for row in filled]


def _csv_text(rows: list[dict]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writerows(
        [{k: format(v, ".9g") if isinstance(v, float) else v for k, v in r.items()} for r in rows]
    )
    return text.getvalue()
