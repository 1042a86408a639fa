"""What ComfyUI tells its frontend about the nodes."""

import pytest

from tests.helpers import NODE_NAMES as NAMES

CATEGORIES = {"SUR": "SUR", "LLM": "SUR/LLMDiff"}
SLIDERS = {
    "SURApplyConditioning": ["eta"],
    "SURApplyCLIP": ["eta"],
    "SURApplyPair": ["eta_positive", "eta_negative"],
}


@pytest.mark.parametrize("node", NAMES)
def test_every_node_is_listed_and_explains_itself(server, node):
    info = server.node_info(node)
    assert (info["display_name"], info["category"]) == (NAMES[node], CATEGORIES[node[:3]])
    assert len(info["description"]) > 30
    inputs = {**info["input"]["required"], **info["input"].get("optional", {})}
    for name, (kind, options) in inputs.items():
        assert len(options["tooltip"]) > 10, name
        if kind in ("FLOAT", "INT"):
            assert options["min"] <= options["default"] <= options["max"] and options["step"], name
    assert all(tooltip for tooltip in info["output_tooltips"])


def test_these_are_all_our_nodes(server):
    ours = {
        name for name, info in server.get("/object_info").items() if info["category"].split("/")[0] == "SUR"
    }
    assert ours == set(NAMES)


@pytest.mark.parametrize("node", SLIDERS)
def test_eta_is_a_slider_from_0_to_1(server, node):
    for name in SLIDERS[node]:
        kind, options = server.node_info(node)["input"]["required"][name]
        assert kind == "FLOAT" and options["display"] == "slider"
        assert (options["min"], options["max"], options["step"]) == (0, 1, 0.01)


def test_the_dropdown_lists_adapters_of_every_folder_and_nothing_else(server):
    _, options = server.node_info("SURLoadAdapter")["input"]["required"]["adapter_name"]
    assert sorted(name.replace("\\", "/") for name in options["options"]) == [
        "ours.safetensors",
        "sd2.safetensors",
        "second.safetensors",
        "test_llm13B_adapterw0.1/adapter_checkpoint5000.pt",
        "xl/authors.safetensors",
        "xl/sdxl.safetensors",  # both from the folder named in extra_model_paths.yaml
    ]


def test_the_log_has_no_complaint_about_the_pack(server):
    start = server.log_text().partition("To see the GUI")[0]
    assert "sur-adapter" in start
    for line in start.splitlines():
        assert not ("sur-adapter" in line and ("FAILED" in line or "Error" in line)), line


def test_every_node_has_a_help_page(server):
    for node in NAMES:
        assert len(server.text(f"/extensions/sur-adapter/docs/{node}.md")) > 200, node
