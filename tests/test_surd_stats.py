"""`python -m train surd stats` says what is in the manifest, no more, in one file that needs nothing else."""

import random
import re
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from sur_core.surd_build.manifest import Manifest
from sur_core.surd_build.plots import plots_of
from sur_core.surd_build.report import write_report
from sur_core.surd_build.review.book import Book
from sur_core.surd_build.stats import LONGEST, Lengths, measure
from tests.surd_files import encoded, picture
from tests.surd_works import Work, gradient, realistic
from train.__main__ import main


@pytest.fixture
def work(tmp_path) -> Work:
    """Of ten samples: four ready, one waiting for a caption, five left out."""
    made = Work(tmp_path, "mine")
    draw = random.Random(0)

    def add(name, *arguments, **more):
        return made.add(name, gradient(draw, (16, 24)), *arguments, **more)

    add("a.png", "best quality, a dog", "a dog in the snow", score=0.9, license="CC0-1.0")
    add("b.png", "best quality, a dog, fur", "a dog", score=0.5)
    add("c.png", "a very " + "long " * 400 + "prompt", "a road", score=0.75)
    add("given.png", "best quality, a cat", given="two cats")
    add("waits.png", "best quality, a horse")
    add("small.png", "x", dropped="too small: 4 x 4")
    add("small2.png", "x y", dropped="too small: 5 x 5")
    add("empty.png", "", dropped="no prompt: none found")
    add("rule.png", "a fine, fine boat", "a cow", score=0.25, rule="lower CLIP score: 0.25")
    made.dropped_by_hand = add("hand.png", "a duck", "a goose", score=0.6)
    made.manifest()
    with Book(made.folder, "ann") as book:
        book.act(made.dropped_by_hand, "drop", "mark-0001")
    return made


class Page(HTMLParser):
    """Tags, attributes and text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags, self.attributes, self.text = [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.text += data


def report(made: Work) -> Page:
    write_report(made.manifest(), measure(made.manifest()))
    return Page((made.folder / "report.html").read_text(encoding="utf-8"))


def test_every_sample_is_counted_once_where_it_was_left_out_or_among_the_kept(work):
    found = measure(work.manifest())
    assert (found.files, found.samples, found.kept, found.ready, found.unread) == (10, 10, 5, 4, 0)
    assert found.dropped == {
        "select": {"too small": 2, "no prompt": 1},
        "clean": {"lower CLIP score": 1},
        "review": {"dropped by a person": 1},
    }
    assert found.samples == found.kept + sum(sum(counts.values()) for counts in found.dropped.values())


def test_prompts_are_those_of_kept_samples_and_long_ones_count_as_three_hundred_words(work):
    found = measure(work.manifest())
    assert found.simple.prompts == 4 and found.complex.prompts == 5
    assert sorted(found.simple.lengths.words) == [2, 2, 2, 5]
    assert found.complex.lengths.over == 1
    edges, counts = found.complex.lengths.histogram()
    assert dict(zip(edges[:-1].tolist(), counts.tolist(), strict=True))[LONGEST] == 1
    assert counts.sum() == 5
    assert found.complex.pairs["best quality"] == 4


@pytest.mark.parametrize("width", [1, 5, 7])
def test_a_histogram_loses_no_prompt_whatever_its_length(width):
    words = np.array([0, 1, 299, 300, 301, 10_000], dtype=np.int32)
    edges, counts = Lengths(words).histogram(width)
    assert counts.sum() == len(words)
    assert counts[np.searchsorted(edges, 300, side="right") - 1 :].sum() == 3 + (
        width > 1 and 300 % width > 0
    )


def test_means_and_quartiles_are_those_of_the_uncut_lengths():
    lengths = Lengths(np.array([1, 2, 3, 4, 1000], dtype=np.int32))
    assert lengths.mean == 202
    assert lengths.quartiles == (2, 3, 4)


def test_scores_of_prompts_that_were_edited_since_do_not_count(work):
    kept = measure(work.manifest())
    with Book(work.folder, "ann") as book:
        book.act(next(iter(work.manifest().records("clean"))), "edit", "mark-0002", simple="something else")
    edited = measure(work.manifest())
    assert len(kept.scores.simple) - len(edited.scores.simple) == 1
    assert edited.unscored == kept.unscored + 1


@pytest.mark.parametrize(
    ("rule", "border"),
    [({"rule": "paper", "threshold": None}, 0.5), ({"rule": "threshold", "threshold": 0.3}, 0.3),
     ({"rule": "off", "threshold": None}, None)],
)  # fmt: skip
def test_the_border_drawn_is_the_rules(work, rule, border):
    for key, record in work.manifest().records("rule").items():
        work.record(**{**record, "step": "rule", "key": key, "settings": "mark"})
    work.record(step="settings", key="rule mark", values=rule)
    assert measure(work.manifest()).scores.border == border


def test_clips_window_in_words_follows_from_the_tokens_that_were_counted(work):
    assert measure(work.manifest()).complex.limit is None
    for key, record in work.manifest().records("clean").items():
        work.record(**{**record, "key": key, "simple_tokens": 10, "complex_tokens": 12})
    found = measure(work.manifest())
    words = [2, 5, 2, 2, 2]  # of those with a score; 8 tokens each without CLIP's marks
    assert found.simple.limit == pytest.approx(75 * sum(words) / (8 * len(words)))


def test_the_report_says_the_numbers(work):
    page = report(work)
    for told in ("4 samples are ready for training, 40%", "too small", "lower CLIP score", "CC0-1.0"):
        assert told in page.text
    assert "1 have no simple prompt yet" in page.text


def test_the_same_manifest_gives_the_same_bytes(tmp_path):
    made = realistic(tmp_path, 40)
    first = {path: path.read_bytes() for path in write_report(made.manifest(), measure(made.manifest()))}
    assert len(first) > 8
    write_report(Manifest(made.folder), measure(Manifest(made.folder)))
    assert {path: path.read_bytes() for path in first} == first


def test_the_page_needs_nothing_from_outside(tmp_path):
    page = report(realistic(tmp_path, 40))
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    assert page.tags.count("img") > 5 and "svg" in page.tags
    links = [value for name, value in page.attributes if name in ("src", "href", "xlink:href")]
    assert all(re.match(r"data:image/jpeg;base64,|#", link) for link in links)
    style = (tmp_path / "work" / "report.html").read_text(encoding="utf-8")
    assert "url(http" not in style and "@import" not in style
    assert "prefers-color-scheme: dark" in style


NASTY = "<script>alert(1)</script> & \"q\" 'p' </style> $\\frac{1}$ \x00\x08 \ud800 \u202e猫 ]]>"


def test_texts_from_files_stay_texts(tmp_path):
    made = Work(tmp_path, "<i>source")
    made.add("<img src=x onerror=y>.png", picture(1), NASTY, NASTY, score=0.7, license=NASTY, rating=NASTY)
    made.add("b.png", picture(2), "x", dropped=f"{NASTY}: {NASTY}")
    page = report(made)
    assert not {"script", "i"} & set(page.tags)
    assert page.tags.count("img") == 2 and "onerror" not in dict(page.attributes)
    assert "<script>alert(1)</script> & \"q\" 'p' </style>" in page.text
    assert "\x00" not in page.text and "猫" in page.text


def test_pictures_marked_as_not_safe_for_work_are_not_in_the_page(tmp_path):
    made = Work(tmp_path)
    made.add("a.png", picture(1), "a", "a", nsfw=True)
    made.add("b.png", picture(2), "b", "b", nsfw=False)
    assert report(made).tags.count("img") == 1


def test_a_picture_that_has_gone_or_is_broken_is_said_so_and_stops_nothing(tmp_path):
    made = Work(tmp_path)
    made.add("a.png", picture(1), "a", "a")
    made.add("b.png", picture(2), "b", "b")
    (made.images / "a.png").unlink()
    (made.images / "b.png").write_bytes(b"<html>")
    assert report(made).text.count("the file cannot be shown") == 2


def test_pictures_of_a_state_that_is_no_more_are_removed_and_others_are_not(work):
    report(work)
    figures = work.folder / "figures"
    assert (figures / "clip-scores.png").exists()
    own = figures / "my-own.png"
    own.write_bytes(encoded(picture(0)))
    for key in work.manifest().records("clean"):
        work.record(step="clean", key=key, of="0")
    report(work)
    assert not (figures / "clip-scores.png").exists()
    assert own.exists()


def test_each_png_is_a_whole_picture(work):
    _, *figures = write_report(work.manifest(), measure(work.manifest()))
    assert {"length-complex.png", "length-simple.png", "pairs-complex.png"} <= {path.name for path in figures}
    for path in figures:
        with Image.open(path) as image:
            image.load()
            assert image.width > 400 and image.height > 150
            assert len(set(image.convert("L").tobytes())) > 20


def test_a_ranking_in_which_prompts_have_formulas_and_other_scripts_is_drawn(tmp_path):
    made = Work(tmp_path)
    made.add("a.png", picture(1), "$x_1$ ^^ \\alpha, 猫耳 кот " + "w" * 90, "a")
    plots = plots_of(measure(made.manifest()))
    assert plots["words-complex"].png().startswith(b"\x89PNG")


def test_without_matplotlib_the_numbers_are_there_and_the_reader_is_told(work, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    page = report(work)
    assert "pip install matplotlib" in page.text
    assert "svg" not in page.tags
    assert "4 samples are ready for training" in page.text


def test_the_command_writes_the_report_and_says_what_was_left_out(work, capsys):
    assert main(["surd", "stats", str(work.folder)]) == 0
    said = capsys.readouterr().out
    assert "10 images; 4 samples are ready for training" in said
    assert "left out by select: 3 (too small 2, no prompt 1)" in said
    assert str(work.folder / "report.html") in said


def test_nothing_collected_is_said_in_words(tmp_path, capsys):
    assert main(["surd", "stats", str(tmp_path)]) == 1
    assert "collect" in capsys.readouterr().err


def test_a_manifest_in_which_everything_was_left_out_still_has_a_report(tmp_path):
    made = Work(tmp_path)
    made.add("a.png", picture(1), "", dropped="no prompt: none found")
    page = report(made)
    assert "0 samples are ready for training" in page.text
    assert "no prompt" in page.text
