"""Preferences as tables: tables.md, tables.csv, shown.csv beside preferences.json."""

from __future__ import annotations

from pathlib import Path

from ..statistics import ALL, NOT_EQUAL_NOTE
from ..tables import ABSENT, NotedTable, interval_words, markdown, p_words
from .marks_report import agreement_table, csv_text, share_words, write_text
from .preferences import FIRST, SECOND, Preferences, Votes, all_votes, write_preferences

_COLUMNS = (
    *("first_arm", "second_arm", "type", "person", "first", "second", "none", "share_second"),
    *("wilson_low", "wilson_high", "p_binomial", "net_share", "net_low", "net_high"),
)


def write_preferences_report(found: Preferences, folder: Path) -> list[Path]:
    """Write preferences.json, shown.csv (a row a pair of pictures), tables.csv and tables.md, each atomic;
    their paths.
    """
    contents = {
        "shown.csv": shown_csv(found),
        "tables.csv": votes_csv(found),
        "tables.md": preferences_tables(found),
    }
    written = [write_text(folder / name, text) for name, text in contents.items()]
    return [write_preferences(found, folder), *written]


def preferences_tables(found: Preferences) -> str:
    """The content of tables.md."""
    shown = f"{len(found.shown):,} pairs of pictures, {len(found.people)} people. {found.question}"
    parts = ["# User preference", shown, "## By pair of arms", str(pairs_table(found))]
    parts += ["## By person", people_table(found)]
    if len(found.people) > 1:
        parts += ["## Agreement", str(agreement_table(*found.agreements()))]
    parts += [f"- left out: {note}" for note in found.notes]
    return "\n\n".join(parts) + "\n"


def pairs_table(found: Preferences) -> NotedTable:
    """A row for each pair of arms and type, with the shares as in the paper's Table 3."""
    heads = ["First arm", "second arm", "type", "first", "second", "no preference"]
    heads += ["first (%)", "second (%)", "Wilson of second", "binomial p", "net for second"]
    rows = [heads]
    for votes in all_votes(found):
        if votes.person != ALL:
            continue
        net = f"{100 * votes.net_share:+.1f} {interval_words(votes.net, '+.1f', 100)}"
        rows.append([*votes.pair, votes.type, *_cells(votes), net])
    note = (
        "Percent of answers that had a preference. 95% intervals. Wilson's interval and the exact binomial "
        "test take every answer for independent, though several people answer about one pair of pictures and "
        "one prompt has several. Net: points by which the second arm is chosen more often than the first, "
        "among all answers, with an interval by bootstrap over prompts, which is the one to rely on, though "
        "over few prompts it is too narrow. "
        f"{NOT_EQUAL_NOTE}"
    )
    return NotedTable("People's preferences", rows, note)


def people_table(found: Preferences) -> str:
    """A row for each person and pair of arms; and the sides they chose."""
    heads = ["Person", "first arm", "second arm", "first", "second", "no preference"]
    rows = [[*heads, "first (%)", "second (%)", "Wilson of second", "binomial p", "left, right", "sides p"]]
    told = set()
    for votes in all_votes(found):
        if votes.person == ALL:
            continue
        left, right, test = found.sides(votes.person)
        sides = [f"{left}, {right}", p_words(test.p)] if votes.person not in told else [ABSENT, ABSENT]
        told.add(votes.person)
        rows.append([votes.person, *votes.pair, *_cells(votes), *sides])
    note = (
        "Left, right: on which side the chosen picture was, over all pairs. The sides are chance: who nearly "
        "always chooses one side has not looked."
    )
    return f"{markdown(rows)}\n\n{note}"


def votes_csv(found: Preferences) -> str:
    """A row for each pair of arms and type, then for each person. Shares are 0..1; empty: not defined."""
    rows = [
        [
            *(*votes.pair, votes.type, votes.person, votes.first, votes.second, votes.none, votes.share),
            *(votes.interval.low, votes.interval.high, votes.test.p),
            *(votes.net_share, votes.net.low, votes.net.high),
        ]
        for votes in all_votes(found)
    ]
    return csv_text(_COLUMNS, rows)


def shown_csv(found: Preferences) -> str:
    """A row for each pair of pictures that was shown."""
    people = [f"chosen: {name}" for name in found.people]
    head = ["id", "first_arm", "second_arm", "type", "prompt_id", "seed", "left", "right"]
    rows = []
    for shown in found.shown:
        arms = {FIRST: shown.pair[0], SECOND: shown.pair[1]}
        chosen = [shown.choice(name) if name in shown.answers else "" for name in found.people]
        item = shown.item
        rows.append(
            [
                *(item.id, *shown.pair, item.type, item.prompt_id, item.seed, item.left, item.right),
                *(arms.get(choice, choice) for choice in chosen),
                *(item.left_path, item.right_path),
            ]
        )
    return csv_text([*head, *people, "left_path", "right_path"], rows)


def _cells(votes: Votes) -> list[str]:
    second = votes.share
    first = None if second is None else 1 - second
    counts = [str(votes.first), str(votes.second), str(votes.none)]
    shares = [share_words(first), share_words(second)]
    return [*counts, *shares, interval_words(votes.interval, ".1f", 100), p_words(votes.test.p)]
