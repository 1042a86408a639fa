"""A ComfyUI server with this pack and a few adapters, and its frontend in a browser; or a skip that says
why.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from sur_core import save_adapter
from tests.browser import frontend as browser
from tests.comfyui import server as comfy
from tests.helpers import random_adapter, write_authors_file

PACK = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    if reason := comfy.missing() or browser.missing():
        comfy.skip_or_fail(reason)
    base = tmp_path_factory.mktemp("comfyui")
    folder = base / "models" / "sur_adapters"
    save_adapter(random_adapter("sd1"), folder / "ours.safetensors")
    save_adapter(random_adapter("sd2"), folder / "more" / "sd2.safetensors")
    write_authors_file(folder / "test_llm13B_adapterw0.1" / "adapter_checkpoint5000.pt")
    (folder / "notes.txt").write_text("not an adapter")
    # ComfyUI comes with this picture; the templates use it, and a base folder of our own lacks it.
    (base / "input").mkdir()
    Image.new("RGB", (64, 64), "white").save(base / "input/example.png")
    with comfy.Server(base, {"sur-adapter": PACK}) as running:
        yield running


@pytest.fixture(scope="session")
def playwright():
    """One for all tests: a second would refuse to start while the first one's loop runs."""
    if reason := browser.missing():
        comfy.skip_or_fail(reason)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as running:
        yield running


@pytest.fixture(scope="session")
def opened(server, playwright):
    with browser.frontend_in(playwright, server.url) as frontend:
        yield frontend


@pytest.fixture
def frontend(opened):
    """The frontend with an empty graph and no problem noted."""
    opened.clear()
    opened.forget()
    return opened
