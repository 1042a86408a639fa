"""SUR-adapter: make Stable Diffusion understand short narrative prompts.

    from sur_core import load_adapter, adapt

    adapter = load_adapter("adapter.safetensors")
    adapted = adapt(adapter, hidden, eta=0.3)      # hidden: what the text encoder returned, [B, 77 * n, D]

Importing this needs torch, numpy and safetensors only.
"""

from .adapter import SURAdapter, SURAdapterConfig, SUROutput
from .bundle import SURAdapterBundle, new_adapter
from .checkpoint import convert_adapter, load_adapter, read_passport, save_adapter
from .conditioning import adapt, adapt_pair_as_authors, blend, predict
from .errors import AdapterFileError, AdapterMismatchError
from .merging import join_towers, merge_adapters
from .passport import Passport

__version__ = "0.1.0"

__all__ = [
    "AdapterFileError",
    "AdapterMismatchError",
    "Passport",
    "SURAdapter",
    "SURAdapterBundle",
    "SURAdapterConfig",
    "SUROutput",
    "adapt",
    "adapt_pair_as_authors",
    "blend",
    "convert_adapter",
    "join_towers",
    "load_adapter",
    "merge_adapters",
    "new_adapter",
    "predict",
    "read_passport",
    "save_adapter",
]
