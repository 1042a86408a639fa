"""Draw, judge, count: how well a Stable Diffusion model with and without adapters draws what was meant.

    from sur_core.evaluation import Arm, EvaluationSettings, evaluate, load_prompts

    found = evaluate(
        EvaluationSettings(output_dir="out", seeds=range(10), steps=20, guidance_scale=5),
        "path/to/model",
        load_prompts("prompts.jsonl"),
        [Arm("base"), Arm("SUR", adapter="adapter.safetensors", eta=0.3)],
        judge=judge,
    )
    found.comparison("SUR", "Counting").over_prompts

Importing this needs torch, numpy and safetensors; drawing needs diffusers, CLIP transformers, tests scipy.
"""

from .arms import Arm, adapter_arm, amount_words, system_name, trained_amount
from .evaluation import Accuracy, ClipScore, Evaluation, Picture
from .image_text import ImageTextModel, clip_score_share, cosines
from .judges import Judge, Verdict, load_judge
from .kid import KID, kid_of_arms, kid_value
from .pipelines import open_pipeline
from .prompt_sets import EvalPrompt, PromptSetError, load_prompts, types_of, write_prompts
from .results import read_results, write_results
from .run import EvaluationStopped, check_inputs, evaluate
from .settings import EvaluationSettings
from .statistics import (
    ALL,
    NOT_EQUAL_NOTE,
    Comparison,
    Interval,
    McNemar,
    SignificanceTest,
    compare,
    resample_means,
    share_of_gap,
)
from .tables import accuracy_table, all_tables, quality_table, statistics_table

__all__ = [
    "ALL",
    "Accuracy",
    "Arm",
    "ClipScore",
    "Comparison",
    "EvalPrompt",
    "Evaluation",
    "EvaluationSettings",
    "EvaluationStopped",
    "ImageTextModel",
    "Interval",
    "Judge",
    "KID",
    "McNemar",
    "NOT_EQUAL_NOTE",
    "Picture",
    "PromptSetError",
    "SignificanceTest",
    "Verdict",
    "accuracy_table",
    "adapter_arm",
    "all_tables",
    "amount_words",
    "check_inputs",
    "clip_score_share",
    "compare",
    "cosines",
    "evaluate",
    "kid_of_arms",
    "kid_value",
    "load_judge",
    "load_prompts",
    "open_pipeline",
    "quality_table",
    "read_results",
    "resample_means",
    "share_of_gap",
    "statistics_table",
    "system_name",
    "trained_amount",
    "types_of",
    "write_prompts",
    "write_results",
]
