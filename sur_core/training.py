"""Algorithm 1: the loop that trains an adapter, stage by stage, on one process or many.

The frozen model, the data and the losses come from elsewhere; here is only their order: forward, backward,
sum over processes, clip, update, and what happens between steps.
"""

from __future__ import annotations

import logging
import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from .backend import Backend
from .objective import Batch, SampleLosses
from .stop_signals import StopSignals
from .training_config import STAGES, TrainingConfig
from .training_data import TrainingData
from .training_errors import memory_advice, not_a_number
from .training_log import TrainingLog
from .training_progress import StageProgress
from .training_setup import fingerprints
from .training_state import (
    Counters,
    TrainingStateError,
    check_same_run,
    read_counters,
    read_tensors,
    restore,
    save_state,
)
from .training_system import system_of
from .validation import validate

log = logging.getLogger(__name__)

MOST_OVERFLOWS = 50
"""Steps in a row that fp16's loss scaling may skip; after so many its scale has come down to nothing."""

ADAPTER_FILE, BEST_FILE, CONFIG_FILE = "adapter.safetensors", "adapter-best.safetensors", "config.toml"


class Stopped(Exception):
    """The run was asked to stop, has saved its state and can go on from there. ``signal`` is what asked."""

    def __init__(self, step: int, signal: int):
        super().__init__(f"stopped after step {step}; the same command goes on from there")
        self.signal = signal


@dataclass
class StepResult:
    """Means over the samples of one optimiser step, all processes together."""

    losses: dict[str, float]
    gradient_norm: float
    stop: int


class Trainer:
    """One training run in one folder. Make it on every process, then call :meth:`run`."""

    def __init__(
        self,
        config: TrainingConfig,
        data: TrainingData,
        backend: Backend,
        accelerator,
        show: Callable[[str], None] = log.info,
        draw_samples: Callable[[Trainer, str], None] | None = None,
        progress: Callable = StageProgress,
    ):
        """
        Args:
            accelerator: an ``accelerate.Accelerator``.
            show: is told what happens, a sentence at a time, on the main process.
            draw_samples: called on the main process with the trainer and the name of a picture.
            progress: makes what is told of each step of a stage; arguments as :class:`StageProgress`.
        """
        self.config, self.data, self.backend, self.accelerator = config, data, backend, accelerator
        self.folder = Path(config.output_dir)
        self.show = show if accelerator.is_main_process else lambda _: None
        self._draw_samples = draw_samples if accelerator.is_main_process else None
        self._progress = progress
        self.system = system_of(config)
        self.adapter = self.system.first_adapter(config, data, backend).to(accelerator.device).train()
        self.parameters = {n: p for n, p in self.adapter.named_parameters() if p.requires_grad}
        self.ema = {n: p.detach().clone() for n, p in self.parameters.items()} if config.ema_decay else {}
        self.objective = self.system.objective(config, data, backend, accelerator.device)
        process = accelerator.process_index, accelerator.num_processes
        self.feed = self.system.feed(config, data, backend, accelerator.device, process)
        self._optimizer = torch.optim.AdamW(
            self._groups(),
            lr=config.learning_rate,
            betas=(config.adam_beta1, config.adam_beta2),
            eps=config.adam_epsilon,
            weight_decay=config.adam_weight_decay,
        )
        self._stepper = accelerator.prepare(self._optimizer)  # knows about fp16's loss scaling
        self._overflows, self._said = 0, ""
        # Dropout is drawn on the device, and a GPU's numbers are not the CPU's.
        sources = fingerprints(config, data, backend) | {"kind of device": accelerator.device.type}
        self.counters = Counters(global_batch=self.feed.global_batch, sources=sources)

    def _groups(self) -> list[dict]:
        decayed = [p for p in self.parameters.values() if self.system.decays(p)]
        others = [p for p in self.parameters.values() if not self.system.decays(p)]
        groups = [{"params": decayed}, {"params": others, "weight_decay": 0.0}]
        return [group for group in groups if group["params"]]

    def check_resume(self) -> int:
        """Steps that the folder's state has done; 0 where there is none. Reads no weights.

        Raises:
            TrainingStateError: it is damaged, or belongs to other settings or data, or the processes found
                different ones.
        """
        found = read_counters(self.folder)
        saved, old_config = found or (Counters(), {})
        if found:
            note = check_same_run(self.folder, self.config, self.counters, saved, old_config)
            if note and note != self._said:  # once: it is checked before caching and after
                self.show(f"note: {note}")
                self._said = note
        self._check_same_everywhere((saved.step, saved.interrupted, saved.seconds))
        return saved.step

    def resume(self) -> None:
        """Go on from the folder's state, if there is one. Errors as :meth:`check_resume`."""
        if not self.check_resume():
            return
        sources = self.counters.sources
        self.counters = read_counters(self.folder)[0]
        self.counters.sources = sources
        restore(read_tensors(self.folder), self.adapter, self.ema, self._optimizer)
        if self.counters.scaler and self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(self.counters.scaler)

    def _check_same_everywhere(self, mine: tuple) -> None:
        if self.accelerator.num_processes > 1:
            from accelerate.utils import gather_object

            if len(set(gather_object([mine]))) > 1:
                raise TrainingStateError(
                    f"{self.folder}: the processes found different states of the run in it. output_dir must "
                    "be a folder that all machines share"
                )

    def run(self) -> None:
        """Train to the end. The folder then holds the adapter, its config, log and curves.

        Raises:
            Stopped: SIGINT or SIGTERM came; the state is saved.
            TrainingError: a loss is not a number, or out of memory; the last good state is kept.
            OSError: something cannot be written or read.
        """
        main = self.accelerator.is_main_process
        if main:
            self.config.save(self.folder / CONFIG_FILE)
        # Of a step that was interrupted, the row is still to come.
        logged = self.counters.step - self.counters.interrupted
        self.log = TrainingLog(self.folder, logged, self.system.panels) if main else None
        try:
            with StopSignals() as signals, memory_advice(self.config, self.counters):
                if self.counters.interrupted:
                    self.counters.interrupted = False
                    self._between_steps()
                for stage in STAGES:
                    self._run_stage(stage, signals)
            if main and not (self.folder / ADAPTER_FILE).exists():
                self._save()
        finally:
            if self.log:
                self.log.close()

    def _run_stage(self, stage: str, signals: StopSignals) -> None:
        start, end = self._bounds(stage)
        if self.counters.step >= end:
            return
        if stage == "full":
            self.backend.load("unet")
            if self.config.gradient_checkpointing:
                self.backend.enable_gradient_checkpointing()
            if self.counters.step == start:
                self.counters.best = None  # losses of different stages do not compare
        done, main = self.counters.step - start, self.accelerator.is_main_process
        progress = self._progress(stage, done, end - start, self.counters.global_batch, self.show, main)
        with closing(progress):
            began = time.monotonic()
            for step, batches in self.feed.steps(stage, self.counters.step, end):
                result = self._step(step, batches, signals.received)
                self.counters.step = step + 1
                self._count(result, time.monotonic() - began)
                progress.step(result.losses["total"])
                if result.stop:
                    self.counters.interrupted = True
                    self._save()
                    raise Stopped(self.counters.step, result.stop)
                self._between_steps()
                began = time.monotonic()

    def _bounds(self, stage: str) -> tuple[int, int]:
        """First step of a stage, and the one after its last."""
        config = self.config
        return (0, config.align_steps) if stage == "align" else (config.align_steps, config.total_steps)

    def _step(self, step: int, batches: list[Batch], stop: int) -> StepResult:
        """One optimiser step on this process's share of the batch."""
        for group in self._optimizer.param_groups:
            group["lr"] = self.config.learning_rate_at(step)
        self._optimizer.zero_grad(set_to_none=True)
        sums = torch.zeros(len(SampleLosses._fields), device=self.accelerator.device)
        seen = []
        for batch in batches:
            with self.accelerator.autocast():
                found = self.objective(self.adapter, batch, self.backend)
            # Divided by all samples of the step, so that sums over parts and processes are the mean.
            self.accelerator.backward(found.total.sum() / self.counters.global_batch)
            sums += torch.stack([values.detach().sum() for values in found])
            seen.append(found.total.detach())
        sums, stop = self._sum_over_processes(sums, stop)
        if not all(map(math.isfinite, sums)):
            raise not_a_number(self.config, step, batches, seen, self.accelerator)
        norm = self.accelerator.clip_grad_norm_(
            list(self.parameters.values()), self.config.max_grad_norm or math.inf
        ).item()
        if not math.isfinite(norm):
            # Under fp16's loss scaling an overflow is expected now and then: the step is skipped.
            self._overflows += 1
            if self.accelerator.scaler is None or self._overflows > MOST_OVERFLOWS:
                raise not_a_number(self.config, step, batches, seen, self.accelerator)
        else:
            self._overflows = 0
        self._stepper.step()
        self._average()
        means = [value / self.counters.global_batch for value in sums]
        return StepResult(dict(zip(SampleLosses._fields, means, strict=True)), norm, stop)

    def _sum_over_processes(self, sums: torch.Tensor, stop: int) -> tuple[list[float], int]:
        """Gradients, losses and the wish to stop, in one message."""
        if self.accelerator.num_processes == 1:
            return sums.tolist(), stop
        gradients = [p.grad for p in self.parameters.values() if p.grad is not None]
        wish = torch.tensor([float(stop)], device=sums.device)
        message = torch.cat([sums, wish, *(gradient.flatten() for gradient in gradients)])
        message = self.accelerator.reduce(message, "sum")
        place = len(sums) + 1
        for gradient in gradients:
            gradient.copy_(message[place : place + gradient.numel()].view_as(gradient))
            place += gradient.numel()
        stopping = bool(message[len(sums)])  # by whichever process: all must leave the loop together
        return message[: len(sums)].tolist(), stop or signal.SIGTERM * stopping

    def _average(self) -> None:
        if self.ema:
            # A mean over the first steps only would still hold mostly the random start.
            decay = min(self.config.ema_decay, (1 + self.counters.step) / (10 + self.counters.step))
            weights = [p.detach() for p in self.parameters.values()]
            torch._foreach_lerp_(list(self.ema.values()), weights, 1 - decay)

    def _count(self, result: StepResult, seconds: float) -> None:
        window = self.counters.window
        self.counters.seconds += seconds
        now = {**result.losses, "seconds": seconds, "steps": 1}
        if math.isfinite(result.gradient_norm):  # else the step was skipped
            now |= {"gradient_norm": result.gradient_norm, "norms": 1}
        for name, value in now.items():
            window[name] = window.get(name, 0) + value

    def _between_steps(self) -> None:
        """Validate, log, save and draw, where that is due after the step just taken."""
        config, step = self.config, self.counters.step
        stage = config.stage_of(step - 1)
        end = step == self._bounds(stage)[1]

        def due(every: int) -> bool:
            return bool(every) and (step % every == 0 or end)

        validated = self._validate(stage) if due(config.validation_steps) else {}
        if self.log and (validated or due(config.logging_steps)):
            self.log.write(self._row(stage, validated))
        if validated or due(config.logging_steps):
            self.counters.window = {}
        if due(config.checkpointing_steps):
            self._save()
            if self.log:
                self.log.draw()
        if self._draw_samples and config.sample_prompts and (due(config.sample_steps) or end):
            self._draw_samples(self, f"step-{step:06d}")

    def _row(self, stage: str, validated: dict[str, float]) -> dict:
        """A row of log.csv: means over the steps since the row before."""
        window, step = self.counters.window, self.counters.step
        done = (step - self.config.align_steps * (stage == "full")) * self.counters.global_batch
        means = {name: window[name] / window["steps"] for name in SampleLosses._fields}
        means["gradient_norm"] = window.get("gradient_norm", math.nan) / window.get("norms", 1)
        means["loss"] = means.pop("total")
        if stage == "align":
            del means["simple"]
        return {
            "step": step,
            "stage": stage,
            "epoch": done / len(self.data.samples(stage)),
            "learning_rate": self.config.learning_rate_at(step - 1),
            **means,
            "samples_per_second": window["steps"] * self.counters.global_batch / window["seconds"],
            "seconds": self.counters.seconds,
            **validated,
        }

    def _validate(self, stage: str) -> dict[str, float]:
        """Validation columns of log.csv; the adapter with the stage's smallest loss is kept as the best."""
        first = stage == "full" and self.counters.without_adapter is None
        with self.finished_weights() as adapter:
            found = validate(
                self.objective, adapter, self.feed, stage, self.accelerator, without_adapter=first
            )
        if not found:
            return {}
        if first:
            self.counters.without_adapter = found["validation_simple_without_adapter"]
        elif stage == "full":
            found["validation_simple_without_adapter"] = self.counters.without_adapter
        total = found["validation_loss"]
        if math.isfinite(total) and (self.counters.best is None or total < self.counters.best):
            self.counters.best = total
            if self.accelerator.is_main_process:
                self._write_adapter(self.folder / BEST_FILE)
        return found

    def _save(self) -> None:
        """Write the adapter as it is now, and the state to go on from."""
        if self.accelerator.is_main_process:
            if self.accelerator.scaler is not None:
                self.counters.scaler = self.accelerator.scaler.state_dict()
            save_state(self.folder, self.config, self.counters, self.adapter, self.ema, self._optimizer)
            self._write_adapter(self.folder / ADAPTER_FILE)

    def _write_adapter(self, path: Path) -> None:
        with self.finished_weights() as adapter:
            try:
                self.system.save(adapter, path, steps=self.counters.step)
            except PermissionError as error:  # Windows, while ComfyUI has the file open
                self.show(f"note: {path} is in use and was not renewed ({error.strerror})")

    @contextmanager
    def finished_weights(self) -> Iterator[nn.Module]:
        """The adapter as it is to be used: in eval mode, with the weights' running mean if there is one."""
        trained = {name: p.detach().clone() for name, p in self.parameters.items()} if self.ema else {}
        self.adapter.eval()
        try:
            for name, value in self.ema.items():
                self.parameters[name].data.copy_(value)
            yield self.adapter
        finally:
            for name, value in trained.items():
                self.parameters[name].data.copy_(value)
            self.adapter.train()
