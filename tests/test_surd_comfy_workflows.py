"""Where a picture holds only the workflow, what the browser would have sent is worked out from it."""

import json
from pathlib import Path

import pytest

from tests.surd_golden import read, save_png
from tests.surd_graphs import NEGATIVE, POSITIVE, Workflow, in_subgraph, plain, read_workflow

EXAMPLES = sorted((Path(__file__).parents[1] / "example_workflows").glob("*.json"))


@pytest.mark.parametrize("path", EXAMPLES, ids=[path.stem for path in EXAMPLES])
def test_our_example_workflows(path):
    """Their encoders are titled, so that it is known what should be found."""
    content = json.loads(path.read_text())
    titled = {node.get("title"): node for node in content["nodes"] if node["type"] == "CLIPTextEncode"}
    result = read_workflow(content)
    samples = any("KSampler" in node["type"] or "Guidance" in node["type"] for node in content["nodes"])
    assert bool(result.prompt) == samples
    if "Positive prompt" in titled:
        assert titled["Positive prompt"]["widgets_values"][0] in result.prompt
    if "Negative prompt" in titled:
        assert result.negative == titled["Negative prompt"]["widgets_values"][0]


def test_only_a_workflow_in_the_file(tmp_path):
    flow = Workflow()
    flow.finish((flow.encoder(POSITIVE), 0), (flow.encoder(NEGATIVE), 0))
    result = read(save_png(tmp_path / "ComfyUI_00001_.png", {"workflow": json.dumps(flow.content())}))
    assert (result.kind, result.prompt, result.negative, result.remarks) == (
        "comfyui",
        POSITIVE,
        NEGATIVE,
        (),
    )
    expected = {
        "seed": 5,
        "steps": 12,
        "cfg": 6.5,
        "sampler_name": "euler",
        "scheduler": "normal",
        "denoise": 1.0,
    }
    assert result.parameters == {**expected, "ckpt_name": "base.safetensors"}


def test_primitives_reroutes_and_set_get_pairs():
    flow = Workflow()
    primitive = flow.add("PrimitiveNode", {}, [("STRING", "STRING")], [POSITIVE])
    encoder = flow.encoder("not this", source=(primitive, 0))
    reroute = flow.add("Reroute", {"": ("*", (encoder, 0))}, [("", "*")])
    reroute = flow.add("Reroute", {"": ("*", (reroute, 0))}, [("", "*")])
    flow.add("SetNode", {"CONDITIONING": ("CONDITIONING", (reroute, 0))}, [("*", "*")], ["prompt"])
    got = flow.add("GetNode", {}, [("CONDITIONING", "CONDITIONING")], ["prompt"])
    flow.finish((got, 0), (flow.encoder(NEGATIVE), 0))
    assert plain(read_workflow(flow.content()))


def test_bypassed_nodes_are_passed_by_and_muted_ones_are_not_there():
    flow = Workflow()
    positive, negative = flow.encoder(POSITIVE), flow.encoder(NEGATIVE)
    combine = flow.add(
        "ConditioningCombine",
        {
            "conditioning_1": ("CONDITIONING", (positive, 0)),
            "conditioning_2": ("CONDITIONING", (flow.encoder("no"), 0)),
        },
        [("CONDITIONING", "CONDITIONING")],
        mode=4,
    )
    outputs = [("positive", "CONDITIONING"), ("negative", "CONDITIONING")]
    control = flow.add(
        "ControlNetApplyAdvanced",
        {"positive": ("CONDITIONING", (combine, 0)), "negative": ("CONDITIONING", (negative, 0))},
        outputs,
        mode=4,
    )
    muted = flow.encoder("muted", mode=2)
    both = flow.add(
        "ConditioningConcat",
        {
            "conditioning_to": ("CONDITIONING", (control, 0)),
            "conditioning_from": ("CONDITIONING", (muted, 0)),
        },
        [("CONDITIONING", "CONDITIONING")],
    )
    flow.finish((both, 0), (control, 1))
    other = flow.encoder("of a muted picture")
    flow.finish((other, 0), (negative, 0), mode=2)
    assert plain(read_workflow(flow.content()))


def test_outputs_go_by_their_names():
    flow = Workflow()
    pair = flow.add(
        "SomebodysPair",
        {
            "negative": ("CONDITIONING", (flow.encoder(NEGATIVE), 0)),
            "positive": ("CONDITIONING", (flow.encoder(POSITIVE), 0)),
        },
        [("model", "MODEL"), ("negative", "CONDITIONING"), ("positive", "CONDITIONING")],
    )
    flow.finish((pair, 2), (pair, 1))
    assert plain(read_workflow(flow.content()))
    flow = Workflow()
    pair = flow.add("SomebodysPair", {"positive": ("CONDITIONING", (flow.encoder(NEGATIVE), 0)), "negative": ("CONDITIONING", (flow.encoder(POSITIVE), 0))}, [("positive", "CONDITIONING"), ("negative", "CONDITIONING")])  # fmt: skip # noqa: E501
    flow.finish((pair, 1), (pair, 0))
    assert plain(read_workflow(flow.content()))


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("widget", [False, True])
def test_subgraphs(widget, deep):
    assert plain(read_workflow(in_subgraph(widget, deep=deep)))


def test_a_subgraph_whose_node_shows_no_text_keeps_the_one_inside():
    assert plain(read_workflow(in_subgraph(values=())), "the text inside")


@pytest.mark.parametrize("mode", [2, 4])
def test_a_muted_or_bypassed_subgraph_gives_no_prompt(mode):
    assert read_workflow(in_subgraph(mode=mode)).prompt == ""


def test_a_subgraph_inside_itself_is_damage():
    inside = Workflow(subgraph=True)
    for _ in range(2):
        inside.add("prompts", {}, [("positive", "CONDITIONING")])
    flow = Workflow()
    node = flow.add("prompts", {}, [("positive", "CONDITIONING")])
    flow.finish((node, 0), (node, 0))
    with pytest.raises(ValueError, match="without an end"):
        read_workflow(flow.content(inside.definition("prompts", [], [])))


def test_reroutes_in_a_circle_give_no_prompt():
    flow = Workflow()
    one = flow.add("Reroute", {"": ("*", None)}, [("", "*")])
    two = flow.add("Reroute", {"": ("*", (one, 0))}, [("", "*")])
    one["inputs"][0]["link"] = flow.link(two, 0, one["id"], 0, "*")
    flow.finish((two, 0), (flow.encoder(NEGATIVE), 0))
    assert read_workflow(flow.content()).prompt == ""


def test_widgets_saved_before_they_had_names():
    flow = Workflow()
    values = [1024, 1024, 0, 0, 1024, 1024, POSITIVE, POSITIVE]
    positive = flow.add(
        "CLIPTextEncodeSDXL", {"clip": ("CLIP", None)}, [("CONDITIONING", "CONDITIONING")], values
    )
    negative = flow.add(
        "Unknown Encoder", {"clip": ("CLIP", None)}, [("CONDITIONING", "CONDITIONING")], [NEGATIVE]
    )
    flow.finish((positive, 0), (negative, 0))
    assert plain(read_workflow(flow.content()))


def test_the_only_text_of_a_node_that_encodes_no_text_is_no_prompt():
    flow = Workflow()
    vision = flow.add(
        "Vision Encoder", {"image": ("IMAGE", None)}, [("CONDITIONING", "CONDITIONING")], ["center"]
    )
    flow.finish((vision, 0), (flow.encoder(NEGATIVE), 0))
    assert read_workflow(flow.content()).prompt == ""
