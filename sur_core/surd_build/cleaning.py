"""A prompt as its tool's syntax has it, brought to the words that CLIP was given.

What is meant for the tool goes: network tags, weights, embeddings by name, chunk breaks, prompt editing.
"""

from __future__ import annotations

import re

_NETWORK = re.compile(r"<(?:lora|lyco|lycoris|loha|locon|hypernet|hypernetwork|lbw|clora):[^<>]*>", re.I)
_EMBEDDING = re.compile(r"\bembedding:[^\s,()\[\]{}:|]+(?::[\d.]+)?", re.I)
_BREAK = re.compile(r"(?:(?<=[\s,])|^)BREAK(?=[\s,]|$)")
_WEIGHT = re.compile(r":\s*[+-]?(?:\d+\.?\d*|\.\d+)\s*$")
_NUMBER = re.compile(r"\s*[+-]?(?:\d+\.?\d*|\.\d+)\s*")
_TOKEN = re.compile(r"\\[\\()\[\]{}]|[()\[\]{}]|[^\\()\[\]{}]+|\\")
_INVOKE_WEIGHT = re.compile(r"(?<=\))(?:[+-]+|\d+\.?\d*|\.\d+)|(?<=\w)[+-]{2,}(?=[\s,.)]|$)")
_NOVELAI_WEIGHT = re.compile(r"-?\d*\.?\d*::")
_CLOSING = {"(": ")", "[": "]", "{": "}"}


def clean_prompt(prompt: str, metadata: str = "") -> str:
    """The prompt without its tool's syntax, white space and repeated commas brought to one.

    ``<lora:..>`` and its kin, ``BREAK`` and ``embedding:name`` go; ``(word:1.2)``, ``((word))`` and
    ``[word]`` become ``word``; of ``[a:b:0.5]`` stays ``b``, which is drawn last, of ``[a::0.5]`` and
    ``[b:0.5]`` the one there is, and of ``[a|b]`` both. Brackets behind a backslash are text and stay, the
    backslash goes. A bracket without its partner is text, too.

    Args:
        prompt: as found.
        metadata: the collect record's kind of metadata: NovelAI also has ``{word}`` and ``1.2::word::``,
            InvokeAI ``(word)1.2`` and ``word++``.
    """
    text = _BREAK.sub(",", _NETWORK.sub(" ", prompt))
    if metadata == "novelai":
        text = _NOVELAI_WEIGHT.sub("", text)
    if metadata == "invokeai":
        text = _INVOKE_WEIGHT.sub("", text)
    text = _EMBEDDING.sub(" ", _unbracketed(text, "([{" if metadata == "novelai" else "(["))
    return _tidy(text)


def _unbracketed(text: str, brackets: str) -> str:
    """One pass with a stack of open brackets: [(bracket, the parts inside it so far)]."""
    stack: list[tuple[str, list[str]]] = [("", [])]
    closing = {_CLOSING[bracket]: bracket for bracket in brackets}
    for token in _TOKEN.findall(text):
        if token in brackets:
            stack.append((token, []))
        elif token in closing and any(bracket == closing[token] for bracket, _ in stack):
            while stack[-1][0] != closing[token]:
                _close_as_text(stack)
            bracket, parts = stack.pop()
            stack[-1][1].append(_inside(bracket, "".join(parts)))
        else:
            stack[-1][1].append(token)
    while len(stack) > 1:
        _close_as_text(stack)
    return re.sub(r"\\([\\()\[\]{}])", r"\1", "".join(stack[0][1]))


def _close_as_text(stack: list[tuple[str, list[str]]]) -> None:
    bracket, parts = stack.pop()
    stack[-1][1].extend([bracket, *parts])


def _inside(bracket: str, text: str) -> str:
    """What stays of a pair of brackets' content."""
    if bracket == "(":
        return _WEIGHT.sub("", text)
    if bracket == "{":
        return text
    if "|" in text:
        return ", ".join(part.strip() for part in text.split("|") if part.strip())
    *parts, when = text.split(":")
    if parts and _NUMBER.fullmatch(when):
        return next((part for part in reversed(parts[-2:]) if part.strip()), "")
    return text


def _tidy(text: str) -> str:
    text = re.sub(r"\s+", " ", text)
    text = re.sub(r"\s+,", ",", text)
    return re.sub(r",(?:\s*,)+", ",", text).strip(" ,")
