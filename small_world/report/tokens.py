"""What the adapter changes, token by token: one prompt of each type."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import Element

import torch

from sur_core import load_adapter
from sur_core.insight import compare_adapted
from sur_core.page_elements import element, table

_CELL = 22  # pixels
_LABEL = 92


@dataclass(frozen=True)
class TokenChange:
    """A prompt before and after the adapter.

    Attributes:
        tokens: the text encoder's, from the start token to the first end token.
        change: 1 - cosine between a token's embedding before and after (0: the same direction).
        ratio: length of the embedding after, divided by that before.
        attention: att of Eq. 4 between these tokens, [T, T]; row t is how token t reads the others.
        padding: what is left of each row: attention to the padding behind the prompt.
    """

    prompt: str
    tokens: tuple[str, ...]
    change: tuple[float, ...]
    ratio: tuple[float, ...]
    attention: tuple[tuple[float, ...], ...]
    padding: tuple[float, ...]


@torch.no_grad()
def token_changes(model: Path, adapter: Path, prompts: Sequence[str], eta: float) -> list[TokenChange]:
    """Measure it. Errors as :func:`sur_core.load_adapter` and ``sur_core.diffusers_backend.open_backend``."""
    from transformers import CLIPTokenizer

    from sur_core.diffusers_backend import open_backend

    backend, bundle = open_backend(str(model), device="cpu"), load_adapter(adapter)
    encoded = backend.encode_text(list(prompts))
    (before,) = encoded.hidden.values()
    tokenizer = CLIPTokenizer.from_pretrained(model / "tokenizer", local_files_only=True)
    changes = []
    for row, prompt in enumerate(prompts):
        (found,) = compare_adapted(bundle, before[row], eta)
        real = int(encoded.mask[row].sum())
        ids = tokenizer(prompt, truncation=True, max_length=before.shape[1]).input_ids[:real]
        seen = found.attention[:real, :real]
        changes.append(
            TokenChange(
                prompt,
                tuple(_readable(tokenizer, ids)),
                found.turn[:real],
                found.ratio[:real],
                tuple(map(tuple, seen.tolist())),
                tuple((1 - seen.sum(dim=-1)).clamp(0, 1).tolist()),
            )
        )
    return changes


def _readable(tokenizer, ids: list[int]) -> list[str]:
    special = {tokenizer.bos_token_id: "[start]", tokenizer.eos_token_id: "[end]"}
    words = tokenizer.convert_ids_to_tokens(ids)
    return [special.get(id, word.replace("</w>", "")) for id, word in zip(ids, words, strict=True)]


def change_picture(found: TokenChange, type: str) -> Element:
    """Bars of every token's change, and the attention as a heat map."""
    most, longest = max((*found.change, 1e-9)), max((*found.ratio, 1e-9))
    rows = [
        [token, [_bar(change / most), f"{change:.3f}"], [_bar(ratio / longest), f"{ratio:.2f}"]]
        for token, change, ratio in zip(found.tokens, found.change, found.ratio, strict=True)
    ]
    head = ["token", "1 - cosine, before and after", "length after / before"]
    bars = table(head, rows, f"Change of each token of “{found.prompt}” ({type})")
    heat = _heat_map(found)
    caption = (
        "Attention (Eq. 4): row reads column; the last column is all padding together. "
        f"Full color is {_strongest(found):.2f} or more."
    )
    return element("div", bars, element("figure", heat, element("figcaption", caption)), class_="tokens")


def _bar(share: float) -> Element:
    return element(
        "span", element("span", style=f"width:{100 * share:.1f}%"), class_="bar", aria_hidden="true"
    )


def _strongest(found: TokenChange) -> float:
    """The most attention that a token gives to one other; padding, which is many, would outshine it."""
    return max(map(max, found.attention))


def _heat_map(found: TokenChange) -> Element:
    rows = [(*row, rest) for row, rest in zip(found.attention, found.padding, strict=True)]
    columns = [*found.tokens, "[padding]"]
    most = _strongest(found)
    drawn = []
    for down, (token, row) in enumerate(zip(found.tokens, rows, strict=True)):
        y = _LABEL + down * _CELL
        drawn.append(element("text", token, x=_LABEL - 6, y=y + 15, text_anchor="end"))
        for right, value in enumerate(row):
            told = element("title", f"{token} reads {columns[right]}: {value:.3f}")
            place = {"x": _LABEL + right * _CELL, "y": y, "width": _CELL - 1, "height": _CELL - 1}
            drawn.append(element("rect", told, fill_opacity=f"{min(1.0, value / most):.3f}", **place))
    for right, token in enumerate(columns):
        x = _LABEL + right * _CELL + 15
        drawn.append(element("text", token, transform=f"translate({x} {_LABEL - 6}) rotate(-90)"))
    width, height = _LABEL + len(columns) * _CELL, _LABEL + len(rows) * _CELL
    label = "Heat map of the adapter's attention; " + "; ".join(
        f"{token} reads mostly {columns[max(range(len(row)), key=row.__getitem__)]}"
        for token, row in zip(found.tokens, rows, strict=True)
    )
    box = {"viewBox": f"0 0 {width} {height}", "role": "img", "aria_label": label, "class_": "heat"}
    return element("svg", drawn, style=f"max-width:{width}px", **box)
