"""What came out, in sentences that say as much as the numbers do and no more."""

from __future__ import annotations

from sur_core.evaluation import Comparison, Evaluation

from .found import complex_arm, strongest


def headline(main: Evaluation) -> str:
    """The result over all types in one sentence."""
    eta, arm = strongest(main)
    base, ours = (100 * main.accuracy(name).share for name in (main.baseline, arm))
    verb = "rose" if ours > base else "fell"
    change = f"{verb} from {base:.1f}% to {ours:.1f}%" if ours != base else f"stayed at {base:.1f}%"
    return (
        f"On {len(main.prompts)} prompts it never saw, the share of right pictures {change} with the adapter "
        f"at strength {eta:g} ({gain_words(main.comparison(arm))})."
    )


def judgement(main: Evaluation) -> list[str]:
    """Whether that is a gain, over all types and for each; and how near it comes to the complex prompts."""
    _, arm = strongest(main)
    found = [_verdict("over all types", main.comparison(arm))]
    found += [_verdict(f"for {name}", main.comparison(arm, name)) for name in main.types]
    if best := complex_arm(main):
        found.append(_ceiling(main, arm, best))
    return found


def overall(main: Evaluation) -> str:
    """``"gain"``, ``"loss"`` or ``"unclear"``: what the interval over all types says."""
    interval = main.comparison(strongest(main)[1]).over_prompts
    if interval.low is None or interval.low <= 0 <= interval.high:
        return "unclear"
    return "gain" if interval.low > 0 else "loss"


def gain_words(comparison: Comparison) -> str:
    """``"95% interval of the gain +20.1 to +31.5 points"``."""
    interval = comparison.over_prompts
    sure = f"{100 * interval.confidence:g}% interval of the gain"
    if interval.low is None:
        return f"{sure} not defined: {interval.note}"
    return f"{sure} {100 * interval.low:+.1f} to {100 * interval.high:+.1f} points"


def _verdict(where: str, comparison: Comparison) -> str:
    interval, points = comparison.over_prompts, 100 * comparison.difference
    words = f"{where}: {points:+.1f} points, {gain_words(comparison)}"
    words = words[0].upper() + words[1:]
    if interval.low is None:
        return f"{words}; whether that is a gain cannot be said."
    if interval.low > 0:
        return f"{words}; a gain."
    if interval.high < 0:
        return f"{words}; a loss: the adapter does harm here."
    return f"{words}. The interval includes zero: these pictures show no gain."


def _ceiling(main: Evaluation, arm: str, best: str) -> str:
    closed, interval = main.gap_closed(arm, best)
    reached = 100 * main.accuracy(best).share
    words = (
        f"From complex prompts, in the language it was raised on, the base model draws {reached:.1f}% right"
    )
    if closed is None:
        return f"{words}, which is no more than from simple ones: there is no gap to close."
    sure = f"{100 * interval.confidence:g}% interval"
    bounds = f"{sure} not defined: {interval.note}"
    if interval.low is not None:
        bounds = f"{sure} {100 * interval.low:.0f}% to {100 * interval.high:.0f}%"
    return f"{words}; the adapter closes {100 * closed:.0f}% of that gap ({bounds})."
