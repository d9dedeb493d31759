"""Training: an iterator that takes one step at a time.

::

    state = FitState.start(settings)
    for progress in fit(state, draw):          # the caller prints, plots, saves, or breaks
        ...
    denoiser = state.averaged                  # the running average of the weights: what is kept

Everything random about item i of step k comes from (seed, k, i) alone, and gradients are summed in a fixed order. So a
run that was stopped after any step and taken up again gives the same weights, bit for bit, as one that was not; and the
number of threads changes nothing. On a GPU a batch is drawn as a whole, from (seed, k).

On a processor each thread works through its own few items with single-threaded kernels. Kernels that share one
operation among threads wait for the slowest of them hundreds of times a step; this way waits once.
"""

import copy
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unperturb.errors import TrainingError, UsageError
from unperturb.model.checkpoint import fill, read_tensors, write_tensors
from unperturb.model.denoiser import Card, Denoiser
from unperturb.model.filling import filled
from unperturb.model.given import Fill
from unperturb.model.machine import Map, Replayed, choose_device, choose_precision, workers
from unperturb.model.network import NetworkSettings, UNetSettings, VectorNetSettings, describe, recall
from unperturb.model.spec import parse
from unperturb.train.objective import OBJECTIVES, Objective
from unperturb.train.optimizer import Optimizer
from unperturb.train.showing import Task, joined, says_all, tasks

FORMAT = "unperturb-state-1"

Draw = Callable[[np.random.Generator, int], NDArray[np.float32]]
"""``draw(generator, item) -> clean signal (channel, *space) or (feature,)`` for one item of a batch.

For a network for vectors an item may be a block of them, ``(vector, feature)``, each with noise of its own: points are
so small that drawing them one by one would take longer than learning from them.
"""


@dataclass(frozen=True)
class Together:
    """Draws all clean signals of a batch at once, on the device where they are learned from.

    ``draw(generator)`` returns tensors ``(item, channel, *space)``, those of one shape as one.
    """

    draw: Callable[[torch.Generator], Sequence[Tensor]]


@dataclass(frozen=True)
class FitSettings:
    """All that training has to be told.

    Attributes
    ----------
    perturb
        Spec of the perturbation. Gaussian noise is what every denoiser takes away; for anything else the network is
        made conditional: it is shown the perturbed signal beside the noisy one (`unperturb.train.showing`).
    network
        Architecture and size.
    steps
        Updates of the weights.
    batch
        Items a step.
    share
        Items that one thread works on at once.
    rate
        Learning rate.
    warmup
        Steps over which the rate rises to it.
    decay
        Share of all steps, at the end, over which it falls linearly to zero. A run can be made longer as long as this
        has not begun.
    average
        How slowly the running average of the weights follows them.
    clip
        Largest norm of the gradient of all weights together.
    seed
        Of everything random.
    patch_size
        Height and width of the crops of images.
    gray
        Share of the crops whose colour is reduced to luminance, for a network that takes colour.
    data
        Names what is trained on, so that no run is resumed on other data.
    objective
        What is made small: "squared", which makes the network the posterior mean, or "absolute", the median.
    """

    perturb: str
    network: NetworkSettings = field(default_factory=UNetSettings)
    steps: int = 10_000
    batch: int = 4
    share: int = 2
    rate: float = 1e-3
    warmup: int = 100
    decay: float = 0.4
    average: float = 0.999
    clip: float = 1.0
    seed: int = 0
    patch_size: int = 96
    gray: float = 0.5
    data: str = ""
    objective: str = "squared"

    def __post_init__(self) -> None:
        if not says_all(parse(self.perturb)):
            object.__setattr__(self, "network", replace(self.network, given=True))
        if self.objective not in OBJECTIVES:
            raise UsageError(f"the objective is one of {', '.join(OBJECTIVES)}; got {self.objective!r}")
        if min(self.seed, self.warmup) < 0:
            raise UsageError(f"seed and warmup are at least 0; got {self.seed} and {self.warmup}")
        if min(self.steps, self.batch, self.share, self.patch_size) < 1:
            raise UsageError("steps, batch, share and patch_size are at least 1")
        if not (
            self.rate > 0 and self.clip > 0 and 0 <= self.decay <= 1 and 0 <= self.average < 1 and 0 <= self.gray <= 1
        ):
            raise UsageError("rate and clip are above 0, decay and gray lie in 0..1, average in 0..1 without 1")

    def rate_at(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0."""
        left = (self.steps - step) / max(1.0, self.decay * self.steps)
        return self.rate * min(1.0, (step + 1) / (self.warmup + 1), left)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values only, ready for JSON."""
        return {**asdict(self), "network": describe(self.network)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "FitSettings":
        """Read what `as_dict` has written."""
        return cls(**{**values, "network": recall(values["network"])})


@dataclass
class FitState:
    """All that the next step depends on. The one thing here that changes.

    Attributes
    ----------
    settings
        What was asked for.
    denoiser
        The weights that are trained.
    averaged
        Their running average.
    optimizer
        With its moments.
    step
        Steps done.
    seconds
        Spent on them.
    precision
        What the run computes in, once its first step has settled it; a run that is taken up again stays with it.
    """

    settings: FitSettings
    denoiser: Denoiser
    averaged: Denoiser
    optimizer: Optimizer
    step: int = 0
    seconds: float = 0.0
    precision: str = ""

    @classmethod
    def start(
        cls, settings: FitSettings, weights: Denoiser | None = None, device: torch.device | None = None
    ) -> "FitState":
        """Begin a run, from fresh weights or from those of a denoiser with the same network.

        A conditional network may begin with the weights of one that is not, and takes no notice of what it is shown
        until it has learned to.

        Raises
        ------
        UsageError
            Where that denoiser has another network.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            denoiser = Denoiser(Card(settings.network, perturbation=str(parse(settings.perturb))))
        if weights is not None:
            _begin_with(denoiser, weights)
        denoiser = denoiser.to(device or choose_device("cpu"))
        if isinstance(settings.network, UNetSettings) and settings.network.dims == 2:
            denoiser = denoiser.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        averaged = copy.deepcopy(denoiser).requires_grad_(False)
        return cls(settings, denoiser, averaged, Optimizer(denoiser.network))

    def save(self, path: str | Path) -> None:
        """Write the state, whole or not at all.

        Raises
        ------
        FileError
            Where it cannot be written.
        """
        tensors = {f"weights.{key}": value for key, value in self.denoiser.network.state_dict().items()}
        tensors |= {f"average.{key}": value for key, value in self.averaged.network.state_dict().items()}
        tensors |= {f"optimizer.{key}": value for key, value in self.optimizer.state().items()}
        header = {"settings": self.settings.as_dict(), "step": self.step, "seconds": self.seconds}
        header["precision"] = self.precision
        stored = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
        write_tensors(path, FORMAT, stored, {"state": json.dumps(header)})

    @classmethod
    def resume(cls, path: str | Path, settings: FitSettings, device: torch.device | None = None) -> "FitState":
        """Take up a run where `save` left it.

        Raises
        ------
        ModelError
            Where the file is not the state of a run.
        UsageError
            Where `settings` are not those of the run. The number of steps may differ as long as the final decay of the
            learning rate has not begun, by either.
        """
        tensors, texts = read_tensors(path, FORMAT)
        header = json.loads(texts["state"])
        _check_same(FitSettings.from_dict(header["settings"]), settings, header["step"], path)
        state = cls.start(settings, device=device)
        for prefix, network in (("weights.", state.denoiser.network), ("average.", state.averaged.network)):
            fill(network, _under(prefix, tensors), path)
        state.optimizer.restore(_under("optimizer.", tensors), header["step"])
        state.step, state.seconds, state.precision = header["step"], header["seconds"], header.get("precision", "")
        return state


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
    draw: Draw | Together,
    *,
    objective: Objective | None = None,
    precision: str = "auto",
    threads: int | None = None,
) -> Iterator[Progress]:
    """Train until the last step, yielding after each; `state` is complete whenever this yields.

    Until the iterator ends or is closed, torch runs on one thread an operation in the caller as well.

    Parameters
    ----------
    state
        Where to begin; is changed.
    draw
        Gives clean signals, one by one, and then is called on several threads at once; or all of a batch together.
    objective
        A function to make small in place of the one that the settings name.
    precision
        "auto", "float32" or "bfloat16" (weights stay in float32).
    threads
        On a processor; all by default. The result does not depend on it.

    Raises
    ------
    TrainingError
        Where a loss or a gradient is not finite; `state` is then as after the step before.
    UsageError
        Where the precision is not that of the run so far.
    """
    device = next(state.denoiser.parameters()).device
    dtype = _settle_precision(state, precision, device)
    objective = OBJECTIVES[state.settings.objective] if objective is None else objective
    fill = Replayed(filled) if device.type == "cuda" else filled
    with workers(device, threads) as run:
        while state.step < state.settings.steps:
            begin = time.perf_counter()
            loss, gradients = _gradients(state, draw, objective, dtype, run, fill)
            size = _clip(gradients, state.settings.clip)
            if not math.isfinite(size):
                raise TrainingError(
                    f"the gradient in step {state.step + 1} is not finite; training stopped with the weights of the "
                    "step before. A smaller learning rate is the usual mend"
                )
            rate = state.settings.rate_at(state.step)
            state.optimizer.step(gradients, rate, run)
            _follow(state)
            state.step += 1
            state.seconds += time.perf_counter() - begin
            yield Progress(state.step, state.settings.steps, loss, rate, size, state.seconds)


def _settle_precision(state: FitState, precision: str, device: torch.device) -> torch.dtype:
    """Return the type to compute in: that of the run so far, where there is one."""
    chosen = state.precision if precision == "auto" and state.precision else precision
    dtype = choose_precision(chosen, device)
    name = str(dtype).removeprefix("torch.")
    if state.precision not in ("", name):
        raise UsageError(f"this run computes in {state.precision}, not {name}; resume it with its own precision")
    state.precision = name
    return dtype


def _gradients(
    state: FitState, draw: Draw | Together, objective: Objective, dtype: torch.dtype, run: Map, fill: Fill
) -> tuple[float, list[Tensor]]:
    """Return the mean loss over the batch of the coming step, and its gradients."""
    settings = state.settings
    parameters = state.optimizer.parameters
    device = parameters[0].device
    share = settings.batch if isinstance(draw, Together) or device.type != "cpu" else settings.share

    def work(first: int) -> tuple[float, tuple[Tensor, ...]]:
        items = range(first, min(first + share, settings.batch))
        with torch.enable_grad(), torch.autocast(device.type, dtype) if dtype != torch.float32 else nullcontext():
            losses = [
                objective(*task.measured(state.denoiser(task.x, task.sigma, task.seen_by(state.denoiser))))
                .view(count, -1)
                .mean(1)
                for count, task in _batches(settings, draw, state.step, items, device, fill)
            ]
            loss = torch.cat(losses)
            _check_finite(loss, state.step, items)
            total = loss.sum() / settings.batch
            return float(total.detach()), torch.autograd.grad(total, parameters)

    results = list(run(work, range(0, settings.batch, share)))
    gradients = [sum(parts[1:], parts[0]) for parts in zip(*(gradient for _, gradient in results), strict=True)]
    return math.fsum(loss for loss, _ in results), gradients


def _batches(
    settings: FitSettings, draw: Draw | Together, step: int, items: range, device: torch.device, fill: Fill
) -> Iterator[tuple[int, Task]]:
    """Yield the number of items and what is to be learned from them, items of one shape together."""
    perturb, shown = parse(settings.perturb), settings.network.given
    groups: dict[tuple[int, ...], list[Task]] = {}
    if isinstance(draw, Together):
        seed = int(np.random.default_rng([settings.seed, step]).integers(2**63))
        generator = torch.Generator(device).manual_seed(seed)
        for signals in draw.draw(generator):
            yield len(signals), joined(list(tasks(signals, perturb, generator, shown=shown, fill=fill)))
        return
    for item in items:
        source = np.random.default_rng([settings.seed, step, item])
        drawn = torch.from_numpy(draw(source, item))
        clean = drawn if drawn.ndim == 2 and isinstance(settings.network, VectorNetSettings) else drawn[None]
        generator = torch.Generator().manual_seed(int(source.integers(2**63)))
        groups.setdefault(tuple(clean.shape), []).extend(tasks(clean, perturb, generator, shown=shown))
    for group in groups.values():
        yield len(group), joined(group).to(device)


def _begin_with(denoiser: Denoiser, weights: Denoiser) -> None:
    """Fill a denoiser with the weights of another."""
    was, now = weights.card.network, denoiser.card.network
    if was == now:
        denoiser.load_state_dict(weights.state_dict())
    elif isinstance(was, UNetSettings) and replace(was, given=True) == now:
        known, head = weights.state_dict(), "network.head.weight"
        wider = torch.zeros_like(denoiser.state_dict()[head])
        wider[:, : known[head].shape[1]] = known[head]
        denoiser.load_state_dict({**known, head: wider})
    else:
        raise UsageError("the model to start from has another network than the one to train")


def _check_finite(loss: Tensor, step: int, items: range) -> None:
    finite = loss.isfinite()
    if not finite.all():
        item = items[int(finite.logical_not().nonzero()[0])]
        raise TrainingError(
            f"the loss of item {item} in step {step + 1} is not finite; training stopped with the weights of the step "
            "before. A smaller learning rate is the usual mend, if the data holds no values that are not finite"
        )


def _clip(gradients: list[Tensor], largest: float) -> float:
    """Scale gradients in place so that their joint norm is at most `largest`; return the norm before."""
    norm = torch.stack(torch._foreach_norm(gradients)).norm()
    torch._foreach_mul_(gradients, (largest / (norm + 1e-6)).clamp(max=1.0))
    return float(norm)


@torch.no_grad()
def _follow(state: FitState) -> None:
    """Move the running average towards the weights; early on it follows faster, so as to forget the beginning."""
    weight = 1 - min(state.settings.average, (state.step + 1) / (state.step + 10))
    torch._foreach_lerp_(list(state.averaged.parameters()), list(state.denoiser.parameters()), weight)


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def _check_same(old: FitSettings, new: FitSettings, step: int, path: str | Path) -> None:
    was, now = old.as_dict(), new.as_dict()
    changed = [key for key in now if was[key] != now[key]]
    if changed == ["steps"] and step <= (1 - new.decay) * min(old.steps, new.steps):
        return
    if changed:
        differences = ", ".join(f"{key} {was[key]}, not {now[key]}" for key in changed)
        raise UsageError(
            f"the run in {path} has other settings ({differences}); resume it with its own, or start a new run"
        )
