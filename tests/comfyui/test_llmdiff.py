"""The LLMDiff nodes in a running ComfyUI: pictures, and the words of its error dialog."""

from __future__ import annotations

import shutil

import pytest
from PIL import Image, ImageChops

from sur_core.llmdiff import load_encodings
from tests.comfyui.llmdiff_files import ADAPTER, KEEP, LLM, OTHER, OTHER_LLM, XL
from tests.comfyui.server import Graph, WorkflowError

SD15, SDXL = "sur_test_sd15.safetensors", "sur_test_sdxl.safetensors"
TEXT = "seven red balloons above a glass"


class Scene:
    """A workflow around one checkpoint, one language model and one adapter."""

    def __init__(self, server, checkpoint=SD15, adapter=ADAPTER, llm=LLM):
        self.server, self.graph = server, Graph()
        self.model, self.clip, self.vae, *_ = self.graph.add("CheckpointLoaderSimple", ckpt_name=checkpoint)
        self.adapter = self.load(adapter)
        self.llm = self.load_llm(llm)

    def add(self, node, **inputs):
        return self.graph.add(node, **inputs)[0]

    def load(self, name):
        return self.add("LLMDiffLoadAdapter", adapter_name=name)

    def load_llm(self, name, max_tokens=64):
        return self.add("LLMDiffLoadLLM", llm_name=name, dtype="auto", device="auto", max_tokens=max_tokens)

    def say(self, text=TEXT):
        return self.add("CLIPTextEncode", clip=self.clip, text=text)

    def encode(self, text=TEXT, clip=True, **other):
        carried = {"conditioning": self.say(text)} if clip else {}
        wires = {"llm": self.llm, "adapter": self.adapter} | other
        return self.add("LLMDiffEncode", text=text, **wires, **carried)

    def apply(self, strength=1.0, start=0.0, end=1.0, **other):
        wires = {"model": self.model, "adapter": self.adapter} | other
        return self.add("LLMDiffApply", strength=strength, start_percent=start, end_percent=end, **wires)

    def draw(self, name, model, positive, negative=None, steps=2, batch=1, **changes):
        latent = self.add("EmptyLatentImage", width=64, height=64, batch_size=batch)
        settings = {"sampler_name": "euler", "scheduler": "normal", "denoise": 1.0, "seed": 3, "cfg": 4.0}
        settings |= {"steps": steps} | changes
        negative = negative or self.say("blurry")
        wires = {"model": model, "positive": positive, "negative": negative, "latent_image": latent}
        sampled = self.add("KSampler", **settings, **wires)
        image = self.add("VAEDecode", samples=sampled, vae=self.vae)
        self.add("SaveImage", images=image, filename_prefix=f"llmdiff_{name}")

    def run(self):
        """The pictures, in the order they were asked for."""
        outputs = self.server.run(self.graph)
        saved = [number for number, node in self.graph.nodes.items() if node["class_type"] == "SaveImage"]
        about = [outputs[number]["images"] for number in saved]
        return [
            [Image.open(self.server.output / one["subfolder"] / one["filename"]).copy() for one in images]
            for images in about
        ]

    def complaint(self) -> str:
        """What the error dialog says."""
        with pytest.raises(WorkflowError) as caught:
            self.run()
        words = caught.value.args[0]
        assert "size mismatch" not in words and "shapes cannot be multiplied" not in words
        return words


def same(one, other) -> bool:
    return ImageChops.difference(one, other).getbbox() is None


def test_a_picture_is_drawn_and_strength_0_is_the_plain_models(server):
    scene = Scene(server)
    heard, plain = scene.encode(), scene.say()
    scene.draw("full", scene.apply(), heard)
    scene.draw("zero", scene.apply(0.0), heard)
    scene.draw("plain", scene.model, plain)
    scene.draw("ignored", scene.model, heard)
    (full,), (zero,), (without,), (ignored,) = scene.run()
    assert same(zero, without) and same(ignored, without) and not same(full, without)


def test_removing_the_node_leaves_nothing_behind(server):
    """One server, before and after; ComfyUI's own cache of results is passed by with another seed's twin."""

    def plain(name):
        scene = Scene(server)
        scene.draw(name, scene.model, scene.say(), seed=7)
        return scene.run()[0][0]

    before = plain("before")
    scene = Scene(server)
    scene.draw("between", scene.apply(), scene.encode(), seed=7)
    ((between,),) = scene.run()
    server._call("/free", {"unload_models": True, "free_memory": True})
    assert same(plain("after"), before) and not same(between, before)


def test_an_adapter_that_keeps_clip_two_adapters_and_a_saved_encoding(server):
    scene = Scene(server)
    keep, other, other_llm = scene.load(KEEP), scene.load(OTHER), scene.load_llm(OTHER_LLM)
    kept = scene.encode(adapter=keep)
    scene.draw("keep", scene.apply(adapter=keep), kept)
    first = scene.encode()
    both = scene.add("LLMDiffEncode", llm=other_llm, adapter=other, text=TEXT, conditioning=first)
    stacked = scene.apply(0.5, adapter=other, model=scene.apply(0.5))
    scene.draw("stacked", stacked, both, batch=2)
    path = scene.add("LLMDiffSaveEncoding", conditioning=both, name="mine/saved", overwrite=True)
    scene.add("PreviewAny", source=path)
    (keeping,), live = scene.run()
    file = server.base / "models/llmdiff_encodings/mine/saved.safetensors"
    assert [prompt.prompt for prompt in load_encodings(file)] == [TEXT, TEXT]
    again = Scene(server)
    del again.graph.nodes[again.llm[0]]
    other, said = again.load(OTHER), again.say()
    loaded = again.add(
        "LLMDiffLoadEncoding",
        encoding_name="mine/saved.safetensors",
        adapter=other,
        conditioning=said,
    )
    again.draw("loaded", again.apply(0.5, adapter=other, model=again.apply(0.5)), loaded, batch=2)
    (found,) = again.run()
    assert len(live) == len(found) == 2 and all(map(same, live, found))
    assert not same(keeping, live[0]) and not same(*live)


def test_sdxl_without_clip(server):
    scene = Scene(server, SDXL, XL)
    empty = scene.encode("", clip=False)
    scene.draw("xl", scene.apply(), scene.encode(clip=False), empty, steps=1)
    ((picture,),) = scene.run()
    assert picture.convert("L").getextrema()[0] < picture.convert("L").getextrema()[1]


def test_sampling_without_a_prompt_for_the_adapter(server):
    scene = Scene(server)
    scene.draw("x", scene.apply(), scene.say())
    message = scene.complaint()
    assert "no prompt was encoded" in message and ADAPTER in message and "Encode Prompt (LLMDiff)" in message
    scene = Scene(server)
    other = scene.load(OTHER)
    scene.draw("x", scene.apply(), scene.encode(llm=scene.load_llm(OTHER_LLM), adapter=other))
    message = scene.complaint()
    assert "another adapter" in message and "tiny-gpt2" in message and LLM in message


def test_a_model_of_another_family(server):
    for checkpoint, adapter, strength in ((SDXL, ADAPTER, 1.0), (SD15, XL, 0.0)):
        scene = Scene(server, checkpoint, adapter)
        scene.draw("x", scene.apply(strength), scene.encode(clip=False))
        message = scene.complaint()
        assert "768 wide" in message and "2048 wide" in message and adapter.split("/")[-1] in message


def broken_llm(server, name, without="", text=None):
    """A copy of the language model that lacks files, or whose config is another."""
    models = server.base / "models" / "llm"
    folder = models / name
    shutil.copytree(models / LLM, folder, ignore=shutil.ignore_patterns(without))
    if text is not None:
        (folder / "config.json").write_text(text)
    return folder


def test_language_models_that_cannot_be_used(server):
    def message(name, text=TEXT, **settings):
        scene = Scene(server)
        llm = scene.load_llm(name, **settings)
        scene.draw("x", scene.apply(), scene.encode(text, llm=llm))
        return scene.complaint()

    assert "There is no language model 'gone'" in message("gone")
    assert "reads Qwen2.5-0.5B" in message(OTHER_LLM) and "found tiny-gpt2" in message(OTHER_LLM)
    found = message(LLM, "a cat " * 12, max_tokens=64)
    assert "73 tokens" in found and "max_tokens is 64" in found
    assert "reads at most 96" in message(LLM, "a cat " * 30, max_tokens=4096)
    # The same name as the adapter's, so that only what is broken is left to complain about.
    folder = broken_llm(server, f"mute/{LLM}", "token*")
    try:
        assert "tokenizer" in message(f"mute/{LLM}")
    finally:
        shutil.rmtree(folder.parent)
    folder = broken_llm(
        server, f"odd/{LLM}", text='{"model_type": "bert", "hidden_size": 32, "num_hidden_layers": 3}'
    )
    try:
        assert "decoder-only" in message(f"odd/{LLM}")
    finally:
        shutil.rmtree(folder.parent)


def test_files_that_are_gone_or_foreign(server):
    scene = Scene(server, adapter="gone.safetensors")
    scene.draw("x", scene.apply(), scene.encode())
    message = scene.complaint()
    assert "There is no LLMDiff adapter file 'gone.safetensors'" in message and "llmdiff_adapters" in message
    folder = server.base / "models"
    foreign = folder / "llmdiff_adapters" / "foreign.safetensors"
    shutil.copy(folder / "sur_adapters" / "ours.safetensors", foreign)
    try:
        scene = Scene(server, adapter="foreign.safetensors")
        scene.draw("x", scene.apply(), scene.encode())
        assert "a SUR adapter, which Load SUR Adapter reads" in scene.complaint()
    finally:
        foreign.unlink()


def test_the_dropdowns(server):
    def options(node, name):
        return server.node_info(node)["input"]["required"][name][1]["options"]

    assert options("LLMDiffLoadLLM", "llm_name") == [OTHER_LLM, LLM]
    assert sorted(options("LLMDiffLoadAdapter", "adapter_name")) == sorted([ADAPTER, KEEP, OTHER, XL])
    kind, shown = server.node_info("LLMDiffApply")["input"]["required"]["strength"]
    assert (shown["display"], shown["min"], shown["max"], shown["default"]) == ("slider", 0, 1, 1)


def test_a_batch_of_pictures_with_a_window_and_a_lora(server):
    def draw(name, start, end, lora_first):
        scene = Scene(server)
        model = scene.model
        lora = {"lora_name": "sur_test_lora.safetensors", "strength_model": 1.0}
        if lora_first:
            model = scene.add("LoraLoaderModelOnly", model=model, **lora)
        model = scene.apply(1.0, start, end, model=model)
        if not lora_first:
            model = scene.add("LoraLoaderModelOnly", model=model, **lora)
        scene.draw(name, model, scene.encode(), scene.encode("", clip=False), steps=3, batch=2)
        return scene.run()[0]

    whole, late, swapped = draw("a", 0, 1, True), draw("b", 0.5, 1, True), draw("c", 0.5, 1, False)
    assert all(map(same, late, swapped)) and not same(whole[0], late[0]) and not same(*late)
