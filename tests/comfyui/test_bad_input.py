"""What a user does wrong is told in words by real ComfyUI, and costs nothing else."""

import shutil

import pytest
import torch

from tests.comfyui.server import Graph, WorkflowError
from tests.comfyui.test_conditionings import AUTHORS, SHORT, Probe
from tests.helpers import authors_state_dict


def complaint(run) -> str:
    with pytest.raises(WorkflowError) as caught:
        run()
    words = caught.value.args[0]
    assert "size mismatch" not in words and "shapes cannot be multiplied" not in words
    return words


def test_an_adapter_of_another_family_on_either_node(server):
    for checkpoint, adapter, words in (
        ("sur_test_sdxl.safetensors", "ours.safetensors", ("SD 1.x, 768 wide", "SDXL, 2048 wide")),
        ("sur_test_sd15.safetensors", "sd2.safetensors", ("SD 2.x, 1024 wide", "SD 1.x, 768 wide")),
        ("sur_test_sd15.safetensors", "xl/sdxl.safetensors", ("SDXL, 2048 wide", "SD 1.x, 768 wide")),
    ):
        for eta in (0.0, 0.5):
            probe = Probe(server, checkpoint, adapter)
            probe.dump(wrong=probe.apply(probe.encode(SHORT), eta))
            message = complaint(probe.run)
            assert all(word in message for word in words) and adapter.split("/")[-1] in message
            probe = Probe(server, checkpoint, adapter)
            probe.dump(wrong=probe.encode(SHORT, probe.apply_clip(eta)))
            message = complaint(probe.run)
            assert words[0] in message and "this CLIP is a SD" in message and "with clip_" in message


def test_an_sd2_text_encoder_refuses_an_sd1_adapter_and_takes_its_own(server):
    def run(adapter):
        graph = Graph()
        clip = graph.add("CLIPLoader", clip_name="sur_test_sd2_clip.safetensors", type="stable_diffusion")[0]
        handle = graph.add("SURLoadAdapter", adapter_name=adapter)[0]
        encoded = graph.add("CLIPTextEncode", clip=clip, text=SHORT)[0]
        ranges = {"start_percent": 0.0, "end_percent": 1.0}
        cond = graph.add("SURApplyConditioning", conditioning=encoded, adapter=handle, eta=0.5, **ranges)[0]
        both = graph.add("SURApplyCLIP", clip=clip, adapter=handle, eta=0.5)[0]
        graph.add("SURTestDump", conditioning=cond, name="sd2_cond")
        graph.add(
            "SURTestDump", conditioning=graph.add("CLIPTextEncode", clip=both, text=SHORT)[0], name="sd2_clip"
        )
        server.run(graph)
        return [torch.load(server.output / f"{name}.pt")[0][0] for name in ("sd2_cond", "sd2_clip")]

    on_conditioning, on_clip = run("sd2.safetensors")
    assert on_conditioning.shape == (1, 77, 1024) and torch.equal(on_conditioning, on_clip)
    message = complaint(lambda: run("ours.safetensors"))
    assert "SD 1.x, 768 wide" in message


@pytest.mark.parametrize("tokens", [0, 50])
def test_tokens_that_are_no_multiple_of_77(server, tokens):
    probe = Probe(server)
    cut = probe.add("SURTestCutTokens", conditioning=probe.encode(SHORT), tokens=tokens)
    probe.dump(wrong=probe.apply(cut))
    assert f"multiple of 77 tokens (CLIP's chunks), found {tokens}" in complaint(probe.run)


@pytest.mark.parametrize("eta", [-0.1, 1.5, float("nan")])
def test_eta_outside_its_range(server, eta):
    probe = Probe(server)
    probe.dump(wrong=probe.apply(probe.encode(SHORT), eta))
    message = complaint(probe.run)
    assert "eta" in message


def test_eta_outside_its_range_is_refused_even_where_the_adapter_never_acts(server):
    probe = Probe(server)
    probe.dump(wrong=probe.apply(probe.encode(SHORT), float("nan"), start=0.4, end=0.4))
    assert "eta must be a number" in complaint(probe.run)


def test_a_range_that_is_upside_down(server):
    probe = Probe(server)
    probe.dump(wrong=probe.apply(probe.encode(SHORT), 0.5, start=0.8, end=0.2))
    assert "start 0.8 and end 0.2" in complaint(probe.run)


def test_strengths_that_are_no_numbers(server):
    for etas, word in (
        ("", "no strength given"),
        ("0, strong", "'strong'"),
        ("0, 1.5", "'1.5'"),
        ("nan", "'nan'"),
    ):
        probe = Probe(server)
        sweep = probe.add("SUREtaSweep", conditioning=probe.encode(SHORT), adapter=probe.adapter, etas=etas)
        probe.dump(wrong=sweep)
        assert word in complaint(probe.run)


@pytest.mark.parametrize(
    "name", ["gone.safetensors", "../checkpoints/x.safetensors", "/etc/passwd", "notes.txt"]
)
def test_a_file_that_is_not_in_the_folder(server, name):
    graph = Graph()
    graph.add("PreviewAny", source=graph.add("SURLoadAdapter", adapter_name=name)[1])
    message = complaint(lambda: server.run(graph))
    assert "There is no adapter file" in message and "sur_adapters" in message


def test_a_missing_file_is_an_error_even_if_another_output_could_run(server):
    """ComfyUI drops an output that fails validation and runs the rest; the artist would not notice."""
    probe = Probe(server, adapter="gone.safetensors")
    plain = probe.encode(SHORT)
    probe.dump(without=plain, wrong=probe.apply(plain))
    assert "'gone.safetensors'" in complaint(probe.run)


def test_a_file_deleted_after_it_was_chosen(server):
    folder = server.base / "models" / "sur_adapters"
    shutil.copy(folder / "second.safetensors", folder / "fleeting.safetensors")
    probe = Probe(server, adapter="fleeting.safetensors")
    probe.dump(fleeting=probe.apply(probe.encode(SHORT)))
    probe.run()
    (folder / "fleeting.safetensors").unlink()
    assert "'fleeting.safetensors'" in complaint(probe.run)


def test_a_broken_file_in_the_folder_is_listed_and_explained_when_used(server):
    path = server.base / "models" / "sur_adapters" / "broken.safetensors"
    whole = (server.base / "models" / "sur_adapters" / "ours.safetensors").read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    try:
        graph = Graph()
        graph.add("PreviewAny", source=graph.add("SURLoadAdapter", adapter_name="broken.safetensors")[1])
        message = complaint(lambda: server.run(graph))
        assert "broken.safetensors" in message and "truncated" in message
    finally:
        path.unlink()


def save(server, name, overwrite=False):
    graph = Graph()
    adapter = graph.add("SURLoadAdapter", adapter_name="ours.safetensors")[0]
    graph.add("SURSaveAdapter", adapter=adapter, name=name, overwrite=overwrite)
    return server.run(graph)


def all_files(server):
    return {path.relative_to(server.base) for path in server.base.rglob("*.safetensors")}


# fmt: off
BAD_NAMES = [
    "", "  ", "../escaped", "a/../../escaped", "..\\escaped", "/absolute", "\\absolute", "C:\\windows\\x",
    "C:x", "con", "NUL", "com1.x", "aux.tar", "sub/LPT9", "a//b", "end./x", "end.", "what?", "a|b", "a:b",
    "t\tb", "nul\0", "~x/../../y", ".hidden", "x" * 300,
]
# fmt: on


@pytest.mark.parametrize("name", BAD_NAMES)
def test_path_tricks_in_the_save_name(server, name):
    before = all_files(server)
    message = complaint(lambda: save(server, name))
    assert "cannot be the name of a saved adapter" in message
    assert all_files(server) == before


def test_saving_does_not_replace_a_file_unless_told(server):
    folder = server.base / "models" / "sur_adapters"
    save(server, "twice")
    first = (folder / "twice.safetensors").stat()
    assert "already there" in complaint(lambda: save(server, "twice.safetensors"))
    assert (folder / "twice.safetensors").stat() == first
    save(server, "twice", overwrite=True)
    assert (folder / "twice.safetensors").stat().st_mtime_ns > first.st_mtime_ns
    (folder / "twice.safetensors").unlink()


def test_a_link_out_of_the_folder_is_not_followed(server, tmp_path):
    link = server.base / "models" / "sur_adapters" / "outside"
    link.symlink_to(tmp_path, target_is_directory=True)
    try:
        assert "leaves the folder" in complaint(lambda: save(server, "outside/x"))
        assert not list(tmp_path.iterdir())
    finally:
        link.unlink()


def test_merging_what_does_not_match(server):
    def merge(other, weights=(1.0, 1.0)):
        graph = Graph()
        first = graph.add("SURLoadAdapter", adapter_name="ours.safetensors")[0]
        second = graph.add("SURLoadAdapter", adapter_name=other)[0]
        shares = {"weight_1": weights[0], "weight_2": weights[1], "weight_3": 1.0, "weight_4": 1.0}
        merged = graph.add("SURMergeAdapters", adapter_1=first, adapter_2=second, normalize=True, **shares)
        graph.add("PreviewAny", source=merged[1])
        server.run(graph)

    assert "SD 2.x, 1024 wide" in complaint(lambda: merge("sd2.safetensors"))
    assert "inner architecture differs" in complaint(lambda: merge(AUTHORS))
    assert "sum to 0" in complaint(lambda: merge("second.safetensors", (1.0, -1.0)))


def test_the_authors_switch_says_what_it_needs(server):
    def pair(adapter, positive=SHORT, combine=False):
        probe = Probe(server, adapter=adapter)
        first = probe.encode(positive)
        if combine:
            first = probe.add("ConditioningCombine", conditioning_1=first, conditioning_2=first)
        etas = {"eta_positive": 0.1, "eta_negative": 0.1, "as_authors_pipeline": True}
        out = probe.add(
            "SURApplyPair", positive=first, negative=probe.encode("x"), adapter=probe.adapter, **etas
        )
        probe.dump(wrong=out)
        probe.run()

    pair(AUTHORS)
    assert "as the paper says" in complaint(lambda: pair("ours.safetensors"))
    assert "same length" in complaint(lambda: pair(AUTHORS, positive=SHORT * 20))
    assert "found 2 and 1 entries" in complaint(lambda: pair(AUTHORS, combine=True))


def test_a_dangerous_pickle_is_refused_and_does_not_run(server):
    marker = server.base / "it_ran"

    class RunsCode:
        def __reduce__(self):
            import os

            return os.mkdir, (str(marker),)

    path = server.base / "models" / "sur_adapters" / "evil.pt"
    torch.save({**authors_state_dict(width=8, feedforward=8), "x": RunsCode()}, path)
    try:
        graph = Graph()
        graph.add("PreviewAny", source=graph.add("SURLoadAdapter", adapter_name="evil.pt")[1])
        assert "refused" in complaint(lambda: server.run(graph))
        assert not marker.exists()
    finally:
        path.unlink()
