"""The texts behind a conditioning: what a ComfyUI graph encodes for one side of a sampler."""

from __future__ import annotations

import re

from .comfy_graph import Graph, Link, Node
from .comfy_strings import Strings, Unresolved
from .found import BROKEN, MetadataError

POSITIVE, NEGATIVE = "positive", "negative"
MAX_DEPTH = 100
MAX_TEXTS = 1000

# Core's nodes that give (positive, negative, ...) for a pair of inputs with these names. The API format has
# no names of outputs, so of other nodes it is assumed that a sampler's positive is their positive.
_PAIRS = re.compile(
    r"ControlNetApply(Advanced|SD3)|ControlNetInpaintingAliMamaApply|ACN_AdvancedControlNetApply(_v2)?|"
    r"InpaintModelConditioning|InstructPixToPixConditioning|PairConditioning\w+|ConditioningStableAudio|"
    r"LTXV\w+|SD_4XUpscale_Conditioning|Hunyuan\w+|Wan\w+|SURApplyPair"
)
_ZERO = "ConditioningZeroOut"
_SIDE_WORDS = {POSITIVE: ("positive", "pos_"), NEGATIVE: ("negative", "neg_")}
_NEUTRAL_WORDS = ("cond", "guider")
_TYPES = {"CONDITIONING", "GUIDER", "*"}
_NO_PROMPT = (
    "model", "clip", "vae", "control_net", "image", "mask", "latent", "samples", "pixels", "noise",
    "sampler", "sigmas", "adapter", "style_model", "hooks", "weight", "gligen", "lora",
)  # fmt: skip


class Prompts:
    """Finds the texts of conditionings by their links.

    Every node in between is passed through by its conditioning inputs, in their order, and every text counts
    once. What could not be found out is added to ``remarks``.
    """

    def __init__(self, graph: Graph, remarks: dict[str, None]) -> None:
        self.graph, self.remarks = graph, remarks
        self.strings = Strings(graph, remarks)
        self._known: dict[tuple[Link, str, bool], list[str] | None] = {}

    def of(self, node: Node, side: str) -> list[str]:
        """Texts that a sampler or guider gets on a side, each once.

        Raises:
            MetadataError: the chain of nodes is endless.
        """
        return self._of_inputs(node, conditioning_inputs(node, side, strict=True), side, True, 0)

    def _of_inputs(self, node: Node, names: list[str], side: str, strict: bool, depth: int) -> list[str]:
        texts: list[str] = []
        for name in names:
            value = node.inputs[name]
            if isinstance(value, Link):
                stays_strict = strict and _is_guider(node, name)
                texts += self._behind(value, side, stays_strict, depth + 1)
            elif isinstance(value, str):
                texts.append(value)
        if len(texts) > MAX_TEXTS:
            raise MetadataError(BROKEN, f"ComfyUI's graph: more than {MAX_TEXTS:,} texts for one sampler")
        return list(dict.fromkeys(texts))

    def _behind(self, link: Link, side: str, strict: bool, depth: int) -> list[str]:
        key = (link, side, strict)
        if key not in self._known:
            if depth > MAX_DEPTH:
                raise MetadataError(
                    BROKEN, f"ComfyUI's graph: more than {MAX_DEPTH} nodes between prompt and sampler"
                )
            self._known[key] = None
            self._known[key] = self._texts(link, side, strict, depth)
        texts = self._known[key]
        if texts is None:
            self.remarks[f"{BROKEN}: ComfyUI's graph: node {link.node} feeds itself"] = None
            return []
        return texts

    def _texts(self, link: Link, side: str, strict: bool, depth: int) -> list[str]:
        node = self.graph.get(link.node)
        if node is None:
            self.remarks[f"{BROKEN}: ComfyUI's graph: node {link.node} is not in it"] = None
            return []
        if node.type == _ZERO:
            return []
        side = _side_of_output(node, link.slot, side)
        names = conditioning_inputs(node, side, strict)
        if node.type == "ConditioningAverage":
            names = self._averaged(node, names)
        if node.type == "DualCFGGuider":  # its second conditioning is what the first is guided away from
            names = [name for name in names if name != "cond2"]
        linked = [name for name in names if isinstance(node.inputs[name], Link)]
        if linked:
            return self._of_inputs(node, linked, side, strict, depth)
        if strict and conditioning_inputs(node, POSITIVE, strict):
            return []  # a guider without this side
        try:
            texts = self.strings.of_encoder(node, side)
        except Unresolved as error:
            self.remarks[str(error)] = None
            return []
        return texts if texts is not None else self._passed_through(node, side, strict, depth)

    def _averaged(self, node: Node, names: list[str]) -> list[str]:
        """At its ends an average is one of its two prompts alone."""
        strength = self.strings.number(node.inputs.get("conditioning_to_strength"))
        unused = {1.0: "conditioning_from", 0.0: "conditioning_to"}.get(strength)
        return [name for name in names if name != unused]

    def _passed_through(self, node: Node, side: str, strict: bool, depth: int) -> list[str]:
        """A node that neither encodes nor names its conditioning, such as a reroute or a switch."""
        for name, link in node.links().items():
            if not name.lower().startswith(_NO_PROMPT):
                texts = self._behind(link, side, strict, depth + 1)
                if texts:
                    return texts
        self.remarks[str(Unresolved(node, "has no text and no conditioning that could be followed"))] = None
        return []


def conditioning_inputs(node: Node, side: str, strict: bool = False) -> list[str]:
    """Names of the inputs that give a node its conditioning for a side.

    Args:
        strict: at a sampler or guider, where an input without a side ("conditioning") is the positive one;
            elsewhere it is whichever is asked for.
    """
    other = NEGATIVE if side == POSITIVE else POSITIVE
    mine = [name for name in node.inputs if _fits(node, name, _SIDE_WORDS[side])]
    theirs = [name for name in node.inputs if _fits(node, name, _SIDE_WORDS[other])]
    neutral = [name for name in node.inputs if _fits(node, name, _NEUTRAL_WORDS)]
    guider = [name for name in neutral if name.lower().startswith("guider")]
    pipes = [name for name in node.links() if "pipe" in name.lower()]
    if strict:
        return mine or guider or (neutral if side == POSITIVE else []) or pipes
    return mine or ([] if theirs and side == NEGATIVE else neutral) or pipes


def _fits(node: Node, name: str, words: tuple[str, ...]) -> bool:
    value = node.inputs[name]
    if not isinstance(value, Link):
        return isinstance(value, str) and name == words[0]
    if name.endswith("strength") or node.types.get(name, "*") not in _TYPES:
        return False
    return name.lower().startswith(words)


def _is_guider(node: Node, name: str) -> bool:
    return name.lower().startswith("guider") or node.types.get(name) == "GUIDER"


def _side_of_output(node: Node, slot: int, side: str) -> str:
    """Which of a pair an output is."""
    name = node.outputs[slot].lower() if 0 <= slot < len(node.outputs) else ""
    for one, words in _SIDE_WORDS.items():
        if name.startswith(words):
            return one
    if not node.outputs and slot in (0, 1) and _PAIRS.fullmatch(node.type):
        return (POSITIVE, NEGATIVE)[slot]
    return side


def is_pair(node: Node) -> bool:
    """Whether a node gives a pair of conditionings; it may give a latent image too, but does not sample."""
    return bool(_PAIRS.fullmatch(node.type)) or any(name.lower() == POSITIVE for name in node.outputs)
