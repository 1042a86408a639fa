"""The shipped example workflows, opened in the frontend."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path

import pytest

from pictures.templates import TEMPLATES

FOLDER = Path(__file__).resolve().parents[2] / "example_workflows"
WORKFLOWS = sorted(path.stem for path in FOLDER.glob("*.json"))
MODEL_FILES = ("ckpt_name", "adapter_name", "lora_name", "control_net_name")  # each artist has others
MODEL_FOLDERS = ("llm_name",)
TITLE_HEIGHT = 30

LINKS = """() => [...app.graph.links.values()].map(
  l => [l.id, l.origin_id, l.origin_slot, l.target_id, l.target_slot, l.type])"""


@pytest.fixture(params=WORKFLOWS)
def workflow(request) -> dict:
    return json.loads((FOLDER / f"{request.param}.json").read_text())


@pytest.mark.parametrize("name", WORKFLOWS)
def test_an_example_has_a_small_picture(name):
    picture = (FOLDER / f"{name}.jpg").read_bytes()
    assert picture[:2] == b"\xff\xd8" and len(picture) < 300_000


def test_it_loads_without_an_error_or_an_unknown_node(frontend, workflow):
    nodes = frontend.load(workflow)
    assert [node["type"] for node in nodes if not node["known"]] == []
    assert sorted(node["id"] for node in nodes) == sorted(node["id"] for node in workflow["nodes"])
    assert frontend.page.locator(".p-dialog").all_inner_texts() == []
    assert frontend.problems == []


def test_every_wire_arrives_at_a_slot_of_its_type(frontend, server, workflow):
    nodes = {node["id"]: node for node in frontend.load(workflow)}
    links = frontend.page.evaluate(LINKS)
    assert sorted(links) == sorted(workflow["links"])
    for number, origin, out, target, into, kind in links:
        source, sink = nodes[origin]["outputs"][out], nodes[target]["inputs"][into]
        assert (source["type"], sink["type"]) == (kind, kind)
        assert number in source["links"] and number == sink["link"]
    for node in nodes.values():
        needed = server.node_info(node["type"])["input"]["required"] if node["type"] != "Note" else {}
        unwired = [slot["name"] for slot in node["inputs"] if slot["link"] is None and not slot["widget"]]
        assert needed.keys().isdisjoint(unwired), f"{node['title']} needs {unwired}"


@pytest.mark.parametrize("make", TEMPLATES, ids=lambda make: make.__name__)
def test_the_run_button_sends_what_the_description_says(frontend, make):
    """So the runs of tests/comfyui/test_templates.py are runs of the shipped files."""
    flow = make()
    frontend.load(json.loads((FOLDER / f"{flow.name}.json").read_text()))
    sent = {
        number: {"class_type": node["class_type"], "inputs": node["inputs"]}
        for number, node in frontend.prompt().items()
    }
    assert sent == flow.api()


def test_every_value_is_in_its_place_and_one_the_node_accepts(frontend, server, workflow):
    frontend.load(workflow)
    prompt = frontend.prompt()
    assert len(prompt) == sum(node["type"] != "Note" for node in workflow["nodes"])
    for node in prompt.values():
        info = server.node_info(node["class_type"])["input"]
        for name, (kind, *options) in info["required"].items():
            assert name in node["inputs"], f"{node['class_type']} lacks {name}"
            value = node["inputs"][name]
            if not isinstance(value, list) and name not in MODEL_FILES + MODEL_FOLDERS:
                assert _accepts(kind, options[0] if options else {}, value), (node["class_type"], name, value)
            if name in MODEL_FILES:
                assert value.endswith(".safetensors")


def _accepts(kind, options: dict, value) -> bool:
    if kind == "STRING":
        return isinstance(value, str) and bool(value)
    if kind == "BOOLEAN":
        return isinstance(value, bool)
    if kind in ("INT", "FLOAT"):
        return isinstance(value, (int, float)) and options["min"] <= value <= options["max"]
    choices = kind if isinstance(kind, list) else options["options"]
    return value in choices


def test_first_steps_compares_the_same_picture_with_and_without_the_adapter(frontend):
    frontend.load(json.loads((FOLDER / "sur_first_steps.json").read_text()))
    prompt = frontend.prompt()
    apply = next(number for number, node in prompt.items() if node["class_type"] == "SURApplyConditioning")
    one, other = (node["inputs"] for node in prompt.values() if node["class_type"] == "KSampler")
    if other["positive"][0] == apply:
        one, other = other, one
    assert one["positive"] == [apply, 0]
    assert other["positive"] == prompt[apply]["inputs"]["conditioning"]
    assert {**one, "positive": None} == {**other, "positive": None}  # seed and all
    values = prompt[apply]["inputs"]
    assert (values["eta"], values["start_percent"], values["end_percent"]) == (0.1, 0, 1)


def test_the_sweep_labels_each_picture_with_its_eta(frontend):
    frontend.load(json.loads((FOLDER / "sur_eta_sweep.json").read_text()))
    prompt = frontend.prompt()
    nodes = {node["class_type"]: (number, node["inputs"]) for number, node in prompt.items()}
    sweep = nodes["SUREtaSweep"][0]
    assert nodes["KSampler"][1]["positive"] == [sweep, 0]
    assert nodes["SURLabelGrid"][1]["images"] == [nodes["VAEDecode"][0], 0]
    assert nodes["SURLabelGrid"][1]["labels"] == [sweep, 1]


def test_nodes_do_not_cover_each_other(frontend, workflow):
    for one, other in combinations(frontend.load(workflow), 2):
        gap = max(
            max(one["pos"][0], other["pos"][0])
            - min(one["pos"][0] + one["size"][0], other["pos"][0] + other["size"][0]),
            max(one["pos"][1], other["pos"][1])
            - TITLE_HEIGHT
            - min(one["pos"][1] + one["size"][1], other["pos"][1] + other["size"][1]),
        )
        assert gap > 0, f"{one['title']} and {other['title']} overlap"
