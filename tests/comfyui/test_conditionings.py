"""Tensors and options of CONDITIONING on their way through the nodes, in real ComfyUI."""

import shutil

import pytest
import torch

from tests.comfyui.server import Graph

AUTHORS = "test_llm13B_adapterw0.1/adapter_checkpoint5000.pt"
SHORT = "a red cube on a blue sphere"
LONG = ", ".join(["a very long prompt about a castle on a hill in the evening sun"] * 8)  # > 77 tokens
LONGER = ", ".join([LONG] * 2)  # > 154 tokens
WEIGHTED = "a (red:1.4) cube on a [blue] (sphere:0.6)"


class Probe:
    """A graph around one checkpoint whose conditionings are written out and read back."""

    def __init__(self, server, checkpoint="sur_test_sd15.safetensors", adapter="ours.safetensors"):
        self.server, self.graph, self.names = server, Graph(), []
        self.clip = self.graph.add("CheckpointLoaderSimple", ckpt_name=checkpoint)[1]
        self.adapter = self.graph.add("SURLoadAdapter", adapter_name=adapter)[0]

    def add(self, node, **inputs):
        return self.graph.add(node, **inputs)[0]

    def encode(self, text, clip=None):
        return self.add("CLIPTextEncode", clip=clip or self.clip, text=text)

    def apply(self, conditioning, eta=0.5, start=0.0, end=1.0):
        return self.add(
            "SURApplyConditioning",
            conditioning=conditioning,
            adapter=self.adapter,
            eta=eta,
            start_percent=start,
            end_percent=end,
        )

    def apply_clip(self, eta=0.5, clip=None):
        return self.add("SURApplyCLIP", clip=clip or self.clip, adapter=self.adapter, eta=eta)

    def dump(self, **conditionings):
        for name, conditioning in conditionings.items():
            self.add("SURTestDump", conditioning=conditioning, name=name)
            self.names.append(name)

    def run(self) -> dict[str, list]:
        self.server.run(self.graph)
        return {name: torch.load(self.server.output / f"{name}.pt") for name in self.names}


def options_equal(left: dict, right: dict) -> bool:
    def equal(a, b):
        return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b

    return left.keys() == right.keys() and all(equal(left[key], right[key]) for key in left)


BASES = [("sur_test_sd15", "ours"), ("sur_test_sdxl", "xl/sdxl")]


@pytest.mark.parametrize(("checkpoint", "adapter"), BASES)
def test_one_short_prompt_on_every_route(server, checkpoint, adapter):
    """Both apply nodes give the same tensor, and Eq. 7 is ComfyUI's own ConditioningAverage of both ends."""
    probe = Probe(server, f"{checkpoint}.safetensors", f"{adapter}.safetensors")
    plain = probe.encode(SHORT)
    probe.dump(
        plain=plain,
        zero=probe.apply(plain, 0.0),
        half=probe.apply(plain, 0.35),
        clip_half=probe.encode(SHORT, probe.apply_clip(0.35)),
        average=probe.add(
            "ConditioningAverage",
            conditioning_to=probe.apply(plain, 1.0),
            conditioning_from=plain,
            conditioning_to_strength=0.35,
        ),
    )
    found = probe.run()
    (plain_tensor, options), (half, half_options) = found["plain"][0], found["half"][0]
    assert torch.equal(found["zero"][0][0], plain_tensor)
    assert not torch.allclose(half, plain_tensor, atol=1e-2)
    assert torch.equal(half, found["clip_half"][0][0])
    torch.testing.assert_close(half, found["average"][0][0], rtol=1e-6, atol=1e-6)
    for name in ("zero", "half", "clip_half"):
        assert options_equal(found[name][0][1], options), f"{name}: the pooled output is left as it is"
    assert half_options["pooled_output"] is not None


@pytest.mark.parametrize("text", [LONG, LONGER, WEIGHTED])
def test_long_and_weighted_prompts(server, text):
    probe = Probe(server)
    plain = probe.encode(text)
    probe.dump(
        text_plain=plain,
        text_cond=probe.apply(plain, 0.4),
        text_clip=probe.encode(text, probe.apply_clip(0.4)),
        text_zero=probe.encode(text, probe.apply_clip(0.0)),
    )
    found = {name: entries[0][0] for name, entries in probe.run().items()}
    assert torch.equal(found["text_zero"], found["text_plain"])
    chunks = {LONG: 2, LONGER: 4, WEIGHTED: 1}[text]
    assert found["text_cond"].shape == found["text_plain"].shape == (1, 77 * chunks, 768)
    if text == WEIGHTED:
        assert not torch.allclose(found["text_cond"], found["text_clip"], atol=1e-3), "weights act in between"
    else:
        torch.testing.assert_close(found["text_cond"], found["text_clip"], rtol=1e-5, atol=1e-5)


def test_every_entry_and_every_option_survives(server):
    probe = Probe(server)
    mask = probe.add("SolidMask", value=0.5, width=64, height=64)
    plain = probe.encode(SHORT)
    area = probe.add("ConditioningSetArea", conditioning=plain, width=64, height=64, x=8, y=0, strength=0.7)
    masked = probe.add(
        "ConditioningSetMask", conditioning=area, mask=mask, strength=0.3, set_cond_area="mask bounds"
    )
    ranged = probe.add("ConditioningSetTimestepRange", conditioning=masked, start=0.1, end=0.8)
    odd = probe.add(
        "SURTestSetOption", conditioning=ranged, key="of_another_pack", value='{"deep": [1, "x"]}'
    )
    net = probe.add("ControlNetLoader", control_net_name="sur_test_controlnet.safetensors")
    hint = probe.add("EmptyImage", width=64, height=64, batch_size=1, color=1)
    controlled = probe.add("ControlNetApply", conditioning=odd, control_net=net, image=hint, strength=1.0)
    concatenated = probe.add(
        "ConditioningConcat", conditioning_to=plain, conditioning_from=probe.encode(LONG)
    )
    combined = probe.add("ConditioningCombine", conditioning_1=controlled, conditioning_2=concatenated)
    probe.dump(before=combined, after=probe.apply(combined), zero=probe.apply(combined, 0.0), again=combined)
    found = probe.run()
    assert [tuple(c.shape) for c, _ in found["after"]] == [(1, 77, 768), (1, 231, 768)]
    for name in ("after", "zero", "again"):
        for (_, options), (_, expected) in zip(found[name], found["before"], strict=True):
            assert options_equal(options, expected)
    for (after, _), (before, _), (zero, _) in zip(
        found["after"], found["before"], found["zero"], strict=True
    ):
        assert torch.equal(zero, before) and not torch.allclose(after, before, atol=1e-2)
    assert {
        "area",
        "strength",
        "mask",
        "mask_strength",
        "control",
        "of_another_pack",
        "start_percent",
    } <= set(found["after"][0][1])


def test_a_range_of_sampling_splits_each_entry(server):
    probe = Probe(server)
    plain = probe.encode(SHORT)
    narrow = probe.add("ConditioningSetTimestepRange", conditioning=probe.encode(LONG), start=0.2, end=0.6)
    late = probe.add("ConditioningSetTimestepRange", conditioning=plain, start=0.8, end=1.0)
    both = probe.add("ConditioningCombine", conditioning_1=plain, conditioning_2=narrow)
    three = probe.add("ConditioningCombine", conditioning_1=both, conditioning_2=late)
    probe.dump(whole=three, adapted=probe.apply(three), split=probe.apply(three, 0.5, start=0.4, end=0.7))
    found = probe.run()

    def ranges(entries):
        return [(o.get("start_percent"), o.get("end_percent")) for _, o in entries]

    assert ranges(found["split"]) == [
        (0.0, 0.4),  # the plain prompt: original, adapted, original
        (0.4, 0.7),
        (0.7, 1.0),
        (0.2, 0.4),  # active 0.2..0.6: original, adapted
        (0.4, 0.6),
        (0.8, 1.0),  # active 0.8..1: untouched
    ]
    whole, adapted = ([c for c, _ in found[name]] for name in ("whole", "adapted"))
    expected = [whole[0], adapted[0], whole[0], whole[1], adapted[1], whole[2]]
    for (found_tensor, _), wanted in zip(found["split"], expected, strict=True):
        assert torch.equal(found_tensor, wanted)


def test_sdxl_text_encode_with_two_prompts(server):
    probe = Probe(server, "sur_test_sdxl.safetensors", "xl/sdxl.safetensors")
    sizes = {
        "width": 1024,
        "height": 768,
        "crop_w": 8,
        "crop_h": 0,
        "target_width": 512,
        "target_height": 512,
    }
    for name, text_l in (("equal", SHORT), ("unequal", LONG)):
        plain = probe.add("CLIPTextEncodeSDXL", clip=probe.clip, text_g=SHORT, text_l=text_l, **sizes)
        adapted = probe.add(
            "CLIPTextEncodeSDXL", clip=probe.apply_clip(0.3), text_g=SHORT, text_l=text_l, **sizes
        )
        probe.dump(
            **{f"{name}_plain": plain, f"{name}_cond": probe.apply(plain, 0.3), f"{name}_clip": adapted}
        )
    found = probe.run()
    for name in ("equal", "unequal"):
        (plain, options), (cond, cond_options), (clip, clip_options) = (
            found[f"{name}_{route}"][0] for route in ("plain", "cond", "clip")
        )
        assert cond.shape == plain.shape and plain.shape[-1] == 2048
        torch.testing.assert_close(cond, clip, rtol=1e-5, atol=1e-5)
        assert not torch.allclose(cond, plain, atol=1e-2)
        assert options_equal(options, cond_options) and options_equal(options, clip_options)
        assert (options["width"], options["crop_w"], options["target_height"]) == (1024, 8, 512)


def test_pair_on_its_own_and_as_the_authors(server):
    probe = Probe(server, adapter=AUTHORS)
    positive, negative = probe.encode(SHORT), probe.encode("blurry, ugly")

    def pair(as_authors, eta_negative=0.2):
        return probe.graph.add(
            "SURApplyPair",
            positive=positive,
            negative=negative,
            adapter=probe.adapter,
            eta_positive=0.4,
            eta_negative=eta_negative,
            as_authors_pipeline=as_authors,
        )

    own, theirs, no_negative = pair(False), pair(True), pair(True, 0.0)
    probe.dump(
        p=positive,
        n=negative,
        p_alone=probe.apply(positive, 0.4),
        n_alone=probe.apply(negative, 0.2),
        p_own=own[0],
        n_own=own[1],
        p_theirs=theirs[0],
        n_theirs=theirs[1],
        n_zero=no_negative[1],
    )
    found = {name: entries[0] for name, entries in probe.run().items()}
    for side in "pn":
        assert torch.equal(found[f"{side}_own"][0], found[f"{side}_alone"][0])
        assert not torch.allclose(found[f"{side}_theirs"][0], found[f"{side}_own"][0], atol=1e-3)
        assert options_equal(found[f"{side}_theirs"][1], found[side][1])
    assert torch.equal(found["n_zero"][0], found["n"][0])


def test_merge_and_save_come_back_as_the_weighted_sum(server):
    folder = server.base / "models" / "sur_adapters"
    graph = Graph()
    first = graph.add("SURLoadAdapter", adapter_name="ours.safetensors")[0]
    second = graph.add("SURLoadAdapter", adapter_name="second.safetensors")[0]
    merged = graph.add(
        "SURMergeAdapters",
        adapter_1=first,
        adapter_2=second,
        weight_1=1.0,
        weight_2=0.5,
        weight_3=1.0,
        weight_4=1.0,
        normalize=True,
    )
    graph.add("PreviewAny", source=merged[1])
    graph.add("SURSaveAdapter", adapter=merged[0], name="made/merged", overwrite=False)
    outputs = server.run(graph)
    shown = " ".join(text for output in outputs.values() for text in output.get("text", []))
    assert "ours.safetensors x 0.6667" in shown and "second.safetensors x 0.3333" in shown

    from sur_core import load_adapter, merge_adapters

    parents = [load_adapter(folder / "ours.safetensors"), load_adapter(folder / "second.safetensors")]
    expected = merge_adapters(parents, [1 / 1.5, 0.5 / 1.5]).state_dict()
    saved = load_adapter(folder / "made" / "merged.safetensors")
    assert all(torch.equal(saved.state_dict()[key], value) for key, value in expected.items())
    assert [parent["name"] for parent in saved.passport.parents] == ["ours.safetensors", "second.safetensors"]
    _, options = server.node_info("SURLoadAdapter")["input"]["required"]["adapter_name"]
    assert "made/merged.safetensors" in [name.replace("\\", "/") for name in options["options"]]
    shutil.rmtree(folder / "made")


def test_the_passport_output_is_readable(server):
    graph = Graph()
    for name in ("ours.safetensors", AUTHORS):
        graph.add("PreviewAny", source=graph.add("SURLoadAdapter", adapter_name=name)[1])
    shown = "\n".join(text for output in server.run(graph).values() for text in output["text"])
    assert "trained on: random SD 1.5" in shown and "eta in training: 0.3" in shown
    assert "authors' released format" in shown and "eta in training: 0.1" in shown


def test_a_replaced_file_is_loaded_again_and_eta_does_not_reload_it(server):
    from sur_core import save_adapter
    from tests.helpers import random_adapter

    path = server.base / "models" / "sur_adapters" / "changing.safetensors"

    def run(eta):
        probe = Probe(server, adapter="changing.safetensors")
        probe.dump(changing=probe.apply(probe.encode(SHORT), eta))
        before = server.log_text().count("Requested to load SURAdapterBundle")
        tensor = probe.run()["changing"][0][0]
        return tensor, server.log_text().count("Requested to load SURAdapterBundle") - before

    save_adapter(random_adapter("sd1", seed=20), path)
    first, loads = run(0.5)
    assert loads == 1
    other_eta, loads = run(0.6)
    assert loads == 0, "the adapter was loaded again for another eta"
    assert not torch.equal(first, other_eta)
    save_adapter(random_adapter("sd1", seed=21), path)
    replaced, loads = run(0.6)
    assert loads == 1
    assert not torch.equal(replaced, other_eta)
    path.unlink()
