"""Which words of a prompt are nouns.

Two ways, by what is installed:

- a spaCy English pipeline (``en_core_web_...``), which reads the whole sentence: words tagged NOUN;
- lemminflect's dictionary (from the SPECIALIST lexicon), which knows what a word can be but not what it is in
  a sentence. Most English nouns can be verbs too ("dog", "flower"), so a few rules look at the neighbours,
  see :func:`_is_noun`.

Either counts base forms ("kittens" as "kitten"), each once a prompt, and no proper names. Limits of the
dictionary: words it does not know ("anime", "cyberpunk") are never nouns; an "oil painting" without "of"
behind it is taken for somebody painting oil; in a language other than English it finds nonsense.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache

from .words import DETERMINERS, PREPOSITIONS, STOP_WORDS, runs

MISSING = "not counted: neither a spaCy English model nor lemminflect is installed (pip install lemminflect)"


def count_nouns(texts: Sequence[str]) -> tuple[Counter[str], str]:
    """In how many texts each noun occurs, and in words how nouns were told.

    The counter is empty where nothing is installed that can tell.
    """
    finder, how = _finder()
    counts = Counter()
    if finder is not None:
        for found in finder(texts):
            counts.update(found)
    return counts, how


def _finder() -> tuple[Callable[[Iterable[str]], Iterable[set[str]]] | None, str]:
    if (model := _spacy_model()) is not None:
        return _by_spacy(model), f"words that spaCy's {model} tags as nouns, in their base form"
    try:
        import lemminflect  # noqa: F401
    except ImportError:
        return None, MISSING
    how = (
        "words that the dictionary of lemminflect knows as nouns, in their base form; where it knows them as "
        "verbs or adjectives too, their neighbours decide. Words it does not know are left out"
    )
    return lambda texts: map(dictionary_nouns, texts), how


def _spacy_model() -> str | None:
    """The name of an installed English pipeline: the smallest, for speed."""
    try:
        import spacy
    except ImportError:
        return None
    order = ("en_core_web_sm", "en_core_web_md", "en_core_web_lg", "en_core_web_trf")
    installed = set(spacy.util.get_installed_models())
    return next((name for name in order if name in installed), None)


def _by_spacy(model: str) -> Callable[[Iterable[str]], Iterable[set[str]]]:
    import spacy

    pipeline = spacy.load(model, exclude=["parser", "ner"])

    def find(texts: Iterable[str]) -> Iterable[set[str]]:
        for document in pipeline.pipe(texts, batch_size=256):
            yield {
                token.lemma_.lower()
                for token in document
                if token.pos_ == "NOUN" and token.is_alpha and token.lower_ not in STOP_WORDS
            }

    return find


def dictionary_nouns(text: str) -> set[str]:
    """The nouns of one prompt, in their base form. Raises ImportError: lemminflect is not installed."""
    found = set()
    for run in runs(text):
        for at, word in enumerate(run):
            if word not in STOP_WORDS and _is_noun(run, at):
                found.add(_kinds(word)["NOUN"][0])
    return found


@lru_cache(maxsize=200_000)
def _kinds(word: str) -> dict[str, tuple[str, ...]]:
    """{part of speech it can be: its base forms}; function words are none of them here."""
    from lemminflect import getAllLemmas

    return {} if word in STOP_WORDS else getAllLemmas(word)


def _is_noun(run: list[str], at: int) -> bool:
    """Whether the word is a noun here, as far as its neighbours tell."""
    word, kinds = run[at], _kinds(run[at])
    before = run[at - 1] if at else ""
    after = run[at + 1] if at + 1 < len(run) else ""
    if "NOUN" not in kinds:
        return False
    if len(kinds) == 1:
        return True
    leads = "NOUN" in _kinds(after)  # "red dress", "standing figure"
    introduced = before in DETERMINERS or before in PREPOSITIONS
    described = "ADJ" in _kinds(before)
    if word not in kinds.get("VERB", (word,)) and not word.endswith("s"):  # "painting", "standing", "ground"
        described = described and "NOUN" not in _kinds(before)
        return after == "of" or (not leads and (introduced or described or not before) and "ADJ" not in kinds)
    if "ADJ" in kinds or "ADV" in kinds:
        return not leads and (introduced or described or set(_kinds(before)) == {"NOUN"})
    return not _acts(run, at)


def _acts(run: list[str], at: int) -> bool:
    """Whether a word that may be noun or verb, in base form or with -s, is the verb: "two dogs play in",
    "a woman looks at", but "with cat ears on".
    """
    word, before = run[at], run[at - 1] if at else ""
    after = run[at + 1] if at + 1 < len(run) else ""
    if before in ("to", "who", "that", "they", "we", "you", "i"):
        return True
    if "NOUN" not in _kinds(before) or not (after in DETERMINERS or after in PREPOSITIONS):
        return False
    plural = before not in _kinds(before)["NOUN"]
    if word in _kinds(word)["VERB"]:
        return plural
    return not plural and not any(earlier in PREPOSITIONS for earlier in run[:at])
