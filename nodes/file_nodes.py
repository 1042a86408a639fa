"""Nodes about adapter files: load, merge, save."""

from __future__ import annotations

from comfy_api.latest import io

from ..sur_core import SURAdapterBundle, load_adapter, merge_adapters, save_adapter
from . import model_files
from .common import SURAdapterSocket, adapter_input, schema
from .handle import AdapterHandle


class SURLoadAdapter(io.ComfyNode):
    """Reads a file from models/sur_adapters."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="SURLoadAdapter",
            display_name="Load SUR Adapter",
            description=(
                "Loads a SUR adapter from models/sur_adapters: our .safetensors or the authors' .pt. An "
                "adapter belongs to one base model family (SD 1.x, SD 2.x or SDXL)."
            ),
            search_aliases=["SUR adapter", "SUR-adapter loader", "semantic understanding and reasoning"],
            inputs=[
                io.Combo.Input(
                    "adapter_name",
                    options=model_files.list_adapters(),
                    tooltip=(
                        "A file in models/sur_adapters or a folder named sur_adapters in "
                        "extra_model_paths.yaml. Press R to refresh the list."
                    ),
                ),
            ],
            outputs=[
                SURAdapterSocket.Output(
                    display_name="adapter", tooltip="The adapter, for the Apply SUR nodes."
                ),
                io.String.Output(
                    display_name="passport",
                    tooltip=(
                        "What the file says about itself: base model, eta in training, language model, steps."
                    ),
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, adapter_name) -> bool:
        """Leaves a missing file to execute(): ComfyUI shows an error of a run in a dialog,
        but drops an output whose inputs are not valid without a word while another output can run.
        """
        return True

    @classmethod
    def fingerprint_inputs(cls, adapter_name):
        if adapter_name is None:
            return None
        try:
            status = model_files.adapter_path(adapter_name).stat()
        except OSError:
            return adapter_name
        return [adapter_name, status.st_mtime_ns, status.st_size]

    @classmethod
    def execute(cls, adapter_name) -> io.NodeOutput:
        return _adapter_output(load_adapter(model_files.adapter_path(adapter_name)))


class SURMergeAdapters(io.ComfyNode):
    """A weighted sum of up to four adapters."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="SURMergeAdapters",
            display_name="Merge SUR Adapters",
            description="Adds up to four adapters of the same base model into one, by weight.",
            search_aliases=["SUR adapter", "merge adapter", "blend adapters"],
            inputs=[
                adapter_input("adapter_1", tooltip="The first adapter."),
                adapter_input("adapter_2", tooltip="The second adapter, of the same base model family."),
                adapter_input("adapter_3", optional=True, tooltip="A third adapter, if you want one."),
                adapter_input("adapter_4", optional=True, tooltip="A fourth adapter, if you want one."),
                *(_weight_input(number) for number in (1, 2, 3, 4)),
                io.Boolean.Input(
                    "normalize",
                    default=True,
                    label_on="weights sum to 1",
                    label_off="weights as given",
                    tooltip=(
                        "Divide the weights by their sum, so that the result is as strong as the adapters "
                        "it is made of."
                    ),
                ),
            ],
            outputs=[
                SURAdapterSocket.Output(display_name="adapter", tooltip="The merged adapter."),
                io.String.Output(display_name="passport", tooltip="What it was made of."),
            ],
        )

    @classmethod
    def execute(
        cls,
        adapter_1: AdapterHandle,
        adapter_2: AdapterHandle,
        weight_1,
        weight_2,
        weight_3,
        weight_4,
        normalize,
        adapter_3: AdapterHandle | None = None,
        adapter_4: AdapterHandle | None = None,
    ) -> io.NodeOutput:
        given = ((adapter_1, weight_1), (adapter_2, weight_2), (adapter_3, weight_3), (adapter_4, weight_4))
        adapters = [adapter.bundle for adapter, _ in given if adapter is not None]
        weights = [weight for adapter, weight in given if adapter is not None]
        if normalize:
            total = sum(weights)
            if abs(total) < 1e-6:
                raise ValueError(
                    f"Merge SUR Adapters: the weights {weights} sum to 0; change one or turn normalize off"
                )
            weights = [weight / total for weight in weights]
        return _adapter_output(merge_adapters(adapters, weights))


class SURSaveAdapter(io.ComfyNode):
    """Writes an adapter into models/sur_adapters."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="SURSaveAdapter",
            display_name="Save SUR Adapter",
            description=(
                "Saves an adapter as .safetensors in models/sur_adapters, with its passport. Also turns "
                "the authors' .pt into .safetensors."
            ),
            search_aliases=["SUR adapter", "save adapter", "convert adapter"],
            inputs=[
                adapter_input(tooltip="The adapter to save."),
                io.String.Input(
                    "name",
                    default="my_adapter",
                    tooltip=(
                        "File name in models/sur_adapters; subfolders with /. The ending .safetensors is "
                        "added."
                    ),
                ),
                io.Boolean.Input(
                    "overwrite",
                    default=False,
                    label_on="replace existing file",
                    label_off="keep existing file",
                    tooltip=(
                        "What to do if a file of this name is already there: keep it and stop with an "
                        "error, or replace it."
                    ),
                ),
            ],
            outputs=[io.String.Output(display_name="path", tooltip="Where the file was written.")],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, adapter: AdapterHandle, name, overwrite) -> io.NodeOutput:
        path = model_files.save_path(name)
        if path.exists() and not overwrite:
            raise FileExistsError(
                f"{path} is already there. Choose another name, or switch overwrite on to replace it"
            )
        save_adapter(adapter.bundle, path, title=adapter.bundle.passport.title or path.stem)
        return io.NodeOutput(str(path), ui={"text": (f"Saved {path}",)})


def _weight_input(number: int) -> io.Input:
    return io.Float.Input(
        f"weight_{number}",
        default=1.0,
        min=-2.0,
        max=2.0,
        step=0.01,
        tooltip=f"Share of adapter {number}." + (" Ignored while it is not connected." if number > 2 else ""),
    )


def _adapter_output(bundle: SURAdapterBundle) -> io.NodeOutput:
    return io.NodeOutput(AdapterHandle(bundle), bundle.passport.to_text())


NODES = [SURLoadAdapter, SURMergeAdapters, SURSaveAdapter]
