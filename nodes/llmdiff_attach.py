"""An LLMDiff adapter on a MODEL: the formula of :mod:`..sur_core.llmdiff.attention` by patch lists only.

The output projection is linear and values have no bias, so the part of an adapter can be added after the
layer, and the text encoder's part made smaller before it: ComfyUI's single slot for attention itself stays
free for others (IPAdapter and its like), and whoever fills it keeps what it adds.

Which rows of a batch belong to which prompt ComfyUI tells by the uuids of their conditionings.
"""

from __future__ import annotations

import itertools
import uuid

import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP

from ..sur_core import AdapterMismatchError
from ..sur_core.llmdiff import EncodedPrompt, LLMDiffAdapter
from ..sur_core.llmdiff.attention import clip_weight
from .llmdiff_handle import LLMDiffHandle, compute_dtype
from .llmdiff_run import Call, Run

OPTION = "llmdiff"
"""Of a CONDITIONING's entry: ``{encoding_id: EncodedPrompt}``."""

_numbers = itertools.count(1)


def attach(
    model: ModelPatcher, handle: LLMDiffHandle, strength: float, start_percent: float, end_percent: float
) -> ModelPatcher:
    """A clone of ``model`` with the adapter on it. More than one can be attached: each adds its part, and the
    text encoder's weight is the product of theirs.
    """
    clone = model.clone()
    patcher = handle.patcher(compute_dtype(model), model.load_device, model.offload_device)
    on_model = _Attached(patcher.model, strength, start_percent, end_percent)
    # ComfyUI loads and unloads it with the model. Two of the same would move each other away.
    others = clone.get_additional_models_with_key(OPTION)
    if not any(patcher.is_clone(other) for other in others):
        clone.set_additional_models(OPTION, [*others, patcher])
    for kind, wrapper in (
        (WrappersMP.OUTER_SAMPLE, on_model.sample),
        (WrappersMP.SAMPLER_SAMPLE, on_model.start),
        (WrappersMP.CALC_COND_BATCH, on_model.predict),
    ):
        clone.add_wrapper_with_key(kind, on_model.key, wrapper)
    clone.set_model_attn2_patch(on_model.before_attention)
    clone.set_model_attn2_output_patch(on_model.after_attention)
    return clone


class _Attached:
    """What one Apply LLMDiff node adds. It keeps nothing from one sampling to the next, and no model but its
    adapter.
    """

    def __init__(self, adapter: LLMDiffAdapter, strength: float, start: float, end: float):
        self._adapter, self._strength, self._window = adapter, strength, (start, end)
        self._encoding_id = adapter.encoding_id  # noted, as reading g at every step would wait for the GPU
        self.key = f"llmdiff.{next(_numbers)}"
        self._call_key = f"{self.key}.call"

    def __deepcopy__(self, _memo):
        return self  # ModelPatcher.clone() deep-copies its options; the weights must not be copied along

    def sample(self, executor, *args, **kwargs) -> torch.Tensor:
        """Around a whole sampling: refuse conditionings without a prompt for this adapter, and keep what is
        computed once for a prompt.
        """
        guider = executor.class_obj
        check_conditionings(self._adapter, guider.conds)
        options = guider.model_options.setdefault("transformer_options", {})
        options[self.key] = Run(self._adapter)
        try:
            return executor(*args, **kwargs)
        finally:
            options.pop(self.key, None)

    def start(self, executor, guider, *args, **kwargs) -> torch.Tensor:
        """Around a sampler, when ComfyUI has prepared the conditionings."""
        for group in guider.conds.values():
            give_own_prompts(group or [])
        return executor(guider, *args, **kwargs)

    def predict(self, executor, model, conds: list, x_in, timestep, model_options: dict) -> list:
        """Around one step for all conditionings: say which prompts are to be heard."""
        if not self._is_on(model, timestep):
            return executor(model, conds, x_in, timestep, model_options)
        options = dict(model_options.get("transformer_options", {}))
        run = options.get(self.key) or Run(self._adapter)
        run.see(model.diffusion_model, type(model).__name__)
        prompts = {cond["uuid"]: prompt for cond, prompt in prompts_of(conds, self._encoding_id)}
        weight = clip_weight(self._adapter.config.clip, self._strength)
        options[self._call_key] = Call(run, prompts, self._strength, weight)
        model_options = {**model_options, "transformer_options": options}
        return executor(model, conds, x_in, timestep, model_options)

    def before_attention(self, x, context, value, extra: dict) -> tuple:
        call: Call | None = extra.get(self._call_key)
        return (x, context, value) if call is None else (x, context, call.begin(x, value, extra))

    def after_attention(self, out: torch.Tensor, extra: dict) -> torch.Tensor:
        call: Call | None = extra.get(self._call_key)
        return out if call is None else call.finish(out, extra)

    def _is_on(self, model, timestep: torch.Tensor) -> bool:
        """As ComfyUI decides it for the ranges of conditionings: both ends are inside."""
        if self._window == (0.0, 1.0):
            return True
        start, end = (model.model_sampling.percent_to_sigma(share) for share in self._window)
        return not (timestep[0] > start or timestep[0] < end)


def prompts_of(conds: list, encoding_id: str) -> list[tuple[dict, EncodedPrompt]]:
    """Conditionings, as ComfyUI samples them, with their prompt for an adapter; others are left out."""
    each = [cond for group in conds for cond in group or ()]
    return [(cond, cond[OPTION][encoding_id]) for cond in each if encoding_id in cond.get(OPTION, ())]


def give_own_prompts(group: list[dict]) -> None:
    """Let every conditioning of a list hear the list's own prompt.

    Where one list, such as the positive prompt's, has an area, ComfyUI puts a copy of that conditioning into
    the others (``create_cond_with_same_area_if_none``). It replaces what CLIP says by what their own smallest
    conditioning around the area says, and nothing else: the prompt for an adapter would stay the first
    list's. The copy shares the tensors of that own conditioning, by which it is found here.
    """
    owners: dict[int, dict] = {}
    for place, cond in enumerate(group):
        said = cond.get("model_conds", {}).get("c_crossattn")
        owner = cond if said is None else owners.setdefault(id(said), cond)
        if cond.get(OPTION) is not owner.get(OPTION):
            rest = {key: value for key, value in cond.items() if key != OPTION}
            own = {OPTION: owner[OPTION]} if OPTION in owner else {}
            group[place] = {**rest, **own, "uuid": uuid.uuid4()}


def check_conditionings(adapter: LLMDiffAdapter, conds: dict[str, list[dict]]) -> None:
    """Refuse a sampling in which the adapter would hear no prompt, with an ``AdapterMismatchError``."""
    groups = list(conds.values())
    if prompts_of(groups, adapter.encoding_id):
        return
    others = [prompt for group in groups for cond in group or () for prompt in cond.get(OPTION, {}).values()]
    wanted = f"{adapter.source}, which reads {adapter.passport.llm_words}"
    if others:
        raise AdapterMismatchError(
            f"Apply LLMDiff: the prompt {others[0].prompt[:60]!r} was encoded with {others[0].llm_name} for "
            f"another adapter, and this node has {wanted}. Wire the same adapter to Encode Prompt (LLMDiff) "
            "and to Apply LLMDiff"
        )
    raise AdapterMismatchError(
        f"Apply LLMDiff: no prompt was encoded for {wanted}. Encode at least the positive prompt with Encode "
        "Prompt (LLMDiff) and this adapter, or remove Apply LLMDiff"
    )
