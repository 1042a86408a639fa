"""A study's report in a real Chromium, from the disk as people open it."""

from __future__ import annotations

import pytest

from sur_core.evaluation.report import write_report
from tests.browser import frontend as browser
from tests.browser.test_surd_review import CONTRASTS
from tests.study_reports import METHODS, make_study

WIDTHS = (1280, 375)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    study = make_study(tmp_path_factory.mktemp("report"), methods=METHODS[:2])
    study.cells[0].evaluation.file(study.cells[0].evaluation.pictures[0]).unlink()
    return write_report(study)[0]


@pytest.fixture(scope="module")
def chromium(playwright):
    opened = playwright.chromium.launch(executable_path=browser.chromium(), args=browser.FLAGS)
    yield opened
    opened.close()


@pytest.fixture(params=[(width, scheme) for width in WIDTHS for scheme in ("light", "dark")], ids=str)
def page(request, chromium, file):
    """The opened page, which must not have complained or asked for anything but itself."""
    width, scheme = request.param
    context = chromium.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
    opened, problems, asked = context.new_page(), [], []
    opened.on("pageerror", lambda error: problems.append(str(error)))
    opened.on("console", lambda message: problems.append(message.text))
    opened.on("request", lambda request: asked.append(request.url))
    opened.on("dialog", lambda dialog: problems.append(dialog.message))
    opened.goto(file.as_uri())
    yield opened
    context.close()
    assert problems == []
    assert [url for url in asked if not url.startswith("data:")] == [file.as_uri()]


def test_it_is_drawn_and_read_in_any_width_light_and_dark(page):
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "only tables scroll sideways"
    assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    assert page.locator("img").count() > 100 and page.locator(".lost").first.is_visible()
    page.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")
    found = page.evaluate(CONTRASTS)
    assert len(found) > 500
    assert [words for ratio, words in found if ratio < 4.5] == []


def test_links_lead_to_parts_and_keys_scroll_wide_tables(page):
    for link in page.locator("nav a").all():
        link.click()
        target = page.evaluate("location.hash.slice(1)")
        assert page.locator(f"#{target} h2").is_visible()
        assert page.evaluate(
            "id => document.getElementById(id).getBoundingClientRect().top < innerHeight", target
        )
    region = page.get_by_role("region", name="Right pictures, in the layout of the paper's Table 2")
    region.focus()
    wide = region.evaluate("region => region.scrollWidth > region.clientWidth")
    page.keyboard.press("ArrowRight")
    page.wait_for_timeout(300)
    assert (region.evaluate("region => region.scrollLeft") > 0) == wide


def test_on_paper_every_table_is_there_in_dark_ink_and_none_is_cut(chromium, file):
    context = chromium.new_context(viewport={"width": 1040, "height": 700}, color_scheme="dark")
    page = context.new_page()
    page.goto(file.as_uri())
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert [words for ratio, words in page.evaluate(CONTRASTS) if ratio < 4.5] == []
    assert (
        page.evaluate(
            """() => [...document.querySelectorAll('table')].filter(table => table.offsetWidth > innerWidth)
          .map(table => table.caption.textContent)"""
        )
        == []
    )
    folded = page.locator("details:not([open])")
    assert folded.count() > 1
    assert page.evaluate("[...document.querySelectorAll('table')].every(table => table.checkVisibility())")
    page.emulate_media(media="screen")
    assert not page.evaluate(
        "[...document.querySelectorAll('table')].every(table => table.checkVisibility())"
    )
    context.close()
