"""ComfyUI's real frontend in a headless Chromium: open it, load workflows, read back what it shows."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

FLAGS = [
    "--no-sandbox",  # containers run as root
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # only the local server can be reached
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
START_MS = 120_000
ACTION_MS = 15_000
SETTINGS = {
    "Comfy.TutorialCompleted": True,
    "Comfy.Locale": "en",
    "Comfy.VueNodes.Enabled": False,  # nodes are drawn on the canvas, where drawn_text() finds them
    "Comfy.Graph.CanvasInfo": False,
}

# The frontend shows its default workflow last; anything loaded before that would be replaced by it.
READY = """() => window.app?.extensionManager?.workflow?.activeWorkflow?.isLoaded
  && app.graph?.nodes.length > 0"""

ADD = """type => {
  const node = LiteGraph.createNode(type);
  if (!node) return null;
  app.graph.add(node);
  return node.id;
}"""

READ = """() => {
  const slot = s => ({
    name: s.name, label: s.label ?? s.localized_name ?? s.name, type: s.type,
    link: s.link ?? null, links: s.links ?? null, widget: s.widget?.name ?? null});
  const shown = ['min', 'max', 'step', 'step2', 'on', 'off'];
  const widget = w => ({
    name: w.name, label: w.label ?? w.name, kind: w.type, value: w.value,
    options: Object.fromEntries(shown.map(key => [key, w.options?.[key]]))});
  return app.graph.nodes.map(n => ({
    id: n.id, type: n.type, title: n.title, pos: [...n.pos], size: [...n.size],
    known: n.type in LiteGraph.registered_node_types, category: n.constructor.category,
    inputs: (n.inputs ?? []).map(slot), outputs: (n.outputs ?? []).map(slot),
    widgets: (n.widgets ?? []).map(widget)}));
}"""

# A canvas has no text to read, so each fillText of one drawing is noted, with its box in the graph's
# coordinates. At scale 1: smaller scales leave text out.
DRAWN_TEXT = """() => {
  const canvas = app.canvas, {ds} = canvas, was = [ds.scale, ...ds.offset], texts = [];
  const corner = axis => Math.min(...app.graph.nodes.map(n => n.pos[axis]));
  [ds.scale, ds.offset[0], ds.offset[1]] = [1, 100 - corner(0), 100 - corner(1)];
  const real = CanvasRenderingContext2D.prototype.fillText;
  CanvasRenderingContext2D.prototype.fillText = function (text, x, y, ...more) {
    const m = this.measureText(text), t = this.getTransform();
    const left = x + t.e / devicePixelRatio - ds.offset[0], base = y + t.f / devicePixelRatio - ds.offset[1];
    texts.push({text: String(text),
      left: left - m.actualBoundingBoxLeft, right: left + m.actualBoundingBoxRight,
      top: base - m.actualBoundingBoxAscent, bottom: base + m.actualBoundingBoxDescent});
    return real.call(this, text, x, y, ...more);
  };
  try {
    canvas.draw(true, true);
  } finally {
    CanvasRenderingContext2D.prototype.fillText = real;
    [ds.scale, ds.offset[0], ds.offset[1]] = was;
  }
  return texts;
}"""

# Where a point of the graph is on the page, at scale 1.
TO_PAGE = """([x, y]) => {
  const {ds, canvas} = app.canvas, box = canvas.getBoundingClientRect();
  [ds.scale, ds.offset[0], ds.offset[1]] = [1, box.width / 2 - x, box.height / 2 - y];
  app.canvas.draw(true, true);
  return [box.x + box.width / 2, box.y + box.height / 2];
}"""

WIDGET_PLACE = """([id, name]) => {
  const node = app.graph.getNodeById(id), widget = node.widgets.find(w => w.name === name);
  return [node.pos[0], node.pos[1] + widget.y + 10, node.size[0]];
}"""


def chromium() -> str | None:
    """The browser to test with: the environment's CHROMIUM, else the first one found."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)


def missing() -> str:
    """Why there is no browser to test with, or ``""``."""
    if importlib.util.find_spec("playwright") is None:
        return "no browser tests: playwright is not installed (pip install playwright)"
    path = chromium()
    if not path or not shutil.which(path):
        return "no browser tests: no Chromium found; CHROMIUM names one"
    return ""


class Frontend:
    """One open page.

    Attributes:
        page: playwright's page.
        problems: errors of the page, its console and its requests since the last :meth:`forget`.
    """

    def __init__(self, page, url: str):
        self.page = page
        self.url = url
        self.problems: list[str] = []
        page.on("pageerror", lambda error: self.problems.append(f"page: {error}"))
        page.on("console", self._note_console)
        page.on("response", self._note_response)

    def _note_console(self, message) -> None:
        # Failed requests are noted with their address by _note_response.
        if message.type == "error" and "Failed to load resource" not in message.text:
            self.problems.append(f"console: {message.text}")

    def _note_response(self, response) -> None:
        if response.status >= 400:
            self.problems.append(f"{response.status}: {response.url.removeprefix(self.url)}")

    def open(self) -> None:
        for name, value in SETTINGS.items():
            self.page.request.post(f"{self.url}/api/settings/{name}", data=json.dumps(value))
        self.page.set_default_timeout(ACTION_MS)
        self.page.goto(self.url, timeout=START_MS)
        self.page.wait_for_function(READY, timeout=START_MS)
        self.page.wait_for_load_state("networkidle", timeout=START_MS)
        self.page.evaluate("() => document.fonts.ready.then(() => null)")

    def forget(self) -> None:
        self.problems.clear()

    def load(self, workflow: dict) -> list[dict]:
        """Open a workflow in the UI's format, as dropping its file does; returns its nodes."""
        self.page.evaluate("workflow => app.loadGraphData(workflow, true, true, null)", workflow)
        self.settle()
        return self.nodes()

    def prompt(self) -> dict:
        """The workflow as the Run button would send it: ``{id: {"class_type", "inputs"}}``."""
        return self.page.evaluate("async () => (await app.graphToPrompt()).output")

    def clear(self) -> None:
        """An empty graph, and no window before it: a failed test leaves its messages open."""
        for close in self.page.locator(".p-dialog-close-button").all():
            close.click()
        self.page.evaluate("() => app.graph.clear()")

    def add(self, node_type: str) -> dict:
        """Add a node as the menu does, at its default size; returns it."""
        number = self.page.evaluate(ADD, node_type)
        assert number is not None, f"the frontend knows no node {node_type}"
        self.settle()
        return self.node(number)

    def nodes(self) -> list[dict]:
        return self.page.evaluate(READ)

    def node(self, number: int) -> dict:
        return next(node for node in self.nodes() if node["id"] == number)

    def click_widget(self, node: dict, name: str, x: float) -> None:
        """Click a widget with the mouse, ``x`` from the node's left edge in 0..1 of its width."""
        left, y, width = self.page.evaluate(WIDGET_PLACE, [node["id"], name])
        self.page.mouse.click(*self.page.evaluate(TO_PAGE, [left + x * width, y]))
        self.settle()

    def drawn_text(self) -> list[dict]:
        """Every text of one drawing of the canvas, with its box in the graph's coordinates."""
        return self.page.evaluate(DRAWN_TEXT)

    def settle(self) -> None:
        """Let two frames pass: the canvas and the widgets over it follow the graph by then."""
        self.page.evaluate("() => new Promise(r => requestAnimationFrame(() => requestAnimationFrame(r)))")


@contextmanager
def open_frontend(url: str, width: int = 1400, height: int = 900) -> Iterator[Frontend]:
    """The frontend of the ComfyUI server at ``url``, ready to use."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright, frontend_in(playwright, url, width, height) as frontend:
        yield frontend


@contextmanager
def frontend_in(playwright, url: str, width: int = 1400, height: int = 900) -> Iterator[Frontend]:
    """:func:`open_frontend` where playwright runs already."""
    browser = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
    try:
        frontend = Frontend(browser.new_page(viewport={"width": width, "height": height}), url)
        frontend.open()
        yield frontend
    finally:
        browser.close()
