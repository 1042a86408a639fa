"""The errors this library raises for bad files and for files used on the wrong model.

Both are ``ValueError``; a missing or unreadable file stays the ``OSError`` it is. Every message names the
file, what was expected, what was found and what to do.
"""


class AdapterFileError(ValueError):
    """A file is no usable adapter: unreadable, foreign, truncated, unsafe, incomplete or not finite."""


class AdapterMismatchError(ValueError):
    """A sound adapter does not fit the embeddings, text encoders or other adapters it is used with."""
