"""What stands in for AUTOMATIC1111's web UI in tests: as much of it as the script meets.

Written after the host's own ``modules/`` of version 1.10: which names a script may import, in which order a
run calls it, what the denoiser hands to a callback and reads back, and that an exception of a script or of a
callback is reported while the run goes on.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import torch

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "scripts" / "sur_adapter.py"


class Control:
    """Any gradio component: it remembers what it was made with."""

    def __init__(self, *args, **settings):
        self.args = args
        for name, value in settings.items():
            setattr(self, name, value)

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        return None


def gradio() -> ModuleType:
    """The part of gradio that 3.41 (AUTOMATIC1111) and 4 (Forge) have in common and the script uses."""
    module = ModuleType("gradio")
    for name in ("Accordion", "Row", "Checkbox", "Dropdown", "Slider"):
        setattr(module, name, type(name, (Control,), {}))
    module.update = lambda **changes: {"__type__": "update", **changes}
    return module


class Script:
    """``modules.scripts.Script``."""

    is_img2img = False

    def elem_id(self, item):
        return f"script_{'img2img' if self.is_img2img else 'txt2img'}_sur-adapter_{item}"


class CFGDenoiserParams:
    def __init__(
        self, x, image_cond, sigma, sampling_step, total_sampling_steps, text_cond, text_uncond, denoiser=None
    ):
        self.x, self.image_cond, self.sigma = x, image_cond, sigma
        self.sampling_step, self.total_sampling_steps = sampling_step, total_sampling_steps
        self.text_cond, self.text_uncond = text_cond, text_uncond
        self.denoiser = denoiser


class DictWithShape(dict):
    """``modules.prompt_parser.DictWithShape``: SDXL's cond."""

    def __init__(self, x, shape=None):
        super().__init__()
        self.update(x)

    @property
    def shape(self):
        return self["crossattn"].shape


class Processing:
    """The names of ``StableDiffusionProcessing`` that matter to a script."""

    def __init__(self):
        self.extra_generation_params = {}
        self.comments = {}

    def comment(self, text):
        self.comments[text] = 1


class WebUI:
    """The host with the script loaded.

    Attributes:
        models: the folder for models.
        script: the loaded script file, a module.
        callbacks: registered functions by the name of what registered them.
        refreshes: what the refresh buttons would send, by element id.
        reported: exceptions that the host has reported and got over.
    """

    def __init__(self, models: Path, monkeypatch):
        self.models = models
        (models / "sur_adapters").mkdir(parents=True, exist_ok=True)
        self.callbacks: dict[str, list] = {}
        self.refreshes: dict[str, object] = {}
        self.reported: list[Exception] = []
        self.opts = SimpleNamespace(labels={})
        self.opts.add_option = lambda name, info: self.opts.labels.update({name: info})
        for name, module in self._modules().items():
            monkeypatch.setitem(sys.modules, name, module)
        self.script = load_script()

    def new_script(self):
        return self.script.SURAdapterScript()

    def run(self, p, values: tuple, sample) -> None:
        """A run in the host's order; ``sample()`` draws. As there, nothing is called after a failure."""
        script = self.new_script()
        self._guarded(script.process, p, *values)
        sample()
        self._guarded(script.postprocess, p, None, *values)

    def denoise(self, p, cond, uncond, step: int = 0, steps: int = 10) -> CFGDenoiserParams:
        """One call of the denoiser: what the callbacks leave in the params, used as the host uses it."""
        denoiser = SimpleNamespace(p=p, step=step, total_steps=steps)
        params = CFGDenoiserParams(None, None, None, step, steps, cond, uncond, denoiser)
        for callback in self.callbacks["on_cfg_denoiser"]:
            self._guarded(callback, params)
        if params.text_uncond is not None:
            assert params.text_cond.shape[2] == params.text_uncond.shape[2]
        return params

    def _guarded(self, function, *args):
        try:
            function(*args)
        except Exception as error:
            self.reported.append(error)

    def _modules(self) -> dict[str, ModuleType]:
        found = {
            name: ModuleType(name) for name in ("modules", "modules.scripts", "modules.script_callbacks")
        }
        found |= {name: ModuleType(name) for name in ("modules.shared", "modules.paths_internal")}
        found |= {"modules.ui_common": ModuleType("modules.ui_common"), "gradio": gradio()}
        found["modules.scripts"].Script = Script
        found["modules.scripts"].AlwaysVisible = object()
        found["modules.scripts"].scripts_data = []
        found["modules.script_callbacks"].CFGDenoiserParams = CFGDenoiserParams
        for name in ("on_cfg_denoiser", "on_ui_settings", "on_before_ui"):
            setattr(found["modules.script_callbacks"], name, self.callbacks.setdefault(name, []).append)
        found["modules.shared"].opts = self.opts
        found["modules.shared"].OptionInfo = lambda default, label, section: (default, label, section)
        found["modules.paths_internal"].models_path = str(self.models)
        found["modules.ui_common"].create_refresh_button = self._refresh_button
        for name in ("scripts", "script_callbacks", "shared", "paths_internal", "ui_common"):
            setattr(found["modules"], name, found[f"modules.{name}"])
        return found

    def _refresh_button(self, _component, _method, refreshed, elem_id):
        self.refreshes[elem_id] = refreshed


def load_script() -> ModuleType:
    """The script's file, executed as the hosts do."""
    spec = importlib.util.spec_from_file_location(SCRIPT.name, SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def sdxl(crossattn: torch.Tensor) -> DictWithShape:
    return DictWithShape({"crossattn": crossattn, "vector": torch.ones(crossattn.shape[0], 2816)})
