"""Of a switch in a ComfyUI graph the input that it passes on counts, or none if the graph does not tell."""

import pytest

from sur_core.surd_build.metadata import Found
from tests.surd_graphs import (
    NEGATIVE,
    POSITIVE,
    SECOND,
    ComfyGraph,
    Workflow,
    found,
    plain,
    read_workflow,
    saved,
)

# {class: (selector, value that passes on the second input, name of the first, of the second)}
NUMBERED = {
    "ImpactSwitch": ("select", 2, "input1", "input2"),
    "CR Conditioning Input Switch": ("Input", 2, "conditioning1", "conditioning2"),
    "Conditioning Switch (JPS)": ("select", 2, "con_1", "con_2"),
    "easy conditioningIndexSwitch": ("index", 1, "cond0", "cond1"),
    "easy anythingIndexSwitch": ("index", 1, "value0", "value1"),
    "SomebodysSwitch": ("switch", 2, "conditioning_1", "conditioning_2"),
}
TRUTHS = {
    "ComfySwitchNode": ("switch", "on_false", "on_true"),
    "ImpactConditionalBranch": ("cond", "ff_value", "tt_value"),
    "easy ifElse": ("boolean", "on_false", "on_true"),
    "SimpleCondition+": ("evaluate", "on_false", "on_true"),
    "Conditioning Input Switch": ("boolean", "conditioning_b", "conditioning_a"),
    "CR Conditioning Input Switch JK": ("boolean_value", "conditioning_false", "conditioning_true"),
}
SWITCHES = [(kind, *known) for kind, known in NUMBERED.items()]
SWITCHES += [(kind, selector, True, *names) for kind, (selector, *names) in TRUTHS.items()]
switches = pytest.mark.parametrize("kind, selector, value, first, second", SWITCHES)


def unresolved(result: Found, kind: str) -> bool:
    """Whether there is no prompt, and a remark names the node that is why."""
    return result.prompt == "" and any(
        one.startswith("unresolved prompt: ComfyUI's graph: node") and kind in one for one in result.remarks
    )


def switched(graph: ComfyGraph, kind: str, first: str, second: str, **selector) -> list:
    inputs = {first: graph.encode(SECOND), second: graph.encode(POSITIVE)}
    return graph.add(kind, **selector, **inputs)[0]


@switches
def test_the_selected_conditioning_is_the_prompt(kind, selector, value, first, second):
    graph = ComfyGraph()
    assert plain(saved(graph, switched(graph, kind, first, second, **{selector: value})))


@switches
def test_a_selector_may_come_from_a_primitive(kind, selector, value, first, second):
    graph = ComfyGraph()
    node = "PrimitiveBoolean" if value is True else "PrimitiveInt"
    linked = graph.add(node, value=value)[0]
    assert plain(saved(graph, switched(graph, kind, first, second, **{selector: linked})))


@switches
def test_a_selector_that_is_computed_leaves_the_prompt_unresolved(kind, selector, value, first, second):
    graph = ComfyGraph()
    for computed in (graph.add("ImpactNeg", value=value)[0], graph.add("RandomInt", min=0, max=2)[0]):
        result = saved(graph, switched(graph, kind, first, second, **{selector: computed}))
        assert unresolved(result, kind)
        assert "which one is not in the graph" in result.remarks[0]


@switches
def test_what_is_selected_but_not_there_is_not_replaced_by_what_is_there(
    kind, selector, value, first, second
):
    graph = ComfyGraph()
    node = graph.add(kind, **{selector: value, first: graph.encode(SECOND)})[0]
    assert unresolved(saved(graph, node), kind)


def test_a_switch_selects_both_sides():
    graph = ComfyGraph()
    texts = {"positive_1": SECOND, "negative_1": "no", "positive_2": POSITIVE, "negative_2": NEGATIVE}
    inputs = {name: graph.encode(text) for name, text in texts.items()}
    node = graph.add("SomebodysPairSwitch", select=2, **inputs)
    graph.save(graph.sample(node[0], node[1]))
    assert plain(found(graph))


def test_a_switch_without_a_selector_that_is_known_is_unresolved():
    for kind, names in {
        "RandomConditioning": ("conditioning_1", "conditioning_2"),
        "MySwitch": ("on_false", "on_true"),
        "Nameless": ("left", "right"),
    }.items():
        graph = ComfyGraph()
        node = switched(graph, kind, *names, how="somehow")
        assert unresolved(saved(graph, node), kind)


def test_an_index_beside_names_that_begin_at_one_is_ambiguous():
    graph = ComfyGraph()
    node = switched(graph, "SomebodysIndexSwitch", "input1", "input2", index=1)
    assert unresolved(saved(graph, node), "SomebodysIndexSwitch")


def test_both_inputs_with_the_same_prompt_need_no_selector():
    graph = ComfyGraph()
    one = graph.encode(POSITIVE)
    computed = graph.add("RandomInt", min=1, max=2)[0]
    assert plain(saved(graph, graph.add("ImpactSwitch", select=computed, input1=one, input2=one)[0]))


@pytest.mark.parametrize(
    "kind, name, selector",
    [
        ("ImpactInversedSwitch", "input", {"select": 3}),
        ("SomebodysSwitch", "on_true", {}),
        ("Any Switch (rgthree)", "any_03", {}),
    ],
)
def test_the_only_input_of_a_switch_is_passed_on(kind, name, selector):
    graph = ComfyGraph()
    node = graph.add(kind, **selector, **{name: graph.encode(POSITIVE)})[0]
    assert plain(saved(graph, node))


def test_rgthrees_any_switch_passes_on_the_first_input_there_is():
    graph = ComfyGraph()
    node = graph.add("Any Switch (rgthree)", any_02=graph.encode(POSITIVE), any_03=graph.encode(SECOND))[0]
    assert plain(saved(graph, node))


def test_switches_behind_switches():
    graph = ComfyGraph()
    inner = switched(graph, "ComfySwitchNode", "on_false", "on_true", switch=True)
    outer = graph.add("ImpactSwitch", select=1, sel_mode=False, input1=inner, input2=graph.encode("neither"))[
        0
    ]
    reroute = graph.add("Reroute", **{"": outer})[0]
    assert plain(saved(graph, graph.add("FluxGuidance", conditioning=reroute, guidance=3.5)[0]))


def test_a_node_that_combines_is_no_switch():
    graph = ComfyGraph()
    both = {"conditioning_1": graph.encode(POSITIVE), "conditioning_2": graph.encode(SECOND)}
    node = graph.add("ConditioningMultiCombine", inputcount=2, **both)[0]
    assert plain(saved(graph, node), f"{POSITIVE}\n{SECOND}")


def test_a_selector_may_name_its_input():
    for value, matches in (("conditioning_2", True), ("the second", False)):
        graph = ComfyGraph()
        node = switched(graph, "SomebodysSwitch", "conditioning_1", "conditioning_2", select=value)
        result = saved(graph, node)
        assert plain(result) if matches else unresolved(result, "SomebodysSwitch")


def test_what_is_called_like_a_selector_may_select_something_else():
    graph = ComfyGraph()
    inputs = {"conditioning": graph.encode(POSITIVE), "value_1": "a note", "value_2": "another"}
    assert plain(saved(graph, graph.add("SomebodysUnknown", switch=2, **inputs)[0]))
    graph = ComfyGraph()
    node = graph.add("SomebodysCombine", cond=graph.encode(POSITIVE), cond_2=graph.encode(SECOND))[0]
    assert plain(saved(graph, node), f"{POSITIVE}\n{SECOND}")


def test_what_leads_to_no_prompt_is_no_second_one():
    graph = ComfyGraph()
    amount = graph.add("PrimitiveFloat", value=0.5)[0]
    text = graph.add("SomebodysUnknown", amount=amount, thing=graph.encode(POSITIVE))[0]
    assert plain(saved(graph, text))


# Switches of other things on the way


@pytest.mark.parametrize(
    "kind, selector, first, second",
    [
        ("CR Text Input Switch", {"Input": 2}, "text1", "text2"),
        ("Text Input Switch", {"boolean": False}, "text_a", "text_b"),
        ("ComfySwitchNode", {"switch": True}, "on_false", "on_true"),
        ("easy textIndexSwitch", {"index": 1}, "text0", "text1"),
        ("ImpactSwitch", {"select": 2}, "input1", "input2"),
    ],
)
@pytest.mark.parametrize("linked", [False, True])
def test_switches_of_strings(kind, selector, first, second, linked):
    graph = ComfyGraph()
    texts = [SECOND, POSITIVE]
    if linked:
        texts = [graph.add("PrimitiveStringMultiline", value=text)[0] for text in texts]
    node = graph.add(kind, **selector, **dict(zip((first, second), texts, strict=True)))[0]
    assert plain(saved(graph, graph.encode(node)))
    (name,) = selector
    graph.nodes[node[0]]["inputs"][name] = graph.add("RandomInt", min=0, max=1)[0]
    assert unresolved(found(graph), kind)


def test_switches_of_clips_and_latents_do_not_matter():
    graph = ComfyGraph()
    graph.clip = graph.add("CR Clip Input Switch", Input=2, clip1=graph.clip, clip2=graph.clip)[0]
    computed = graph.add("RandomInt", min=1, max=2)[0]
    latent = graph.add("ImpactSwitch", select=computed, input1=graph.empty(), input2=graph.empty())[0]
    graph.save(graph.sample(graph.encode(POSITIVE), graph.encode(NEGATIVE), latent=latent))
    assert plain(found(graph))


@pytest.mark.parametrize(
    "kind, selector, names",
    [
        ("CR Image Input Switch", "Input", ("image1", "image2")),
        ("ImpactSwitch", "select", ("input1", "input2")),
    ],
)
def test_of_a_switch_of_pictures_the_selected_one_counts(kind, selector, names):
    graph = ComfyGraph()
    pictures = [
        graph.add(
            "VAEDecode", samples=graph.sample(graph.encode(text), graph.encode(NEGATIVE)), vae=graph.vae
        )[0]
        for text in (SECOND, POSITIVE)
    ]
    node = graph.add(kind, **{selector: 2}, **dict(zip(names, pictures, strict=True)))[0]
    graph.add("SaveImage", images=node, filename_prefix="x")
    assert plain(found(graph))
    graph.nodes[node[0]]["inputs"][selector] = graph.add("RandomInt", min=1, max=2)[0]
    assert found(graph).remarks[0].startswith("several prompts: ")


def test_a_switch_in_a_workflow():
    flow = Workflow()
    inputs = {
        "input1": ("CONDITIONING", (flow.encoder(SECOND), 0)),
        "input2": ("CONDITIONING", (flow.encoder(POSITIVE), 0)),
        "select*": ("INT", None),
        "sel_mode*": ("BOOLEAN", None),
    }
    switch = flow.add("ImpactSwitch", inputs, [("CONDITIONING", "CONDITIONING")], [2, False])
    flow.finish((switch, 0), (flow.encoder(NEGATIVE), 0))
    assert plain(read_workflow(flow.content()))
