"""The review page in a real Chromium, in front of the real command."""

from __future__ import annotations

import http.server
import threading
from collections import Counter

import pytest

from sur_core.surd_build.review.server import ReviewServer
from tests.browser import frontend as browser
from tests.review_runs import ReviewProgram, caption_anew, log_lines, make_work, png, read_decisions

ROWS = 60_000
WAIT_MS = 60_000


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Where the browser's secret is kept."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


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


class ReviewPage:
    """The open page.

    Attributes:
        page: playwright's.
        requests: how often each kind of address was asked for.
        problems: errors of the page and its console; the Content-Security-Policy's among them.
    """

    def __init__(self, context, url: str):
        self.requests, self.problems = Counter(), []
        self.page = context.new_page()
        self.page.on(
            "request", lambda request: self.requests.update([request.url.split("/", 3)[3].split("?")[0]])
        )
        self.page.on("pageerror", lambda error: self.problems.append(f"page: {error}"))
        self.page.on("console", self._note)
        self.page.goto(url)
        self.at(1)

    def _note(self, message) -> None:
        if message.type == "error" and "Failed to load resource" not in message.text:
            self.problems.append(message.text)

    def at(self, number: int) -> None:
        """Wait until the sample of this place in the list is shown whole."""
        self.page.wait_for_function(
            """number => {
              const place = parseInt(document.getElementById('position').textContent.replaceAll(',', ''));
              const shown = document.getElementById('name').textContent !== '';
              const busy = document.getElementById('list').ariaBusy;
              return place === number && shown && !busy && !document.getElementById('image').hidden;
            }""",
            arg=number,
        )

    def press(self, keys: str) -> None:
        for key in keys.split():
            self.page.keyboard.press(key)

    def decide(self, keys: str, first: int = 1) -> None:
        """Press K or D at this sample and those after it, each once it is shown: before, they do nothing."""
        for number, key in enumerate(keys.split(), start=first):
            self.press(key)
            self.at(number + 1)

    def sent(self) -> None:
        """Wait until the server has every decision."""
        self.page.wait_for_function(
            "() => !document.getElementById('counts').textContent.includes('waiting')"
        )

    def asked(self, start: str) -> int:
        return sum(count for path, count in self.requests.items() if path.startswith(start))

    def dom_rows(self) -> int:
        return self.page.locator("#list .row").count()

    def text(self, selector: str) -> str:
        return self.page.locator(selector).inner_text()


@pytest.fixture
def work(tmp_path):
    """40 samples; (work folder, ids)."""
    ids = make_work(tmp_path, [png(number) for number in range(40)])
    return tmp_path / "work", ids


@pytest.fixture
def review(work, context):
    with ReviewProgram(work[0]) as program:
        opened = ReviewPage(context, program.url)
        yield opened
        assert opened.problems == []


def actions(work) -> list[tuple[int, str]]:
    """(number of the sample, action) of every line in the log."""
    folder, ids = work
    return [(ids.index(line["id"]), line["action"]) for line in log_lines(folder)]


def test_sixty_thousand_rows_scroll_without_loading_all(tmp_path_factory, context):
    folder = tmp_path_factory.mktemp("many")
    make_work(folder, [png(number) for number in range(ROWS)])
    with ReviewProgram(folder / "work") as program:
        opened = ReviewPage(context, program.url)
        assert opened.text("#position") == "1 of 60,000"
        row = opened.page.locator("#list .row")
        most = opened.dom_rows()
        places = [
            place - (11 - step) * 0.004 for place in (0.1, 0.95, 0.3, 0.5, 0.7, 1.0) for step in range(12)
        ]
        for number, place in enumerate(places, start=1):  # as a hand drags the bar, and rests now and then
            opened.page.evaluate("place => { list.scrollTop = place * list.scrollHeight; }", place)
            opened.page.evaluate("() => new Promise(requestAnimationFrame)")
            most = max(most, opened.dom_rows())
            if number % 12 == 0:
                wanted = f"(number {min(ROWS, round(place * ROWS)) - 1})"
                row.filter(has_text=wanted).wait_for(state="attached")
        visited = len(places) + 1
        assert opened.asked("api/rows") <= 2 * visited < ROWS / 100 / 4
        assert opened.asked("thumbnail/") <= 30 * visited
        assert most <= 30
        opened.page.wait_for_function(
            "() => [...document.querySelectorAll('#list .row img')].some(i => i.naturalWidth)"
        )
        opened.press("End")
        opened.at(ROWS)
        opened.press("k Home")
        opened.at(1)
        opened.sent()
        assert [line["action"] for line in log_lines(folder / "work")] == ["keep"]
        assert opened.asked("image/") <= 12
        assert opened.problems == []


def test_keep_drop_undo_and_edit_by_keyboard_reach_the_log(work, review):
    review.decide("k d")
    assert "Rule: left out, simple fits less" in review.text("#verdict")
    review.decide("k", first=3)
    review.press("u")
    review.at(3)
    assert "Undecided" in review.text("#verdict")
    review.press("Control+z")
    review.at(2)
    assert "Undecided" in review.text("#verdict")
    review.press("e")
    review.page.keyboard.type(" kd")  # letters are text while a prompt is edited
    review.press("Control+Enter")
    review.press("Shift+E Control+a")
    review.page.keyboard.type("nothing of this stays")
    review.press("Escape d")
    review.at(3)
    review.sent()
    found = read_decisions(work[0])
    first, second = (found[id] for id in work[1][:2])
    assert actions(work) == [
        (0, "keep"), (1, "drop"), (2, "keep"), (2, "undo"), (1, "undo"), (1, "edit"), (1, "drop"),
    ]  # fmt: skip
    assert (first.verdict, second.verdict) == ("keep", "drop")
    assert (second.simple, second.complex) == ("two cats (number 1) kd", "")
    assert review.text("#counts").startswith("1 kept · 1 dropped · 38 to go")
    assert review.page.locator("#row-1 .mark").inner_text() == "✕✎"


def test_undo_goes_on_after_the_page_is_opened_again(work, context):
    with ReviewProgram(work[0]) as program:
        first = ReviewPage(context, program.url)
        first.decide("k k k")
        first.sent()
        first.page.reload()
        first.at(4)  # the first undecided one
        first.press("u")
        first.at(3)
        first.page.locator("#verdict").get_by_text("Undecided").wait_for()
        first.press("u")
        first.at(2)
        first.sent()
    assert [action for _, action in actions(work)] == ["keep"] * 3 + ["undo"] * 2
    assert read_decisions(work[0]).keys() == {work[1][0]}


def test_the_server_killed_and_started_again_has_every_decision_and_the_page_goes_on(work, context):
    with ReviewProgram(work[0]) as program:
        opened = ReviewPage(context, program.url)
        opened.decide("k d k")
        opened.sent()
        opened.page.wait_for_load_state("networkidle")  # the next ones are fetched ahead
        program.kill()
        opened.decide("d k", first=4)
        opened.page.get_by_role("alert").get_by_text("2 decisions wait in this browser").wait_for()
        assert "python -m train surd review" in opened.text("#gone code")
    with ReviewProgram(work[0], "anna", program.port):
        opened.sent()
        opened.page.locator("#gone").wait_for(state="hidden")
        opened.at(6)
        opened.press("d")
        opened.at(7)
        opened.sent()
        assert actions(work) == [(n, "drop" if n % 2 else "keep") for n in range(3)] + [
            (3, "drop"),
            (4, "keep"),
            (5, "drop"),
        ]
        assert opened.text("#counts").startswith("3 kept · 3 dropped")
    assert opened.problems == []


def test_what_could_not_be_sent_outlives_the_page(work, context):
    with ReviewProgram(work[0]) as program:
        opened = ReviewPage(context, program.url)
        program.kill()
        opened.press("k")
        opened.page.get_by_role("alert").get_by_text("1 decision waits").wait_for()
        opened.page.close()
    with ReviewProgram(work[0], "anna", program.port) as program:
        page = context.new_page()
        page.goto(program.url)
        page.get_by_text("1 kept · 0 dropped").wait_for()
    assert actions(work) == [(0, "keep")]


def test_words_being_typed_outlive_the_server(work, context):
    with ReviewProgram(work[0]) as program:
        opened = ReviewPage(context, program.url)
        opened.page.wait_for_load_state("networkidle")  # the next one is fetched ahead
        program.kill()
        opened.decide("k")
        opened.page.get_by_role("alert").get_by_text("1 decision waits").wait_for()
        opened.press("e")
        opened.page.keyboard.type(" half")
    with ReviewProgram(work[0], "anna", program.port):
        opened.page.locator("#gone").wait_for(state="hidden")
        opened.sent()
        opened.page.wait_for_load_state("networkidle")
        opened.page.keyboard.type(" kd written")  # no command, and the first half is there still
        opened.press("Control+Enter")
        opened.page.locator("#list:not([aria-busy])").wait_for()
        opened.at(2)
        opened.sent()
        assert opened.page.input_value("#simple") == "two cats (number 1) half kd written"
    assert actions(work) == [(0, "keep"), (1, "edit")]
    assert read_decisions(work[0])[work[1][1]].simple == "two cats (number 1) half kd written"
    assert opened.problems == []


def test_a_prompt_that_changed_while_the_page_was_open_is_shown_and_not_vouched_for(work, review):
    caption_anew(work[0], work[1][0], "three boats")
    caption_anew(work[0], work[1][1], "four boats")
    review.press("k")
    review.page.get_by_text("prompts of mine/00000.png have changed").wait_for()
    review.at(2)
    review.page.wait_for_function("() => document.getElementById('simple').value === 'four boats'")
    review.decide("k", first=2)
    review.sent()
    assert review.text("#counts").startswith("1 kept · 0 dropped")
    review.page.select_option("#filter", "changed")
    review.at(1)
    assert review.text("#position") == "1 of 1" and review.text("#name") == "mine/00000.png"
    assert review.page.input_value("#simple") == "three boats"
    assert "The text has changed. Before, anna had kept it" in review.text("#verdict")
    assert "Undecided" in review.text("#verdict")
    assert review.page.locator("#row-0 .mark").inner_text() == "↻"
    review.press("k")
    review.page.get_by_text("2 kept").wait_for()


def test_a_refused_decision_is_nothing_to_undo(work, review):
    review.decide("k")
    review.sent()
    refusal = {"status": 409, "json": {"error": "not this one"}}
    review.page.route("**/api/decisions", lambda route: route.fulfill(**refusal), times=1)
    review.press("d")
    review.page.get_by_text("A decision was refused: not this one").wait_for()
    review.at(3)
    review.press("u")
    review.at(1)
    review.sent()
    assert actions(work) == [(0, "keep"), (0, "undo")]


@pytest.mark.parametrize("full", [True, False])
def test_the_browser_asks_before_decisions_that_it_cannot_keep_are_lost(work, context, full):
    if full:
        context.add_init_script("Storage.prototype.setItem = () => { throw new Error('full'); }")
    with ReviewProgram(work[0]) as program:
        opened = ReviewPage(context, program.url)
        program.kill()
        opened.press("k")
        opened.page.get_by_role("alert").get_by_text("1 decision waits").wait_for()
        asked = []
        opened.page.on("dialog", lambda dialog: (asked.append(dialog.type), dialog.accept()))
        with opened.page.expect_event("close"):
            opened.page.close(run_before_unload=True)
    assert asked == ["beforeunload"] * full


def test_another_program_at_the_servers_port_gets_no_decision(work, context):
    asked = []

    class Other(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append((self.command, self.path.partition("?")[0], self.headers["Cookie"]))
            body = b'{"proof": "%s", "start": "x", "sample": {}}' % (b"0" * 64)
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_):
            pass

    with ReviewProgram(work[0]) as program:
        opened = ReviewPage(context, program.url)
        opened.page.wait_for_load_state("networkidle")
        program.kill()
        opened.press("k")
        opened.page.get_by_role("alert").get_by_text("1 decision waits").wait_for()
    other = http.server.ThreadingHTTPServer(("127.0.0.1", program.port), Other)
    threading.Thread(target=other.serve_forever, daemon=True).start()
    try:
        opened.page.wait_for_event("requestfinished", lambda request: "/api/proof" in request.url)
        opened.page.wait_for_event("requestfinished", lambda request: "/api/proof" in request.url)
    finally:
        other.shutdown()
        other.server_close()
    assert {(method, path, cookie) for method, path, cookie in asked if path.startswith("/api")} == {
        ("GET", "/api/proof", None)
    }
    with ReviewProgram(work[0], "anna", program.port):
        opened.sent()
    assert actions(work) == [(0, "keep")]


def test_a_file_that_only_the_user_can_read_opens_the_page(tmp_path, context):
    make_work(tmp_path, [png(0)])
    server = ReviewServer(tmp_path / "work", "anna", 0)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        door = server.door()
        opened = ReviewPage(context, door.as_uri())
        assert opened.text("#position") == "1 of 1" and opened.problems == []
        assert not door.exists()
    finally:
        server.shutdown()
        server.server_close()


def test_the_next_undecided_filters_sorts_and_search(work, review):
    review.decide("k")
    review.press("j")
    review.at(3)
    review.decide("d", first=3)
    review.press("Home n")
    review.at(2)
    review.page.select_option("#filter", "dropped")
    review.at(1)
    assert review.text("#position") == "1 of 1"
    assert review.text("#name") == "mine/00002.png"
    review.page.select_option("#filter", "undecided")
    review.page.select_option("#sort", "margin")
    review.page.locator("#list:not([aria-busy])").wait_for()
    review.press("Home")
    review.page.wait_for_function("() => document.getElementById('name').textContent === 'mine/00005.png'")
    review.press("/")
    review.page.keyboard.type("bicycle 8")
    review.page.wait_for_function(
        "() => /^1 of [1-9]$/.test(document.getElementById('position').textContent)"
    )
    assert actions(work) == [(0, "keep"), (2, "drop")]


def test_many_small_pictures_are_a_virtual_list_too(work, review):
    review.press("g")
    assert review.page.locator("#stage").is_hidden()
    columns = review.page.evaluate(
        "() => new Set([...list.querySelectorAll('.row')].map(row => row.getBoundingClientRect().left)).size"
    )
    assert columns >= 4 and review.dom_rows() < 40 + columns
    review.press("ArrowDown")
    review.at(columns + 1)
    review.decide("k", first=columns + 1)
    review.sent()
    assert actions(work) == [(columns, "keep")]


def test_a_prompt_cannot_become_part_of_the_page(tmp_path, context):
    ids = make_work(tmp_path, [png(0), png(1)])
    with ReviewProgram(tmp_path / "work") as program:
        opened = ReviewPage(context, program.url)
        opened.press("e Control+a")
        opened.page.keyboard.type("<img src=x onerror=\"document.title='taken'\">")
        opened.press("Control+Enter")
        opened.sent()
        assert opened.page.locator("#list .row img").count() == 2
        assert opened.page.title() == "Review work" and opened.problems == []
    assert read_decisions(tmp_path / "work")[ids[0]].simple.startswith("<img")


def test_another_origins_page_in_the_same_browser_gets_nothing(work, context, tmp_path):
    """It is even of the same site, another port of 127.0.0.1, so that the browser sends the cookie along."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=str(tmp_path))

        def log_message(self, *_):
            pass

    (tmp_path / "index.html").write_text("<!doctype html><title>other</title>")
    other = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet)
    threading.Thread(target=other.serve_forever, daemon=True).start()
    attack = """async ([base, id]) => {
      const body = JSON.stringify({id, action: 'drop', mark: 'mark-of-another'});
      const headers = {'Content-Type': 'application/json', 'X-Surd-Review': '1'};
      const tries = [
        fetch(base + '/api/state', {credentials: 'include'}),
        fetch(base + '/api/decisions', {method: 'POST', credentials: 'include', headers, body}),
        fetch(base + '/api/decisions', {method: 'POST', credentials: 'include', mode: 'no-cors', body}),
        new Promise((resolve, reject) => {
          const image = new Image();
          [image.onload, image.onerror] = [resolve, () => reject(new Error('no image'))];
          image.src = base + '/image/' + id;
        }),
      ];
      const results = await Promise.allSettled(tries);
      return results.map(r => r.status === 'rejected' ? 'refused' : r.value.type);
    }"""
    try:
        with ReviewProgram(work[0]) as program:
            ReviewPage(context, program.url)
            page = context.new_page()
            page.goto(f"http://127.0.0.1:{other.server_port}/")
            got = page.evaluate(attack, [f"http://127.0.0.1:{program.port}", work[1][0]])
            assert got == ["refused"] * 4
    finally:
        other.shutdown()
        other.server_close()
    assert actions(work) == []


CONTRASTS = """() => {
  const luminance = color => {
    const [r, g, b] = color.match(/[0-9.]+/g).slice(0, 3).map(Number)
      .map(c => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = element => {
    for (let at = element; at; at = at.parentElement) {
      const color = getComputedStyle(at).backgroundColor;
      if (!/, 0\\)$/.test(color)) return color;
    }
    return 'rgb(255, 255, 255)';
  };
  const shown = [...document.querySelectorAll('body *')].filter(element =>
    element.checkVisibility() && [...element.childNodes].some(n => n.nodeType === 3 && n.data.trim()));
  return shown.map(element => {
    const [a, b] = [getComputedStyle(element).color, ground(element)].map(luminance);
    return [(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), element.outerHTML.slice(0, 80)];
  });
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_word_can_be_read_in_light_and_dark(work, review, scheme):
    review.page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    review.decide("k d")
    review.press("e")
    review.page.keyboard.type("!")
    review.press("Control+Enter ArrowUp")
    review.at(2)
    review.sent()
    found = review.page.evaluate(CONTRASTS)
    assert len(found) > 40
    assert [words for ratio, words in found if ratio < 4.5] == []


def test_every_control_has_a_name_and_keys_reach_it(review):
    unnamed = review.page.evaluate(
        """() => [...document.querySelectorAll('button, input, select, textarea, [role=listbox]')]
          .filter(e => e.checkVisibility())
          .filter(e => !(e.ariaLabel || e.textContent.trim() && e.tagName === 'BUTTON' || e.labels?.length))
          .map(e => e.outerHTML)"""
    )
    assert unnamed == []
    reached = set()
    for _ in range(16):
        review.press("Tab")
        reached.add(review.page.evaluate("() => document.activeElement.id"))
    assert {"filter", "sort", "direction", "search", "list", "keep", "drop", "undo", "simple"} <= reached
    review.press("?")
    assert review.page.get_by_role("dialog", name="Keys").is_visible()
    review.press("k Escape")
    review.at(1)
