"""CLIP asked to choose, for a picture, between its plain and its elaborate prompt (paper, Sec. 3.1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..evaluation.image_text import clip_score_share, cosines
from ..language_model import choose_device
from .captioner import out_of_memory_in_words
from .manifest import SurdBuildError
from .model_source import ModelSource, load_image_processor, load_tokenizer, load_weights

if TYPE_CHECKING:
    from PIL.Image import Image

CLIP = "openai/clip-vit-base-patch32"
"""The paper's (Appendix A.1): ViT-B/32."""

LONG = ("first", "mean")
"""What is made of a prompt beyond CLIP's 77 tokens, of which two are its own marks. The paper does not say;
CLIP's own program refuses such prompts unless told to cut them.

first: CLIP reads the beginning, which is all it was trained to read and where the subject mostly stands.
mean: it reads 75 tokens after another, and their normalised features are averaged by number of tokens, as
CLIP's authors average several descriptions of one thing.
"""

_SHORT = 24
"""Most captions have no more tokens, and cost a third of what CLIP's full length does."""

_TEXT_ROWS = 16
"""Texts read at once. Blocks are filled up, which with 64 rows of full length could cost as much again."""

_DIGITS = 6
"""Decimals kept. The seventh of a cosine depends on the batch and the machine."""


class ClipScorer:
    """A transformers ``CLIPModel`` in memory, in float32.

    Batches are filled up to one size, so that a score does not depend on what a picture is scored with.
    """

    def __init__(self, source: ModelSource, long: str = "first", device: Any = "auto", batch_size: int = 64):
        """Raises ValueError if the model cannot be loaded."""
        from transformers import CLIPModel

        if long not in LONG:
            raise SurdBuildError(f"long prompts are read as one of {', '.join(LONG)}; found {long!r}")
        self.name, self.batch_size, self.device = source.name, batch_size, choose_device(str(device))
        self._whole = long == "mean"
        self._images, self._tokenizer = load_image_processor(source), load_tokenizer(source)
        self._model = load_weights(source, CLIPModel, torch.float32, self.device)
        self._scale = float(self._model.logit_scale.exp())
        self._positions = self._model.config.text_config.max_position_embeddings

    def prepare(self, image: Image) -> torch.Tensor:
        """An RGB picture as CLIP reads it, float32 [3, H, W]; on any thread."""
        return self._images(images=[image], return_tensors="pt")["pixel_values"][0]

    def pack(self, prepared: list[torch.Tensor]) -> torch.Tensor:
        return torch.stack(prepared)

    @torch.inference_mode()
    def scores(self, pictures: torch.Tensor, prompts: Sequence[tuple[str, str]]) -> list[dict]:
        """What CLIP says of each picture and its (plain, elaborate) prompts.

        Args:
            pictures: prepared, stacked [N, 3, H, W].

        Returns:
            for each: ``simple_cosine``, ``complex_cosine``; ``simple_score``, ``complex_score``, the softmax
            of both after CLIP's own scale, which add up to one; ``simple_tokens``, ``complex_tokens``, all
            there are, with CLIP's two marks.

        Raises:
            SurdBuildError: out of memory, or features are not finite.
        """
        texts = list(dict.fromkeys(text for pair in prompts for text in pair))  # equal texts, equal features
        with out_of_memory_in_words(self.name, self.device, len(pictures)):
            seen = self._in_blocks(pictures, self._see, self.batch_size)
            read, tokens = self._text_features(texts)
        if not (torch.isfinite(seen).all() and torch.isfinite(read).all()):
            raise SurdBuildError(f"{self.name}: gives features that are no numbers; its files may be damaged")
        at = {text: row for row, text in enumerate(texts)}
        plain, elaborate = ([at[pair[place]] for pair in prompts] for place in (0, 1))
        near = [np.round(cosines(seen, read[rows]), _DIGITS) for rows in (plain, elaborate)]
        share = np.round(clip_score_share(*near, self._scale), _DIGITS)
        return [
            {
                "simple_score": float(share[row]),
                "complex_score": round(1 - float(share[row]), _DIGITS),
                "simple_cosine": float(near[0][row]),
                "complex_cosine": float(near[1][row]),
                "simple_tokens": tokens[plain[row]],
                "complex_tokens": tokens[elaborate[row]],
            }
            for row in range(len(prompts))
        ]

    def _text_features(self, texts: list[str]) -> tuple[torch.Tensor, list[int]]:
        """[texts, D], of length one; and the number of tokens of each."""
        sound = [text.encode("utf-8", "replace").decode() for text in texts]
        whole = self._tokenizer(sound, add_special_tokens=False, verbose=False).input_ids
        room, chunks, owners = self._positions - 2, [], []
        for row, ids in enumerate(whole):
            parts = [ids[start : start + room] for start in range(0, max(1, len(ids)), room)]
            chunks += parts if self._whole else parts[:1]
            owners += [row] * (len(parts) if self._whole else 1)
        features = self._chunk_features(chunks)
        weights = torch.tensor([float(max(1, len(chunk))) for chunk in chunks]).unsqueeze(1)
        summed = torch.zeros(len(texts), features.shape[1])
        summed.index_add_(0, torch.tensor(owners), weights * features / features.norm(dim=-1, keepdim=True))
        return summed / summed.norm(dim=-1, keepdim=True), [len(ids) + 2 for ids in whole]

    def _chunk_features(self, chunks: list[list[int]]) -> torch.Tensor:
        """Projected features [chunks, D] of short and long chunks, each kind filled up to one length."""
        features = torch.empty(len(chunks), self._model.config.projection_dim)
        short = [len(chunk) + 2 <= _SHORT for chunk in chunks]
        for kind, length in ((True, min(_SHORT, self._positions)), (False, self._positions)):
            rows = [row for row in range(len(chunks)) if short[row] is kind]
            if rows:
                marked = torch.stack([self._marked(chunks[row], length) for row in rows])
                features[rows] = self._in_blocks(marked, self._read, _TEXT_ROWS)
        return features

    def _marked(self, ids: list[int], length: int) -> torch.Tensor:
        """Tokens between CLIP's marks; what follows the end mark is not looked at."""
        start, end = self._tokenizer.bos_token_id, self._tokenizer.eos_token_id
        padding = [self._tokenizer.pad_token_id] * (length - 2 - len(ids))
        return torch.tensor([start, *ids, end, *padding])

    def _in_blocks(self, rows: torch.Tensor, compute, size: int) -> torch.Tensor:
        """Rows in blocks that are all of one size: matrix products of other sizes round differently."""
        found = []
        for block in rows.split(size):
            missing = size - len(block)
            full = torch.cat([block, block[-1:].expand(missing, *block.shape[1:])]) if missing else block
            found.append(compute(full.to(self.device))[: len(block)].float().cpu())
        return torch.cat(found)

    def _see(self, pixels: torch.Tensor) -> torch.Tensor:
        return self._model.visual_projection(self._model.vision_model(pixel_values=pixels).pooler_output)

    def _read(self, ids: torch.Tensor) -> torch.Tensor:
        return self._model.text_projection(self._model.text_model(input_ids=ids).pooler_output)


def check_clip(name: str, config: object) -> None:
    """Raises SurdBuildError if this is no CLIP model."""
    if config.model_type != "clip" or not hasattr(config, "vision_config"):
        raise SurdBuildError(
            f"{name}: expected a whole CLIP model (text and image) such as {CLIP}, found one of type "
            f"{config.model_type!r}"
        )
