"""The nodes, the card and the help pages in Chinese; and in a language without translation, in English."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.browser.frontend import READY, START_MS
from tests.helpers import NODE_NAMES

PACK = Path(__file__).resolve().parents[2]
CHINESE = json.loads((PACK / "locales" / "zh" / "nodeDefs.json").read_text(encoding="utf8"))
CARD = json.loads((PACK / "locales" / "zh" / "main.json").read_text(encoding="utf8"))["surAdapter"]
PICTURE = r"!\[.*?\]\((.*?)\)"
LOADED = """images => Promise.all(images.map(
  image => image.decode().catch(() => {}).then(() => [image.src, image.naturalWidth])))"""


def speak(frontend, language: str) -> None:
    """Set the language and open the page anew, as choosing it in the settings does."""
    page = frontend.page
    page.request.post(f"{frontend.url}/api/settings/Comfy.Locale", data=json.dumps(language))
    page.reload(timeout=START_MS)
    page.wait_for_function(READY, timeout=START_MS)
    page.wait_for_load_state("networkidle", timeout=START_MS)
    frontend.clear()
    frontend.forget()


@pytest.fixture(scope="module")
def chinese(opened):
    speak(opened, "zh")
    yield opened
    speak(opened, "en")


@pytest.fixture(scope="module")
def german(opened):
    speak(opened, "de")
    yield opened
    speak(opened, "en")


def card_text(frontend) -> str:
    """Of the only node. Other tests may have left files, of which the first is chosen, and the page looking
    elsewhere or from far, where the frontend hides what is on a node.
    """
    frontend.page.evaluate(
        """() => {
          const [node] = app.graph.nodes, [file] = node.widgets;
          file.value = "ours.safetensors";
          file.callback(file.value);
          app.canvas.ds.scale = 1;
          app.canvas.centerOnNode(node);
        }"""
    )
    return frontend.page.wait_for_selector(".sur-passport[data-state=ok]:visible").inner_text()


def help_page(frontend, node_type: str, address: str):
    """The help panel for a node, after the page has come from ``address``."""
    frontend.clear()
    frontend.forget()
    frontend.add(node_type)
    frontend.page.evaluate(
        "() => { app.canvas.selectNode(app.graph.nodes[0]); app.canvas.centerOnNode(app.graph.nodes[0]); }"
    )
    with frontend.page.expect_response(lambda answer: answer.url.endswith(address)) as answer:
        frontend.page.locator("[data-testid='info-button']").dispatch_event("click")
    assert answer.value.ok
    heading = re.search(r"^## (\w+)", answer.value.text(), re.MULTILINE)[1]
    panel = frontend.page.locator(".node-help-content", has_text=heading)
    panel.wait_for()
    assert panel.evaluate("e => e.scrollWidth <= e.clientWidth"), "the page is too wide for the panel"
    return panel


def letters(text: str) -> str:
    return "".join(re.findall(r"\w+", text))


@pytest.mark.parametrize("node_type", NODE_NAMES)
def test_a_node_is_chinese_with_the_language_set(chinese, node_type):
    chinese.clear()
    node, words = chinese.add(node_type), CHINESE[node_type]
    assert node["title"] == words["display_name"]
    for slot in node["inputs"]:
        assert slot["label"] == words["inputs"][slot["name"]]["name"]
    for widget in node["widgets"]:
        if widget["name"] in words["inputs"]:
            assert widget["label"] == words["inputs"][widget["name"]]["name"]
    assert chinese.problems == []


def test_the_card_is_chinese(chinese):
    chinese.clear()
    chinese.add("SURLoadAdapter")
    card = card_text(chinese)
    for word in ("llm", "training", "file"):
        assert CARD[word] in card
    assert "SD 1.x · 768 维" in card or "SD 2.x · 1024 维" in card


@pytest.mark.parametrize("node_type", NODE_NAMES)
def test_the_help_page_is_chinese(chinese, node_type):
    panel = help_page(chinese, node_type, f"/docs/{node_type}/zh.md")
    shown = panel.inner_text()
    markdown = (PACK / "web" / "docs" / node_type / "zh.md").read_text(encoding="utf8")
    pictures = re.findall(PICTURE, markdown)
    markdown = re.sub(PICTURE, "", markdown)
    assert letters(shown) == letters(re.sub(r"^\d+\. ", "", markdown, flags=re.MULTILINE))
    assert "**" not in shown and "`" not in shown
    loaded = panel.locator("img").evaluate_all(LOADED)
    assert [address.rsplit("/docs/")[-1] for address, _ in loaded] == pictures and pictures
    assert all(width > 0 for _, width in loaded), loaded
    assert chinese.problems == []


def test_a_language_without_translation_falls_back_to_english(german):
    german.clear()
    node = german.add("SURLoadAdapter")
    assert node["title"] == "Load SUR Adapter"
    card = card_text(german)
    assert "training" in card and "file" in card
    assert german.problems == []


def test_its_help_page_is_english(german):
    panel = help_page(german, "SURLoadAdapter", "/docs/SURLoadAdapter.md")
    assert "Put the file into" in panel.inner_text()
