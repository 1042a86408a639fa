"""The pictures of a study's report: whose they are, how small, and which prompts are the worst and best."""

import base64
import io
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from sur_core.evaluation.pictures import read_picture
from sur_core.evaluation.report import REPORT, write_report
from sur_core.evaluation.report.cases import MOST_CASES, MOST_SEEDS, case_parts, seeds_of, worst_and_best
from sur_core.evaluation.report.grid import MOST_PICTURES, chosen, picture_grids
from sur_core.evaluation.report.pictures import HEIGHT, WIDTH, Thumbnails
from sur_core.evaluation.study_files import read_study
from tests.study_reports import ARMS, MEASURES, METHODS, PROMPTS, SEEDS, entries_of, make_study
from tests.test_demo_report import Page

FEW = {"methods": METHODS[:2]}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return make_study(tmp_path_factory.mktemp("study"), **FEW)


@pytest.fixture(scope="module")
def text(study):
    return write_report(study)[0].read_text("utf-8")


@pytest.fixture(scope="module")
def page(text):
    return Page(text)


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
