"""The nodes as an artist sees them in the frontend."""

from __future__ import annotations

from itertools import combinations

import pytest

from tests.helpers import NODE_NAMES as NAMES

TITLE_HEIGHT = 30
ELEMENTS = ("customtext", "sur_passport")  # widgets that are parts of the page, over the canvas
SET_WIDGETS = """([kind, text]) => app.graph.nodes.flatMap(n => n.widgets ?? [])
  .filter(w => w.type === kind).forEach(w => { w.value = text ?? !w.value; })"""


@pytest.mark.parametrize("node_type", NAMES)
def test_a_node_can_be_added_under_its_name_and_category(frontend, node_type):
    node = frontend.add(node_type)
    category = "SUR/LLMDiff" if node_type.startswith("LLMDiff") else "SUR"
    assert (node["title"], node["category"]) == (NAMES[node_type], category)
    assert frontend.problems == []


def test_eta_is_a_slider_and_the_percents_are_numbers_from_0_to_1(frontend):
    widgets = {widget["name"]: widget for widget in frontend.add("SURApplyConditioning")["widgets"]}
    assert {name: widget["kind"] for name, widget in widgets.items()} == {
        "eta": "slider",
        "start_percent": "number",
        "end_percent": "number",
    }
    for widget in widgets.values():
        assert (widget["options"]["min"], widget["options"]["max"]) == (0, 1)
    assert _step(widgets["eta"]) == pytest.approx(0.01)
    assert {name: widget["value"] for name, widget in widgets.items()} == {
        "eta": 0.1,
        "start_percent": 0,
        "end_percent": 1,
    }


def _step(widget: dict) -> float:
    """LiteGraph's ``step`` is ten times the real one, for old nodes' sake; ``step2`` is the real one."""
    options = widget["options"]
    return options["step2"] or options["step"] / 10


@pytest.mark.parametrize("x", [0.0, 0.4, 1.0])
def test_clicking_the_eta_slider_sets_hundredths_from_0_to_1(frontend, x):
    node = frontend.add("SURApplyConditioning")
    frontend.click_widget(node, "eta", 0.07 + 0.86 * x)  # the slider's margin is 15 of about 290 pixels
    eta = frontend.node(node["id"])["widgets"][0]["value"]
    assert eta == pytest.approx(x, abs=0.03)
    assert eta * 100 == pytest.approx(round(eta * 100))


@pytest.mark.parametrize("node_type", NAMES)
def test_no_text_of_a_node_is_cut_off_or_on_top_of_another(frontend, node_type):
    number = frontend.add(node_type)["id"]
    # As with every loader, a long file name takes the room of its label; a short one must not.
    frontend.page.evaluate(SET_WIDGETS, ["combo", "ours.safetensors"])
    _check_text(frontend.node(number), frontend.drawn_text())
    frontend.page.evaluate(SET_WIDGETS, ["toggle", None])
    _check_text(frontend.node(number), frontend.drawn_text())


def _check_text(node: dict, drawn: list[dict]) -> None:
    (x, y), (width, height) = node["pos"], node["size"]
    # The badge with the pack's name stands above the title.
    inside = [text for text in drawn if text["text"] and text["bottom"] > y - TITLE_HEIGHT]
    words = [text["text"] for text in inside]
    for text in _texts(node):
        assert text in words or any(word.startswith(text + "  ") for word in words), (
            f"{text!r} not in {words}"
        )
    for text in inside:
        assert x <= text["left"] and text["right"] <= x + width, f"{text} leaves the node, {width} wide"
        assert text["bottom"] <= y + height, f"{text} is below the node, {height} high"
    for one, other in combinations(inside, 2):
        apart = one["right"] <= other["left"] or other["right"] <= one["left"]
        apart = apart or one["bottom"] <= other["top"] or other["bottom"] <= one["top"]
        assert apart, f"{one} and {other} are on top of each other"


def _texts(node: dict) -> list[str]:
    """What must be readable: the title, the name of every slot, the label of every widget, and its value."""
    slots = [slot["label"] for slot in node["inputs"] + node["outputs"] if not slot["widget"]]
    values = []
    for widget in node["widgets"]:
        if widget["kind"] == "toggle":
            values.append(widget["options"]["on" if widget["value"] else "off"])
        elif widget["kind"] in ("text", "combo"):
            values.append(widget["value"])
    labels = [widget["label"] for widget in node["widgets"] if widget["kind"] not in ELEMENTS]
    return [node["title"], *slots, *labels, *values]
