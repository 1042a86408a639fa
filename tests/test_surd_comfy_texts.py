"""A text is a picture's prompt only if its ComfyUI graph holds it; what a node makes of it is not guessed."""

import json

import pytest

from sur_core.surd_build.metadata import Found
from tests.surd_golden import read, save_png
from tests.surd_graphs import NEGATIVE, POSITIVE, SECOND, ComfyGraph, Workflow, plain, read_workflow, saved

ORDER = "Write a prompt for a picture of a fox"

MAKES = {
    "RegexReplace": {"string": "(a+)+$", "regex_pattern": "(a+)+$", "replace": ""},
    "WD14Tagger|pysssss": {"image": ["1", 0], "model": "wd", "threshold": 0.35, "clip": ["1", 1]},
    "OllamaGenerate": {"prompt": ORDER},
    "OllamaGenerateV2": {"system": "You write prompts", "prompt": ORDER, "seed": 1, "model": "llama"},
    "TextGenerate": {"clip": ["1", 1], "prompt": ORDER, "max_length": 256},
    "ChatGPT Simple _O": {"prompt": ORDER},
    "SDXLPromptStyler": {"text_positive": "a cat", "text_negative": "dog", "style": "anime"},
    "GoogleTranslateTextNode": {"from_translate": "de", "to_translate": "en", "text": "ein Fuchs"},
    "LoadTextFile": {"text": "prompts.txt"},
    "Florence2Run": {"text_input": "a fox", "task": "caption", "image": ["1", 0]},
    "DPRandomGenerator": {"text": "a {red|blue} cat"},
    "DPCombinatorialGenerator": {"text": "a __colour__ cat", "seed": 3, "autorefresh": "No"},
    "ImpactWildcardProcessor": {"wildcard_text": "a __animal__", "populated_text": "", "seed": 1},
    "easy wildcards": {"text": "a {2$$red|blue} cat", "seed": 2},
    "String Literal To Something": {"string": "a cat"},
    "PromptConcat": {"prefix": ["1", 0], "text_a": "a cat"},
    "StringNode": {"string": "a cat", "seed": 3},
    "TextUppercase": {"text": "a cat"},
}
"""Nodes that make a text, and most of which have one that could be taken for it."""


def unresolved(result: Found, kind: str) -> bool:
    remark = next(iter(result.remarks), "")
    return (
        result.prompt == ""
        and remark.startswith("unresolved prompt: ComfyUI's graph: node")
        and kind in remark
    )


@pytest.mark.parametrize("kind", MAKES)
def test_text_that_the_graph_does_not_hold_is_not_guessed(kind):
    graph = ComfyGraph()
    result = saved(graph, graph.encode(graph.add(kind, **MAKES[kind])[0]))
    assert unresolved(result, kind) and result.negative == ""


@pytest.mark.parametrize("kind", MAKES)
def test_nor_behind_what_passes_texts_on(kind):
    """Shown, joined to another, selected, and given to an encoder that is not known."""
    for passes in (
        lambda graph, text: graph.add("ShowText|pysssss", text=text, text_0="of the run before")[0],
        lambda graph, text: graph.add("easy showAnything", anything=text, text="of the run before")[0],
        lambda graph, text: graph.add("StringConcatenate", string_a=text, string_b="b", delimiter=" ")[0],
        lambda graph, text: graph.add("ComfySwitchNode", switch=True, on_false="no", on_true=text)[0],
        lambda graph, text: graph.add("Reroute", **{"": text})[0],
    ):
        graph = ComfyGraph()
        assert unresolved(saved(graph, graph.encode(passes(graph, graph.add(kind, **MAKES[kind])[0]))), kind)


@pytest.mark.parametrize("kind", [kind for kind, inputs in MAKES.items() if "image" not in inputs])
def test_nor_at_an_encoder_whose_texts_name_is_not_known(kind):
    graph = ComfyGraph()
    text = graph.add(kind, **MAKES[kind])[0]
    result = saved(graph, graph.add("SomebodysEncoder", clip=graph.clip, my_words=text)[0])
    assert result.prompt == "" and result.remarks[0].startswith("unresolved prompt: ")


HOLDS = {
    "PrimitiveString": "value",
    "PrimitiveStringMultiline": "value",
    "String Literal": "string",
    "StringConstantMultiline": "string",
    "Text Multiline": "text",
    "CR Text": "text",
    "CR Prompt Text": "prompt",
    "easy positive": "positive",
    "DF_Text_Box": "Text",
    "JWStringMultiline": "text",
    "ttN text": "text",
    "LayerUtility: TextBox": "text",
    "Primitive string multiline [Crystools]": "string",
}


@pytest.mark.parametrize("kind", HOLDS)
def test_text_from_nodes_that_only_hold_it(kind):
    graph = ComfyGraph()
    text = graph.add(kind, **{HOLDS[kind]: POSITIVE})[0]
    assert plain(saved(graph, graph.encode(text)))
    text = graph.add(kind, **{HOLDS[kind]: graph.add("PrimitiveString", value=POSITIVE)[0]})[0]
    assert plain(saved(graph, graph.add("SomebodysEncoder", clip=graph.clip, my_words=text)[0]))


@pytest.mark.parametrize("kind", ["ShowText|pysssss", "Display Any (rgthree)", "easy showAnything"])
def test_what_a_node_showed_the_time_before_is_not_the_prompt(kind):
    graph = ComfyGraph()
    text = graph.add("PrimitiveString", value=POSITIVE)[0]
    shown = graph.add(kind, anything=text, text_0="of the run before")[0]
    assert plain(saved(graph, graph.encode(shown)))


def shows(values: list) -> dict:
    flow = Workflow()
    order = flow.add("OllamaGenerateV2", {"prompt*": ("STRING", None)}, [("result", "STRING")], [ORDER])
    shown = flow.add("ShowText|pysssss", {"text": ("STRING", (order, 0))}, [("STRING", "STRING")], values)
    flow.finish((flow.encoder("", source=(shown, 0)), 0), (flow.encoder(NEGATIVE), 0))
    return flow.content()


def test_what_a_node_showed_in_this_run_is_in_the_workflow(tmp_path):
    """ShowText writes a list into the workflow when it runs; the browser writes the text alone."""
    assert plain(read_workflow(shows([[POSITIVE]])))
    for values in ([POSITIVE], [], [[]], [[POSITIVE, SECOND]], [[3]]):
        assert unresolved(read_workflow(shows(values)), "OllamaGenerateV2")
    graph = ComfyGraph()
    text = graph.add("OllamaGenerateV2", prompt=ORDER)[0]
    shown = graph.add("ShowText|pysssss", text=text, text_0="of the run before")[0]
    graph.save(graph.sample(graph.encode(shown), graph.encode(NEGATIVE)))
    texts = {"prompt": json.dumps(graph.nodes), "workflow": json.dumps(shows([[POSITIVE]]))}
    result = read(save_png(tmp_path / "a.png", texts))
    assert (result.prompt, result.negative) == (POSITIVE, NEGATIVE)


# Wildcards

WILD = {"wildcard_text": "a __animal__ in {red|blue}", "mode": "populate", "seed": 5}


def test_a_filled_in_wildcard_is_the_prompt():
    graph = ComfyGraph()
    text = graph.add("ImpactWildcardProcessor", **WILD, populated_text=POSITIVE)[0]
    assert plain(saved(graph, graph.encode(text)))
    graph = ComfyGraph()
    node = graph.add(
        "ImpactWildcardEncode", **WILD, populated_text=POSITIVE, model=graph.model, clip=graph.clip
    )
    assert plain(saved(graph, node[2]))


@pytest.mark.parametrize("left", ["", "a __animal__", "a {red|blue} cat", "3#__x__"])
def test_a_wildcard_that_is_not_filled_in_is_no_prompt(left):
    graph = ComfyGraph()
    node = graph.add("ImpactWildcardEncode", **WILD, populated_text=left, model=graph.model, clip=graph.clip)
    assert unresolved(saved(graph, node[2]), "ImpactWildcardEncode")


def test_a_wildcard_node_with_nothing_to_fill_in_holds_its_text():
    graph = ComfyGraph()
    assert plain(saved(graph, graph.encode(graph.add("DPRandomGenerator", text=POSITIVE, seed=3)[0])))


def test_braces_typed_into_an_encoder_are_the_prompt():
    graph = ComfyGraph()
    assert plain(saved(graph, graph.encode("a {red|blue} cat, __init__")), "a {red|blue} cat, __init__")
