"""What CLIP says of pictures: cosine with the text, the paper's CLIP Score, and CLIP-IQA."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ..image_text import ImageTextModel, clip_score_share, cosines
from .measure import identity

ANCHORS = ("Good photo.", "Bad photo.")
"""What CLIP-IQA lets a picture choose between (Wang et al., 2023)."""

_IQA_SCALE = 100.0


class ClipCosine:
    """Cosine of a picture's and its text's CLIP features, -1..1."""

    name, higher_is_better, reads_text = "clip_cosine", True, True
    note = (
        "Cosine of CLIP's features of picture and prompt, -1 to 1, higher is better; comparable only with "
        "cosines of the same CLIP model."
    )

    def __init__(self, model: ImageTextModel):
        self._model = model
        self.fingerprint = identity(self.name, model.fingerprint)
        self.hidden_part = model.hidden_part

    def score(self, pictures: Sequence[np.ndarray], texts: Sequence[str]) -> np.ndarray:
        return _cosines(self._model, pictures, texts)


class ClipScore:
    """The paper's CLIP Score, a softmax over the two pictures of a pair.

    :meth:`score` gives each picture's logit l = logit_scale * cosine(picture, text). Of a pair drawn from one
    prompt and seed, :meth:`shares` gives the arm

        exp(l_arm) / (exp(l_arm) + exp(l_baseline)),

    and the score of an arm is the mean over all pairs (Section 5.1).
    """

    name, higher_is_better, reads_text = "clip_score", True, True
    note = (
        "CLIP Score after the paper: of the two pictures of one prompt and seed, each one's share in a "
        "softmax over CLIP's scaled cosines with the prompt, averaged over all pairs, so that arm and "
        "baseline add up to one (in five of the twelve rows of the paper's Table 2 they do not); 0.5 is no "
        "preference, also where both are equally bad, and scores of other pairs of arms are not comparable."
    )

    def __init__(self, model: ImageTextModel):
        self._model = model
        self.fingerprint = identity(self.name, model.fingerprint)
        self.hidden_part = model.hidden_part

    def score(self, pictures: Sequence[np.ndarray], texts: Sequence[str]) -> np.ndarray:
        return self._model.logit_scale * _cosines(self._model, pictures, texts)

    def shares(self, scores: np.ndarray, baseline: np.ndarray) -> np.ndarray:
        return clip_score_share(scores, baseline, 1.0)  # scores are scaled already


class ClipIqa:
    """CLIP-IQA: how much rather a picture is a good photo than a bad one, 0..1.

    The softmax over 100 times the cosines of the picture with both anchor texts, as torchmetrics computes it
    with a transformers CLIP.

    Args:
        anchors: the good one first.
    """

    name, higher_is_better, reads_text = "clip_iqa", True, False

    def __init__(self, model: ImageTextModel, anchors: tuple[str, str] = ANCHORS):
        self._model, self.anchors = model, anchors
        self.note = (
            f"CLIP-IQA, 0 to 1, higher is better: how much rather CLIP finds '{anchors[0]}' than "
            f"'{anchors[1]}'; its authors took a ResNet-50 CLIP without position embedding, so values of "
            "this CLIP model are not comparable with published ones."
        )
        self.fingerprint = identity(self.name, model.fingerprint, *anchors)
        self.hidden_part = model.hidden_part

    def score(self, pictures: Sequence[np.ndarray], texts: Sequence[str]) -> np.ndarray:
        images = self._model.image_features(pictures)
        good, bad = self._model.text_features(self.anchors)
        difference = cosines(images, good.expand_as(images)) - cosines(images, bad.expand_as(images))
        return np.exp(-np.logaddexp(0.0, -_IQA_SCALE * difference))


def _cosines(model: ImageTextModel, pictures: Sequence[np.ndarray], texts: Sequence[str]) -> np.ndarray:
    places: dict[str, int] = {}
    rows = [places.setdefault(text, len(places)) for text in texts]
    features: torch.Tensor = model.text_features(list(places))
    return cosines(model.image_features(pictures), features[rows])
