"""A study's report: one page that stands alone, shows the study's figures and runs nothing it is told."""

import base64
import csv
import io
import math
import re
import shutil
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from sur_core.evaluation import Arm
from sur_core.evaluation.pictures import read_picture
from sur_core.evaluation.report import PROMPTS as PROMPTS_FILE
from sur_core.evaluation.report import REPORT, write_report
from sur_core.evaluation.report.cases import MOST_CASES, MOST_SEEDS, case_parts, seeds_of, worst_and_best
from sur_core.evaluation.report.grid import MOST_PICTURES, chosen, picture_grids
from sur_core.evaluation.report.making import to_toml
from sur_core.evaluation.report.pictures import HEIGHT, WIDTH, Thumbnails
from sur_core.evaluation.report.summary import findings, headline, verdict
from sur_core.evaluation.statistics import ALL, FEW_PROMPTS_NOTE, NOT_EQUAL_NOTE
from sur_core.evaluation.study import TESTS
from sur_core.evaluation.study_files import read_study
from sur_core.evaluation.tables import INDEPENDENT_NOTE, p_words
from sur_core.page_elements import readable
from tests.small_data import tiny_model
from tests.study_reports import ARMS, CONFIG, HOSTILE, MEASURES, METHODS, NOTE, PROMPTS, SEEDS, make_study
from tests.study_runs import study as run_small_study
from tests.test_demo_report import Page
from train.__main__ import main

FEW = {"methods": METHODS[:2]}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return make_study(tmp_path_factory.mktemp("study"), **FEW)


@pytest.fixture(scope="module")
def text(study):
    written = write_report(study)
    assert [path.name for path in written] == [REPORT, PROMPTS_FILE]
    return written[0].read_text("utf-8")


@pytest.fixture(scope="module")
def page(text):
    return Page(text)


def words(cell: str) -> str:
    return re.sub(r"\s+", " ", cell).strip()


def grouped(rows: list[list[str]]) -> list[tuple[str, list[str]]]:
    """(group, cells) of every row beneath a group's name."""
    found, group = [], None
    for row in rows:
        if len(row) == 1:
            group = words(row[0])
        elif group is not None:
            found.append((group, [words(cell) for cell in row]))
    return found


def entries_of(study):
    return [(cell, arm.name) for cell in study.cells for arm in cell.arms]


# --- figures ------------------------------------------------------------------------------------------------


def test_table_2_is_the_studys(page, study):
    rows = page.table("Table 2")
    assert [words(cell) for cell in rows[0]] == [
        *("Method", "Adapter", "CLIP Score", "Action (%)", "Color (%)", "Counting (%)", "all (%)")
    ]
    assert [words(cell) for cell in rows[1]] == ["Baseline", "Ours"] * 5
    found = grouped(rows)
    assert len(found) == len(entries_of(study)) == 8
    for (model, row), (cell, arm) in zip(found, entries_of(study), strict=True):
        assert (model, *row[:2]) == (cell.model, cell.method, arm)
        shares = study.quality(cell, arm, "clip_score").score.comparison
        assert float(row[2]) == pytest.approx(shares.baseline_mean, abs=5e-4)
        assert float(row[3].split()[0]) == pytest.approx(shares.mean, abs=5e-4)
        for base, ours, kind in zip(row[4::2], row[5::2], (*study.types, ALL), strict=True):
            drawn = {name: cell.evaluation.accuracy(name, kind).share for name in ("Baseline", arm)}
            interval = cell.evaluation.comparison(arm, kind).over_prompts
            assert base == f"{100 * drawn['Baseline']:.2f}"
            change = 100 * (drawn[arm] - drawn["Baseline"])
            arrow = "=" if abs(change) < 1e-9 else "↑" if change > 0 else "↓"
            assert ours == (
                f"{100 * drawn[arm]:.2f} {arrow} {change:+.2f} "
                f"[{100 * interval.low:+.1f}, {100 * interval.high:+.1f}]"
            )


def test_table_3_has_every_measure_its_direction_and_the_papers_test(page, study):
    tables = [table["rows"] for table in page.tables if "Table 3" in table["caption"]]
    assert len(tables) == 2, "four measures are two tables of two"
    heads = [words(cell) for rows in tables for cell in rows[0][2:]]
    assert heads == [
        f"{m.name} ({'higher' if m.higher_is_better else 'lower'} is better)" for m in MEASURES[1:]
    ]
    at_or_below = set()
    for rows, measures in zip(tables, (MEASURES[1:3], MEASURES[3:]), strict=True):
        for (model, row), (cell, arm) in zip(grouped(rows), entries_of(study), strict=True):
            assert (model, *row[:2]) == (cell.model, cell.method, arm)
            for base, ours, measure in zip(row[2::2], row[3::2], measures, strict=True):
                score = study.quality(cell, arm, measure.name).score
                p = score.comparison.independent.p
                assert base == f"{score.comparison.baseline_mean:.3f}"
                assert ours.startswith(f"{score.comparison.mean:.3f} {score.comparison.difference:+.3f} [")
                mark = "✓" if p > 0.05 else "✗"
                over, adjusted = score.comparison.by_prompt.p, score.holm_by_prompt
                assert f" {mark} p {p_words(p)}, Holm {p_words(score.holm_independent)} over" in ours
                assert ours.endswith(f" over prompts p {p_words(over)}, Holm {p_words(adjusted)}")
                at_or_below.add(p <= 0.05)
    assert at_or_below == {True, False}
    assert page.text.count(INDEPENDENT_NOTE) == 1 and page.text.count(MEASURES[0].note) == len(MEASURES)


def test_table_7_has_each_prompts_share(page, study):
    tables = [table for table in page.tables if table["caption"].startswith("Right pictures by prompt")]
    assert len(tables) == len(study.cells)
    for table, cell in zip(tables, study.cells, strict=True):
        assert f"{cell.model}, {cell.method}; {len(SEEDS)} pictures" in table["caption"]
        found = grouped(table["rows"])
        assert [kind for kind, _ in found] == [prompt.type for prompt in PROMPTS]
        for (_, row), prompt in zip(found, PROMPTS, strict=True):
            assert row[0] == words(readable(prompt.prompt))
            for share, arm in zip(row[1:], ARMS, strict=True):
                marks = [p.verdict.right for p in cell.evaluation.of(arm.name) if p.prompt_id == prompt.id]
                assert share == f"{100 * np.mean(marks):.2f}%"


def test_every_test_stands_with_its_p_and_holms(page, study):
    found = grouped(page.table("Tests of right pictures"))
    assert len(found) == len(study.accuracies)
    for (model, cells), row in zip(found, study.accuracies, strict=True):
        assert (model, *cells[:3]) == (row.model, row.method, row.comparison.arm, row.comparison.type)
        for shown, test in zip(cells[-len(TESTS) :], TESTS, strict=True):
            p = getattr(row.comparison, test).p
            both = p is not None and row.comparison.type != ALL
            assert shown == p_words(p) + (f" {p_words(row.holm[test])}" if both else "")
    found = grouped(page.table("Tests of measures"))
    assert len(found) == len(study.qualities)
    for (model, cells), row in zip(found, study.qualities, strict=True):
        score, comparison = row.score, row.score.comparison
        assert (model, *cells[:3]) == (row.model, row.method, score.arm, score.measure)
        assert cells[3:5] == [str(comparison.pictures), str(score.undefined)]
        assert [float(cell) for cell in cells[5:8]] == pytest.approx(
            [comparison.baseline_mean, comparison.mean, comparison.difference], abs=5e-5
        )
        for shown, test in zip(cells[1 - len(TESTS) :], TESTS[:-1], strict=True):
            p = getattr(comparison, test).p
            adjusted = getattr(score, f"holm_{test}")
            assert shown == p_words(p) + (f" {p_words(adjusted)}" if p is not None else "")
    assert any(row.score.undefined for row in study.qualities)
    assert page.text.count(NOT_EQUAL_NOTE) == 3


def test_a_gain_is_told_only_where_interval_and_test_over_prompts_say_so(study):
    told = set()
    for row in study.qualities:
        found, bounds = row.score.comparison, row.score.comparison.over_prompts
        sign = 1 if row.score.higher_is_better else -1
        sure = not bounds.low <= 0 <= bounds.high, found.by_prompt.p <= 0.05
        expected = "unclear" if not all(sure) else "gain" if row.score.gain > 0 else "loss"
        assert verdict(found, sign) == expected
        told.add(sure)
    assert (True, False) in told, "six prompts are few"
    lines = dict(line.split(": of ", 1) for line in findings(study) if ": of " in line)
    for measure in MEASURES:
        rows = [row for row in study.qualities if row.score.measure == measure.name]
        sign = 1 if measure.higher_is_better else -1
        told = re.findall(r"\d+", lines[measure.name])
        kinds = [verdict(row.score.comparison, sign) for row in rows]
        assert [int(count) for count in told] == [
            len(rows),
            *(kinds.count(kind) for kind in ("gain", "loss", "unclear")),
        ]
    assert lines["siglip"].endswith("8 a gain, 0 a loss, 0 cannot be told.")
    turned = dict(line.split(": of ", 1) for line in findings(siglip_lower(study)) if ": of " in line)
    assert turned["siglip"].endswith("0 a gain, 8 a loss, 0 cannot be told.")
    assert turned["brisque"] == lines["brisque"]


def siglip_lower(study):
    """The same, but lower is better of the measure that adapters raise: a study with losses."""
    measures = tuple(
        replace(m, higher_is_better=m.higher_is_better != (m.name == "siglip")) for m in study.measures
    )
    sign = {m.name: m.higher_is_better for m in measures}
    rows = tuple(
        replace(row, score=replace(row.score, higher_is_better=sign[row.score.measure]))
        for row in study.qualities
    )
    return replace(study, measures=measures, qualities=rows)


def test_the_csv_has_every_prompts_change_by_every_measure(study, text):
    rows = list(csv.DictReader(io.StringIO((study.folder / PROMPTS_FILE).read_text("utf-8"), newline="")))
    assert len(rows) == (1 + len(MEASURES)) * len(entries_of(study)) * len(PROMPTS)
    cell, seen = study.cells[-1], 0
    for row in rows:
        if (row["model"], row["method"], row["arm"]) != (cell.model, cell.method, ARMS[2].name):
            continue
        pictures = cell.evaluation.pictures
        values = {}
        for arm in (ARMS[0].name, ARMS[2].name):
            at = [n for n, p in enumerate(pictures) if (p.arm, p.prompt_id) == (arm, row["prompt_id"])]
            values[arm] = (
                [float(pictures[n].verdict.right) for n in at]
                if row["measure"] == "right"
                else [cell.scores[row["measure"]][n] for n in at]
            )
        pairs = [(b, o) for b, o in zip(*values.values(), strict=True) if not math.isnan(b + o)]
        base, ours = np.mean(pairs, axis=0)
        assert int(row["pictures"]) == len(pairs)
        assert [float(row["mean_baseline"]), float(row["mean"])] == pytest.approx([base, ours])
        assert float(row["gain"]) == pytest.approx(
            base - ours if row["measure"] == "brisque" else ours - base
        )
        seen += 1
    assert seen == (1 + len(MEASURES)) * len(PROMPTS)


@pytest.mark.parametrize("losses", [False, True])
def test_a_figure_is_colored_only_where_it_is_told_a_gain_or_a_loss(page, study, losses, tmp_path):
    if losses:
        study = replace(siglip_lower(study), folder=tmp_path)
        page = Page(write_report(study)[0].read_text("utf-8"))
    shown = Counter(tag["class"] for tag in page.all("small") if tag.get("class") in ("yes", "no"))
    expected = Counter()
    for row in study.accuracies:
        # Twice in Table 2, once among the tests.
        expected[verdict(row.comparison)] += 3
    for row in study.qualities:
        sign = 1 if row.score.higher_is_better else -1
        expected[verdict(row.score.comparison, sign)] += 3
    assert (shown["yes"], shown["no"]) == (expected["gain"], expected["loss"])
    assert expected["unclear"] and expected["loss" if losses else "gain"]


def test_the_page_says_how_a_gain_is_told_and_that_intervals_over_few_prompts_are_too_narrow(page):
    rule = (
        "where the 95% interval over prompts excludes zero and the p of the paired t-test over prompts is "
        "0.05 or less"
    )
    assert page.text.count(rule) == 3, "what came out, Table 2 and Table 3"
    assert page.text.count(FEW_PROMPTS_NOTE) == 3, "what came out, and both tables of tests"


@pytest.mark.parametrize(
    ("arms", "title"),
    [
        ([{"adapter": "a"}], "A study of SUR-adapters"),
        ([{"llmdiff": "b", "llm": "c"}], "A study of LLMDiff-Adapters"),
        ([{"llmdiff": "b", "llm": "c"}, {"adapter": "a"}], "A study of SUR-adapters and LLMDiff-Adapters"),
        ([{"llmdiff": "b", "llm": "c", "adapter": "a"}], "A study of SUR-adapters and LLMDiff-Adapters"),
    ],
)
def test_the_title_names_the_systems_that_are_compared(study, tmp_path, arms, title):
    new = [replace(ARMS[0]), *(Arm(f"arm {n}", **given) for n, given in enumerate(arms))]
    cell = study.cells[0]
    names = {old.name: arm.name for old, arm in zip(ARMS, new, strict=False)}
    found = replace(
        cell.evaluation,
        arms=tuple(new),
        pictures=tuple(replace(p, arm=names[p.arm]) for p in cell.evaluation.pictures if p.arm in names),
    )
    only = replace(cell, evaluation=found, scores={})
    other = replace(study, folder=tmp_path, cells=(only,), measures=(), accuracies=(), qualities=())
    text = write_report(other)[0].read_text("utf-8")
    assert f"<title>{title}</title>" in text and f"<h1>{title}</h1>" in text


# --- one file that runs and loads nothing -------------------------------------------------------------------


def test_nothing_is_loaded_and_nothing_that_people_wrote_is_run(page, text):
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"script", "link", "iframe", "object", "form", "i"} and tags >= {
        "img",
        "table",
        "details",
    }
    for _, attributes in page.elements:
        assert attributes.get("src", "data:").startswith("data:")
        assert attributes.get("href", "#").startswith("#")
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
    policy = next(a["content"] for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; style-src 'sha256-") and "img-src data:;" in policy
    assert "http:" not in text and "https:" not in text and "@import" not in text and "url(" not in text
    ids = {attributes["id"] for _, attributes in page.elements if "id" in attributes}
    assert {attributes["href"][1:] for _, attributes in page.elements if "href" in attributes} <= ids


def test_texts_of_people_are_text(page, text):
    shown = readable(HOSTILE)
    assert shown != HOSTILE and "\x00" not in text
    assert page.text.count(shown) >= 2 + 4, "in its grid, its tables"
    assert NOTE in page.text and "saw <i>nothing</i> of it" in page.text
    assert {cell for table in page.tables for row in table["rows"] for cell in map(words, row)} >= {
        "DM <cartoon>"
    }
    assert any("saw <i>nothing</i> of it" in image["alt"] for image in page.all("img"))
    assert "</pre><script>" in page.text and "</pre><script>" not in text


def test_the_same_study_gives_the_same_bytes(study, text, tmp_path):
    before = {name: (study.folder / name).read_bytes() for name in (REPORT, PROMPTS_FILE)}
    assert before[REPORT].decode() == text
    copied = shutil.copytree(study.folder, tmp_path / "elsewhere")
    (copied / REPORT).unlink()
    write_report(read_study(copied))
    assert {name: (copied / name).read_bytes() for name in before} == before


def test_the_page_says_what_was_compared_and_how_it_was_made(page, study):
    settings = {row[0].strip(): words(row[1]) for row in page.table("Drawing, judging")}
    assert settings["prompts"] == "2 Action, 2 Color, 2 Counting" and settings["seeds"] == "7, 11, 13"
    assert settings["versions"] == study.about["versions"] and settings["negative prompt"] == "blurry"
    assert settings["judge"] == 'lot {"threshold": 0.5}'
    adapters = [[words(cell) for cell in row] for row in page.table("Adapters")[1:]]
    assert [row[:3] for row in adapters] == [[a.name, str(a.adapter), f"{a.eta:g}"] for a in ARMS[1:]]
    assert [row[1].strip() for row in page.table("Models")[1:]] == [
        f"models/{c.model}" for c in study.cells[::2]
    ]
    assert "python -m train evaluate --config study.toml" in page.text
    assert "2 models, 2 methods, 6 prompts from 3 seeds: 216 pictures" in headline(study)
    assert headline(study) in page.text


@pytest.mark.parametrize(
    "document",
    [
        CONFIG,
        {},
        {"prompts": 'a\nb\t"\\', "judge": "vlm:x", "drawing": {"steps": 2, "guidance_scale": 1e-05}},
        {"methods": [{"kind": "none", "models": []}], "quality": {"a b": {"c": [1.5, True]}, "": {}}},
    ],
)
def test_the_studys_file_on_the_page_reads_as_it_was(document):
    tomllib = pytest.importorskip("tomllib", reason="came with Python 3.11")
    assert tomllib.loads(to_toml(document)) == document


# --- pictures -----------------------------------------------------------------------------------------------


def data_of(image: dict) -> tuple[str, bytes]:
    kind, content = re.fullmatch(r"data:image/(\w+);base64,(.*)", image["src"]).groups()
    return kind, base64.b64decode(content)


def test_grids_show_the_first_prompts_with_baseline_and_adapters_from_one_seed(page, study):
    shown = [image for image in page.all("img") if f"seed {SEEDS[0]}" in image["alt"]]
    count = len(PROMPTS) * len(study.cells) * len(ARMS)
    found = [image["alt"].split(", seed")[0] for image in shown[:count]]
    assert found == [arm.name for arm in ARMS] * len(PROMPTS) * len(study.cells)
    heads = re.findall(r"<h3><bdi>(.*?)</bdi>", (study.folder / REPORT).read_text("utf-8"))
    assert len(heads) == len(PROMPTS) and heads[0] == PROMPTS[0].prompt
    wanted = [
        picture
        for prompt in PROMPTS
        for cell in study.cells
        for picture in cell.evaluation.pictures
        if (picture.prompt_id, picture.seed) == (prompt.id, SEEDS[0])
    ]
    for image, picture in zip(shown, wanted, strict=False):
        assert image["alt"].endswith("right" if picture.verdict.right else f"wrong: {picture.verdict.why}")
    assert (
        f"Shown are {count} of {sum(len(c.evaluation.pictures) for c in study.cells)} pictures" in page.text
    )


@pytest.fixture(scope="module")
def exact(tmp_path_factory):
    """A study whose pictures are small enough to be shown as they are; no two of them are alike."""
    found = make_study(tmp_path_factory.mktemp("exact"), **FEW, side=16)
    files = [cell.evaluation.file(p) for cell in found.cells for p in cell.evaluation.pictures]
    assert len({read_picture(path).tobytes() for path in files}) == len(files)
    return found


def shown_in(part):
    """(caption, label, pixels) of every picture in a part of the page."""
    for one in part.iter("figure"):
        for shot in one.iter("div"):
            if shot.get("class") == "shot":
                _, content = data_of(shot.find("img").attrib)
                assert shot.find("img").get("alt").startswith(f"{shot.find('b').text}, seed ")
                yield (
                    one.find("figcaption").text,
                    shot.find("b").text,
                    np.asarray(Image.open(io.BytesIO(content))),
                )


def drawn_by(cell, arm: str, prompt: str, seed: int) -> np.ndarray:
    found = [p for p in cell.evaluation.of(arm) if (p.prompt_id, p.seed) == (prompt, seed)]
    return read_picture(cell.evaluation.file(found[0]))


def test_every_picture_of_a_grid_is_its_arms_its_prompts_and_its_seeds(exact):
    _, *parts = picture_grids(exact, Thumbnails())
    assert len(parts) == len(PROMPTS)
    for part, prompt in zip(parts, PROMPTS, strict=True):
        found = list(shown_in(part))
        places = [(cell, arm) for cell in exact.cells for arm in ARMS]
        for (caption, label, pixels), (cell, arm) in zip(found, places, strict=True):
            assert (caption, label) == (f"{cell.model}, {cell.method}", arm.name)
            assert np.array_equal(pixels, drawn_by(cell, arm.name, prompt.id, SEEDS[0]))
            assert pixels[0, 0, 0] == round(100 * arm.eta)


def test_every_picture_of_a_case_is_its_arms_its_prompts_and_its_seeds(exact):
    thumbnails = Thumbnails()
    picture_grids(exact, thumbnails)  # as on the page: some pictures are made already
    parts = [part for part in case_parts(exact, thumbnails) if part.tag == "section"]
    changes = [change for found in worst_and_best(exact) for change in found]
    assert len(parts) == len(changes) > 2
    for part, change in zip(parts, changes, strict=True):
        seeds = [SEEDS[at] for at in seeds_of(exact, change)]
        wanted = [(seed, name) for seed in seeds for name in (ARMS[0].name, change.arm)]
        for (caption, label, pixels), (seed, name) in zip(shown_in(part), wanted, strict=True):
            assert (caption, label) == (f"seed {seed}", name)
            assert np.array_equal(pixels, drawn_by(change.cell, name, change.prompt.id, seed))
            eta = next(arm.eta for arm in ARMS if arm.name == name)
            assert pixels[0, 0, 0] == round(100 * eta)


@pytest.mark.parametrize(
    ("side", "size", "kind"),
    [((40, 64), (40, 64), "PNG"), ((96, 96), (96, 96), "JPEG"), ((512, 768), (128, 192), "JPEG"),
     ((2048, 512), (768, 192), "JPEG")],
)  # fmt: skip
def test_pictures_are_small_copies_with_nothing_but_pixels(study, tmp_path, side, size, kind):
    cell = study.cells[0]
    picture = cell.evaluation.pictures[0]
    own = replace(
        cell,
        evaluation=replace(cell.evaluation, settings=replace(cell.evaluation.settings, output_dir=tmp_path)),
    )
    path = own.evaluation.file(picture)
    path.parent.mkdir(parents=True)
    exif = Image.Exif()
    exif[0x9286] = "a secret"
    whole = Image.effect_mandelbrot(side, (-2, -1.5, 1, 1.5), 50).convert("RGB")
    whole.save(path, exif=exif)
    shot = Thumbnails().shot(own, picture, "Baseline")
    assert ("wide" in shot.get("class").split()) == (side[0] >= 2 * side[1]), "a panorama has room of its own"
    image = shot.find("img")
    _, content = data_of(image.attrib)
    with Image.open(io.BytesIO(content)) as small:
        assert small.format == kind and small.size == size and not small.getexif()
        assert small.size[0] <= WIDTH and small.size[1] <= HEIGHT
        expected = np.asarray(whole.resize(size, Image.Resampling.BOX), float)
        assert np.abs(np.asarray(small, float) - expected).mean() < (1e-9 if kind == "PNG" else 12)
    assert b"secret" not in content and (image.get("width"), image.get("height")) == tuple(map(str, size))


def test_how_many_pictures_are_shown_is_limited_and_said(study, tmp_path):
    cells = study.cells * 12
    shown = chosen(replace(study, cells=cells))
    assert len(shown.prompts) == MOST_PICTURES // (len(cells) * 3) == 1
    assert shown.cells == cells and len(shown.prompts) * len(cells) * 3 <= MOST_PICTURES
    many = chosen(replace(study, cells=study.cells * 50))
    assert len(many.prompts) == 1 and len(many.cells) == MOST_PICTURES // 3
    some = chosen(replace(study, cells=study.cells * 5))
    assert [prompt.id for prompt in some.prompts] == ["a1", "k1", "n1"], "of each type in turn"
    large = replace(study, cells=study.cells * 50, folder=tmp_path)
    found = Page(write_report(large)[0].read_text("utf-8"))
    assert f"Only the first {MOST_PICTURES // 3} of 200 models and methods are shown" in found.text
    assert len(found.all("img")) <= MOST_PICTURES + 2 * MOST_CASES * MOST_SEEDS * 2


def test_a_picture_that_is_gone_or_damaged_is_told_in_words(study, text, tmp_path):
    copied = shutil.copytree(study.folder, tmp_path / "study")
    found = read_study(copied)
    first, second = (found.cells[0].evaluation.of(arm.name)[0] for arm in ARMS[:2])
    found.cells[0].evaluation.file(first).unlink()
    found.cells[0].evaluation.file(second).write_bytes(b"no picture")
    page = Page(write_report(found)[0].read_text("utf-8"))
    assert f"not there: cells/0/{first.path}" in page.text
    assert f"damaged: cells/0/{second.path}" in page.text
    assert "2 of the pictures to be shown here and below are not there or damaged" in page.text
    lost = page.text.count("not there: ") + page.text.count("damaged: ")
    assert lost >= 2 and len(page.all("img")) == len(Page(text).all("img")) - lost
    assert page.table("Table 2") == Page(text).table("Table 2")
    assert "not there" not in Page(text).text


# --- worst and best -----------------------------------------------------------------------------------------


def test_worst_and_best_are_the_prompts_with_the_largest_loss_and_gain(study, page):
    changes = {}
    for cell, arm in entries_of(study):
        for row in study.prompt_rows(cell, arm):
            changes.setdefault(row.prompt.id, []).append((row.right - row.baseline_right) / row.pictures)
    worst, best = worst_and_best(study)
    assert worst and best
    lost = sorted(min(found) for found in changes.values() if min(found) < 0)
    won = sorted((max(found) for found in changes.values() if max(found) > 0), reverse=True)
    assert [change.gain for change in worst] == pytest.approx(lost[:MOST_CASES])
    assert [change.gain for change in best] == pytest.approx(won[:MOST_CASES])
    assert len({change.prompt.id for change in worst}) == len(worst)
    assert worst[0].gain == min(changes[worst[0].prompt.id])
    for change in (*worst, *best):
        pictures = [change.cell.evaluation.of(name) for name in (ARMS[0].name, change.arm)]
        base, ours = (
            sum(p.verdict.right for p in found if p.prompt_id == change.prompt.id) for found in pictures
        )
        assert f"{change.arm}: {ours} of {len(SEEDS)} right, baseline {base}" in page.text
        assert ours - base == round(change.gain * len(SEEDS))


def test_a_case_shows_the_seeds_that_differ_most(study):
    many = worst_and_best(study)[0][0]
    size = len(PROMPTS)
    marks = np.zeros((len(ARMS), size, 9))
    marks[0, many.place] = [0, 1, 0, 1, 0, 1, 0, 1, 1]
    marks[2, many.place] = [0, 0, 0, 1, 1, 0, 0, 0, 1]
    cell = replace(many.cell, scores={"clip_cosine": tuple(marks.reshape(-1))})
    change = replace(many, cell=cell, measure="clip_cosine", arm=ARMS[2].name, gain=-0.2)
    assert seeds_of(study, change) == [0, 1, 5, 7]
    assert seeds_of(study, replace(change, gain=0.2)) == [0, 2, 3, 4]


def test_without_a_judge_worst_and_best_go_by_a_measure_in_its_direction(tmp_path):
    found = make_study(tmp_path, judged=False, measures=MEASURES[2:3], methods=METHODS[:1])
    worst, best = worst_and_best(found)
    assert worst[0].ours > worst[0].baseline and best[0].ours < best[0].baseline
    page = Page(write_report(found)[0].read_text("utf-8"))
    assert "mean brisque, for there was no judge" in page.text
    assert f"brisque {worst[0].ours:.4f}, baseline {worst[0].baseline:.4f}" in page.text


# --- less ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("judged", [False, True])
@pytest.mark.parametrize("measures", [(), MEASURES[:1], MEASURES[1:2]])
def test_without_judge_or_measures_there_is_still_a_report(tmp_path, judged, measures):
    found = make_study(
        tmp_path, judged, measures, methods=METHODS[:1], models=("DM (1.5)",), prompts=PROMPTS[:3]
    )
    page = Page(write_report(found)[0].read_text("utf-8"))
    captions = " ".join(table["caption"] for table in page.tables)
    assert ("Table 2" in captions) == bool(judged or measures[:1] == MEASURES[:1])
    assert ("by prompt" in captions) == judged == ("Tests of right" in captions)
    assert ("Tests of measures" in captions) == bool(measures)
    assert ("Table 3" in captions) == (measures == MEASURES[1:2])
    assert ("No judge looked at these pictures" in page.text) != judged
    assert ("No measure of quality was taken" in page.text) != bool(measures)
    assert ("there is no worst and no best" in page.text) == (not judged and not measures)
    assert len(page.all("img")) >= 3 * len(ARMS)
    assert ("✓ right" in page.text) == judged
    assert not re.search(r"\bnan\b", page.text, re.I)


def test_prompts_that_none_gained_are_told(study):
    same = replace(study, cells=tuple(_all_right(cell) for cell in study.cells))
    text = " ".join(part for element in case_parts(same, Thumbnails()) for part in element.itertext())
    assert "No prompt lost." in text and "No prompt gained." in text


def _all_right(cell):
    right = [replace(p, verdict=replace(p.verdict, right=True)) for p in cell.evaluation.pictures]
    return replace(cell, evaluation=replace(cell.evaluation, pictures=tuple(right)))


# --- the command --------------------------------------------------------------------------------------------


def test_the_command_writes_the_page_anew_from_the_disk(study, text, tmp_path, capsys):
    copied = shutil.copytree(study.folder, tmp_path / "study")
    (copied / REPORT).write_text("old")
    assert main(["evaluate", "report", str(copied)]) == 0
    assert (copied / REPORT).read_text("utf-8") == text
    assert str(copied / REPORT) in capsys.readouterr().out
    assert main(["evaluate", "report", str(tmp_path)]) == 1
    assert "study.json: no such file; expected a folder that a study has filled" in capsys.readouterr().err


def test_a_study_ends_with_its_report(tmp_path):
    models = [{"name": "<DM>", "path": str(tiny_model("sd1"))}]
    found = run_small_study(tmp_path, models=models, methods=[{"kind": "none"}])
    written = (found.folder / REPORT).read_bytes()
    page = Page(written.decode())
    row = grouped(page.table("Table 2"))[1]
    share = found.cells[0].evaluation.accuracy("SUR, eta 0.5").share
    assert row[0] == "<DM>" and row[1][-1].startswith(f"{100 * share:.2f} ")
    assert "resamples = 200" in page.text and page.all("img")
    assert main(["evaluate", "report", str(found.folder)]) == 0
    assert (found.folder / REPORT).read_bytes() == written
