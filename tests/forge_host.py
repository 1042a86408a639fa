"""Forge's own code, run without its web page and without a real model.

Real, from a checkout of Forge: ``modules.processing`` (``process_images_inner``, the txt2img and the img2img
object, hires fix, infotext), ``images``, ``scripts`` (the script runner), ``script_callbacks``,
``prompt_parser``, ``sd_samplers`` with ``sd_samplers_common`` (refiner, the steps of img2img),
``sd_samplers_kdiffusion`` and ``sd_samplers_cfg_denoiser``,
``infotext_utils``, ``rng``, ``scripts/xyz_grid.py``, ``backend.sampling``, ``backend.memory_management``, its
noise schedule and its ``k_diffusion``.

Standing in: the model (an encoder that draws embeddings from the prompt's letters, a UNet and a VAE that are
arithmetic), loading of checkpoints, options and state (``modules.shared``), the list of extensions, gradio,
and packages that only other features need. Where a prompt changes during the steps is read by a small parser
for ``[a:b:0.5]``, because Forge's needs the package lark.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.machinery
import os
import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from unittest.mock import MagicMock

import pytest
import torch

from tests.webui_host import ROOT, SCRIPT, Control, gradio

HOME = Path(os.environ.get("FORGE_TEST_HOME", "~/.cache/forge-test")).expanduser()
FORGE = HOME / "forge"

HOLLOW = [
    "gradio.blocks",
    "gradio.components",
    "gradio.context",
    "fastapi",
    "lark",
    "gguf",
    "einops",
    "torchsde",
    "torchsde._brownian",
    "torchsde._brownian.brownian_interval",
    "torchdiffeq",
    "cv2",
    "skimage",
    "blendmodes",
    "blendmodes.blend",
    "piexif",
    "piexif.helper",
    "pillow_avif",
    "pytz",
    "launch",
    "diffusers",
    "diffusers.pipelines",
    "diffusers.pipelines.flux",
    "diffusers.pipelines.flux.pipeline_flux",
    "torchvision",
    "torchvision.transforms",
    "modules.shared",
    "modules.sd_vae_approx",
    "modules.sd_vae_taesd",
    "modules.sd_models",
    "modules.sd_vae",
    "modules.extensions",
    "modules.paths",
    "modules.sd_hijack",
    "modules.sd_unet",
    "modules.masking",
    "modules.profiling",
    "modules.sysinfo",
    "modules.face_restoration",
    "modules.styles",
    "modules.ui_tempdir",
    "modules.ui_common",
    "modules.ui_components",
    "modules.scripts_auto_postprocessing",
    "modules.api",
    "modules.api.models",
    "modules_forge.main_entry",
    "modules_forge.utils",
    "modules_forge.alter_samplers",
    "backend.text_processing",
    "backend.text_processing.classic_engine",
]
"""Modules that stand in: whatever is asked of them exists and does nothing."""

OURS = ("modules", "modules_forge", "backend", "k_diffusion", "packages_3rdparty")


def missing() -> str:
    """Why there is no Forge to test with, or ``""``."""
    if (FORGE / "modules" / "processing.py").is_file():
        return ""
    return (
        f"no Forge to test with: {FORGE} is missing. Have one with: git clone "
        f"https://github.com/lllyasviel/stable-diffusion-webui-forge {FORGE}; FORGE_TEST_HOME names another "
        "place, SUR_FORGE_TESTS_MUST_RUN=1 makes this a failure"
    )


def skip_or_fail(reason: str) -> None:
    """Few have Forge, so its tests have a switch of their own."""
    if os.environ.get("SUR_FORGE_TESTS_MUST_RUN"):
        pytest.fail(reason)
    pytest.skip(reason)


class Hollow(ModuleType):
    def __init__(self, name: str):
        super().__init__(name)
        self.__spec__ = importlib.machinery.ModuleSpec(name, None)
        self.__path__ = []

    def __getattr__(self, name: str):
        if name.startswith("__"):
            raise AttributeError(name)
        setattr(self, name, MagicMock(name=f"{self.__name__}.{name}"))
        return getattr(self, name)


class Options(SimpleNamespace):
    """``shared.opts`` and ``shared.cmd_opts``: all is off that is not set."""

    def __getattr__(self, name: str):
        if name.startswith(("__", "prioritized_callbacks")):
            raise AttributeError(name)
        return 0


class Model:
    """A checkpoint of a given width whose pictures depend on nothing but noise and prompts."""

    is_inpaint = use_distilled_cfg_scale = False
    sd_model_hash = "0123456789"

    def __init__(self, forge: Forge, name: str, width: int):
        self.width = width
        self.is_sdxl = width >= 1280
        self.sd_checkpoint_info = SimpleNamespace(name=name, name_for_extra=name, short_title=name)
        self.model_config = SimpleNamespace(ztsnr=False)
        self.cond_stage_model_empty_prompt = torch.zeros(1, 77, width)
        self.extra_generation_params: dict = {}
        self.seen: list[torch.Tensor] = []  # the cond at each call of the UNet
        self.forge_objects = self._objects(forge)
        self.forge_objects_original = self.forge_objects_after_applying_lora = SimpleNamespace(
            shallow_copy=lambda: self.forge_objects
        )

    def get_learned_conditioning(self, texts):
        rows = [self.encode(text) for text in texts]
        hidden = torch.stack(rows)
        return {"crossattn": hidden, "vector": torch.ones(len(rows), 8)} if self.is_sdxl else hidden

    def encode(self, text: str) -> torch.Tensor:
        """[77 * n, width]: 77 letters a chunk."""
        tokens = 77 * max(1, -(-len(text) // 77))
        generator = torch.Generator().manual_seed(sum((i + 1) * ord(x) for i, x in enumerate(text)))
        return torch.randn(tokens, self.width, generator=generator)

    def set_clip_skip(self, _layers):
        return None

    def encode_first_stage(self, images):
        small = torch.nn.functional.avg_pool2d(images, 8)
        return torch.cat([small, small.mean(1, keepdim=True)], 1)

    def get_first_stage_encoding(self, latents):
        return latents

    def decode_first_stage(self, latents):
        return torch.nn.functional.interpolate(latents[:, :3], scale_factor=8).clamp(-1, 1)

    def _unet(self, x, timestep, c_crossattn, **_more):
        self.seen.append(c_crossattn)
        prompt = c_crossattn.float().mean(1)[:, :4, None, None]
        return 0.4 * torch.tanh(x) + 4 * prompt

    def _objects(self, forge: Forge):
        kmodel = SimpleNamespace(
            predictor=forge.prediction.Prediction(prediction_type="epsilon"),
            apply_model=self._unet,
            memory_required=lambda _shape: 0,
        )
        unet = MagicMock(
            model=kmodel, controlnet_linked_list=None, extra_concat_condition=None, model_options={}
        )
        unet.has_online_lora.return_value = False
        unet.list_controlnets.return_value = []
        return SimpleNamespace(unet=unet, vae=SimpleNamespace(latent_channels=4))


class Forge:
    """``with Forge(models) as forge``: Forge's modules are importable and our script is loaded into it."""

    def __init__(self, models: Path):
        self.folder = models / "sur_adapters"
        self.folder.mkdir(parents=True, exist_ok=True)
        self._models_path = str(models)
        self.checkpoints: dict[str, Model] = {}
        self.reported: list[BaseException] = []

    def __enter__(self) -> Forge:
        self._before = dict(sys.modules), list(sys.path), list(sys.argv)
        sys.argv[1:] = ["--always-cpu"]
        sys.path[:0] = [str(FORGE), str(FORGE / "packages_3rdparty"), str(ROOT)]
        try:
            self._import()
            self._restore([name for name in HOLLOW if name.startswith(("diffusers", "torchvision"))])
            self._load_script()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_error) -> None:
        _, sys.path[:], sys.argv[:] = self._before
        for name in list(sys.modules):
            if name.split(".")[0] in OURS or isinstance(sys.modules[name], Hollow) or name == "gradio":
                del sys.modules[name]
        self._restore(HOLLOW)

    def _restore(self, names: list[str]) -> None:
        """Put back what other tests have loaded under these names, or nothing."""
        for name in names:
            sys.modules.pop(name, None)
            if name in self._before[0]:
                sys.modules[name] = self._before[0][name]

    def use(self, name: str, width: int) -> Model:
        """A checkpoint, loaded."""
        self.checkpoints[name] = self.shared.sd_model = Model(self, name, width)
        self.opts.sd_model_checkpoint = name
        return self.checkpoints[name]

    def processing_object(self, *values, **settings):
        """As the web page would make it: an img2img object with ``init_images``, else a txt2img object;
        ``values`` are those of our controls.
        """
        tab = "img2img" if "init_images" in settings else "txt2img"
        p = getattr(self.processing, f"StableDiffusionProcessing{tab.title()}")(
            **{
                **dict(
                    prompt="seven glasses", negative_prompt="blurry", seed=1, subseed=1, steps=4, width=64
                ),
                **dict(height=64, sampler_name="Euler", scheduler="Automatic", do_not_save_samples=True),
                **dict(do_not_save_grid=True, cfg_scale=5.0),
                **settings,
            }
        )
        p.scripts = self.runners[tab]
        p.script_args = (None,) * self.script(tab).args_from + tuple(values)
        return p

    def script(self, tab: str):
        """Our script in "txt2img" or "img2img"."""
        (script,) = self.runners[tab].alwayson_scripts
        return script

    def draw(self, *values, **settings):
        """One run. Returns what ``process_images_inner`` returns."""
        return self.run(self.processing_object(*values, **settings))

    def run(self, p):
        self._select(self.opts.sd_model_checkpoint)
        with contextlib.closing(p):
            return self.processing.process_images_inner(p)

    def _select(self, name: str) -> None:
        self._selected = name
        self.shared.sd_model = self.checkpoints[name]

    def _import(self) -> None:
        for name in HOLLOW:
            sys.modules[name] = Hollow(name)
        sys.modules["gradio"] = page = gradio()
        page.Group = page.Button = Control
        page.Dropdown.change = lambda *_arguments, **_more: None
        for name in ("blocks", "components", "context"):
            setattr(page, name, sys.modules[f"gradio.{name}"])
        page.Blocks = page.blocks.Block = page.components.Component = Control
        sys.modules["lark"].Visitor = sys.modules["lark"].Transformer = object
        self._shared()
        self._loading()
        for name in (
            "processing",
            "scripts",
            "script_callbacks",
            "script_loading",
            "infotext_utils",
            "errors",
        ):
            setattr(self, name, importlib.import_module(f"modules.{name}"))
        self.errors.report = lambda _message, exc_info=False: self.reported.append(sys.exc_info()[1])
        self.prediction = importlib.import_module("backend.modules.k_prediction")
        importlib.import_module("backend.memory_management").load_models_gpu = lambda **_more: None
        text_processing = sys.modules["backend.text_processing"]
        text_processing.classic_engine = sys.modules["backend.text_processing.classic_engine"]
        sys.modules["backend"].text_processing = text_processing
        self.prompt_parser = importlib.import_module("modules.prompt_parser")
        self.prompt_parser.get_learned_conditioning_prompt_schedules = schedules

    def _shared(self) -> None:
        self.shared = sys.modules["modules.shared"]
        self.opts = self.shared.opts = Options(
            **dict(randn_source="CPU", forge_try_reproduce="None", sd_noise_schedule="Default"),
            **dict(sd_vae_decode_method="Full", sd_vae_encode_method="Full", infotext_styles="Ignore"),
            **dict(infotext_skip_pasting=[], forge_additional_modules=[], data={}, labels={}),
            **dict(forge_unet_storage_dtype="Automatic", CLIP_stop_at_last_layers=1, hide_samplers=[]),
            **dict(hires_fix_refiner_pass="second pass", grid_only_if_multiple=True, enable_pnginfo=True),
            **dict(eta_ancestral=1.0, emphasis="Original", img_max_size_mp=200, initial_noise_multiplier=1.0),
            **dict(img2img_background_color="#ffffff", upscaler_for_img2img="None"),
        )
        self.opts.add_option = lambda name, info: None
        self.shared.state = SimpleNamespace(
            **dict(interrupted=False, skipped=False, stopping_generation=False, job_count=-1, job=""),
            **dict(sampling_step=0, sampling_steps=0, job_timestamp="", current_latent=None),
            **dict(processing_has_refined_job_count=False, nextjob=lambda: None),
        )
        self.shared.cmd_opts = Options(no_prompt_history=True, embeddings_dir="/nowhere")
        self.shared.prompt_styles.apply_styles_to_prompt = lambda prompt, _styles: prompt
        self.shared.prompt_styles.apply_negative_styles_to_prompt = lambda prompt, _styles: prompt
        self.shared.latent_upscale_modes = {"Latent": {"mode": "nearest", "antialias": False}}
        self.shared.device = torch.device("cpu")
        data = sys.modules["modules.scripts_auto_postprocessing"]
        data.create_auto_preprocessing_script_data = list
        sys.modules["modules.extensions"].extensions = []
        sys.modules["modules.extensions"].find_extension = lambda _file: None
        sys.modules["backend.text_processing.classic_engine"].last_extra_generation_params = {}
        sys.modules["launch"].git_tag = lambda: "forge"

    def _loading(self) -> None:
        models, entry = sys.modules["modules.sd_models"], sys.modules["modules_forge.main_entry"]
        models.SkipWritingToConfig = contextlib.nullcontext
        models.apply_alpha_schedule_override = lambda *_arguments: None  # a mock would keep what it is given
        models.model_data.get_sd_model = lambda: self.shared.sd_model
        models.forge_model_reload = lambda: self._select(self._selected)
        models.get_closet_checkpoint_match = lambda name: self.checkpoints[name].sd_checkpoint_info

        def change(name, save, refresh):
            self._selected = name
            return True

        entry.checkpoint_change = change
        entry.modules_change = lambda *_arguments, **_more: False

    def _load_script(self) -> None:
        importlib.import_module("modules.paths_internal").models_path = self._models_path
        module = self.script_loading.load_module(str(SCRIPT))
        self.axes = self.script_loading.load_module(str(FORGE / "scripts" / "xyz_grid.py"))
        data = self.scripts.ScriptClassData
        self.scripts.scripts_data[:] = [
            data(module.SURAdapterScript, str(SCRIPT), str(ROOT), module),
            data(self.axes.Script, str(FORGE / "scripts" / "xyz_grid.py"), str(FORGE), self.axes),
        ]
        self.script_callbacks.before_ui_callback()
        self.scripts.scripts_data.pop()  # its controls need a real gradio
        self.runners = {tab: self.scripts.ScriptRunner() for tab in ("txt2img", "img2img")}
        for tab, runner in self.runners.items():
            runner.initialize_scripts(is_img2img=tab == "img2img")
            runner.prepare_ui()
            runner.setup_ui()


def schedules(prompts, base_steps, hires_steps=None, use_old_scheduling=False):
    """Of ``[a:b:0.5]``: a until half of the steps, then b. In hires fix's second pass: b, as in Forge."""
    found = []
    steps = base_steps if hires_steps is None else hires_steps
    for prompt in prompts:
        match = re.fullmatch(r"\[(.*):(.*):(0\.\d+)\]", prompt)
        if match is None:
            found.append([[steps, prompt]])
        elif hires_steps is not None:
            found.append([[steps, match[2]]])
        else:
            found.append([[int(float(match[3]) * steps), match[1]], [steps, match[2]]])
    return found
