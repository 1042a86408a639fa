"""InvokeAI: ``invokeai_metadata`` since 3.0, ``sd-metadata`` and ``Dream`` before."""

from __future__ import annotations

import re

from .found import BROKEN, Found, MetadataError, joined, load_object, small
from .texts import Texts

KIND = "invokeai"
_SETTINGS = ("seed", "steps", "cfg_scale", "scheduler", "sampler", "width", "height", "clip_skip", "strength")
# The switches after the prompt, in the order in which all versions write them.
_DREAM = re.compile(
    r"\s-s ?(?P<steps>\d{1,20})(?: -S ?(?P<seed>-?\d{1,20}))?"
    r" -W ?(?P<width>\d{1,20}) -H ?(?P<height>\d{1,20}) -C ?(?P<cfg_scale>\d{1,20}(?:\.\d{1,20})?)"
)
_NEGATIVE = re.compile(r"\[([^\[\]]*)\]")


def read_invokeai(texts: Texts, _name: str) -> Found | None:
    """What InvokeAI wrote, or None. Raises MetadataError: it is damaged."""
    if text := texts.named.get("invokeai_metadata"):
        return _read_current(load_object(text, "invokeai_metadata"))
    if text := texts.named.get("sd-metadata"):
        return _read_second(load_object(text, "sd-metadata"))
    if text := texts.named.get("Dream"):
        return _read_dream(text)
    return None


def _read_current(metadata: dict) -> Found:
    """SDXL has a second, "style" prompt, which the interface fills with the first unless told otherwise."""
    prompts = {}
    for side in ("positive", "negative"):
        values = [metadata.get(f"{side}_prompt"), metadata.get(f"{side}_style_prompt")]
        prompts[side] = joined([value for value in values if isinstance(value, str)])
    settings = {name: metadata.get(name) for name in _SETTINGS}
    model = metadata.get("model")
    if isinstance(model, dict):
        settings["model"] = model.get("name") or model.get("model_name")
    parameters, remarks = small(settings, "invokeai_metadata")
    return Found(KIND, prompts["positive"], prompts["negative"], parameters, remarks=tuple(remarks))


def _read_second(metadata: dict) -> Found:
    """Version 2: ``image.prompt`` is a text, or a list of {"prompt", "weight"}."""
    image = metadata.get("image")
    if not isinstance(image, dict):
        raise MetadataError(BROKEN, "sd-metadata: no 'image' in it")
    prompt = image.get("prompt")
    parts = prompt if isinstance(prompt, list) else [prompt]
    found = [part.get("prompt") if isinstance(part, dict) else part for part in parts]
    prompt, negative = _split(joined([part for part in found if isinstance(part, str)]))
    settings = {name: image.get(name) for name in _SETTINGS} | {"model": metadata.get("model_weights")}
    parameters, remarks = small(settings, "sd-metadata")
    return Found(KIND, prompt, negative, parameters, remarks=tuple(remarks))


def _read_dream(text: str) -> Found:
    """Version 1: a command line, ``"a prompt" -s 50 -S 42 -W 512 -H 512 -C 7.5``, in quotes or not."""
    matches = list(_DREAM.finditer(text))
    if not matches:
        raise MetadataError(BROKEN, "Dream: no switches (-s 50 -S 42 -W 512 ...) behind the prompt")
    prompt = text[: matches[-1].start()]
    if len(prompt) > 1 and prompt[0] == prompt[-1] == '"':
        prompt = prompt[1:-1]
    prompt, negative = _split(prompt)
    numbers = {name: value for name, value in matches[-1].groupdict().items() if value is not None}
    parameters = {name: float(value) if "." in value else int(value) for name, value in numbers.items()}
    return Found(KIND, prompt, negative, small(parameters, "Dream")[0])


def _split(prompt: str) -> tuple[str, str]:
    """Before version 3 the negative prompt stood in square brackets inside the prompt."""
    negative = " ".join(_NEGATIVE.findall(prompt))
    if not negative:
        return prompt, ""
    return re.sub(" +", " ", _NEGATIVE.sub(" ", prompt)).strip(), negative
