"""Judges that are models: a detector that counts and sees colors, an image-text model that answers questions.

    from sur_core.evaluation.judging import make_judge

    judge = make_judge("detector:google/owlv2-base-patch16-ensemble")
    judge = make_judge({"kind": "vlm", "model": "HuggingFaceTB/SmolVLM-256M-Instruct", "threshold": 0.6})
    judge.mark(pixels, prompt)                         # Verdict(right, why, details)

    print(agreement_table(agreement(judge_marks, peoples_marks, types, prompts)))

Their marks err in ways of their own; :func:`agreement` says how much, where people have marked too.
"""

from .agreement import Agreement, agreement, agreement_table
from .by_type import JudgeByType
from .colors import COLORS, color_shares
from .detections import Detection, Detector
from .detector_judge import DetectorJudge, DetectorRules
from .detectors import open_detector
from .models import NOT_COMPARABLE, JudgeModelError
from .question_judge import VlmJudge
from .questions import questions_of
from .settings import JudgeSettingsError, make_judge
from .truth import Truth, Wanted, read_truth
from .yes_or_no import Answer, YesNoModel, open_yes_no_model

__all__ = [
    "Agreement",
    "Answer",
    "COLORS",
    "Detection",
    "Detector",
    "DetectorJudge",
    "DetectorRules",
    "JudgeByType",
    "JudgeModelError",
    "JudgeSettingsError",
    "NOT_COMPARABLE",
    "Truth",
    "VlmJudge",
    "Wanted",
    "YesNoModel",
    "agreement",
    "agreement_table",
    "color_shares",
    "make_judge",
    "open_detector",
    "open_yes_no_model",
    "questions_of",
    "read_truth",
]
