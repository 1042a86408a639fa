"""SUR Inspect and SUR Label Grid in a real ComfyUI."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from sur_core.insight.picture import MARGIN, PANEL_WIDTHS
from tests.comfyui import server as comfy
from tests.comfyui.conftest import PACK
from tests.comfyui.server import Graph, WorkflowError

SD15, SDXL = "sur_test_sd15.safetensors", "sur_test_sdxl.safetensors"
TEXT = "a (seven:1.3) vintage glass bottles"
LONG = ", ".join(["seven vintage glass bottles on a table"] * 12)
TOWERS = {"sd1": ["clip_l"], "sd2": ["clip_h"], "sdxl": ["clip_g", "clip_l"], "refiner": ["clip_g"]}
TEXTS = {
    "plain": "seven glass bottles",
    "weighted": "(seven:1.4) glass ((bottles)) [old] \\(jar\\)",
    "embedding": "seven embedding:mystyle glass (embedding:one:1.2)",
    "missing": "embedding:nowhere seven embedding:mystyle",
    "other scripts": "naïve café 七つのガラス瓶 🙂 красный",
    "long": LONG,
    "empty": "",
}


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    """{kind of CLIP: {key of TEXTS: {encoder: chunks of [name, kind, whole word]}}}."""
    if reason := comfy.missing():
        comfy.skip_or_fail(reason)
    folder = tmp_path_factory.mktemp("names")
    for name, count in (("mystyle", 3), ("one", 1)):
        vectors = {
            "clip_l": torch.rand(count, 768),
            "clip_g": torch.rand(count, 1280),
            "clip_h": torch.rand(count, 1024),
        }
        save_file(vectors, folder / f"{name}.safetensors")
    (folder / "texts.json").write_text(json.dumps(list(TEXTS.values())))
    script = Path(__file__).with_name("name_tokens.py")
    command = [comfy.PYTHON, script, PACK, comfy.COMFYUI, folder, folder / "texts.json"]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    found = json.loads(finished.stdout.splitlines()[-1])
    return {kind: dict(zip(TEXTS, of_texts, strict=True)) for kind, of_texts in found.items()}


def real(chunk) -> list[str]:
    return [name for name, kind, _ in chunk if kind == "word"]


@pytest.mark.parametrize("kind", TOWERS)
@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("plain", ["seven", "glass", "bottles"]),
        ("weighted", ["seven", "glass", "bottles", "[", "old", "]", "(", "jar", ")"]),
        ("embedding", ["seven", "mystyle 1/3", "mystyle 2/3", "mystyle 3/3", "glass", "one"]),
        ("missing", ["seven", "embedding 1/3", "embedding 2/3", "embedding 3/3"]),
        ("empty", []),
    ],
)
def test_tokens_bear_the_names_of_the_prompt(names, kind, key, words):
    assert sorted(names[kind][key]) == TOWERS[kind]
    for (chunk,) in names[kind][key].values():
        assert real(chunk) == words
        assert [token[0] for token in chunk[: len(words) + 2]] == ["[start]", *words, "[end]"]
        assert [token[0] for token in chunk[len(words) + 2 :]] == ["[padding]"] * (75 - len(words))


@pytest.mark.parametrize("kind", TOWERS)
def test_a_long_prompt_has_every_word_once_over_all_chunks(names, kind):
    for chunks in names[kind]["long"].values():
        assert len(chunks) == 2 and all(len(chunk) == 77 for chunk in chunks)
        assert all(chunk[0][0] == "[start]" for chunk in chunks)
        assert [name for chunk in chunks for name in real(chunk)] == re.findall(r"\w+|,", LONG)


def test_other_scripts_are_read_back(names):
    (chunk,) = names["sd1"]["other scripts"]["clip_l"]
    wholes = []
    for name, kind, whole in chunk:
        if kind == "word" and not name.startswith("…"):
            wholes.append(whole or name)
    assert "".join(wholes) == TEXTS["other scripts"].replace(" ", "")


class Inspections:
    """One graph with many SUR Inspect nodes; what each said and drew."""

    def __init__(self, server):
        self.server, self.graph, self.said = server, Graph(), {}

    def encoded(self, checkpoint, text):
        clip = self.graph.add("CheckpointLoaderSimple", ckpt_name=checkpoint)[1]
        return clip, self.graph.add("CLIPTextEncode", clip=clip, text=text)[0]

    def adapter(self, name="ours.safetensors"):
        return self.graph.add("SURLoadAdapter", adapter_name=name)[0]

    def inspect(self, name, **inputs):
        settings = {"eta": 0.5, "entry": 1, "chunk": 0, "tokens": 20, "theme": "dark"}
        picture, words = self.graph.add("SURInspect", **{**settings, **inputs})[:2]
        self.graph.add("SaveImage", images=picture, filename_prefix=f"inspect_{name}")
        self.said[name] = self.graph.add("PreviewAny", source=words)[0][0]

    def run(self):
        outputs = self.server.run(self.graph)
        found = {}
        for name, node in self.said.items():
            path = max(self.server.output.glob(f"inspect_{name}_0*.png"))
            found[name] = (outputs[node]["text"][0], np.asarray(Image.open(path)))
        return found


@pytest.fixture(scope="module")
def sd15(server):
    graph = Inspections(server)
    clip, before = graph.encoded(SD15, TEXT)
    adapter = graph.adapter()
    after = graph.graph.add(
        "SURApplyConditioning", conditioning=before, adapter=adapter, eta=0.5, start_percent=0, end_percent=1
    )[0]
    named = {"clip": clip, "text": TEXT}
    graph.inspect("adapter", before=before, adapter=adapter, **named)
    graph.inspect("pair", before=before, after=after, **named)
    graph.inspect("light", before=before, adapter=adapter, theme="light", **named)
    graph.inspect("eta0", before=before, adapter=adapter, eta=0.0, **named)
    graph.inspect("equal", before=before, after=before)
    graph.inspect("numbered", before=before, after=after)
    _, long = graph.encoded(SD15, LONG)
    graph.inspect("long", before=long, adapter=adapter, clip=clip, text=LONG)
    graph.inspect("second_chunk", before=long, adapter=adapter, clip=clip, text=LONG, chunk=2)
    both = graph.graph.add("ConditioningCombine", conditioning_1=long, conditioning_2=before)[0]
    graph.inspect("entry_2", before=both, adapter=adapter, entry=2, **named)
    on_clip = graph.graph.add("SURApplyCLIP", clip=clip, adapter=adapter, eta=0.5)[0]
    through = graph.graph.add("CLIPTextEncode", clip=on_clip, text="seven glass bottles")[0]
    plain = graph.graph.add("CLIPTextEncode", clip=clip, text="seven glass bottles")[0]
    graph.inspect("on_clip", before=plain, after=through, clip=on_clip, text="seven glass bottles")
    graph.inspect("on_conditioning", before=plain, adapter=adapter, clip=clip, text="seven glass bottles")
    return graph.run()


def test_both_ways_say_the_same(sd15):
    assert sd15["adapter"][0] == sd15["pair"][0] == sd15["light"][0] == sd15["entry_2"][0]
    assert sd15["on_clip"][0] == sd15["on_conditioning"][0]
    assert re.match(r"Changed most: '(a|seven|vintage|glass|bottles)' \(direction 0\.\d+", sd15["adapter"][0])


def test_only_an_adapter_has_attention_to_show(sd15):
    assert sd15["adapter"][1].shape[0] > sd15["pair"][1].shape[0] + 200


@pytest.mark.parametrize("name", ["eta0", "equal"])
def test_no_change_is_told(sd15, name):
    assert sd15[name][0] == "No change: every token is exactly as it was."


def test_without_clip_and_text_tokens_are_numbered(sd15):
    assert "'token " in sd15["numbered"][0]


def test_long_prompts_are_shown_chunk_by_chunk(sd15):
    assert " of chunk " in sd15["long"][0]
    assert sd15["second_chunk"][1].shape[0] < sd15["long"][1].shape[0] - 500


def test_themes(sd15):
    assert sd15["adapter"][1][0, 0].max() < 60 and sd15["light"][1][0, 0].min() > 240


def test_sdxl_is_shown_tower_by_tower(server):
    graph = Inspections(server)
    clip, before = graph.encoded(SDXL, TEXT)
    adapter = graph.adapter("xl/sdxl.safetensors")
    graph.inspect("xl", before=before, adapter=adapter, clip=clip, text=TEXT)
    said, picture = graph.run()["xl"]
    first, second = said.splitlines()
    assert first.startswith("CLIP-L: Changed most: '") and second.startswith("CLIP-G: Changed most: '")
    assert picture.shape[1] == 2 * PANEL_WIDTHS[2] + 3 * MARGIN


@pytest.mark.parametrize(
    ("inputs", "told"),
    [
        ({}, "Connect either a conditioning to 'after', or an adapter"),
        ({"after": 1, "adapter": 1}, "both 'after' and 'adapter' are connected"),
        ({"after": 1, "clip": 1}, "the text is empty"),
        ({"after": 1, "text": TEXT}, "no CLIP is connected"),
        ({"after": 1, "entry": 2}, "there is no entry 2 in 'before'; it has 1"),
        ({"after": 1, "chunk": 2}, "there is no chunk 2; this prompt has 1"),
        ({"after": "long"}, "154 tokens"),
        ({"after": "two"}, "'before' has 1 entries and 'after' 2"),
        ({"after": 1, "clip": 1, "text": LONG}, "2 chunks of tokens long, the embeddings are 1"),
        ({"adapter": "sd2.safetensors"}, "was trained for SD 2.x"),
    ],
)
def test_what_is_missing_or_contradictory_is_told(server, inputs, told):
    graph = Inspections(server)
    clip, before = graph.encoded(SD15, TEXT)
    inputs = dict(inputs)
    if "clip" in inputs:
        inputs["clip"] = clip
    if inputs.get("adapter"):
        name = inputs["adapter"] if isinstance(inputs["adapter"], str) else "ours.safetensors"
        inputs["adapter"] = graph.adapter(name)
    if inputs.get("after") == "long":
        inputs["after"] = graph.graph.add("CLIPTextEncode", clip=clip, text=LONG)[0]
    elif inputs.get("after") == "two":
        two = {"conditioning_1": before, "conditioning_2": before}
        inputs["after"] = graph.graph.add("ConditioningCombine", **two)[0]
    elif "after" in inputs:
        inputs["after"] = before
    graph.inspect("refused", before=before, **inputs)
    with pytest.raises(WorkflowError, match=re.escape(told)):
        graph.run()


class Sheet:
    """A graph with a SUR Label Grid over real pictures."""

    def __init__(self, server, name):
        self.server, self.name, self.graph = server, name, Graph()

    def sweep(self, etas: str, batch: int):
        """Pictures and labels of a SUR Eta Sweep, one step each."""
        add = self.graph.add
        model, clip, vae = add("CheckpointLoaderSimple", ckpt_name=SD15)[:3]
        positive, negative = (add("CLIPTextEncode", clip=clip, text=text)[0] for text in (TEXT, ""))
        adapter = add("SURLoadAdapter", adapter_name="ours.safetensors")[0]
        conditionings, labels = add("SUREtaSweep", conditioning=positive, adapter=adapter, etas=etas)[:2]
        latent = add("EmptyLatentImage", width=64, height=64, batch_size=batch)[0]
        sampled = {
            "sampler_name": "euler",
            "scheduler": "normal",
            "denoise": 1.0,
            "seed": 7,
            "steps": 1,
            "cfg": 2.0,
        }
        prompts = {"positive": conditionings, "negative": negative, "latent_image": latent}
        samples = add("KSampler", model=model, **prompts, **sampled)[0]
        return add("VAEDecode", samples=samples, vae=vae)[0], labels

    def run(self, images, labels, **settings) -> np.ndarray:
        settings = {"columns": 0, "label_size": 20, "theme": "dark", **settings}
        sheet = self.graph.add("SURLabelGrid", images=images, labels=labels, **settings)[0]
        self.graph.add("SaveImage", images=sheet, filename_prefix=f"sheet_{self.name}")
        self.graph.add("SaveImage", images=images, filename_prefix=f"single_{self.name}")
        self.server.run(self.graph)
        (path,) = self.server.output.glob(f"sheet_{self.name}_0*.png")
        return np.asarray(Image.open(path)).astype(int)

    def singles(self) -> list[np.ndarray]:
        paths = sorted(self.server.output.glob(f"single_{self.name}_0*.png"))
        return [np.asarray(Image.open(path)).astype(int) for path in paths]


def find(sheet, picture) -> tuple[int, int]:
    """(top, left) of the only place where a picture is, up to rounding."""
    windows = np.lib.stride_tricks.sliding_window_view(sheet, picture.shape)[:, :, 0]
    near = np.argwhere(np.abs(windows[..., 0, :8, 0] - picture[0, :8, 0]).max(-1) <= 1)
    places = [(y, x) for y, x in near if np.abs(windows[y, x] - picture).max() <= 1]
    assert len(places) == 1
    return places[0]


@pytest.mark.parametrize(("batch", "etas"), [(1, "0, 0.5, 1"), (2, "0, 0.5"), (1, "0.5")])
def test_an_eta_sweep_plugs_in(server, batch, etas):
    graph = Sheet(server, f"sweep_{batch}_{len(etas)}")
    sheet = graph.run(*graph.sweep(etas, batch))
    singles = graph.singles()
    count = len(etas.split(","))
    assert len(singles) == batch * count
    places = [find(sheet, picture) for picture in singles]
    assert places == sorted(places), "in the order of the sweep"
    rows = count if batch > 1 else 1
    assert len({top for top, _ in places}) == rows, "a row for each eta where each is a batch"
    for top, left in places:
        assert (np.abs(sheet[top - 20 : top, left : left + 64] - sheet[0, 0]) > 40).any(), "a label above it"


@pytest.mark.parametrize(("labels", "found"), [("", 0), ("a\nb\n", 2), ("a\nb\nc\nd", 4)])
def test_labels_must_be_as_many_as_the_pictures(server, labels, found):
    graph = Sheet(server, "refused")
    images = graph.graph.add("EmptyImage", width=32, height=32, batch_size=3, color=0xFF0000)[0]
    with pytest.raises(WorkflowError, match=f"SUR Label Grid: found 3 pictures and {found} labels"):
        graph.run(images, labels)


def test_typed_labels_over_batches_of_different_sizes(server):
    graph = Sheet(server, "typed")
    images = graph.graph.add("EmptyImage", width=32, height=32, batch_size=3, color=0xFF0000)[0]
    batches = graph.graph.add("RebatchImages", images=images, batch_size=2)[0]  # 2 and 1
    sheet = graph.run(batches, "first\nsecond\n", columns=1, theme="light")
    ys, xs = np.nonzero((sheet == np.array((255, 0, 0))).all(-1))
    assert len(ys) == 3 * 32 * 32 and np.ptp(xs) == 31 and len(np.unique(ys)) == 3 * 32
