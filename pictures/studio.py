"""A ComfyUI with this pack and adapters, and its frontend in a browser, to take pictures of."""

from __future__ import annotations

import io
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from sur_core import save_adapter
from sur_core.atomic import atomic_write
from sur_core.llmdiff import (
    EncodedPrompt,
    LLMDiffConfig,
    new_llmdiff_adapter,
    save_encodings,
    save_llmdiff,
)
from sur_core.llmdiff.config import SD1_LAYERS
from tests.browser import frontend as browser
from tests.comfyui import server as comfy
from tests.helpers import random_adapter

from .llmdiff_templates import LLM, LLMDIFF_ADAPTER
from .pieces import ADAPTER, ADAPTER_XL

RUN_SECONDS = 900
CHECKPOINTS, CHECKPOINT = comfy.HOME / "sur-adapter-tests", "sur_test_sd15.safetensors"  # random weights
PACK = Path(__file__).resolve().parents[1]
_SD15 = {
    "created": "2026-01-01T00:00:00+00:00",  # pictures show the hash of the file
    "base_model": "SD 1.5",
    "eta": 0.1,
    "steps": 5000,
    "llm_name": "LLaMA-13B",
    "llm_layer": 40,
    "dataset_name": "SURD",
}
_SDXL = _SD15 | {"base_model": "SDXL 1.0"}

FIT = """([margin, types]) => {
  const box = [1e9, 1e9, -1e9, -1e9];
  const grow = (x, y) => {
    box[0] = Math.min(box[0], x); box[1] = Math.min(box[1], y);
    box[2] = Math.max(box[2], x); box[3] = Math.max(box[3], y); };
  for (const {type, pos: [x, y], size: [w, h]} of app.graph.nodes)
    if (!types.length || types.includes(type)) { grow(x, y - 30); grow(x + w, y + h); }
  if (!types.length) for (const {pos: [x, y]} of app.graph.reroutes?.values() ?? []) grow(x, y);
  return [box[0] - margin, box[1] - margin, box[2] - box[0] + 2 * margin, box[3] - box[1] + 2 * margin];
}"""

# Menus over the canvas are hidden, so that a picture shows the workflow alone.
SHOW = """([[x, y, width, height], enlarged]) => {
  const {ds, canvas} = app.canvas, room = canvas.getBoundingClientRect();
  ds.scale = enlarged || Math.min(room.width / width, room.height / height);
  ds.offset[0] = -x + (room.width / ds.scale - width) / 2;
  ds.offset[1] = -y + (room.height / ds.scale - height) / 2;
  app.canvas.setDirty(true, true);
  app.canvas.draw(true, true);
  return [ds.scale, ds.offset[0], ds.offset[1], room.x, room.y];
}"""
BARE = """() => {
  const style = document.createElement('style');
  style.textContent = '.comfyui-body-top, .comfyui-body-left, .comfyui-body-bottom, .comfyui-body-right, '
    + '.side-tool-bar-container, .comfyui-menu, .workflow-tabs-container, .actionbar, .p-buttongroup, '
    + '.graph-canvas-container > .p-splitter, .minimap-main-container, .p-toast, '
    + '.splitter-overlay-root > *:not(.graph-canvas-panel) { visibility: hidden !important; }';
  document.head.append(style);
}"""


class Studio:
    """A running server and an open page."""

    def __init__(self, server: comfy.Server, frontend: browser.Frontend):
        self.server, self.frontend = server, frontend

    def info(self, types: set[str]) -> dict[str, dict]:
        """``/object_info`` of some classes."""
        return {name: self.server.node_info(name) for name in sorted(types)}

    def heights(self, workflow: dict) -> dict[int, float]:
        """How high the frontend makes each node of a workflow that is open, by number."""
        self.frontend.load(workflow)
        self.frontend.page.wait_for_timeout(1500)  # cards come from the server
        sizes = self.frontend.page.evaluate("() => app.graph.nodes.map(n => [n.id, n.computeSize()[1]])")
        return {int(number): height for number, height in sizes}

    def shot(self, types: tuple[str, ...] = (), margin: int = 24, enlarged: float = 0.0) -> bytes:
        """A PNG of the open graph.

        Args:
            types: only nodes of these classes; of all, if none are given.
            margin: around them, in the frontend's units.
            enlarged: scale of the drawing; 0 fills the page.
        """
        page = self.frontend.page
        box = page.evaluate(FIT, [margin, list(types)])
        drawn, left, top, room_x, room_y = page.evaluate(SHOW, [box, enlarged])
        page.wait_for_timeout(800)  # widgets that are HTML follow the canvas
        corner = (box[0] + left) * drawn + room_x, (box[1] + top) * drawn + room_y
        clip = (*corner, box[2] * drawn, box[3] * drawn)
        return page.screenshot(clip=dict(zip(("x", "y", "width", "height"), clip, strict=True)))

    def run(self) -> None:
        """Press Run, and wait until all is done and shown."""
        page = self.frontend.page
        page.evaluate("() => app.queuePrompt(0)")
        deadline = time.monotonic() + RUN_SECONDS
        while time.monotonic() < deadline:
            queue = self.server.get("/queue")
            if not queue["queue_running"] and not queue["queue_pending"] and self.server.get("/history"):
                page.wait_for_timeout(3000)  # the picture is fetched and its node grows
                return
            page.wait_for_timeout(500)
        raise TimeoutError(f"the workflow did not finish in {RUN_SECONDS} s")


@contextmanager
def open_studio(width: int = 1800, height: int = 1000) -> Iterator[Studio]:
    """Raises ``RuntimeError`` if there is no ComfyUI, no random checkpoint or no browser."""
    if reason := comfy.missing() or browser.missing():
        raise RuntimeError(reason)
    if not (CHECKPOINTS / CHECKPOINT).is_file():
        raise RuntimeError(f"{CHECKPOINTS / CHECKPOINT} is missing; the tests in tests/comfyui make it")
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        adapters = base / "models/sur_adapters"
        save_adapter(random_adapter("sd1", seed=1, passport=_SD15), adapters / ADAPTER)
        save_adapter(random_adapter("sdxl", seed=2, passport=_SDXL), adapters / ADAPTER_XL)
        _write_llmdiff(base / "models")
        shutil.copytree(comfy.COMFYUI / "input", base / "input")  # ComfyUI's own example picture
        with (
            comfy.Server(base, {"sur-adapter": PACK}, f"pictures:\n  checkpoints: {CHECKPOINTS}\n") as server,
            browser.open_frontend(server.url, width, height) as frontend,
        ):
            frontend.page.evaluate(BARE)
            yield Studio(server, frontend)


def _write_llmdiff(models: Path) -> None:
    """Files for the dropdowns; nothing that is shown reads them."""
    llm = models / "llm" / LLM / "config.json"
    llm.parent.mkdir(parents=True)
    llm.write_text("{}")
    adapter = new_llmdiff_adapter(LLMDiffConfig(8, 2, 768, SD1_LAYERS))
    save_llmdiff(adapter, models / "llmdiff_adapters" / LLMDIFF_ADAPTER)
    encoding = EncodedPrompt("a prompt", torch.zeros(2, 8), adapter.encoding_id, LLM)
    save_encodings([encoding], models / "llmdiff_encodings" / "my_encoding.safetensors")


def write_jpeg(png: bytes, path: Path, width: int, quality: int = 82) -> None:
    """The picture, made smaller if it is wider than ``width``, as a JPEG."""
    from PIL import Image

    image = Image.open(io.BytesIO(png)).convert("RGB")
    if image.width > width:
        image = image.resize((width, round(image.height * width / image.width)), Image.Resampling.LANCZOS)
    with atomic_write(path) as file:
        image.save(file, "JPEG", quality=quality, optimize=True)
