"""Nodes that load LLMDiff's parts: the language model and the adapter."""

from __future__ import annotations

from pathlib import Path

from comfy_api.latest import io

from ..sur_core.language_model import DTYPES
from . import llmdiff_files
from .llmdiff_common import LLMDiffAdapterSocket, LLMSocket, llmdiff_schema
from .llmdiff_handle import DEVICES, LLMDiffHandle, LLMHandle


class LLMDiffLoadLLM(io.ComfyNode):
    """Names a folder of models/llm; its weights are read when a prompt needs them."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return llmdiff_schema(
            node_id="LLMDiffLoadLLM",
            display_name="Load LLM for LLMDiff",
            description=(
                "Chooses a decoder-only language model (Llama, Mistral, Qwen, Gemma, Phi ...) from "
                "models/llm. Its weights are loaded only when a prompt has to be encoded. Code that comes "
                "with a model is never run."
            ),
            aliases=["LLM loader", "load language model", "transformers"],
            inputs=[
                io.Combo.Input(
                    "llm_name",
                    options=llmdiff_files.list_llms(),
                    tooltip=(
                        "A folder in models/llm in transformers' layout: config.json, weights and tokenizer. "
                        "It must be the model that the adapter was trained with. Press R to refresh the list."
                    ),
                ),
                io.Combo.Input(
                    "dtype",
                    options=["auto", *DTYPES],
                    default="auto",
                    tooltip=(
                        "Type of the numbers. auto: bf16 on GPUs that compute in it, fp16 on others, fp32 on "
                        "the CPU. bf16 and fp16 need half the memory of fp32."
                    ),
                ),
                io.Combo.Input(
                    "device",
                    options=list(DEVICES),
                    default="auto",
                    tooltip=(
                        "Where it runs. auto: where ComfyUI runs text encoders; with --lowvram and on old "
                        "cards, the CPU. gpu: where pictures are drawn, even then. Both make room when the "
                        "memory is needed. cpu: slower, takes no GPU memory."
                    ),
                ),
                io.Int.Input(
                    "max_tokens",
                    default=256,
                    min=2,
                    max=8192,
                    step=1,
                    tooltip="Longest prompt in tokens. A longer one is refused, never cut.",
                ),
            ],
            outputs=[
                LLMSocket.Output(
                    display_name="llm", tooltip="The language model, for Encode Prompt (LLMDiff)."
                )
            ],
        )

    @classmethod
    def validate_inputs(cls, llm_name) -> bool:
        """Leaves a missing folder to execute(), whose errors ComfyUI shows in a dialog."""
        return True

    @classmethod
    def fingerprint_inputs(cls, llm_name, dtype, device, max_tokens):
        if llm_name is None:
            return None
        try:
            files = sorted(path for path in llmdiff_files.llm_path(llm_name).iterdir() if path.is_file())
            about = [(path.name, path.stat().st_mtime_ns, path.stat().st_size) for path in files]
        except OSError:
            about = []
        return [llm_name, dtype, device, max_tokens, about]

    @classmethod
    def execute(cls, llm_name, dtype, device, max_tokens) -> io.NodeOutput:
        return io.NodeOutput(LLMHandle(llmdiff_files.llm_path(llm_name), dtype, device, max_tokens))


class LLMDiffLoadAdapter(io.ComfyNode):
    """Reads a file from models/llmdiff_adapters."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return llmdiff_schema(
            node_id="LLMDiffLoadAdapter",
            display_name="Load LLMDiff Adapter",
            description=(
                "Loads an LLMDiff adapter from models/llmdiff_adapters. It belongs to one language model and "
                "to one family of base models (SD 1.x, SD 2.x or SDXL)."
            ),
            aliases=["LLMDiff adapter", "LLM adapter"],
            inputs=[
                io.Combo.Input(
                    "adapter_name",
                    options=llmdiff_files.ADAPTERS.names(),
                    tooltip=(
                        "A file in models/llmdiff_adapters or a folder named llmdiff_adapters in "
                        "extra_model_paths.yaml. Press R to refresh the list."
                    ),
                )
            ],
            outputs=[
                LLMDiffAdapterSocket.Output(
                    display_name="adapter",
                    tooltip="The adapter, for Encode Prompt (LLMDiff) and Apply LLMDiff.",
                ),
                io.String.Output(
                    display_name="passport",
                    tooltip="What the file says about itself: language model, base model, steps, data set.",
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, adapter_name) -> bool:
        """Leaves a missing file to execute(), whose errors ComfyUI shows in a dialog."""
        return True

    @classmethod
    def fingerprint_inputs(cls, adapter_name):
        return fingerprint(llmdiff_files.ADAPTERS, adapter_name)

    @classmethod
    def execute(cls, adapter_name) -> io.NodeOutput:
        handle = LLMDiffHandle(llmdiff_files.ADAPTERS.path(adapter_name))
        return io.NodeOutput(handle, handle.adapter.passport.to_text())


def fingerprint(folder: llmdiff_files.ModelFolder, name: str | None):
    """Changes with the file behind a name. ComfyUI asks with ``None`` where the name comes by wire."""
    if name is None:
        return None
    try:
        status = Path(folder.path(name)).stat()
    except OSError:
        return name
    return [name, status.st_mtime_ns, status.st_size]


NODES = [LLMDiffLoadLLM, LLMDiffLoadAdapter]
