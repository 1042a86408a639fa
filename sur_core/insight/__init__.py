"""What an adapter did to a prompt, token by token: figures, a sentence, a picture.

changes = compare_adapted(adapter, hidden[0], eta=0.3)      # or compare(before, after)
changes = with_tokens(changes, names)                       # the prompt's own words
print(in_words(changes))
draw_changes(changes, theme="light").save("changes.png")
"""

from .changes import ChunkChange, compare, compare_adapted, with_tokens
from .picture import draw_changes
from .tokens import END, PAD, START, Token, readable
from .words import in_words, most_changed

__all__ = [
    "END",
    "PAD",
    "START",
    "ChunkChange",
    "Token",
    "compare",
    "compare_adapted",
    "draw_changes",
    "in_words",
    "most_changed",
    "readable",
    "with_tokens",
]
