"""SUR-adapter for AUTOMATIC1111's web UI and for Forge: the controls, and where the hosts are met."""

import inspect

import gradio as gr
from modules import script_callbacks, scripts, shared
from modules.paths_internal import models_path
from modules.ui_common import create_refresh_button

from sur_webui import plot, request
from sur_webui.files import NONE, adapter_folders, list_adapters, make_folder
from sur_webui.settings import CONTROLS, DEFAULT_ETA, INFOTEXT, read_back

COMFYUI_OPTION = "sur_adapter_comfyui"

if "denoiser" not in inspect.signature(script_callbacks.CFGDenoiserParams).parameters:
    raise RuntimeError("SUR-adapter needs AUTOMATIC1111's web UI 1.8.0 or newer, or Forge; update the web UI")


def folders():
    return adapter_folders(models_path, getattr(shared.opts, COMFYUI_OPTION, "") or "")


def names():
    return [NONE, *list_adapters(folders())]


class SURAdapterScript(scripts.Script):
    def title(self):
        return "SUR-adapter"

    def show(self, is_img2img):
        return scripts.AlwaysVisible

    def ui(self, is_img2img):
        with gr.Accordion("SUR-adapter", open=False, elem_id=self.elem_id("accordion")):
            enabled = gr.Checkbox(value=False, label="Enable", elem_id=self.elem_id("enabled"))
            with gr.Row():
                adapter = gr.Dropdown(
                    choices=names(),
                    value=NONE,
                    label="Adapter",
                    info="From models/sur_adapters; made for the base model you draw with.",
                    elem_id=self.elem_id("adapter"),
                )
                create_refresh_button(
                    adapter, lambda: None, lambda: {"choices": names()}, self.elem_id("refresh")
                )
            eta = self._slider(
                "eta",
                DEFAULT_ETA,
                "Eta",
                "0 leaves the prompt exactly as it is, 1 replaces it by the adapter's reading. Start at the "
                "eta the adapter was trained with.",
            )
            negative = gr.Checkbox(
                value=False, label="Apply to the negative prompt too", elem_id=self.elem_id("negative")
            )
            with gr.Row():
                start = self._slider("start", 0.0, "Start", "Share of the steps at which it begins to act.")
                end = self._slider("end", 1.0, "End", "Share of the steps at which it stops acting.")
        controls = dict(zip(CONTROLS, (enabled, adapter, eta, negative, start, end), strict=True))
        self.infotext_fields = [(control, _reader(name)) for name, control in controls.items()]
        self.paste_field_names = list(INFOTEXT.values())
        return list(controls.values())

    def _slider(self, name, value, label, info):
        return gr.Slider(
            minimum=0.0,
            maximum=1.0,
            step=0.01,
            value=value,
            label=label,
            info=info,
            elem_id=self.elem_id(name),
        )

    def process(self, p, *values):
        request.begin(p, values, folders)

    def postprocess(self, p, processed, *values):
        request.end(p)


def _reader(name):
    """Of a control, for "Read generation parameters": the host calls it with an image's infotext."""

    def read(infotext):
        value = read_back(name, infotext, folders())
        if name == "adapter" and value is not None:
            listed = names()  # a missing file is shown too, so that the run can say that it is missing
            return gr.update(choices=listed if value in listed else [*listed, value], value=value)
        return value

    return read


def on_ui_settings():
    info = shared.OptionInfo(
        "",
        "ComfyUI's folder, to find the adapters in its models/sur_adapters too",
        section=("sur_adapter", "SUR-adapter"),
    )
    shared.opts.add_option(COMFYUI_OPTION, info)


def on_before_ui():
    make_folder(models_path)
    if (plot_script := plot.find_plot(scripts.scripts_data)) is not None:
        plot.add_axes(plot_script, names)


script_callbacks.on_cfg_denoiser(request.on_cfg_denoiser)
script_callbacks.on_ui_settings(on_ui_settings)
script_callbacks.on_before_ui(on_before_ui)
