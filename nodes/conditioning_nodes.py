"""Nodes that adapt prompts already encoded: CONDITIONING in, CONDITIONING out."""

from __future__ import annotations

import re

from comfy_api.latest import io

from ..sur_core import AdapterMismatchError, adapt, adapt_pair_as_authors, blend, predict
from ..sur_core.conditioning import check_eta
from .common import adapter_input, eta_input, schema
from .entries import check_fit, check_range, map_embeddings, new_entry, within_range
from .handle import AdapterHandle


class SURApplyConditioning(io.ComfyNode):
    """Eq. 7 of Zhong et al. (2023), 'SUR-adapter', https://arxiv.org/abs/2305.05189, on a CONDITIONING."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="SURApplyConditioning",
            display_name="Apply SUR to CONDITIONING",
            description=(
                "Corrects an encoded prompt with a SUR adapter, so that a short sentence is understood "
                "better. Works after prompt weights; areas, masks, ControlNets, hooks and timestep ranges "
                "stay as they are."
            ),
            search_aliases=[
                "SUR adapter",
                "semantic understanding",
                "prompt adapter",
                "narrative prompt",
                "eta",
            ],
            inputs=[
                io.Conditioning.Input(
                    "conditioning", tooltip="The encoded prompt to correct. Usually the positive one."
                ),
                adapter_input(),
                eta_input(),
                io.Float.Input(
                    "start_percent",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.001,
                    tooltip=(
                        "Share of sampling at which the adapter begins to act; before it, the original "
                        "prompt is used."
                    ),
                ),
                io.Float.Input(
                    "end_percent",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.001,
                    tooltip=(
                        "Share of sampling at which the adapter stops acting; after it, the original "
                        "prompt is used."
                    ),
                ),
            ],
            outputs=[io.Conditioning.Output(tooltip="The corrected prompt.")],
        )

    @classmethod
    def execute(cls, conditioning, adapter: AdapterHandle, eta, start_percent, end_percent) -> io.NodeOutput:
        check_fit(adapter.bundle, conditioning)
        check_range(start_percent, end_percent)
        eta = check_eta(eta)
        adapted = _adapted(conditioning, adapter, eta if start_percent < end_percent else 0.0)
        return io.NodeOutput(within_range(conditioning, adapted, start_percent, end_percent))


class SURApplyPair(io.ComfyNode):
    """Both prompts at once; optionally as the authors' released pipeline does it."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="SURApplyPair",
            display_name="Apply SUR (positive + negative)",
            description=(
                "Corrects the positive and the negative prompt, each with its own eta. The paper adapts "
                "the positive prompt only; the authors' released pipeline adapts both."
            ),
            search_aliases=["SUR adapter", "SUR negative", "SUR authors pipeline"],
            inputs=[
                io.Conditioning.Input("positive", tooltip="The encoded positive prompt."),
                io.Conditioning.Input("negative", tooltip="The encoded negative prompt."),
                adapter_input(),
                eta_input("eta_positive", "the positive prompt"),
                eta_input("eta_negative", "the negative prompt"),
                io.Boolean.Input(
                    "as_authors_pipeline",
                    default=False,
                    label_on="yes",
                    label_off="no",
                    tooltip=(
                        "For files in the authors' format: run negative and positive through the adapter "
                        "as one batch of two with attention across it, as their code does, to approach "
                        "their published pictures. Each prompt then changes the other. Needs one entry and "
                        "the same length on both sides."
                    ),
                ),
            ],
            outputs=[
                io.Conditioning.Output(display_name="positive", tooltip="The corrected positive prompt."),
                io.Conditioning.Output(display_name="negative", tooltip="The corrected negative prompt."),
            ],
        )

    @classmethod
    def execute(
        cls, positive, negative, adapter: AdapterHandle, eta_positive, eta_negative, as_authors_pipeline
    ) -> io.NodeOutput:
        check_fit(adapter.bundle, [*positive, *negative])
        if not as_authors_pipeline:
            return io.NodeOutput(
                _adapted(positive, adapter, eta_positive), _adapted(negative, adapter, eta_negative)
            )
        if len(positive) != 1 or len(negative) != 1:
            raise AdapterMismatchError(
                "the authors' pipeline knows one positive and one negative prompt; found "
                f"{len(positive)} and {len(negative)} entries. Take combined conditionings apart or turn "
                "the switch off"
            )
        new_negative, new_positive = adapt_pair_as_authors(
            adapter.load(), negative[0][0], positive[0][0], eta_negative, eta_positive
        )
        return io.NodeOutput(
            map_embeddings(positive, lambda _: new_positive), map_embeddings(negative, lambda _: new_negative)
        )


class SUREtaSweep(io.ComfyNode):
    """The same prompt at several strengths, for a side-by-side look."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="SUREtaSweep",
            display_name="SUR Eta Sweep",
            description=(
                "Corrects a prompt at several strengths. What follows runs once for each; use the labels "
                "to name the pictures."
            ),
            search_aliases=["SUR adapter", "eta grid", "XY plot eta", "strength sweep"],
            inputs=[
                io.Conditioning.Input("conditioning", tooltip="The encoded prompt to correct."),
                adapter_input(),
                io.String.Input(
                    "etas",
                    default="0, 0.25, 0.5",
                    tooltip=(
                        "Strengths from 0 to 1, separated by commas. 0 is the prompt without the adapter."
                    ),
                ),
            ],
            outputs=[
                io.Conditioning.Output(
                    display_name="conditionings",
                    is_output_list=True,
                    tooltip="One corrected prompt for each strength.",
                ),
                io.String.Output(
                    display_name="labels",
                    is_output_list=True,
                    tooltip="A label for each, such as 'eta 0.25'.",
                ),
            ],
        )

    @classmethod
    def execute(cls, conditioning, adapter: AdapterHandle, etas) -> io.NodeOutput:
        values = parse_etas(etas)
        check_fit(adapter.bundle, conditioning)
        # The adapter reads the prompt once; only Eq. 7 is done for each eta.
        bundle = adapter.load()
        readings = [predict(bundle, entry[0]) for entry in conditioning]
        sweep = [
            [
                new_entry(blend(entry[0], c_llm, eta) if eta else entry[0].clone(), entry)
                for entry, c_llm in zip(conditioning, readings, strict=True)
            ]
            for eta in values
        ]
        return io.NodeOutput(sweep, [f"eta {eta:g}" for eta in values])


def _adapted(conditioning: list, adapter: AdapterHandle, eta: float) -> list:
    """Eq. 7 on every entry. At eta 0 the weights stay where they are: loading them could push out a model."""
    bundle = adapter.load() if check_eta(eta) else adapter.bundle
    return map_embeddings(conditioning, lambda embeddings: adapt(bundle, embeddings, eta))


def parse_etas(text: str) -> list[float]:
    """``"0, 0.25, 0.5"`` -> [0.0, 0.25, 0.5]. Raises ``ValueError`` naming the part that is no strength."""
    parts = [part for part in re.split(r"[,;，；、\s]+", text) if part]
    if not parts:
        raise ValueError("SUR Eta Sweep: no strength given. Write numbers from 0 to 1, such as: 0, 0.25, 0.5")
    values = []
    for part in parts:
        try:
            values.append(check_eta(float(part)))
        except ValueError:
            raise ValueError(
                f"SUR Eta Sweep: {part!r} is not a strength. Write numbers from 0 to 1, separated by "
                "commas: 0, 0.25, 0.5"
            ) from None
    return values


NODES = [SURApplyConditioning, SURApplyPair, SUREtaSweep]
