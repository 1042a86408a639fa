"""Which tokens a CLIP reads a text as, by name."""

from __future__ import annotations

import re

from ..sur_core.insight import END, PAD, START, Token, readable

_EMBEDDING = re.compile(r"embedding:([^\s,:()]+)")


def token_names(clip, text: str) -> dict[str, list[tuple[Token, ...]]]:
    """``{"clip_l": [names of chunk 1, names of chunk 2, ...], ...}``, exactly as ComfyUI would encode it.

    Weights such as ``(seven:1.4)`` are no tokens. The vectors of an embedding bear its name.
    """
    names = {}
    for encoder, chunks in clip.tokenize(text, return_word_ids=True).items():
        tokenizer = getattr(clip.tokenizer, f"clip_{encoder}", None)
        if tokenizer is not None:
            embeddings = _embeddings(chunks, text)
            names[f"clip_{encoder}"] = [_chunk(tokenizer, chunk, embeddings) for chunk in chunks]
    return names


def _chunk(tokenizer, chunk: list, embeddings: dict[int, list[Token]]) -> tuple[Token, ...]:
    """Names of a chunk of (token or vector, weight, number of its word; 0 for none)."""
    names: list[Token] = []
    word_tokens: list[tuple] = []

    def finish_words():
        names.extend(readable([entry for _, entry in tokenizer.untokenize(word_tokens)]))
        word_tokens.clear()

    ended = False
    for place, (token, weight, word) in enumerate(chunk):
        if word and not hasattr(token, "shape"):
            word_tokens.append((token, weight))
            continue
        finish_words()
        if word:
            names.append(embeddings[word].pop(0))
        else:
            names.append(START if place == 0 else PAD if ended else END)
            ended = ended or place > 0
    finish_words()
    return tuple(names)


def _embeddings(chunks: list, text: str) -> dict[int, list[Token]]:
    """Names for the vectors of each embedding, by the number of its word."""
    counts: dict[int, int] = {}
    for token, _, word in (entry for chunk in chunks for entry in chunk):
        if hasattr(token, "shape"):
            counts[word] = counts.get(word, 0) + 1
    titles = _EMBEDDING.findall(text)
    if len(titles) != len(counts):  # one was not found and left out, so the order tells nothing
        titles = ["embedding"] * len(counts)
    return {
        word: [Token(title if count == 1 else f"{title} {n}/{count}") for n in range(1, count + 1)]
        for title, (word, count) in zip(titles, counts.items(), strict=True)
    }
