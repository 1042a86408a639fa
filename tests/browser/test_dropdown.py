"""The list of adapters in Load SUR Adapter."""

from __future__ import annotations

import shutil

import pytest

CHOICES = """() => {
  const widget = app.graph.nodes[0].widgets[0], {values} = widget.options;
  return typeof values === 'function' ? values(widget, app.graph.nodes[0]) : values;
}"""
FILES = ["more/sd2.safetensors", "ours.safetensors", "test_llm13B_adapterw0.1/adapter_checkpoint5000.pt"]


@pytest.fixture
def emptied(server, tmp_path):
    """The models folder while there is no adapter in it."""
    folder, away = server.base / "models" / "sur_adapters", tmp_path / "away"
    shutil.move(folder, away)
    folder.mkdir()
    yield folder
    folder.rmdir()
    shutil.move(away, folder)


def test_it_lists_every_adapter_file_also_of_subfolders_and_nothing_else(frontend):
    frontend.add("SURLoadAdapter")
    assert sorted(name.replace("\\", "/") for name in frontend.page.evaluate(CHOICES)) == FILES


def test_with_an_empty_folder_its_only_entry_says_so_after_pressing_r(frontend, emptied):
    frontend.add("SURLoadAdapter")
    _press_r(frontend)
    frontend.page.wait_for_function(f"() => ({CHOICES})().length === 1")
    (entry,) = frontend.page.evaluate(CHOICES)
    assert entry == "none in models/sur_adapters"
    frontend.forget()  # until R was pressed, the card asked for a file that is gone
    frontend.clear()
    assert frontend.add("SURLoadAdapter")["widgets"][0]["value"] == entry
    assert frontend.problems == []


def test_a_new_file_is_listed_after_pressing_r(frontend, server):
    frontend.add("SURLoadAdapter")
    new = server.base / "models" / "sur_adapters" / "more" / "new.safetensors"
    shutil.copy(new.with_name("sd2.safetensors"), new)
    try:
        _press_r(frontend)
        frontend.page.wait_for_function(f"() => ({CHOICES})().length === {len(FILES) + 1}")
        assert any(name.endswith("new.safetensors") for name in frontend.page.evaluate(CHOICES))
    finally:
        new.unlink()
        _press_r(frontend)
        frontend.page.wait_for_function(f"() => ({CHOICES})().length === {len(FILES)}")


def _press_r(frontend) -> None:
    frontend.page.locator("#graph-canvas").focus()
    frontend.page.keyboard.press("r")
