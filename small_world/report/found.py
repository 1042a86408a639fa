"""What the report asks of an evaluation besides what :class:`~sur_core.evaluation.Evaluation` answers."""

from __future__ import annotations

from sur_core.evaluation import ALL, Comparison, Evaluation, Picture


def complex_arm(found: Evaluation) -> str | None:
    """The arm that draws complex prompts without an adapter."""
    return next((arm.name for arm in found.arms if arm.text == "complex" and arm.adapter is None), None)


def adapted_arms(found: Evaluation) -> dict[float, str]:
    """Arms with the adapter by eta, rising."""
    return {arm.eta: arm.name for arm in sorted(found.arms, key=lambda arm: arm.eta) if arm.adapter}


def strongest(found: Evaluation) -> tuple[float, str]:
    """The largest eta and its arm."""
    return max(adapted_arms(found).items())


def compared(found: Evaluation, arm: str, type: str = ALL, measure: str = "right") -> Comparison | None:
    """``None`` for the arm that the others are compared with."""
    return None if arm == found.baseline else found.comparison(arm, type, measure)


def picture_of(found: Evaluation, arm: str, prompt_id: str, seed: int) -> Picture:
    """The one picture. KeyError if there is none."""
    for picture in found.of(arm):
        if (picture.prompt_id, picture.seed) == (prompt_id, seed):
            return picture
    raise KeyError(f"no picture of arm {arm!r}, prompt {prompt_id!r}, seed {seed}")


def share_right(found: Evaluation, arm: str, type: str, seeds: list[int]) -> float:
    """Of an arm's pictures from these seeds, 0..1."""
    marks = [picture.verdict.right for picture in found.of(arm, type) if picture.seed in seeds]
    return sum(marks) / len(marks)
