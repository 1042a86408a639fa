"""The passport card on Load SUR Adapter."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from sur_core import save_adapter
from tests.helpers import random_adapter

EXAMPLES = sorted((Path(__file__).resolve().parents[2] / "example_workflows").glob("*.json"))
OLD = Path(__file__).with_name("workflow_before_the_card.json")
CARDS = """() => [...document.querySelectorAll('.sur-passport')].filter(e => e.checkVisibility())
  .map(e => [e.dataset.state, e.innerText])"""
LOOK = """() => {
  app.canvas.ds.scale = 1;
  app.canvas.centerOnNode(app.graph.nodes.find(n => n.comfyClass === 'SURLoadAdapter'));
}"""
CARD_HEIGHT = "() => document.querySelector('.sur-passport').getBoundingClientRect().height"
# Of each piece of text: of what kind it is, its color and the card's ground.
TEXTS = """() => {
  const pen = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
  const drawn = color => {  // as painted, because a mixed color is not told as rgb
    pen.clearRect(0, 0, 1, 1);
    pen.fillStyle = color;
    pen.fillRect(0, 0, 1, 1);
    return [...pen.getImageData(0, 0, 1, 1).data];
  };
  const card = document.querySelector('.sur-passport');
  const ground = drawn(getComputedStyle(card).backgroundColor);
  return [...card.querySelectorAll('*')].filter(e => !e.childElementCount && e.innerText.trim())
    .map(e => [e.className || e.parentElement.className, drawn(getComputedStyle(e).color), ground]);
}"""
CHOOSE = """name => {
  const widget = app.graph.nodes[0].widgets.find(w => w.name === 'adapter_name');
  widget.value = name;
  widget.callback(name);
}"""
MARKUP = "<img src=x onerror=window.ran=1>"
PASSPORT = {
    "base_model": "Realistic Vision V2.0",
    "eta": 0.3,
    "llm_name": "huggyllama/llama-13b",
    "llm_layer": 39,
    "steps": 5000,
}


@pytest.fixture(scope="module")
def folder(server, opened):
    """The models folder with files for these tests in a subfolder, which is gone afterwards."""
    folder = server.base / "models" / "sur_adapters"
    own = folder / "cards"
    save_adapter(random_adapter("sd1", depth=1, feedforward=8, passport=PASSPORT), own / "known.safetensors")
    save_adapter(
        random_adapter("sd1", depth=1, feedforward=8, passport={"llm_name": MARKUP, "base_model": MARKUP}),
        own / "markup.safetensors",
    )
    (own / "broken.safetensors").write_bytes((own / "known.safetensors").read_bytes()[:9000])
    yield folder
    shutil.rmtree(own)
    opened.page.evaluate("() => app.refreshComboInNodes()")


@pytest.fixture
def loader(frontend, folder):
    """A Load SUR Adapter that knows all files; the card has come to rest."""
    frontend.page.evaluate("() => app.refreshComboInNodes()")
    node = frontend.add("SURLoadAdapter")
    frontend.page.evaluate(LOOK)
    wait(frontend, "ok", "error", "none")
    frontend.forget()
    return node


@pytest.fixture
def held(frontend):
    """Holds back the answers about a file: ``held(name)`` begins, ``release()`` sends all."""
    waiting, names = [], []

    def handle(route):
        if any(name in route.request.url for name in names):
            waiting.append(route)
        else:
            route.continue_()

    def release():
        names.clear()
        while waiting:
            waiting.pop().continue_()

    frontend.page.route("**/sur_adapter/passport*", handle)
    handle.hold, handle.release, handle.waiting = names.append, release, waiting
    yield handle
    release()
    frontend.page.unroute("**/sur_adapter/passport*")


def wait(frontend, *states: str) -> str:
    """The card's text, once it is in one of the states."""
    frontend.page.wait_for_selector(
        ",".join(f".sur-passport[data-state={state}]:visible" for state in states)
    )
    ((_, text),) = frontend.page.evaluate(CARDS)
    return text


def choose(frontend, name: str) -> None:
    frontend.page.evaluate(CHOOSE, name)


def test_it_shows_the_facts_of_the_chosen_file(frontend, loader):
    choose(frontend, "cards/known.safetensors")
    frontend.page.wait_for_selector(".sur-passport[data-state=ok] >> text=5,000 steps")
    lines = wait(frontend, "ok").splitlines()
    assert lines[:6] == [
        "SD 1.x · 768 wide",
        "LLM",
        "huggyllama/llama-13b, layer 39",
        "training",
        "5,000 steps, eta 0.3",
        "file",
    ]
    assert re.fullmatch(r"\d+(\.\d)? MiB, [0-9a-f]{10}", lines[6])
    assert lines[7:] == ["made for Realistic Vision V2.0"]
    assert frontend.problems == []


def test_what_is_not_in_the_file_is_said_and_warned_of(frontend, loader):
    choose(frontend, "more/sd2.safetensors")
    frontend.page.wait_for_selector(".sur-passport[data-state=ok] >> text=SD 2.x · 1024 wide")
    text = wait(frontend, "ok")
    assert text.count("not stored") == 4  # the LLM and the training; as warnings, the base model and eta
    assert "start at 0.1" in text


def test_the_authors_format_is_named_with_the_eta_of_its_folder(frontend, loader):
    choose(frontend, "test_llm13B_adapterw0.1/adapter_checkpoint5000.pt")
    frontend.page.wait_for_selector(".sur-passport[data-state=ok] >> text=eta 0.1")
    text = wait(frontend, "ok")
    assert "authors' format" in text and "made for Realistic Vision V2.0" in text


def test_a_broken_file_gives_a_clear_message_without_its_folder(frontend, loader, server):
    choose(frontend, "cards/broken.safetensors")
    text = wait(frontend, "error")
    assert text.startswith("This file is no usable adapter")
    assert "cards/broken.safetensors: not a readable adapter file" in text and "download it again" in text
    assert str(server.base) not in text
    assert frontend.problems == []


def test_a_file_that_is_not_there_is_told_without_asking_the_server(frontend, loader):
    choose(frontend, "somebody_elses.safetensors")
    assert "not in models/sur_adapters" in wait(frontend, "missing")
    assert frontend.problems == []


def test_clicking_through_the_dropdown_changes_the_card(frontend, loader):
    seen = set()
    for _ in range(3):
        before = frontend.page.evaluate(CARDS)
        frontend.click_widget(loader, "adapter_name", 0.93)  # the arrow to the next file
        frontend.page.wait_for_function(
            f"before => JSON.stringify(({CARDS})()) !== JSON.stringify(before)", arg=before
        )
        seen.add(wait(frontend, "ok", "error"))
    assert len(seen) == 3
    assert frontend.problems == []


def test_while_the_answer_is_on_its_way_it_says_so(frontend, loader, held):
    held.hold("known")
    choose(frontend, "cards/known.safetensors")
    assert wait(frontend, "reading") == "Reading the file…"
    held.release()
    assert "5,000 steps" in wait(frontend, "ok")


def test_a_late_answer_about_a_file_no_longer_chosen_is_dropped(frontend, loader, held):
    held.hold("known")
    choose(frontend, "cards/known.safetensors")
    wait(frontend, "reading")
    choose(frontend, "more/sd2.safetensors")
    assert "SD 2.x" in wait(frontend, "ok")
    with frontend.page.expect_response(lambda answer: "known" in answer.url):
        held.release()
    frontend.page.wait_for_timeout(300)
    assert "SD 2.x" in wait(frontend, "ok")


def test_a_server_that_does_not_answer_is_told(frontend, loader):
    frontend.page.route("**/sur_adapter/passport*", lambda route: route.abort())
    try:
        choose(frontend, "cards/known.safetensors")
        assert "Press R" in wait(frontend, "failed")
    finally:
        frontend.page.unroute("**/sur_adapter/passport*")
    assert frontend.problems == []


def test_pressing_r_reads_a_file_again_that_was_written_anew(frontend, loader, folder):
    path = folder / "cards" / "known.safetensors"
    choose(frontend, "cards/known.safetensors")
    frontend.page.wait_for_selector(".sur-passport >> text=5,000 steps")
    content = path.read_bytes()
    try:
        save_adapter(random_adapter("sd1", depth=1, feedforward=8, passport={"steps": 77}), path)
        frontend.page.locator("#graph-canvas").focus()
        frontend.page.keyboard.press("r")
        frontend.page.wait_for_selector(".sur-passport >> text=77 steps")
    finally:
        path.write_bytes(content)


def test_names_out_of_a_file_are_shown_as_text_and_never_become_part_of_the_page(frontend, loader):
    choose(frontend, "cards/markup.safetensors")
    frontend.page.wait_for_selector(".sur-passport[data-state=ok] >> text=onerror")
    assert wait(frontend, "ok").count(MARKUP) == 2
    assert frontend.page.locator(".sur-passport img").count() == 0
    assert frontend.page.evaluate("() => window.ran") is None


def test_a_name_that_comes_through_a_wire_is_not_guessed(frontend, loader):
    frontend.page.evaluate("""() => {
      const primitive = LiteGraph.createNode('PrimitiveNode');
      app.graph.add(primitive);
      const loader = app.graph.nodes.find(n => n.comfyClass === 'SURLoadAdapter');
      primitive.connect(0, loader, loader.inputs.findIndex(i => i.name === 'adapter_name'));
    }""")
    assert "through a wire" in wait(frontend, "wired")


@pytest.mark.parametrize("path", [OLD, *EXAMPLES], ids=lambda path: path.stem)
def test_a_saved_workflow_keeps_its_values_and_gets_no_new_ones(frontend, path):
    workflow = json.loads(path.read_text())
    frontend.load(workflow)
    saved = frontend.page.evaluate("() => app.graph.serialize()")
    assert values(saved) == values(workflow)
    assert wires(saved) == wires(workflow)
    for node in frontend.prompt().values():
        assert "passport_card" not in node["inputs"]


def test_a_workflow_from_before_the_card_sends_what_it_sent_and_makes_room_for_the_card(frontend):
    workflow = json.loads(OLD.read_text())
    (before,) = (node for node in workflow["nodes"] if node["type"] == "SURLoadAdapter")
    frontend.load(workflow)
    frontend.page.evaluate(LOOK)
    assert "not in models/sur_adapters" in wait(frontend, "missing")
    after = frontend.node(before["id"])
    assert after["pos"] == before["pos"] and after["size"][0] == before["size"][0]
    assert after["size"][1] >= before["size"][1] + frontend.page.evaluate(CARD_HEIGHT)
    sent = {
        node["class_type"]: node["inputs"]
        for node in frontend.prompt().values()
        if node["class_type"].startswith("SUR")
    }
    assert sent == {
        "SURLoadAdapter": {"adapter_name": "my_adapter.safetensors"},
        "SURApplyConditioning": {
            **{"conditioning": ["4", 0], "adapter": ["2", 0]},
            **{"eta": 0.1, "start_percent": 0, "end_percent": 1},
        },
    }
    assert frontend.problems == []


def wires(workflow: dict) -> list:
    """Number, both ends and type. The place among a node's inputs is the frontend's to change."""
    return sorted([link[:4], link[5]] for link in workflow["links"])


def values(workflow: dict) -> dict:
    return {node["id"]: node.get("widgets_values") or [] for node in workflow["nodes"]}


def test_a_loaded_workflow_shows_the_card_of_its_file(frontend, loader):
    choose(frontend, "cards/known.safetensors")
    workflow = frontend.page.evaluate("() => app.graph.serialize()")
    assert workflow["nodes"][0]["widgets_values"] == ["cards/known.safetensors"]
    frontend.clear()
    frontend.load(workflow)
    frontend.page.evaluate(LOOK)
    frontend.page.wait_for_selector(".sur-passport[data-state=ok] >> text=5,000 steps")
    assert frontend.prompt()["1"]["inputs"] == {"adapter_name": "cards/known.safetensors"}


def test_an_answer_does_not_change_the_workflow(frontend, loader, held):
    held.hold("known")
    choose(frontend, "cards/known.safetensors")
    wait(frontend, "reading")
    frontend.settle()
    before = frontend.page.evaluate("() => JSON.stringify(app.graph.serialize())")
    held.release()
    wait(frontend, "ok")
    frontend.settle()
    assert frontend.page.evaluate("() => JSON.stringify(app.graph.serialize())") == before


@pytest.mark.parametrize("palette", ["dark", "light"])
@pytest.mark.parametrize(
    "name, text, kinds",
    [
        ("cards/known", "made for Realistic Vision V2.0", {"title", "name", "value", "hash", "warning"}),
        ("cards/broken", "not a readable adapter file", {"title", "line"}),
        ("somebody_elses", "not in models/sur_adapters", {"line"}),
    ],
)
def test_it_can_be_read_in_dark_and_in_light(frontend, loader, palette, name, text, kinds):
    set_palette(frontend, palette)
    try:
        choose(frontend, f"{name}.safetensors")
        frontend.page.wait_for_selector(f".sur-passport >> text={text}")
        texts = frontend.page.evaluate(TEXTS)
        assert {kind for kind, *_ in texts} == kinds
        assert all(color[3] == 255 for _, *pair in texts for color in pair), "opaque"
        # 4.5 is what WCAG 2 asks of small text at level AA.
        assert [(kind, *pair) for kind, *pair in texts if contrast(*pair) < 4.5] == []
    finally:
        set_palette(frontend, "dark")


def set_palette(frontend, name: str) -> None:
    frontend.page.evaluate("name => app.extensionManager.setting.set('Comfy.ColorPalette', name)", name)
    frontend.settle()


def contrast(one: list[int], other: list[int]) -> float:
    """WCAG 2's contrast ratio of two opaque colors, 1..21."""
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(color: list[int]) -> float:
    channels = [value / 255 for value in color[:3]]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_in_vue_nodes_it_does_no_harm(frontend, loader):
    """This frontend does not draw any extension's own elements there; later ones do."""
    page = frontend.page
    choose(frontend, "cards/known.safetensors")
    workflow = page.evaluate("() => app.graph.serialize()")
    page.evaluate("() => app.extensionManager.setting.set('Comfy.VueNodes.Enabled', true)")
    try:
        frontend.load(workflow)
        page.wait_for_selector(".lg-node >> text=Load SUR Adapter")
        assert frontend.prompt()["1"]["inputs"] == {"adapter_name": "cards/known.safetensors"}
        assert values(page.evaluate("() => app.graph.serialize()")) == values(workflow)
        assert frontend.problems == []
    finally:
        page.evaluate("() => app.extensionManager.setting.set('Comfy.VueNodes.Enabled', false)")
        frontend.settle()
