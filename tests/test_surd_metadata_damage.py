"""Damaged and hostile metadata end in remarks or in one kind of error, soon and in little memory."""

import copy
import json
import random
import zlib
from pathlib import Path

import pytest
from PIL import Image

from sur_core.surd_build.metadata import Found
from sur_core.surd_build.metadata.comfy_graph import from_api
from sur_core.surd_build.metadata.comfy_workflow import from_workflow
from sur_core.surd_build.metadata.comfyui import read_graph
from sur_core.surd_build.metadata.found import MAX_PROMPT
from tests.surd_golden import chunk, infotext, read, save_exif, save_png
from tests.surd_graphs import NEGATIVE, POSITIVE, ComfyGraph, found, in_subgraph, saved

EXAMPLES = sorted((Path(__file__).parents[1] / "example_workflows").glob("*.json"))


def test_a_broken_block_becomes_a_remark_and_the_next_source_is_tried(tmp_path):
    texts = {"invokeai_metadata": "{broken", "Dream": "no switches", "prompt": '{"1": 2}', "workflow": "[]"}
    (tmp_path / "a.txt").write_text("a cat")
    found = read(save_png(tmp_path / "a.png", texts))
    assert (found.kind, found.prompt) == ("sidecar", "a cat")
    assert len(found.remarks) == 3 and all(one.startswith("broken metadata: ") for one in found.remarks)


@pytest.mark.parametrize("name", ["prompt", "workflow", "invokeai_metadata", "sd-metadata", "Comment"])
@pytest.mark.parametrize(
    "text",
    [*("null", "[]", "3", '"text"', "{}", "", "\0", '{"image": 3}', '{"1": null}')]
    + ["[" * 100_000, '{"a":' * 100_000, "9" * 5000],
    ids=range(12),
)
def test_odd_json_never_raises(tmp_path, name, text):
    texts = {"Software": "NovelAI", name: text}
    found = read(save_png(tmp_path / "a.png", texts))
    assert found.prompt == ""
    assert all(": " in remark for remark in found.remarks)


@pytest.mark.parametrize(
    "value", [None, 3, [], {}, [[]], {"caption": []}, {"caption": {"char_captions": [3, {}]}}, True]
)
def test_values_of_other_kinds_never_raise(tmp_path, value):
    comment = dict.fromkeys(("prompt", "uc", "v4_prompt", "v4_negative_prompt", "steps"), value)
    texts = {"Software": "NovelAI", "Comment": json.dumps(comment)}
    assert read(save_png(tmp_path / "a.png", texts)).prompt == ""
    metadata = dict.fromkeys(("positive_prompt", "negative_prompt", "model", "seed", "image"), value)
    for name in ("invokeai_metadata", "sd-metadata"):
        assert read(save_png(tmp_path / "a.png", {name: json.dumps(metadata)})).prompt == ""


def test_prompts_that_cannot_be_prompts_are_refused(tmp_path):
    found = read(save_png(tmp_path / "a.png", {"parameters": "x" * (MAX_PROMPT + 1)}, "zTXt"))
    assert found.prompt == "" and "characters" in found.remarks[0]
    found = read(save_png(tmp_path / "b.png", {"invokeai_metadata": '{"positive_prompt": "half \\ud83d"}'}))
    assert found.prompt == "" and "half a character" in found.remarks[0]


def test_exif_in_another_character_set_is_a_remark(tmp_path):
    found = read(save_exif(tmp_path / "a.jpg", b"ASCII\0\0\0" + infotext("café").encode("latin-1")))
    assert found.prompt == "" and found.remarks[0].startswith("broken metadata: EXIF UserComment: not UTF-8")
    found = read(save_exif(tmp_path / "a.jpg", b"UNICODE\0" + b"\0a\xd8\x3d\0b" * 9))
    assert found.prompt == "" and found.remarks[0].startswith("broken metadata: EXIF UserComment: not UTF-16")


def test_a_bomb_in_a_text_chunk_is_stopped_by_pillow(tmp_path):
    """64 MiB of zeros in 64 KiB: opening or loading raises ValueError, which the collector quarantines."""
    path = save_png(tmp_path / "a.png", {})
    content = path.read_bytes()
    bomb = chunk(b"zTXt", b"parameters\0\0" + zlib.compress(bytes(1 << 26)))
    for place in (33, content.rindex(b"IEND") - 4):
        path.write_bytes(content[:place] + bomb + content[place:])
        with pytest.raises(ValueError, match="[Dd]ecompressed data too large"):
            read(path)


@pytest.mark.filterwarnings("ignore")
def test_randomly_damaged_exif_never_raises(tmp_path):
    chance = random.Random(0)
    comment = b"UNICODE\0" + infotext("a cat", NEGATIVE).encode("utf-16-be")
    whole = save_exif(tmp_path / "a.jpg", comment, tags={0x0110: b"prompt:{}", 0x8298: b"me"}).read_bytes()
    end = whole.index(b"\0c\0a\0t")
    readable = 0
    for _ in range(400):
        content = bytearray(whole)
        for _ in range(chance.randint(1, 6)):
            content[chance.randrange(26, end)] = chance.randrange(256)
        (tmp_path / "a.jpg").write_bytes(content)
        try:
            image = Image.open(tmp_path / "a.jpg")
            image.load()
        except (OSError, SyntaxError, ValueError):
            continue
        image.close()
        assert isinstance(read(tmp_path / "a.jpg"), Found)
        readable += 1
    assert readable > 100


# ComfyUI's graphs


def test_circles_and_loose_ends_end_in_remarks():
    graph = ComfyGraph()
    node = graph.add("ConditioningCombine", conditioning_1=["99", 0], conditioning_2=graph.encode(POSITIVE))[
        0
    ]
    graph.nodes[node[0]]["inputs"]["conditioning_3"] = node
    result = saved(graph, node)
    assert result.prompt == POSITIVE
    assert any("node 99 is not in it" in one for one in result.remarks)
    assert any("feeds itself" in one for one in result.remarks)


def test_strings_in_a_circle_end_in_a_remark():
    graph = ComfyGraph()
    text = graph.add("StringConcatenate", string_a="a", string_b="b", delimiter="")[0]
    graph.nodes[text[0]]["inputs"]["string_a"] = text
    result = saved(graph, graph.encode(text))
    assert result.prompt == "" and "from itself" in result.remarks[0]


def test_an_endless_chain_is_damage():
    graph = ComfyGraph()
    node = graph.encode(POSITIVE)
    for _ in range(3000):
        node = graph.add("ConditioningSetArea", conditioning=node)[0]
    graph.save(graph.sample(node, graph.encode(NEGATIVE)))
    with pytest.raises(ValueError, match="more than 100 nodes"):
        found(graph)


def test_a_graph_without_a_sampler_says_so():
    graph = ComfyGraph()
    graph.add("SaveImage", images=graph.add("LoadImage", image="x.png")[0], filename_prefix="x")
    result = found(graph)
    assert result.prompt == "" and "no sampler" in result.remarks[0]


def odd(value, chance: random.Random):
    """``value`` with something in it replaced by something of another kind."""
    if chance.random() < 0.03 or not isinstance(value, (dict, list)):
        return chance.choice([None, 3, -1, 1e308, "text", [], {}, [[]], ["1", 0], ["x", None], True])
    copied = copy.copy(value)
    keys = list(copied) if isinstance(copied, dict) else list(range(len(copied)))
    if keys:
        key = chance.choice(keys)
        copied[key] = odd(copied[key], chance)
    return copied


def test_randomly_damaged_graphs_never_raise(tmp_path):
    graph = ComfyGraph()
    text = graph.add("StringConcatenate", string_a="a", string_b="b", delimiter="")[0]
    text = graph.add("CR Text Input Switch", Input=1, text1=text, text2="c")[0]
    either = graph.add("PrimitiveBoolean", value=True)[0]
    branches = {"on_true": graph.encode(text), "on_false": graph.encode("d")}
    switch = graph.add("ComfySwitchNode", switch=either, **branches)[0]
    pair = graph.add("ControlNetApplyAdvanced", positive=switch, negative=graph.encode(NEGATIVE))
    image = graph.add("VAEDecode", samples=graph.sample(*pair[:2]), vae=graph.vae)[0]
    image = graph.add("FaceDetailer", image=image, model=graph.model, positive=branches["on_false"])[0]
    graph.add("SaveImage", images=image, filename_prefix="x")
    assert found(graph).prompt == "ab"
    workflows = [json.loads(path.read_text()) for path in EXAMPLES] + [in_subgraph()]
    for seed in range(1500):
        chance = random.Random(seed)
        for build, content in ((from_api, graph.nodes), (from_workflow, chance.choice(workflows))):
            for _ in range(chance.randint(1, 4)):
                content = odd(content, chance)
            try:
                read_graph(build(content if isinstance(content, dict) else {}))
            except ValueError as error:
                assert str(error).startswith("broken metadata: "), seed
