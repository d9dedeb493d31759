"""Training: an iterator that takes one step at a time.

::

    state = FitState.start(settings)
    for progress in fit(state, draw):          # the caller prints, plots, saves, or breaks
        ...
    denoiser = state.averaged                  # the running average of the weights: what is kept

Everything random about item i of step k comes from (seed, k, i) alone, and gradients are summed in a fixed order. So a
run that was stopped after any step and taken up again gives the same weights, bit for bit, as one that was not; and the
number of threads changes nothing. On a GPU a batch is drawn as a whole, from (seed, k), or in as many parts as there
are processes, from (seed, k, part); what is learned from several times, from the number of its round. Of a model that
keeps means sums there have no fixed order, and a run taken up again is the same but for rounding.

On a processor each thread works through its own few items with single-threaded kernels. Kernels that share one
operation among threads wait for the slowest of them hundreds of times a step; this way waits once.
"""

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from unperturb.errors import TrainingError, UsageError
from unperturb.model.filling import filled
from unperturb.model.given import Fill, Given
from unperturb.model.machine import Map, Replayed, choose_precision, workers
from unperturb.model.operators import with_coarse
from unperturb.train.batches import Draw, NoisyDraw, Together, batches
from unperturb.train.boards import Boards
from unperturb.train.noisy import NOISY, Noisy
from unperturb.train.objective import OBJECTIVES, Objective, squared_error
from unperturb.train.processes import Processes
from unperturb.train.showing import Task
from unperturb.train.state import FitState


@dataclass(frozen=True)
class Progress:
    """One step, as seen from outside: `step` of `steps` are done; `loss` is the mean over the batch of this one."""

    step: int
    steps: int
    loss: float
    rate: float
    gradient: float
    seconds: float

    @property
    def left(self) -> float:
        """Seconds that the remaining steps will take."""
        return self.seconds / self.step * (self.steps - self.step)


def fit(
    state: FitState,
    draw: Draw | Together | NoisyDraw,
    *,
    objective: Objective | None = None,
    precision: str = "auto",
    threads: int | None = None,
    processes: Processes | None = None,
) -> Iterator[Progress]:
    """Train until the last step, yielding after each; `state` is complete whenever this yields.

    Until the iterator ends or is closed, torch runs on one thread an operation in the caller as well.

    Parameters
    ----------
    state
        Where to begin; is changed.
    draw
        Gives clean signals, one by one, and then is called on several threads at once; or all of a batch together; or
        noisy ones, for an objective of those.
    objective
        A function to make small in place of the one that the settings name.
    precision
        "auto", "float32" or "bfloat16" (weights stay in float32).
    threads
        On a processor; all by default. The result does not depend on it.
    processes
        Those that learn from one batch together, each with its own `state` and `draw`; by default this one alone. Of
        several the first has the running average. While they learn, weights may be in memory that all of them see, and
        are not to be changed from outside.

    Raises
    ------
    TrainingError
        Where a loss or a gradient is not finite, or a process was lost; `state` is then as after the step before.
    UsageError
        Where the precision is not that of the run so far.
    """
    device = next(state.denoiser.parameters()).device
    # Weights and momenta lie on these: no other run may write there.
    processes = replace(processes or Processes(), values=Boards(2))
    dtype = _settle_precision(state, precision, device, processes)
    if objective is None:
        objective = OBJECTIVES.get(state.settings.objective, squared_error)
    fill = Replayed(filled) if device.type == "cuda" else filled
    learn = _Learning(state, objective, dtype)
    with workers(device, threads or processes.threads) as run, ExitStack() as after:
        if processes.world_size > 1:
            after.callback(state.leave)
        while state.step < state.settings.steps:
            begin = time.perf_counter()
            loss, size, gradients = _gradients(state, draw, learn, run, fill, processes)
            if not math.isfinite(size):
                raise TrainingError(
                    f"the gradient in step {state.step + 1} is not finite; training stopped with the weights of the "
                    "step before. A smaller learning rate is the usual mend"
                )
            state.follow()
            rate = state.settings.rate_at(state.step)
            state.optimizer.step(gradients, rate, run, processes)
            if processes.leads:
                state.fall_behind(_pace(state))
                if processes.world_size == 1:  # else it follows while others make directions, and does not hold them up
                    state.follow()
            state.step += 1
            state.seconds += time.perf_counter() - begin
            yield Progress(state.step, state.settings.steps, loss, rate, size, state.seconds)


def _settle_precision(state: FitState, precision: str, device: torch.device, processes: Processes) -> torch.dtype:
    """Return the type to compute in: that of the run so far, where there is one; the same in all processes."""
    chosen = state.precision if precision == "auto" and state.precision else precision
    half = processes.agreed(choose_precision(chosen, device) == torch.bfloat16, device)
    dtype = torch.bfloat16 if half else torch.float32
    name = str(dtype).removeprefix("torch.")
    if state.precision not in ("", name):
        raise UsageError(f"this run computes in {state.precision}, not {name}; resume it with its own precision")
    state.precision = name
    return dtype


def _gradients(
    state: FitState, draw: Draw | Together | NoisyDraw, learn: "_Learning", run: Map, fill: Fill, processes: Processes
) -> tuple[float, float, list[Tensor]]:
    """Return the mean loss over the batch of the coming step, the norm of its gradients, and these, clipped."""
    settings = state.settings
    device = state.optimizer.parameters[0].device
    share = settings.share if device.type == "cpu" else settings.batch
    parts = processes.parts(settings.batch, share)
    if isinstance(draw, Together):
        parts = [range(processes.share_of(settings.batch))]

    def work(part: int) -> tuple[float, tuple[Tensor, ...]]:
        items = parts[part]
        losses, *gradients = learn(list(batches(settings, draw, state.step, items, device, fill)))
        losses = losses.cpu()
        _check_finite(losses, state.step, items)
        return float(losses.sum() / settings.batch), tuple(gradients)

    losses, gradients = zip(*run(work, range(len(parts))), strict=True)
    return processes.add(math.fsum(losses), gradients, settings.clip)


class _Learning:
    """What is to be learned from, made into the loss of every item, and the gradients of their share of the mean.

    On a GPU the whole way there and back is a recording, as long as nothing on it depends on the values.
    """

    def __init__(self, state: FitState, objective: Objective, dtype: torch.dtype) -> None:
        self.state, self.objective, self.dtype = state, objective, dtype
        self.keeps_means = state.denoiser.keeps_means
        self._replayed = Replayed(self._plainly)

    def __call__(self, batches: Sequence[tuple[int, Task | Noisy]]) -> tuple[Tensor, ...]:
        tasks = [task for count, task in batches if isinstance(task, Task) and count == len(task.clean)]
        plain = len(tasks) == len(batches) and all(task.known is None and not task.again for task in tasks)
        if plain and tasks[0].clean.is_cuda:
            return self._replayed(*(value for task in tasks for value in _tensors(task)))
        return self._learned(batches)

    def _plainly(self, *values: Tensor) -> tuple[Tensor, ...]:
        """Take tasks of which nothing is known already as the tensors that they are made of."""
        count = len(_PLAIN) + (len(_SHOWN) if self.state.settings.network.given else 0)
        tasks = []
        for first in range(0, len(values), count):
            clean, x, sigma, unit, weigh, *shown = values[first : first + count]
            tasks.append(Task(clean, x, sigma, Given(*shown) if shown else None, None, unit, weigh))
        return self._learned([(len(task.clean), task) for task in tasks])

    def _learned(self, batches: Sequence[tuple[int, Task | Noisy]]) -> tuple[Tensor, ...]:
        device = self.state.optimizer.parameters[0].device.type
        with torch.enable_grad(), torch.autocast(device, self.dtype) if self.dtype != torch.float32 else nullcontext():
            loss = torch.cat([self._loss(task).view(count, -1).mean(1) for count, task in batches])
            total = loss.sum() / self.state.settings.batch
            return loss.detach(), *torch.autograd.grad(total, self.state.optimizer.parameters)

    def _loss(self, task: Task | Noisy) -> Tensor:
        denoiser = self.state.denoiser
        if isinstance(task, Noisy):
            return NOISY[self.state.settings.objective](denoiser, task)
        estimate = denoiser(task.x, task.sigma, task.seen_by(denoiser)).float()
        if self.keeps_means and task.given is not None:
            estimate = with_coarse(estimate, task.given.values)  # as it will be answered
        return self.objective(*task.measured(estimate))


_PLAIN = ("clean", "x", "sigma", "unit", "weigh")
_SHOWN = ("values", "mask", "scale", "error")


def _tensors(task: Task) -> tuple[Tensor, ...]:
    """Return what a task of which nothing is known already is made of."""
    shown = () if task.given is None else tuple(getattr(task.given, name) for name in _SHOWN)
    return *(getattr(task, name) for name in _PLAIN), *shown


def _check_finite(loss: Tensor, step: int, items: range) -> None:
    finite = loss.isfinite()
    if not finite.all():
        item = items[int(finite.logical_not().nonzero()[0])]
        raise TrainingError(
            f"the loss of item {item} in step {step + 1} is not finite; training stopped with the weights of the step "
            "before. A smaller learning rate is the usual mend, if the data holds no values that are not finite"
        )


def _pace(state: FitState) -> float:
    """Return how much of the way to the weights the average goes; more early on, so as to forget the beginning."""
    return 1 - min(state.settings.average, (state.step + 1) / (state.step + 10))
