"""Marking sheet and preference page in a real Chromium, from the disk as people open them."""

from __future__ import annotations

import json

import pytest

from sur_core.evaluation.sheets import (
    PageOptions,
    make_preference,
    make_sheet,
    merge_marks,
    merge_preferences,
)
from sur_core.evaluation.sheets.page import pictures_folder
from tests.browser import frontend as browser
from tests.browser.test_surd_review import CONTRASTS
from tests.sheet_runs import PROMPTS, make_results, told_by

WAIT_MS = 60_000


@pytest.fixture(scope="module")
def chromium(playwright):
    opened = playwright.chromium.launch(executable_path=browser.chromium(), args=browser.FLAGS)
    yield opened
    opened.close()


@pytest.fixture
def context(chromium):
    opened = chromium.new_context(viewport={"width": 1366, "height": 768})
    opened.set_default_timeout(WAIT_MS)
    yield opened
    opened.close()


class MarkingPage:
    """The open page.

    Attributes:
        page: playwright's.
        problems: errors of the page and its console; the Content-Security-Policy's among them.
        asked: addresses the page asked for, without its own and what lies in it.
    """

    def __init__(self, context, file, problems=None):
        self.file, self.told = file, told_by(file)
        self.problems = [] if problems is None else problems
        self.asked = []
        self.page = context.new_page()
        self.page.on("pageerror", lambda error: self.problems.append(f"page: {error}"))
        self.page.on(
            "console", lambda message: message.type == "error" and self.problems.append(message.text)
        )
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(file.as_uri())

    def begin(self, name: str = "Anna") -> MarkingPage:
        self.page.get_by_label("Your name or initials").fill(name)
        self.page.get_by_role("button", name="Begin").click()
        return self.at(1)

    def at(self, number: int) -> MarkingPage:
        """Wait until the item of this place can be answered."""
        self.page.wait_for_function(
            """number => !document.getElementById('work').hidden
              && parseInt(document.getElementById('position').textContent) === number
              && !document.querySelector('#choices button').disabled""",
            arg=number,
        )
        return self

    def press(self, keys: str) -> None:
        for key in keys.split():
            self.page.keyboard.press(key)

    def answer(self, keys: str, first: int = 1) -> None:
        """Press a key at this item and those after it, each once it is shown."""
        for number, key in enumerate(keys.split(), start=first):
            self.at(number)
            self.press(key)

    def done(self) -> MarkingPage:
        self.page.get_by_role("heading", name="That was all").wait_for()
        return self

    def text(self, selector: str) -> str:
        return self.page.locator(selector).inner_text()

    def pressed(self) -> list[str]:
        return self.page.locator("#choices [aria-pressed=true]").evaluate_all("all => all.map(b => b.value)")

    def save(self, folder, press: str = "s"):
        """The saved file."""
        with self.page.expect_download() as download:
            self.press(press)
        path = folder / download.value.suggested_filename
        download.value.save_as(path)
        return path


@pytest.fixture
def results(tmp_path):
    """Two arms, two prompts, two seeds: eight pictures, four pairs."""
    return make_results(tmp_path / "results", prompts=PROMPTS[2:], seeds=(3, 4), size=(96, 64))


@pytest.fixture
def sheet(results, tmp_path, context):
    """(the opened page, its key)"""
    made = make_sheet(results, tmp_path / "sheet.html", options=PageOptions(seed=1))
    opened = MarkingPage(context, made.page)
    yield opened, made.key
    assert opened.problems == []


@pytest.fixture
def study(results, tmp_path, context):
    """(the opened page, its key)"""
    made = make_preference(results, tmp_path / "study.html", ask="prompt", options=PageOptions(seed=1))
    opened = MarkingPage(context, made.page)
    yield opened, made.key
    assert opened.problems == []


def test_marks_by_keyboard_undone_saved_and_merged(sheet, tmp_path):
    page, key = sheet
    page.begin()
    page.answer("y n m 1")
    page.at(5)
    page.press("u")
    page.at(4)
    assert page.pressed() == [] and page.text("#counts") == "3 of 8 answered"
    page.press("Control+z")
    page.at(3)
    page.answer("n 2 y 3 y n", first=3)
    page.done()
    assert "answered 8 of 8. Save" in page.text("#done-words")
    saved = page.save(tmp_path)
    assert saved.name.startswith("answers-anna-")
    ids = [item["id"] for item in page.told["items"]]
    expected = ["yes", "no", "no", "no", "yes", "unsure", "yes", "no"]
    marks = merge_marks(key, [saved])
    assert [(p.item.id, p.marks) for p in marks.pictures] == [
        (id, {"Anna": mark}) for id, mark in zip(ids, expected, strict=True)
    ]
    assert sum(marks.arm(arm).right for arm in marks.arms) == 3
    assert sum(marks.arm(arm).undecided for arm in marks.arms) == 1


def test_nothing_is_lost_by_a_reload_and_undo_goes_on(sheet, tmp_path):
    page, _ = sheet
    page.begin("Ánna  Ö.")
    page.answer("y n y")
    page.at(4)
    page.page.reload()
    page.at(4)
    assert page.text("#counts") == "3 of 8 answered" and page.text("#who") == "Ánna Ö."
    page.press("u")
    page.at(3)
    page.press("Backspace")
    page.at(2)
    page.press("ArrowLeft")
    page.at(1)
    assert page.pressed() == ["yes"]
    page.page.reload()
    page.at(2)  # the first open one from there
    found = json.loads(page.save(tmp_path).read_text("utf-8"))
    assert found["answers"] == {page.told["items"][0]["id"]: "yes"} and found["marker"] == "Ánna Ö."


def test_the_page_killed_in_the_middle_has_every_answer(results, tmp_path, playwright):
    """Closed without a word, and opened in another browser process with the same profile."""
    made = make_sheet(results, tmp_path / "sheet.html")
    profile = str(tmp_path / "profile")
    options = {"executable_path": browser.chromium(), "args": browser.FLAGS}
    first = playwright.chromium.launch_persistent_context(profile, **options)
    page = MarkingPage(first, made.page).begin()
    page.answer("y n m")
    page.at(4)
    first.close()
    second = playwright.chromium.launch_persistent_context(profile, **options)
    page = MarkingPage(second, made.page).at(4)
    assert page.text("#counts") == "3 of 8 answered"
    page.press("u")
    page.at(3)
    second.close()


def test_looking_back_changing_an_answer_and_undoing_that(sheet, tmp_path):
    page, _ = sheet
    page.begin()
    page.answer("y y y")
    page.at(4)
    page.press("ArrowLeft")
    page.at(3)
    page.press("Shift+J")
    page.at(2)
    page.press("n")
    page.at(4)
    page.press("u")
    page.at(2)
    assert page.pressed() == ["yes"]
    page.press("j")
    page.at(3)
    page.press("ArrowRight")
    page.at(4)
    page.press("ArrowRight")
    page.answer("y y y y", first=5)
    page.at(4)  # what was passed over
    page.page.get_by_text("1 still open").wait_for()
    page.press("o")
    page.at(4)
    page.press("m")
    page.done()
    page.press("u")
    page.at(4)
    assert page.text("#counts") == "7 of 8 answered"


def test_a_key_held_down_answers_once_and_nothing_is_answered_unseen(sheet):
    page, _ = sheet
    page.begin()
    page.page.keyboard.down("y")
    for _ in range(5):
        page.page.keyboard.down("y")  # repeats, as of a key held down
    page.page.keyboard.up("y")
    page.at(2)
    assert page.text("#counts") == "1 of 8 answered"
    page.page.evaluate(
        """() => { for (let i = 0; i < 6; i++) dispatch(); function dispatch() {
          document.dispatchEvent(new KeyboardEvent('keydown', {key: 'n', bubbles: true})); } }"""
    )
    page.at(3)
    assert page.text("#counts") == "2 of 8 answered"


def test_zoom_shows_the_picture_larger_and_arrows_move_it(sheet):
    page, _ = sheet
    page.begin()
    width = "() => document.querySelector('.box img').getBoundingClientRect().width"
    before = page.page.evaluate(width)
    page.press("z")
    assert page.page.evaluate(width) > 2 * before
    place = "() => document.querySelector('.box').scrollLeft"
    left = page.page.evaluate(place)
    page.press("ArrowRight")
    assert page.page.evaluate(place) > left
    page.press("Escape")
    assert page.page.evaluate(width) == before
    page.press("z y")
    page.at(2)
    assert page.page.evaluate(width) == before


def test_two_people_in_one_browser_do_not_mix(sheet, tmp_path):
    page, key = sheet
    page.begin("Anna")
    page.answer("y y y")
    page.at(4)
    page.page.locator("#who").click()
    page.begin("Ben")
    assert page.text("#counts") == "0 of 8 answered"
    page.answer("n n")
    page.at(3)
    ben = page.save(tmp_path)
    page.page.locator("#who").click()
    page.page.get_by_label("Your name or initials").fill("Anna")
    page.press("Enter")
    page.at(4)
    anna = page.save(tmp_path)
    marks = merge_marks(key, [anna, ben])
    assert [len([1 for p in marks.pictures if name in p.marks]) for name in ("Anna", "Ben")] == [3, 2]


def test_a_saved_file_goes_on_in_another_browser_and_a_foreign_one_is_refused(
    sheet, results, tmp_path, chromium
):
    page, key = sheet
    page.begin()
    page.answer("y n")
    page.at(3)
    saved = page.save(tmp_path)
    elsewhere = chromium.new_context()
    elsewhere.set_default_timeout(WAIT_MS)
    other = MarkingPage(elsewhere, page.file)
    for content, words in (("{", "no file that such a page"), (saved.read_text(), None)):
        (tmp_path / "given.json").write_text(content)
        other.page.locator("#load").set_input_files(tmp_path / "given.json")
        if words:
            other.page.get_by_role("alert").get_by_text(words).wait_for()
    other.at(3)
    other.press("y")
    other.at(4)
    newer = other.save(tmp_path / "newer")
    foreign = make_sheet(results, tmp_path / "foreign.html", options=PageOptions(seed=2))
    third = MarkingPage(elsewhere, foreign.page)
    third.page.locator("#load").set_input_files(saved)
    third.page.get_by_role("alert").get_by_text("belongs to another page").wait_for()
    marks = merge_marks(key, [newer, saved])
    assert sum(bool(p.marks) for p in marks.pictures) == 3 and "newer" in marks.notes[0]
    assert other.problems == third.problems == []
    elsewhere.close()


def test_two_tabs_have_the_same_answers(sheet, context):
    page, _ = sheet
    page.begin()
    page.answer("y y")
    page.at(3)
    second = MarkingPage(context, page.file).at(3)
    second.press("n")
    second.at(4)
    page.at(4)
    assert page.text("#counts") == "3 of 8 answered"
    page.press("u")
    page.at(3)
    second.page.get_by_text("2 of 8 answered").wait_for()


def test_without_storage_the_page_says_so_and_asks_before_it_is_closed(results, tmp_path, context):
    context.add_init_script("Storage.prototype.setItem = () => { throw new Error('full'); }")
    made = make_sheet(results, tmp_path / "sheet.html")
    page = MarkingPage(context, made.page).begin()
    page.page.get_by_role("alert").get_by_text("does not keep your answers").wait_for()
    page.answer("y y")
    page.at(3)
    asked = []
    page.page.on("dialog", lambda dialog: (asked.append(dialog.type), dialog.dismiss()))
    page.page.close(run_before_unload=True)
    page.page.wait_for_timeout(500)
    assert asked == ["beforeunload"]
    page.save(tmp_path)
    with page.page.expect_event("close"):
        page.page.close(run_before_unload=True)
    assert asked == ["beforeunload"]


def test_preferences_by_keyboard_undone_reloaded_saved_and_merged(study, tmp_path):
    page, key = study
    page.begin("Ben")
    assert page.page.locator("figcaption").all_inner_texts() == ["A", "B"]
    page.answer("ArrowLeft ArrowRight")
    page.at(3)
    page.press("u")
    page.at(2)
    page.page.reload()
    page.at(2)
    page.answer("a b n", first=2)
    page.done()
    saved = page.save(tmp_path)
    assert saved.name.startswith("preferences-ben-")
    found = merge_preferences(key, [saved])
    sides = [shown.answers["Ben"] for shown in found.shown]
    assert sides == ["left", "left", "right", "none"]
    chosen = [
        s.item.left if side == "left" else s.item.right for s, side in zip(found.shown, sides, strict=True)
    ]
    votes = found.votes(found.pairs[0])
    assert (votes.first, votes.second, votes.none) == (*map(chosen[:3].count, found.pairs[0]), 1)


def test_both_pictures_are_looked_at_in_the_same_place(study):
    page, _ = study
    page.begin()
    page.press("z ArrowRight ArrowRight ArrowDown")
    page.page.wait_for_function(
        """() => { const [a, b] = document.querySelectorAll('.box');
          return a.scrollLeft > 0 && a.scrollLeft === b.scrollLeft && a.scrollTop === b.scrollTop; }"""
    )


def test_buttons_do_what_keys_do(study, tmp_path):
    page, _ = study
    page.begin()
    for number, name in enumerate(("A", "B", "No preference"), start=1):
        page.at(number)
        page.page.locator("#choices").get_by_role("button", name=name).first.click()
    page.at(4)
    page.page.get_by_role("button", name="Undo").click()
    page.at(3)
    page.page.get_by_role("button", name="Previous").click()
    page.at(2)
    page.page.get_by_role("button", name="Next open").click()
    page.at(3)
    with page.page.expect_download():
        page.page.get_by_role("button", name="Save file").click()


@pytest.mark.parametrize("make", [make_sheet, make_preference])
def test_pictures_beside_the_page_are_shown_and_one_that_is_gone_is_told(make, results, tmp_path, context):
    made = make(results, tmp_path / "a page.html", options=PageOptions(seed=1, inside=False))
    page = MarkingPage(context, made.page).begin()
    page.answer("n")
    page.at(2)
    gone = page.told["items"][2]["pictures"][0]
    (pictures_folder(made.page) / f"{gone}.png").unlink()
    page.page.reload()
    page.at(2)
    page.press("n")
    page.page.get_by_text(f"missing or damaged: a page-pictures/{gone}.png").wait_for()
    assert page.page.locator("#choices button:enabled").count() == 0
    page.press("n j")
    page.at(4)
    assert page.text("#counts").startswith("2 of")
    beside = {made.page.parent.as_uri()}
    assert {url.rsplit("/", 2)[0] for url in page.asked if "a%20page-pictures/" in url} == beside
    assert [problem for problem in page.problems if "ERR_FILE_NOT_FOUND" not in problem] == []


@pytest.mark.parametrize("make", [make_sheet, make_preference])
def test_the_page_sends_nothing_anywhere(make, results, tmp_path, context):
    page = MarkingPage(context, make(results, tmp_path / "page.html").page).begin()
    page.answer("n n")
    page.at(3)
    page.save(tmp_path)
    assert {url.split(":")[0] for url in page.asked} <= {"file", "data", "blob"}
    assert [url for url in page.asked if url.startswith("file")] == [page.file.as_uri()]
    refused = page.page.evaluate(
        """async () => {
          const tried = [() => fetch('https://example.org'), () => fetch(location.href)];
          tried.push(() => new Promise((yes, no) => Object.assign(new Image(),
            {onload: yes, onerror: no, src: 'http://127.0.0.1:9/x.png'})));
          tried.push(() => { const s = document.createElement('script'); s.textContent = 'window.ran = 1';
            document.body.append(s); if (!window.ran) throw new Error(); });
          const found = await Promise.allSettled(tried.map(async go => go()));
          return found.map(f => f.status);
        }"""
    )
    assert refused == ["rejected"] * 4
    assert len([problem for problem in page.problems if "Content Security Policy" in problem]) >= 3


SHOTS = [
    (scheme, size, make)
    for scheme in ("light", "dark")
    for size in ((1366, 768), (390, 780))
    for make in (make_sheet, make_preference)
]


@pytest.mark.parametrize(("scheme", "size", "make"), SHOTS)
def test_every_word_can_be_read_and_nothing_overflows(scheme, size, make, results, tmp_path, context):
    options = {"ask": "prompt"} if make is make_preference else {}
    page = MarkingPage(context, make(results, tmp_path / "page.html", **options).page)
    page.page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    page.page.set_viewport_size({"width": size[0], "height": size[1]})
    check_words(page)
    page.begin("Somebody with a long name of many words")
    page.answer("n n")
    page.at(3)
    page.press("Shift+J")
    page.at(2)
    check_words(page)
    shown = page.page.locator(".box img").evaluate_all(
        "all => all.map(i => [i.getBoundingClientRect().width, i.getBoundingClientRect().height])"
    )
    assert all(width > 150 and height > 120 for width, height in shown)
    page.press("?")
    page.page.get_by_role("dialog", name="Keys").wait_for()
    check_words(page)
    page.press("Escape")
    page.press("j")
    count = len(page.told["items"])
    page.answer(" ".join("n" * (count - 2)), first=3)
    page.done()
    check_words(page)


def check_words(page) -> None:
    assert [words for ratio, words in page.page.evaluate(CONTRASTS) if ratio < 4.5] == []
    wide = "() => document.documentElement.scrollWidth - window.innerWidth"
    assert page.page.evaluate(wide) <= 0
    cut = page.page.evaluate(
        """() => [...document.querySelectorAll('button, input, p')].filter(e => e.checkVisibility())
          .filter(e => e.getBoundingClientRect().right > innerWidth + 1
            || e.getBoundingClientRect().bottom > innerHeight + 1)
          .filter(e => !e.closest('.sheet') && !e.closest('dialog')).map(e => e.outerHTML)"""
    )
    assert cut == []


def test_every_control_has_a_name_and_tab_reaches_it(sheet):
    page, _ = sheet
    page.begin()
    page.answer("y")
    page.at(2)
    reached = set()
    for _ in range(14):
        page.press("Tab")
        reached.add(page.page.evaluate("() => document.activeElement.id || document.activeElement.value"))
    assert {"who", "save", "show-help", "yes", "no", "unsure", "undo", "previous", "next", "zoom"} <= reached
    unnamed = page.page.evaluate(
        """() => [...document.querySelectorAll('button, input, img')].filter(e => e.checkVisibility())
          .filter(e => !(e.ariaLabel || e.alt || e.textContent.trim() || e.labels?.length))
          .map(e => e.outerHTML)"""
    )
    assert unnamed == []
