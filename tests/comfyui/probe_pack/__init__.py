"""Nodes that tests add to ComfyUI to look at a CONDITIONING, or to make an unusual one. Not shipped."""

import json
import os

import folder_paths
import torch


def plain(value):
    """What an option looks like from outside: numbers and tensors as they are, objects by their type."""
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if value is None or isinstance(value, (bool, int, float, str, torch.Tensor)):
        return value
    return f"<{type(value).__name__}>"


class DumpConditioning:
    RETURN_TYPES = ()
    FUNCTION = "run"
    OUTPUT_NODE = True
    CATEGORY = "test"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"conditioning": ("CONDITIONING",), "name": ("STRING", {})}}

    def run(self, conditioning, name):
        path = os.path.join(folder_paths.get_output_directory(), name + ".pt")
        torch.save([[c, {key: plain(value) for key, value in o.items()}] for c, o in conditioning], path)
        return {"ui": {"text": [path]}}


class SetOption:
    """Sets an option (JSON) on every entry of a conditioning."""

    RETURN_TYPES = ("CONDITIONING",)
    FUNCTION = "run"
    CATEGORY = "test"

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {"conditioning": ("CONDITIONING",), "key": ("STRING", {}), "value": ("STRING", {})}
        }

    def run(self, conditioning, key, value):
        return ([[c, {**options, key: json.loads(value)}] for c, options in conditioning],)


class CutTokens:
    """Keeps the first tokens only, as a text encoder of another kind might return."""

    RETURN_TYPES = ("CONDITIONING",)
    FUNCTION = "run"
    CATEGORY = "test"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"conditioning": ("CONDITIONING",), "tokens": ("INT", {"default": 50, "min": 0})}}

    def run(self, conditioning, tokens):
        return ([[c[:, :tokens], options] for c, options in conditioning],)


NODE_CLASS_MAPPINGS = {
    "SURTestDump": DumpConditioning,
    "SURTestSetOption": SetOption,
    "SURTestCutTokens": CutTokens,
}
