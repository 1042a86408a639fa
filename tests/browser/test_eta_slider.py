"""Eta sliders: the tick at the eta of training, and the double-click that goes there."""

from __future__ import annotations

import shutil
from contextlib import suppress

import pytest

from sur_core import save_adapter
from tests.helpers import random_adapter

TICK = "#e8a33d"
KNOWN, SAME, OTHER, UNKNOWN, FINE = (
    f"sliders/{name}.safetensors" for name in ("a", "b", "c", "none", "fine")
)
ETAS = {KNOWN: 0.3, SAME: 0.3, OTHER: 0.6, UNKNOWN: None, FINE: 0.125}

# Adds nodes [type, file or null] and wires [from, to, name of the input]
BUILD = """([types, wires]) => {
  const nodes = types.map(([type, file], at) => {
    const node = LiteGraph.createNode(type);
    app.graph.add(node);
    node.pos = [(at % 3) * 400, Math.floor(at / 3) * 350];
    if (file) node.widgets[0].value = file;
    return node;
  });
  for (const [from, to, name] of wires) {
    const slot = nodes[to].inputs.findIndex(input => input.name === name);
    nodes[from].connect(0, nodes[to], slot);
  }
  return nodes.map(node => node.id);
}"""
# x of every tick of one drawing, from the node's left edge in 0..1 of the slider
TICKS = """color => {
  const node = app.canvas.graph.nodes.find(n => n.widgets?.some(w => w.type === 'slider'));
  app.canvas.ds.scale = 1;
  app.canvas.centerOnNode(node);  // what is out of sight is not drawn
  const found = [], real = CanvasRenderingContext2D.prototype.fillRect;
  CanvasRenderingContext2D.prototype.fillRect = function (x, y, width, height) {
    if (this.fillStyle === color) found.push(x);
    return real.call(this, x, y, width, height);
  };
  try { app.canvas.draw(true, true); } finally { CanvasRenderingContext2D.prototype.fillRect = real; }
  return found.map(x => (x - 15) / (node.size[0] - 30));
}"""


# Where a point of a widget is on the page, x from the node's left edge in 0..1 of its width
PLACE = """([id, name, x]) => {
  const node = app.graph.getNodeById(id), widget = node.widgets.find(w => w.name === name);
  const {ds, canvas} = app.canvas, box = canvas.getBoundingClientRect();
  return [box.x + (node.pos[0] + node.size[0] * x + ds.offset[0]) * ds.scale,
          box.y + (node.pos[1] + widget.y + 10 + ds.offset[1]) * ds.scale];
}"""
IS_AT = """([id, name, eta]) =>
  app.graph.getNodeById(id)?.widgets.find(w => w.name === name).value === eta"""
PREPARE = """async () => {
  await app.refreshComboInNodes();
  window.cardOf = (await import('/extensions/sur-adapter/js/passport_card.js')).cardOf;
}"""
ANSWERED = """ids => ids.map(id => cardOf(app.graph.getNodeById(id))).every(card => !card || card.passport)"""


@pytest.fixture(scope="module")
def patient(opened):
    """A frontend that takes clicks of a slow machine for a double-click."""
    setting, key = "app.extensionManager.setting", "Comfy.Pointer.DoubleClickTime"
    usual = opened.page.evaluate(f"() => {setting}.get('{key}')")
    opened.page.evaluate(f"() => {setting}.set('{key}', 1000)")
    yield
    opened.page.evaluate(f"() => {setting}.set('{key}', {usual})")


@pytest.fixture(scope="module")
def files(server, opened, patient):
    """Adapters trained at different etas, listed while these tests run."""
    folder = server.base / "models" / "sur_adapters"
    for name, eta in ETAS.items():
        save_adapter(random_adapter("sd1", depth=1, feedforward=8, passport={"eta": eta}), folder / name)
    yield
    shutil.rmtree((folder / KNOWN).parent)
    opened.page.evaluate("() => app.refreshComboInNodes()")


@pytest.fixture
def build(frontend, files):
    """``build(nodes, wires)`` -> ids, when all cards have their answers."""
    frontend.page.evaluate(PREPARE)

    def make(nodes, wires):
        ids = frontend.page.evaluate(BUILD, [nodes, wires])
        frontend.page.wait_for_function(ANSWERED, arg=ids)
        frontend.forget()
        return ids

    return make


def ticks(frontend) -> list[float]:
    frontend.settle()
    return frontend.page.evaluate(TICKS, TICK)


def double_click(frontend, number: int, eta: float, name: str = "eta") -> None:
    """Double-click a slider that is at its far end, and wait until it is at ``eta``."""
    from playwright.sync_api import TimeoutError

    page = frontend.page
    frontend.click_widget(frontend.node(number), name, 0.9)
    assert value(frontend, number, name) > 0.8, "the click should have moved the slider"
    # Far from that click, or the three would be one.
    place = page.evaluate(PLACE, [number, name, 0.5])
    for _ in range(3):  # a busy machine can take more than a second between two clicks
        page.mouse.dblclick(*place)
        with suppress(TimeoutError):
            page.wait_for_function(IS_AT, arg=[number, name, eta], timeout=4000)
            return
    raise AssertionError(f"{name} is at {value(frontend, number, name)}, expected {eta}")


def value(frontend, number: int, name: str = "eta") -> float:
    return next(w["value"] for w in frontend.node(number)["widgets"] if w["name"] == name)


LOADER, APPLY = ["SURLoadAdapter", KNOWN], ["SURApplyConditioning", None]


@pytest.mark.parametrize(
    "nodes, wires, eta",
    [
        ([LOADER, APPLY], [(0, 1, "adapter")], 0.3),
        ([LOADER, APPLY], [], None),
        ([["SURLoadAdapter", UNKNOWN], APPLY], [(0, 1, "adapter")], None),
        ([["SURLoadAdapter", FINE], APPLY], [(0, 1, "adapter")], 0.125),
        ([LOADER, APPLY, ["Reroute", None]], [(0, 2, ""), (2, 1, "adapter")], 0.3),
        (
            [LOADER, APPLY, ["SURMergeAdapters", None], ["SURLoadAdapter", SAME]],
            [(0, 2, "adapter_1"), (3, 2, "adapter_2"), (2, 1, "adapter")],
            0.3,
        ),
        (
            [LOADER, APPLY, ["SURMergeAdapters", None], ["SURLoadAdapter", OTHER]],
            [(0, 2, "adapter_1"), (3, 2, "adapter_2"), (2, 1, "adapter")],
            None,
        ),
        (
            [LOADER, APPLY, ["SURMergeAdapters", None], ["SURLoadAdapter", UNKNOWN]],
            [(0, 2, "adapter_1"), (3, 2, "adapter_2"), (2, 1, "adapter")],
            None,
        ),
    ],
    ids=[
        "wired",
        "alone",
        "eta unknown",
        "between steps",
        "reroute",
        "merge alike",
        "merge other",
        "merge unknown",
    ],
)
def test_a_tick_marks_the_eta_of_training_where_it_is_known(frontend, build, nodes, wires, eta):
    build(nodes, wires)
    drawn = ticks(frontend)
    assert drawn == ([] if eta is None else [pytest.approx(eta, abs=1e-6)])
    assert frontend.problems == []


def test_the_tick_follows_another_file_and_a_cut_wire(frontend, build):
    _, apply = build([LOADER, APPLY], [(0, 1, "adapter")])
    frontend.page.evaluate(
        "file => { const w = app.graph.nodes[0].widgets[0]; w.value = file; w.callback(file); }", OTHER
    )
    frontend.page.wait_for_selector(".sur-passport >> text=eta 0.6", state="attached")
    assert ticks(frontend) == [pytest.approx(0.6)]
    frontend.page.evaluate("id => app.graph.getNodeById(id).disconnectInput(1)", apply)
    assert ticks(frontend) == []


def test_a_bypassed_merge_lets_its_first_adapter_through(frontend, build):
    build(
        [LOADER, APPLY, ["SURMergeAdapters", None], ["SURLoadAdapter", OTHER]],
        [(0, 2, "adapter_1"), (3, 2, "adapter_2"), (2, 1, "adapter")],
    )
    frontend.page.evaluate("() => { app.graph.nodes.find(n => n.type === 'SURMergeAdapters').mode = 4; }")
    assert ticks(frontend) == [pytest.approx(0.3)]


@pytest.mark.parametrize("packed", ["SURLoadAdapter", "SURApplyConditioning"])
def test_the_tick_is_found_through_the_border_of_a_subgraph(frontend, build, packed):
    build([LOADER, APPLY], [(0, 1, "adapter")])
    frontend.page.evaluate(
        """packed => {
          const node = app.graph.nodes.find(n => n.type === packed);
          const {node: container} = app.graph.convertToSubgraph(new Set([node]));
          if (packed !== 'SURLoadAdapter') app.canvas.openSubgraph(container.subgraph);
        }""",
        packed,
    )
    try:
        frontend.page.wait_for_timeout(500)
        assert ticks(frontend) == [pytest.approx(0.3)]
        assert frontend.problems == []
    finally:
        frontend.page.evaluate("() => { app.canvas.setGraph(app.graph.rootGraph ?? app.graph); }")


@pytest.mark.parametrize("file, eta", [(KNOWN, 0.3), (FINE, 0.125), (UNKNOWN, 0.1)])
def test_a_double_click_goes_to_the_eta_of_training_or_else_the_default(frontend, build, file, eta):
    _, apply = build([["SURLoadAdapter", file], APPLY], [(0, 1, "adapter")])
    double_click(frontend, apply, eta)
    assert frontend.prompt()[str(apply)]["inputs"]["eta"] == eta
    assert frontend.problems == []


@pytest.mark.parametrize(
    "kind, name",
    [
        ("SURApplyCLIP", "eta"),
        ("SURApplyPair", "eta_positive"),
        ("SURApplyPair", "eta_negative"),
        ("SURInspect", "eta"),
    ],
)
def test_every_eta_slider_has_it(frontend, build, kind, name):
    _, apply = build([LOADER, [kind, None]], [(0, 1, "adapter")])
    double_click(frontend, apply, 0.3, name)
    assert frontend.prompt()[str(apply)]["inputs"][name] == 0.3


def test_without_an_adapter_a_double_click_goes_to_the_default(frontend, build):
    (apply,) = build([APPLY], [])
    double_click(frontend, apply, 0.1)


def test_a_double_click_can_be_undone(frontend, build):
    _, apply = build([LOADER, APPLY], [(0, 1, "adapter")])
    double_click(frontend, apply, 0.3)
    frontend.page.keyboard.press("Control+z")
    frontend.page.wait_for_function(IS_AT, arg=[apply, "eta", 0.5])  # where its first click was


def test_clicks_on_two_sliders_at_one_place_are_no_double_click(frontend, build):
    first, second = build([APPLY, APPLY], [])
    for number in (first, second):
        frontend.page.evaluate("id => app.canvas.bringToFront(app.graph.getNodeById(id))", number)
        frontend.click_widget(frontend.node(number), "eta", 0.5)  # always in the middle of the page
    assert (value(frontend, first), value(frontend, second)) == (0.5, 0.5)


@pytest.mark.parametrize("clicked", [0.25, 0.75])
def test_the_value_of_the_slider_reaches_the_prompt(frontend, build, clicked):
    _, apply = build([LOADER, APPLY], [(0, 1, "adapter")])
    node = frontend.node(apply)
    frontend.click_widget(node, "eta", clicked)
    shown = value(frontend, apply)
    assert shown == pytest.approx(clicked, abs=0.05) and shown * 100 == pytest.approx(round(shown * 100))
    inputs = frontend.prompt()[str(apply)]["inputs"]
    assert inputs["eta"] == shown
    assert set(inputs) == {"adapter", "eta", "start_percent", "end_percent"}
