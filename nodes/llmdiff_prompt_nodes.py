"""Nodes about prompts: encode them with a language model, save and load what it made of them."""

from __future__ import annotations

from comfy_api.latest import io

from ..sur_core.llmdiff import load_encodings, save_encodings
from ..sur_core.llmdiff.encodings import check_encodings
from . import llmdiff_files
from .llmdiff_common import LLMSocket, adapter_input, conditioning_input, llmdiff_schema
from .llmdiff_file_nodes import fingerprint
from .llmdiff_handle import LLMDiffHandle, LLMHandle
from .llmdiff_prompts import collect, encode, with_prompts

_CLIP_TOO = (
    "The same prompt as CLIP reads it, from CLIP Text Encode; it may be corrected by SUR. Needed for "
    "strengths below 1, for adapters that keep CLIP (see the passport), and for SDXL, whose pooled embedding "
    "comes from it. Areas, masks, ControlNets and ranges stay. Without it, CLIP says nothing (zeros)."
)


class LLMDiffEncode(io.ComfyNode):
    """Eq. 1 to 3 of Dong et al. (2024), https://arxiv.org/abs/2502.04412, without noise."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return llmdiff_schema(
            node_id="LLMDiffEncode",
            display_name="Encode Prompt (LLMDiff)",
            description=(
                "Reads a prompt with a language model, block by block, for Apply LLMDiff. The result is a "
                "CONDITIONING for any sampler. A prompt is read once and then remembered, without the "
                "language model in memory."
            ),
            aliases=["LLM prompt encode", "text encode"],
            inputs=[
                LLMSocket.Input("llm", tooltip="The language model, from Load LLM for LLMDiff."),
                adapter_input("The adapter that will hear the prompt, from Load LLMDiff Adapter."),
                io.String.Input(
                    "text",
                    multiline=True,
                    dynamic_prompts=True,
                    tooltip=(
                        "The prompt, in whole sentences. Weights such as (word:1.2) mean nothing to a "
                        "language model. May be empty, such as for the negative prompt; encode that here too."
                    ),
                ),
                conditioning_input(_CLIP_TOO),
            ],
            outputs=[
                io.Conditioning.Output(
                    tooltip="The prompt as CLIP and the language model read it, for a sampler."
                )
            ],
        )

    @classmethod
    def execute(cls, llm: LLMHandle, adapter: LLMDiffHandle, text, conditioning=None) -> io.NodeOutput:
        prompt = encode(llm, adapter.adapter, text)
        return io.NodeOutput(with_prompts(conditioning, [prompt], adapter.adapter))


class LLMDiffSaveEncoding(io.ComfyNode):
    """Writes a prompt's encoding into models/llmdiff_encodings."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return llmdiff_schema(
            node_id="LLMDiffSaveEncoding",
            display_name="Save LLMDiff Encoding",
            description=(
                "Saves what the language model made of a prompt, so that a workflow runs without the "
                "language model: on a machine that lacks it, or the memory for it."
            ),
            aliases=["save conditioning", "save prompt encoding"],
            inputs=[
                io.Conditioning.Input(
                    "conditioning",
                    tooltip="From Encode Prompt (LLMDiff). One prompt; save several before combining them.",
                ),
                io.String.Input(
                    "name",
                    default="my_encoding",
                    tooltip=(
                        "File name in models/llmdiff_encodings; subfolders with /. The ending .safetensors "
                        "is added."
                    ),
                ),
                io.Boolean.Input(
                    "overwrite",
                    default=False,
                    label_on="replace existing file",
                    label_off="keep existing file",
                    tooltip=(
                        "What to do if a file of this name is already there: keep it and stop with an error, "
                        "or replace it."
                    ),
                ),
            ],
            outputs=[io.String.Output(display_name="path", tooltip="Where the file was written.")],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, conditioning, name, overwrite) -> io.NodeOutput:
        prompts = collect(conditioning)
        path = llmdiff_files.ENCODINGS.save_path(name)
        if path.exists() and not overwrite:
            raise FileExistsError(
                f"{path} is already there. Choose another name, or switch overwrite on to replace it"
            )
        save_encodings(prompts, path)
        return io.NodeOutput(str(path), ui={"text": (f"Saved {path}",)})


class LLMDiffLoadEncoding(io.ComfyNode):
    """Reads a file from models/llmdiff_encodings."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return llmdiff_schema(
            node_id="LLMDiffLoadEncoding",
            display_name="Load LLMDiff Encoding",
            description=(
                "Loads a prompt that Save LLMDiff Encoding wrote, in place of Encode Prompt (LLMDiff): the "
                "language model is not needed."
            ),
            aliases=["load conditioning", "load prompt encoding"],
            inputs=[
                io.Combo.Input(
                    "encoding_name",
                    options=llmdiff_files.ENCODINGS.names(),
                    tooltip=(
                        "A file in models/llmdiff_encodings or a folder named llmdiff_encodings in "
                        "extra_model_paths.yaml. Press R to refresh the list."
                    ),
                ),
                adapter_input("The adapter that the prompt was encoded for, from Load LLMDiff Adapter."),
                conditioning_input(_CLIP_TOO),
            ],
            outputs=[
                io.Conditioning.Output(
                    tooltip="The prompt as CLIP and the language model read it, for a sampler."
                ),
                io.String.Output(display_name="prompt", tooltip="The text that was encoded."),
            ],
        )

    @classmethod
    def validate_inputs(cls, encoding_name) -> bool:
        """Leaves a missing file to execute(), whose errors ComfyUI shows in a dialog."""
        return True

    @classmethod
    def fingerprint_inputs(cls, encoding_name, adapter=None, conditioning=None):
        return fingerprint(llmdiff_files.ENCODINGS, encoding_name)

    @classmethod
    def execute(cls, encoding_name, adapter: LLMDiffHandle, conditioning=None) -> io.NodeOutput:
        prompts = load_encodings(llmdiff_files.ENCODINGS.path(encoding_name))
        mine = [prompt for prompt in prompts if prompt.encoding_id == adapter.adapter.encoding_id]
        if not mine:
            check_encodings(adapter.adapter, prompts)
        return io.NodeOutput(with_prompts(conditioning, prompts, adapter.adapter), mine[0].prompt)


NODES = [LLMDiffEncode, LLMDiffSaveEncoding, LLMDiffLoadEncoding]
