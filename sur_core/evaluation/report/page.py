"""The page: what came out, the numbers, the pictures, what was compared, and how it was made."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from xml.etree.ElementTree import Element

from ...atomic import atomic_write
from ...page_elements import element, page, readable
from ..study import CLIP_SCORE, Study
from ..study_tables import preferred
from .cases import case_parts
from .grid import picture_grids
from .making import commands, compared_tables
from .pictures import Thumbnails
from .prompts_csv import PROMPTS, prompts_csv
from .style import STYLE
from .summary import findings, headline, page_title
from .tables import (
    measure_notes,
    measures_tests_table,
    people_elements,
    prompt_tables,
    quality_tables,
    semantic_table,
    tests_table,
)

REPORT = "report.html"


def write_report(study: Study) -> list[Path]:
    """Write report.html and study-prompts.csv into the study's folder, each atomic. The same study and
    picture files give the same bytes.

    Returns:
        what was written, the page first.

    Raises:
        OSError: something cannot be written. Pictures that are not there or damaged are told on the page.
    """
    contents = {REPORT: _page(study), PROMPTS: prompts_csv(study)}
    for name, content in contents.items():
        with atomic_write(study.folder / name) as file:
            file.write(content.encode("utf-8"))
    return [study.folder / name for name in contents]


def _page(study: Study) -> str:
    thumbnails = Thumbnails()
    sections = _sections(study, thumbnails)
    links = (element("li", element("a", title, href=f"#{name}")) for name, (title, _) in sections.items())
    body = element(
        "body",
        _top(study),
        element("nav", element("ul", *links), aria_label="Parts of this page"),
        element(
            "main",
            [
                element("section", element("h2", title), *parts, id=name)
                for name, (title, parts) in sections.items()
            ],
        ),
    )
    digest = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'"
    )
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", page_title(study)),
        element("style", STYLE),
    )
    _make_readable(body)
    return page(head, body)


def _top(study: Study) -> Element:
    parts = [
        element("h1", page_title(study)),
        element("p", headline(study), class_="lead"),
        _list(findings(study)),
    ]
    if study.remarks:
        box = element("h2", "What a reader must know"), _list(study.remarks)
        parts.append(element("div", *box, class_="remarks"))
    return element("header", *parts)


def _sections(study: Study, thumbnails: Thumbnails) -> dict[str, tuple[str, list]]:
    """{name for links: (title, content)}; those for which there is nothing are left out."""
    judged = bool(study.accuracies)
    has_clip = any(measure.name == CLIP_SCORE for measure in study.measures)
    found: dict[str, tuple[str, list]] = {}
    if judged or has_clip:
        found["right" if judged else "clip"] = (
            "Right pictures" if judged else "CLIP Score",
            [semantic_table(study)],
        )
    if study.measures or preferred(study):
        found["quality"] = ("Quality", [*quality_tables(study), measure_notes(study)])
    if study.people:
        found["people"] = ("People", people_elements(study))
    grids, cases = picture_grids(study, thumbnails), case_parts(study, thumbnails)
    found["pictures"] = ("Pictures by prompt", [_lost_words(thumbnails), *grids])
    found["cases"] = ("Worst and best cases", cases)
    if judged:
        note = element("p", "In the layout of the paper's Table 7.", class_="note")
        found["prompts"] = ("Right pictures by prompt", [note, *prompt_tables(study)])
    tests = [_folded("of right pictures", tests_table(study), open="")] if judged else []
    tests += [_folded("of measures", measures_tests_table(study))] if study.qualities else []
    if tests:
        found["tests"] = ("Tests", tests)
    found["compared"] = ("What was compared", compared_tables(study))
    found["made"] = ("How it was made", [*commands(study), _files(study)])
    return found


def _folded(words: str, content: Element, **attributes: str) -> Element:
    return element("details", element("summary", words), content, **attributes)


def _lost_words(thumbnails: Thumbnails) -> Element | None:
    if not thumbnails.lost:
        return None
    words = (
        f"{len(thumbnails.lost)} of the pictures to be shown here and below are not there or damaged; words "
        "stand in their place. The study's own command draws them anew. The numbers are those of the study, "
        "which saw them."
    )
    return element("p", element("strong", words))


def _files(study: Study) -> Element:
    words = (
        "Beside this page: study.json, all of it; study.csv, every comparison with all its figures; "
        f"study.md, the tables as text; {PROMPTS}, every prompt's change; and in each folder of cells "
        "the pictures, results.json and results.csv, a row a picture."
    )
    return element("p", words)


def _list(lines) -> Element:
    return element("ul", [element("li", line) for line in lines])


def _make_readable(root: Element) -> None:
    """What people typed may hold what no page can; pictures cannot."""
    for part in root.iter():
        part.text = part.text and readable(part.text)
        part.tail = part.tail and readable(part.tail)
        for name, value in part.attrib.items():
            if name != "src":
                part.attrib[name] = readable(value)
