"""Which samples stay, judged by CLIP's scores alone; changing the rule asks CLIP nothing again."""

from __future__ import annotations

from collections.abc import Mapping

from .manifest import SurdBuildError

RULES = ("paper", "threshold", "off")
"""paper: keep if CLIP finds that the plain prompt fits not worse than the elaborate one (Sec. 3.1).
threshold: keep if the plain prompt's score, its share of the two-way softmax, is at least the threshold. 0.5
is the paper's rule; less forgives a plain prompt that fits a little worse. The score and not the cosine,
because a cosine that is good for one CLIP model or kind of picture is poor for another.
off: keep all whose picture can be read.
"""


def check_rule(rule: str, threshold: float | None) -> None:
    """Raises SurdBuildError: there is no such rule, or a threshold is missing, too many or out of 0..1."""
    if rule not in RULES:
        raise SurdBuildError(f"--rule must be one of {', '.join(RULES)}, found {rule!r}")
    if rule == "threshold" and (threshold is None or not 0 <= threshold <= 1):
        raise SurdBuildError(
            f"--rule threshold needs --threshold, the lowest score of the plain prompt, from 0 to 1; found "
            f"{threshold}. 0.5 is the paper's rule"
        )
    if rule != "threshold" and threshold is not None:
        raise SurdBuildError(f"--threshold counts with --rule threshold only; found --rule {rule}")


def verdict(scores: Mapping, rule: str, threshold: float | None = None) -> str:
    """Why a sample is left out, "kind: detail", or "" if it stays. Equal scores stay.

    Args:
        scores: a record of ``clean``.
    """
    if scores.get("problem"):
        return scores["problem"]
    simple, other = scores["simple_score"], scores["complex_score"]
    if rule == "paper" and scores["simple_cosine"] < scores["complex_cosine"]:
        return f"lower CLIP score: simple {simple:.3f}, complex {other:.3f}"
    if rule == "threshold" and simple < threshold:
        return f"low CLIP score: {simple:.3f} is below {threshold:g}"
    return ""
