"""How the models behind judges are found and put into memory: a folder, or an id on the hub."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property

import torch

from ...language_model import DTYPES, choose_device, choose_dtype
from ...model_files import ModelFileError, check_safetensors
from ...surd_build.model_source import ModelSource, load_weights
from ...training_errors import is_out_of_memory

NOT_COMPARABLE = (
    "The marks come from a model that errs in ways of its own: they compare the arms of this run with each "
    "other, and are not comparable with the paper's marks, which people gave by hand, nor with GenEval's "
    "scores."
)
"""Stands wherever the marks of a model are printed."""


RULES = 1
"""Of reading a truth, asking, counting and naming colours. Raise it with every change that may turn a mark:
remembered verdicts of other rules are not taken."""


class JudgeModelError(ModelFileError):
    """A judge's model cannot be used for what it is asked; the message names the model."""


class JudgeModel:
    """A model that is put into memory when it is first needed: until then the memory is the drawing model's.

    Attributes:
        name: for people: the hub id, or the folder's name.
        identity: hash of the files that decide what it computes.

    Args:
        device: ``"auto"`` or torch's name of one.
        dtype: ``"fp32"``, ``"fp16"``, ``"bf16"``; ``"auto"`` is bf16 or fp16 on a GPU and fp32 on the CPU.

    Raises:
        ValueError: no such device or dtype, or a weight file is damaged.
    """

    model_class = ""

    def __init__(self, source: ModelSource, device: str, dtype: str):
        self.name, self.identity, self._source = source.name, source.identity, source
        self.device = choose_device(str(device))
        self.dtype = choose_dtype(dtype, self.device)
        if self.dtype not in DTYPES:
            raise JudgeModelError(f"dtype is {dtype!r}; expected auto or one of {', '.join(DTYPES)}")
        for path in sorted(source.folder.glob("*.safetensors")):
            check_safetensors(path)

    @cached_property
    def _model(self):
        """In eval mode on the device. ValueError: weights are missing, or do not fit into its memory."""
        import transformers

        kind = getattr(transformers, self.model_class)
        model = load_weights(self._source, kind, DTYPES[self.dtype], torch.device("cpu"))
        with memory_in_words(self.name, self.device, "its weights"):
            return model.to(self.device)


@contextmanager
def memory_in_words(name: str, device: torch.device, what: str) -> Iterator[None]:
    """Running out of memory becomes a JudgeModelError that says what to do."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise JudgeModelError(
            f"{name}: {what} do not fit into the memory of {device}. Give the judge a smaller batch_size, "
            'dtype = "bf16", device = "cpu" or a smaller model; what was drawn is kept'
        ) from error
