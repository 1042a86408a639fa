"""One run of the web UI with the adapter on.

The state of a run lives on the host's processing object ``p`` and dies with it. The callback that the script
registers at start has no state of its own: it asks the ``p`` that is being sampled for a :class:`Request` and
leaves every other alone. So a run that fails (the hosts then call no ``postprocess``) leaves nothing behind
that another run could meet. Registering a callback anew for each run would not be as safe: the hosts keep
callbacks in a sorted list of their own.

The hosts report an exception of a callback in the console and go on drawing, without the adapter. An artist
who has switched it on wants no picture then, but the reason. So whatever fails is kept, and at the next step
a :class:`Refusal` is put in the prompt's place; it raises where the host uses it, and the host stops the run
and shows the message where the picture would be.
"""

from __future__ import annotations

import copy
import logging
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from sur_core import AdapterMismatchError, SURAdapterBundle, adapt, load_adapter
from sur_core.conditioning import mismatch
from sur_core.families import width_words

from .files import find_adapter, short_hash
from .memory import AdaptedPrompts
from .settings import INFOTEXT, Settings, settings_of

ATTRIBUTE = "sur_adapter_request"
"""Under which name a processing object carries its :class:`Request`."""

log = logging.getLogger(__name__)


def begin(p, values: tuple, folders: Callable[[], list[Path]]) -> None:
    """Start a run: read the settings, load the adapter, note it for the image's infotext. Never raises.

    Args:
        p: the host's processing object.
        values: of the controls, see :func:`.settings.settings_of`.
        folders: gives the folders where adapters are looked for.
    """
    end(p)
    for name in INFOTEXT.values():  # an X/Y/Z plot's cells share this dictionary
        p.extra_generation_params.pop(name, None)
    request = Request(p)
    try:
        request.settings = settings_of(p, values)
        if request.settings.enabled:
            request.prepare(find_adapter(request.settings.adapter, folders()))
    except Exception as error:  # the host would swallow it; the run must stop
        request.fail(error)
    if request.error or request.settings.acts:
        setattr(p, ATTRIBUTE, request)


def end(p) -> None:
    """Forget a run. Does nothing where there is none."""
    vars(p).pop(ATTRIBUTE, None)


def on_cfg_denoiser(params) -> None:
    """The host's callback, before each call of the denoiser: adapts the prompts of a run that has begun.

    Args:
        params: the host's ``CFGDenoiserParams``; ``text_cond`` and ``text_uncond`` are replaced.
    """
    p = getattr(params.denoiser, "p", None)  # other extensions may call the callbacks without a denoiser
    request = getattr(p, ATTRIBUTE, None)
    if request is not None and request.owner() is p:  # a copy of p has its attributes too
        request.adapt_prompts(params)


class Request:
    """The adapter and what it has read, for one run.

    Attributes:
        owner: weak reference to the processing object.
        error: why this run must stop.
    """

    def __init__(self, p):
        self.owner = weakref.ref(p)
        self.settings = Settings()
        self.error: Exception | None = None
        self._adapter: SURAdapterBundle | None = None
        self._adapted = AdaptedPrompts(self._read)
        self._has_fitted = False
        self._noted: set[str] = set()

    def prepare(self, path: Path) -> None:
        """Load the file, unless the settings leave the picture as it is, and note it for the infotext."""
        self.owner().extra_generation_params.update(self.settings.infotext(short_hash(path)))
        if self.settings.acts:
            self._adapter = load_adapter(path)
        elif self.settings.eta > 0:
            self._note(
                f"does nothing: it starts at {self.settings.start:g} of the steps and ends at "
                f"{self.settings.end:g}"
            )

    def adapt_prompts(self, params) -> None:
        """Put adapted prompts into ``params``, or a :class:`Refusal`. What the host gave is not changed."""
        try:
            if self.error:
                raise self.error
            if not self._fits(_embeddings(params.text_cond)) or not self._in_range(params):
                return
            positive, negative = self._changed(params.text_cond), params.text_uncond
            if self.settings.negative and negative is not None:  # Forge has none at CFG scale 1
                negative = self._changed(negative)
        except Exception as error:  # the host would swallow it and draw without the adapter
            self.fail(error)
            params.text_cond = Refusal(self.error)
        else:
            params.text_cond, params.text_uncond = positive, negative

    def fail(self, error: Exception) -> None:
        """Keep why the run must stop, and let go of everything else."""
        if error is not self.error:
            log.error("SUR-adapter: %s", error)
        self.error = error.with_traceback(None)  # a traceback would keep the run's tensors alive
        self._adapter = None
        self._adapted.clear()

    def _changed(self, cond):
        """A cond like ``cond``: a tensor [B, T, D], or the dictionary that SDXL has, with every key."""
        if not isinstance(cond, dict):
            return self._adapted(cond)
        changed = copy.copy(cond)  # of the host's own class: both ask it for its shape
        changed["crossattn"] = self._adapted(cond["crossattn"])
        return changed

    def _read(self, prompts: list[torch.Tensor]) -> list[torch.Tensor]:
        """New prompts, each [T, D], adapted."""
        with _on(self._adapter, prompts[0].device):
            return [adapt(self._adapter, prompt[None], self.settings.eta)[0] for prompt in prompts]

    def _fits(self, hidden: torch.Tensor) -> bool:
        """Whether the adapter is for the model being sampled. A refiner of another kind is left alone; SDXL's
        reads with CLIP-G, which is one of an SDXL adapter's towers.

        Raises:
            AdapterMismatchError: it does not fit the model that the run begins with.
        """
        width, widths = hidden.shape[-1], self._adapter.passport.widths
        # SDXL's CLIP-L tower alone would read SD 1.x's embeddings too, but they come from another layer.
        if width in (sum(widths.values()), widths.get("clip_g")):
            self._has_fitted = True
            return True
        if not self._has_fitted:
            raise mismatch(self._adapter, f"this checkpoint is {width_words(width)}")
        self._note(
            f"leaves a checkpoint of this run alone (refiner or hires fix): it is {width_words(width)}, the "
            f"adapter is for {self._adapter.family_words}"
        )
        return False

    def _in_range(self, params) -> bool:
        """Whether the adapter acts at this step: from ``start`` until before ``end``, in shares of the steps.

        Hires fix samples twice; each pass counts its own steps. Samplers that call the denoiser twice a step
        are counted in calls, as the hosts count them for prompt editing.
        """
        denoiser = params.denoiser
        share = denoiser.step / (denoiser.total_steps or params.total_sampling_steps)
        # Some samplers make more calls than they announce: an end of 1 means to the very last.
        return self.settings.start <= share and (share < self.settings.end or self.settings.end == 1)

    def _note(self, message: str) -> None:
        """Say something once a run: in the log, and under the picture where the host can."""
        if message not in self._noted:
            self._noted.add(message)
            log.warning("SUR-adapter %s", message)
            if comment := getattr(self.owner(), "comment", None):
                comment(f"SUR-adapter {message}")


class Refusal:
    """Stands where the host expects a prompt's embeddings, and raises ``error`` as soon as they are used."""

    def __init__(self, error: Exception):
        self._error = error

    def __getattr__(self, name: str):
        if name.startswith("__"):  # asked by Python itself, not by the host
            raise AttributeError(name)
        raise self._error

    def __getitem__(self, _key):
        raise self._error


def _embeddings(cond) -> torch.Tensor:
    """The token embeddings in a cond, [B, T, D]."""
    hidden = cond.get("crossattn") if isinstance(cond, dict) else cond
    if not isinstance(hidden, torch.Tensor) or hidden.ndim != 3:
        raise AdapterMismatchError(
            "SUR-adapter knows prompts as embeddings [batch, tokens, features], found "
            f"{type(hidden).__name__}. It works with SD 1.x, SD 2.x and SDXL; for others untick 'Enable'"
        )
    return hidden


@contextmanager
def _on(adapter: SURAdapterBundle, device: torch.device) -> Iterator[None]:
    """The adapter's weights on ``device`` while it reads, and back after. It reads once for each prompt; in
    between the graphics card's memory is the host's.
    """
    home = next(adapter.parameters()).device
    if device == home:
        yield
        return
    try:
        _move(adapter, device)
        yield
    finally:
        _move(adapter, home)


def _move(adapter: SURAdapterBundle, device: torch.device) -> None:
    with torch.inference_mode(False), torch.no_grad():  # the hosts sample in inference mode
        adapter.to(device)
