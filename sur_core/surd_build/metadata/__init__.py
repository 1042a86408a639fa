"""The prompt an image file says it was made with."""

from .found import Found
from .reading import read_metadata

__all__ = ["Found", "read_metadata"]
