"""People's marks as tables: tables.md, tables.csv, marks.csv beside marks.json."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from ...atomic import atomic_write
from ..statistics import ALL, NOT_EQUAL_NOTE
from ..tables import ABSENT, UNDEFINED, NotedTable, interval_words, markdown, p_words, percent
from .against_judge import AgainstPeople
from .agreement import Kappa
from .marks import ArmMarks, Marks, write_marks
from .sheet import MARKS

_ARMS = ("arm", "type", "right", "wrong", "undecided", "share", "wilson_low", "wilson_high")
_COMPARED = ("difference", "low", "high", "p_independent", "p_welch", "p_paired", "p_mcnemar")


def write_marks_report(marks: Marks, folder: Path, judge: AgainstPeople | None = None) -> list[Path]:
    """Write marks.json, marks.csv (a row a picture), tables.csv and tables.md, each atomic; their paths.

    Args:
        judge: from :func:`.against_judge.judge_agreement`.
    """
    contents = {
        "marks.csv": marks_csv(marks),
        "tables.csv": tables_csv(marks),
        "tables.md": marks_tables(marks, judge),
    }
    return [write_marks(marks, folder), *(write_text(folder / name, text) for name, text in contents.items())]


def write_text(path: Path, content: str) -> Path:
    """Atomic."""
    with atomic_write(path) as file:
        file.write(content.encode("utf-8"))
    return path


def marks_tables(marks: Marks, judge: AgainstPeople | None = None) -> str:
    """The content of tables.md."""
    shown = f"{len(marks.pictures):,} pictures, {len(marks.people)} people. {marks.title}"
    parts = ["# Marks by people", shown, "## Right pictures", str(arms_table(marks))]
    parts += ["## People", people_table(marks)]
    if len(marks.people) > 1:
        parts += ["## Agreement", str(agreement_table(*marks.agreements()))]
    parts += ["## The judge against people", str(judge)] if judge else []
    parts += [f"- left out: {note}" for note in marks.notes]
    return "\n\n".join(parts) + "\n"


def arms_table(marks: Marks) -> NotedTable:
    """A row for each arm and type."""
    base = marks.arms[0]
    heads = ["Arm", "type", "right", "wrong", "undecided", "right (%)", "Wilson"]
    compared_heads = ["both decided", f"points more than {base}", "interval over prompts"]
    rows = [[*heads, *compared_heads, "t-test p", "McNemar p"]]
    for arm, kind in _shown(marks):
        found = marks.arm(arm, kind)
        row = [arm, kind, str(found.right), str(found.wrong), str(found.undecided)]
        row += [share_words(found.share), interval_words(found.interval, ".1f", 100)]
        compared = None if arm == base else marks.comparison(arm, kind)
        if compared is None:
            rows.append(row + [ABSENT] * 5)
            continue
        row += [str(compared.pictures), f"{100 * compared.difference:+.2f}"]
        row.append(interval_words(compared.over_prompts, "+.1f", 100))
        rows.append([*row, p_words(compared.independent.p), p_words(compared.mcnemar.p)])
    note = (
        "A picture is right or wrong as more people say; undecided is a draw, nobody sure, or not marked, "
        "and counts in no percentage. Arms are compared at the prompts and seeds at which both are decided. "
        "95% intervals. Wilson's takes pictures of one prompt for independent, and so do both tests (t: the "
        "paper's independent one); the interval over prompts, a bootstrap of the difference, does not: rely "
        f"on it, though over few prompts it is too narrow. {NOT_EQUAL_NOTE}"
    )
    return NotedTable("Right pictures by people's marks", rows, note)


def people_table(marks: Marks) -> str:
    """What each person said, and how often it is what more people say."""
    rows = [["Person", "marked", *MARKS, "as the majority (%)"]]
    for name in marks.people:
        given = [picture for picture in marks.pictures if name in picture.marks]
        counts = Counter(picture.marks[name] for picture in given)
        decided = [p for p in given if p.right is not None and p.marks[name] != "unsure"]
        same = sum((p.marks[name] == "yes") == p.right for p in decided)
        share = percent(same / len(decided)) if decided and len(marks.people) > 1 else ABSENT
        rows.append([name, str(len(given)), *(str(counts[mark]) for mark in MARKS), share])
    return markdown(rows)


def agreement_table(pairs: Sequence[Kappa], all_of_them: Kappa | None) -> NotedTable:
    """Cohen's kappa of every two, Fleiss' of all."""
    rows = [["People", "both answered", "equal (%)", "kappa", "95% interval"]]
    for kappa in pairs:
        rows.append([" and ".join(kappa.people), *_kappa(kappa), interval_words(kappa.interval, "+.2f")])
    if all_of_them:
        rows.append(["all (Fleiss)", *_kappa(all_of_them), ABSENT])
    notes = dict.fromkeys(k.note for k in (*pairs, all_of_them) if k and k.note)
    undefined = f" Not defined: {'; '.join(notes)}." if notes else ""
    note = (
        "Cohen's kappa: 1 is full agreement, 0 what chance would give from how often each person gives each "
        f"answer. Over what all in the row have answered.{undefined}"
    )
    return NotedTable("Agreement of people with each other", rows, note)


def share_words(share: float | None) -> str:
    return UNDEFINED if share is None else percent(share)


def marks_csv(marks: Marks) -> str:
    """A row for each picture and arm."""
    head = [
        "id",
        "arm",
        "type",
        "prompt_id",
        "seed",
        "right",
        *(f"mark: {name}" for name in marks.people),
        "path",
    ]
    rows = []
    for picture in marks.pictures:
        item, right = picture.item, picture.right
        said = [picture.marks.get(name, "") for name in marks.people]
        right = "" if right is None else int(right)
        rows += [
            [item.id, arm, item.type, item.prompt_id, item.seed, right, *said, item.path] for arm in item.arms
        ]
    return csv_text(head, rows)


def tables_csv(marks: Marks) -> str:
    """A row for each arm and type. Shares are 0..1; empty is what is not defined."""
    rows = []
    for arm, kind in _shown(marks):
        compared = None if arm == marks.arms[0] else marks.comparison(arm, kind)
        rows.append([*_numbers(marks.arm(arm, kind)), *_compared(compared)])
    return csv_text([*_ARMS, *_COMPARED], rows)


def csv_text(head: Sequence[str], rows: Iterable[Sequence]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(rows)  # which writes None as nothing, and numbers with all their digits
    return out.getvalue()


def _shown(marks: Marks) -> list[tuple[str, str]]:
    """(arm, type) of which anything was shown."""
    there = {(arm, p.item.type) for p in marks.pictures for arm in p.item.arms}
    there |= {(arm, ALL) for arm, _ in there}
    return [(arm, kind) for arm in marks.arms for kind in (*marks.types, ALL) if (arm, kind) in there]


def _kappa(kappa: Kappa) -> list[str]:
    value = UNDEFINED if kappa.value is None else f"{kappa.value:.3f}"
    return [str(kappa.items), share_words(kappa.agreement), value]


def _numbers(found: ArmMarks) -> list:
    counts = [found.right, found.wrong, found.undecided]
    return [found.arm, found.type, *counts, found.share, found.interval.low, found.interval.high]


def _compared(found) -> list:
    if found is None:
        return [None] * len(_COMPARED)
    tests = (found.independent.p, found.welch.p, found.paired.p, found.mcnemar.p)
    return [found.difference, found.over_prompts.low, found.over_prompts.high, *tests]
