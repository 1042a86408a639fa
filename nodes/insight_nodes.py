"""Nodes that show: what an adapter changed in a prompt, and pictures side by side."""

from __future__ import annotations

import numpy as np
import torch
from comfy_api.latest import io

from ..sur_core.contact_sheet import contact_sheet, label_pictures
from ..sur_core.insight import compare, compare_adapted, draw_changes, in_words, with_tokens
from ..sur_core.themes import THEMES
from .clip_tokens import token_names
from .common import adapter_input, eta_input, schema
from .entries import check_fit
from .handle import AdapterHandle


class SURInspect(io.ComfyNode):
    """Per-token change, and the attention of Eq. 4 of Zhong et al. (2023), https://arxiv.org/abs/2305.05189."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="SURInspect",
            display_name="SUR Inspect",
            description=(
                "Shows what changed in an encoded prompt, token by token: between two conditionings, or by "
                "an adapter, and then also where the adapter looks."
            ),
            search_aliases=["SUR adapter", "attention heat map", "token change", "compare conditioning"],
            inputs=[
                io.Conditioning.Input("before", tooltip="The encoded prompt as it was, without the adapter."),
                io.Conditioning.Input(
                    "after",
                    optional=True,
                    tooltip="The same prompt, changed. Either this, or an adapter and eta.",
                ),
                adapter_input(
                    optional=True, tooltip="The adapter to look into. Either this, or a conditioning after."
                ),
                eta_input("eta", "the prompt, where an adapter is connected"),
                io.Clip.Input(
                    "clip",
                    optional=True,
                    tooltip="The CLIP that encoded the prompt: with the text, it names the tokens.",
                ),
                io.String.Input(
                    "text",
                    default="",
                    multiline=True,
                    optional=True,
                    tooltip="The text of the prompt, as it was encoded, weights and embeddings included.",
                ),
                *_inspect_settings(),
            ],
            outputs=[
                io.Image.Output(
                    tooltip="Bars for every token; with an adapter, its attention as a heat map."
                ),
                io.String.Output(
                    display_name="words", tooltip="What changed most, in words; a line for each text encoder."
                ),
            ],
        )

    @classmethod
    def execute(
        cls, before, eta, entry, chunk, tokens, theme, after=None, adapter=None, clip=None, text=""
    ) -> io.NodeOutput:
        _check_connected(after, adapter, clip, text)
        changes, note = _changes(before, after, adapter, eta, entry)
        if clip is not None:
            changes = with_tokens(changes, token_names(clip, text))
        else:
            note += "; tokens are numbered, as no CLIP and text are connected"
        chunks = max(change.chunk for change in changes) + 1
        if chunk > chunks:
            raise ValueError(
                f"SUR Inspect: there is no chunk {chunk}; this prompt has {chunks}. Set chunk to 0 for all"
            )
        shown = [change for change in changes if chunk in (0, change.chunk + 1)]
        picture = draw_changes(shown, theme, tokens, note, some=chunk > 0)
        return io.NodeOutput(_as_image(picture), in_words(shown, some=chunk > 0))


class SURLabelGrid(io.ComfyNode):
    """A contact sheet."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="SURLabelGrid",
            display_name="SUR Label Grid",
            description=(
                "Puts pictures on one sheet, each under its label, such as those of a SUR Eta Sweep. Takes "
                "lists and batches, of any sizes."
            ),
            search_aliases=["SUR adapter", "contact sheet", "image grid", "XY plot", "labelled grid"],
            is_input_list=True,
            inputs=[
                io.Image.Input("images", tooltip="The pictures: a list, a batch, or a list of batches."),
                io.String.Input(
                    "labels",
                    default="",
                    multiline=True,
                    tooltip=(
                        "The labels of SUR Eta Sweep or another list; or text with one label a line. One for "
                        "each picture, or one for each batch."
                    ),
                ),
                io.Int.Input(
                    "columns",
                    default=0,
                    min=0,
                    max=64,
                    step=1,
                    tooltip="Pictures in a row. 0 chooses: a row for each batch, else nearly a square.",
                ),
                io.Int.Input(
                    "label_size",
                    default=28,
                    min=8,
                    max=200,
                    step=1,
                    tooltip="Height of the letters in pixels.",
                ),
                _theme_input(),
            ],
            outputs=[io.Image.Output(tooltip="The sheet, one picture.")],
        )

    @classmethod
    def execute(cls, images, labels, columns, label_size, theme) -> io.NodeOutput:
        if len(labels) == 1:
            labels = labels[0].rstrip("\n").split("\n") if labels[0].strip() else []
        try:
            pictures, labels, chosen = label_pictures(images, labels)
            sheet = contact_sheet(pictures, labels, columns[0] or chosen, label_size[0], theme[0])
        except ValueError as error:
            raise ValueError(f"SUR Label Grid: {error}") from error
        return io.NodeOutput(_as_image(sheet))


def _theme_input() -> io.Input:
    return io.Combo.Input(
        "theme", options=list(THEMES), default="dark", tooltip="Colors for a dark or a light surrounding."
    )


def _inspect_settings() -> list[io.Input]:
    return [
        io.Int.Input(
            "entry",
            default=1,
            min=1,
            max=999,
            step=1,
            tooltip="Which part to show of a conditioning combined of several.",
        ),
        io.Int.Input(
            "chunk",
            default=0,
            min=0,
            max=999,
            step=1,
            tooltip="Which chunk of 77 tokens to show of a long prompt; 0 shows all.",
        ),
        io.Int.Input(
            "tokens",
            default=20,
            min=3,
            max=77,
            step=1,
            tooltip=(
                "How many tokens of each chunk to show one by one, those that changed most. The others "
                "share a row, and so does the padding."
            ),
        ),
        _theme_input(),
    ]


def _check_connected(after, adapter, clip, text: str) -> None:
    """Refuse what cannot be compared or named, rather than ignore half of it."""
    if after is None and adapter is None:
        raise ValueError(
            "SUR Inspect: nothing to compare with. Connect either a conditioning to 'after', or an adapter"
        )
    if after is not None and adapter is not None:
        raise ValueError(
            "SUR Inspect: both 'after' and 'adapter' are connected, and each says what to compare with. "
            "Disconnect 'after' to see what the adapter does at this eta, or 'adapter' to compare the two "
            "conditionings"
        )
    if (clip is None) != (not text.strip()):
        missing = (
            "the text is empty. Give the text"
            if clip is not None
            else "no CLIP is connected. Connect the CLIP"
        )
        raise ValueError(
            f"SUR Inspect: to name the tokens, both the CLIP and the text are needed, but {missing}, or "
            "leave both out to have the tokens numbered"
        )


def _changes(before: list, after: list | None, adapter: AdapterHandle | None, eta: float, entry: int):
    """The changes in one entry, and a note on what was compared."""
    old = _entry(before, entry, "before")
    said = f"entry {entry} of {len(before)}" + _first_of(old)
    if adapter is not None:
        check_fit(adapter.bundle, [[old]])
        return compare_adapted(adapter.load(), old[0], eta), f"adapter at eta {eta:g}; {said}"
    if len(before) != len(after):
        raise ValueError(
            f"SUR Inspect: 'before' has {len(before)} entries and 'after' {len(after)}, so it is unclear "
            "which belong together. Compare them before they are combined, and before an adapter is limited "
            "to a part of sampling"
        )
    new = _entry(after, entry, "after")
    if len(old) != len(new):
        raise ValueError(
            f"SUR Inspect: 'before' is a batch of {len(old)} prompts and 'after' of {len(new)}; they must "
            "be the same prompts"
        )
    return compare(old[0], new[0]), f"before and after; {said}"


def _entry(conditioning: list, number: int, name: str) -> torch.Tensor:
    """Embeddings [B, T, D] of an entry."""
    if number > len(conditioning):
        raise ValueError(
            f"SUR Inspect: there is no entry {number} in '{name}'; it has {len(conditioning)}. Lower entry"
        )
    embeddings = conditioning[number - 1][0]
    if embeddings.ndim != 3 or not all(embeddings.shape):
        raise ValueError(
            f"SUR Inspect: expected embeddings [prompts, tokens, features] in '{name}', found "
            f"{list(embeddings.shape)}. Connect a text prompt's CONDITIONING"
        )
    return embeddings


def _first_of(embeddings: torch.Tensor) -> str:
    return f", the first of its {len(embeddings)} prompts" if len(embeddings) > 1 else ""


def _as_image(picture) -> torch.Tensor:
    """A Pillow image as an IMAGE [1, H, W, 3], 0..1."""
    return torch.from_numpy(np.array(picture)).float().div(255)[None]


NODES = [SURInspect, SURLabelGrid]
