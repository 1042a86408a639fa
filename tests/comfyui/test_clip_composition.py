"""Apply SUR to CLIP together with everything else that changes a CLIP, in real ComfyUI.

The oracle: adapting a CLIP that encodes a prompt of one chunk without weights must equal adapting the
CONDITIONING that the same CLIP without the adapter makes.
"""

import torch

from tests.comfyui.test_conditionings import SHORT, Probe, options_equal

LORA = "sur_test_lora.safetensors"


def lora(probe, clip):
    model = probe.graph.add("CheckpointLoaderSimple", ckpt_name="sur_test_sd15.safetensors")[0]
    both = probe.graph.add(
        "LoraLoader", model=model, clip=clip, lora_name=LORA, strength_model=1.0, strength_clip=1.0
    )
    return both[1]


def skip(probe, clip):
    return probe.add("CLIPSetLastLayer", clip=clip, stop_at_clip_layer=-2)


def same_on_both_routes(server, change, expect_change=True):
    """``change(probe, clip)`` before the adapter, after it, and alone with the CONDITIONING adapted."""
    probe = Probe(server)
    changed = change(probe, probe.clip)
    plain = probe.encode(SHORT, changed)
    probe.dump(
        bare=probe.encode(SHORT),
        plain=plain,
        expected=probe.apply(plain, 0.5),
        before=probe.encode(SHORT, probe.apply_clip(0.5, clip=changed)),
        after=probe.encode(SHORT, change(probe, probe.apply_clip(0.5))),
        plain_again=probe.encode(SHORT, changed),
    )
    found = probe.run()
    for entry in range(len(found["plain"])):
        expected, options = found["expected"][entry]
        if expect_change:
            assert not torch.allclose(found["plain"][entry][0], found["bare"][0][0], atol=1e-3)
        assert not torch.allclose(expected, found["plain"][entry][0], atol=1e-2)
        for route in ("before", "after"):
            assert torch.equal(found[route][entry][0], expected), route
            assert options_equal(found[route][entry][1], options)
        assert torch.equal(found["plain_again"][entry][0], found["plain"][entry][0])
    return found


def test_lora_before_and_after(server):
    same_on_both_routes(server, lora)


def test_clip_skip_before_and_after(server):
    same_on_both_routes(server, skip)


def test_lora_and_clip_skip_together(server):
    same_on_both_routes(server, lambda probe, clip: skip(probe, lora(probe, clip)))


def hooked(schedule):
    def change(probe, clip):
        hooks = probe.add("CreateHookLora", lora_name=LORA, strength_model=1.0, strength_clip=1.0)
        if schedule:
            early = probe.add("CreateHookKeyframe", strength_mult=1.0, start_percent=0.0)
            late = probe.add("CreateHookKeyframe", strength_mult=0.2, start_percent=0.5, prev_hook_kf=early)
            hooks = probe.add("SetHookKeyframes", hooks=hooks, hook_kf=late)
        return probe.add("SetClipHooks", clip=clip, apply_to_conds=True, schedule_clip=schedule, hooks=hooks)

    return change


def test_lora_hooks(server):
    found = same_on_both_routes(server, hooked(schedule=False))
    assert "hooks" in found["before"][0][1]


def test_scheduled_lora_hooks(server):
    found = same_on_both_routes(server, hooked(schedule=True))
    assert [entry[1]["clip_start_percent"] for entry in found["before"]] == [0.0, 0.5]
    assert not torch.equal(found["before"][0][0], found["before"][1][0])


def test_scheduled_hooks_keep_their_ranges_when_the_adapter_has_one(server):
    probe = Probe(server)
    plain = probe.encode(SHORT, hooked(schedule=True)(probe, probe.clip))
    probe.dump(split=probe.apply(plain, 0.5, start=0.25, end=0.75), whole=plain)
    found = probe.run()
    ranges = [
        (o["clip_start_percent"], o["clip_end_percent"], o["start_percent"], o["end_percent"])
        for _, o in found["split"]
    ]
    assert ranges == [
        (0.0, 0.5, 0.0, 0.25),
        (0.0, 0.5, 0.25, 0.5),
        (0.5, 1.0, 0.5, 0.75),
        (0.5, 1.0, 0.75, 1.0),
    ]


def test_adapters_stack(server):
    probe = Probe(server)
    second = probe.add("SURLoadAdapter", adapter_name="second.safetensors")
    ranges = {"start_percent": 0.0, "end_percent": 1.0}
    once = probe.apply(probe.encode(SHORT), 0.5)
    twice = probe.add("SURApplyConditioning", conditioning=once, adapter=second, eta=0.3, **ranges)
    stacked = probe.add("SURApplyCLIP", clip=probe.apply_clip(0.5), adapter=second, eta=0.3)
    probe.dump(
        once=once,
        expected=twice,
        stacked=probe.encode(SHORT, stacked),
        lora=probe.encode(SHORT, lora(probe, stacked)),
    )
    found = {name: entries[0][0] for name, entries in probe.run().items()}
    assert torch.equal(found["stacked"], found["expected"])
    assert not torch.allclose(found["stacked"], found["once"], atol=1e-3)
    assert not torch.allclose(found["lora"], found["stacked"], atol=1e-3)
