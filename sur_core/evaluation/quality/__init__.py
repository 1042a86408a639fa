"""How good pictures are, by CLIP Score, CLIP's cosine, SigLIP, CLIP-IQA, BRISQUE and MUSIQ.

from sur_core.evaluation.quality import ScoreCache, compare_scores, make_measures, score_pictures

measures = make_measures({"clip": "models/clip", "brisque": {"library": "piq"}})
cache = ScoreCache("out/scores.sqlite")
scores = {m.name: {arm: score_pictures(m, loads[arm], texts, cache) for arm in loads} for m in measures}
compare_scores(measures, scores, [("SUR", "base")], prompts, types)
"""

from .brisque import Brisque
from .clip_measures import ANCHORS, ClipCosine, ClipIqa, ClipScore
from .comparison import ScoreComparison, compare_scores
from .libraries import LibraryMeasure
from .measure import Measure, PairMeasure, QualityError
from .nss import brisque_features
from .registry import check_measures, make_measures
from .scores import ScoreCache, score_pictures
from .siglip import SiglipScore
from .svr import Svr, read_svr

__all__ = [
    "ANCHORS",
    "Brisque",
    "ClipCosine",
    "ClipIqa",
    "ClipScore",
    "LibraryMeasure",
    "Measure",
    "PairMeasure",
    "QualityError",
    "ScoreCache",
    "ScoreComparison",
    "SiglipScore",
    "Svr",
    "brisque_features",
    "check_measures",
    "compare_scores",
    "make_measures",
    "read_svr",
    "score_pictures",
]
