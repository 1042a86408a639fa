"""The help page of every node, in the frontend's help panel."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "web" / "docs"
NODES = sorted(path.stem for path in DOCS.glob("*.md"))


def test_every_node_has_a_page_and_every_page_a_node(server):
    ours = [
        name for name, info in server.get("/object_info").items() if info["category"].split("/")[0] == "SUR"
    ]
    assert sorted(ours) == NODES


@pytest.mark.parametrize("node_type", NODES)
def test_the_page_names_every_input(server, node_type):
    text = (DOCS / f"{node_type}.md").read_text()
    section = re.search(r"^## Inputs\n(.*?)^## ", text, re.DOTALL | re.MULTILINE)[1]
    # The table's first column, or bold before a sentence: a long name leaves a table no room in the panel.
    named = set(re.findall(r"\w+", " ".join(re.findall(r"^(?:\| |\*\*)([^|*]+)", section, re.MULTILINE))))
    if {"weight_1", "to", "weight_4"} <= named:
        named |= {"weight_2", "weight_3"}
    inputs = server.node_info(node_type)["input"]
    assert {*inputs["required"], *inputs.get("optional", {})} <= named


@pytest.mark.parametrize("node_type", NODES)
def test_the_help_panel_shows_the_page(frontend, node_type):
    page = frontend.page
    frontend.add(node_type)
    page.evaluate(
        "() => { app.canvas.selectNode(app.graph.nodes[0]); app.canvas.centerOnNode(app.graph.nodes[0]); }"
    )
    with page.expect_response(lambda answer: answer.url.endswith(f"/docs/{node_type}.md")) as answer:
        page.locator("[data-testid='info-button']").dispatch_event("click")
    assert answer.value.ok
    markdown = re.sub(r"!\[.*?\]\(.*?\)", "", (DOCS / f"{node_type}.md").read_text())  # pictures
    first = re.search(r"\w+ \w+ \w+", markdown)[0]
    panel = page.locator(".node-help-content", has_text=first)
    panel.wait_for()
    assert _words(panel.inner_text()) == _words(re.sub(r"^\d+\. ", "", markdown, flags=re.MULTILINE))
    assert panel.evaluate("e => e.scrollWidth <= e.clientWidth"), "the page is too wide for the panel"
    # The frontend asks for a translation first, which need not exist.
    assert [problem for problem in frontend.problems if f"/docs/{node_type}/en.md" not in problem] == []


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text)
