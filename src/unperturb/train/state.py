"""The state of a run: all that the next step depends on, in memory and in a file."""

import copy
import json
import operator
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from unperturb.errors import UsageError
from unperturb.model.card import Card
from unperturb.model.checkpoint import fill, read_tensors, write_tensors
from unperturb.model.denoiser import Denoiser
from unperturb.model.machine import choose_device
from unperturb.model.network import UNetSettings
from unperturb.model.spec import parse
from unperturb.train.gains import Gains
from unperturb.train.optimizer import Optimizer
from unperturb.train.settings import FitSettings

FORMAT = "unperturb-state-1"


@dataclass
class FitState:
    """All that the next step depends on. The one thing here that changes.

    Attributes
    ----------
    settings
        What was asked for.
    denoiser
        The weights that are trained. A step may give them other memory: what is held of their tensors may stay as it
        was.
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
    _average: Denoiser
    optimizer: Optimizer | Gains
    step: int = 0
    seconds: float = 0.0
    precision: str = ""
    _behind: float = field(default=0.0, init=False)

    @property
    def averaged(self) -> Denoiser:
        """The running average of the weights, as they are now."""
        self.follow()
        return self._average

    def fall_behind(self, pace: float) -> None:
        """Let the average have such a share of the way to the weights still to go, until it is asked for or follows."""
        self._behind = pace

    @torch.no_grad()
    def follow(self) -> None:
        """Let the average go the way to the weights that it has still to go."""
        if self._behind:
            torch._foreach_lerp_(list(self._average.parameters()), list(self.denoiser.parameters()), self._behind)
            self._behind = 0.0

    @torch.no_grad()
    def leave(self) -> None:
        """Take weights and moments out of memory that other processes see as well, as while they learn together."""
        for parameter in self.denoiser.parameters():
            parameter.data = parameter.data.clone()
        self.optimizer.first = [moment.clone() for moment in self.optimizer.first]

    @classmethod
    def start(
        cls, settings: FitSettings, weights: Denoiser | None = None, device: torch.device | None = None
    ) -> "FitState":
        """Begin a run, from fresh weights or from those of a denoiser with the same network.

        A conditional network may begin with the weights of one that is not, and takes no notice of what it is shown
        until it has learned to. A network may begin with those of one that has fewer blocks, and answers as that did
        until its own have learned something.

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
        average = copy.deepcopy(denoiser).requires_grad_(False)
        optimizer = Gains if settings.tune == "gains" else Optimizer
        return cls(settings, denoiser, average, optimizer(denoiser.network))

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


def _begin_with(denoiser: Denoiser, weights: Denoiser) -> None:
    """Fill a denoiser with the weights of another."""
    was, now = weights.card.network, denoiser.card.network
    if was == now:
        denoiser.load_state_dict(weights.state_dict())
    elif isinstance(was, UNetSettings) and isinstance(now, UNetSettings) and _holds(now, was):
        known, head = weights.state_dict(), "network.head.weight"
        begun = denoiser.state_dict()
        for key in begun.keys() - known.keys():
            if key.endswith("second.weight"):
                begun[key].zero_()  # x + W₂ relu(W₁ x) = x
        seen = known.pop(head)
        begun[head].zero_()[:, : seen.shape[1]] = seen
        denoiser.load_state_dict({**begun, **known})
    else:
        raise UsageError("the model to start from has another network than the one to train")


def _holds(large: UNetSettings, small: UNetSettings) -> bool:
    """Whether a network is another with further blocks, or is shown an observation besides."""
    deeper = len(large.depths) == len(small.depths) and all(map(operator.ge, large.depths, small.depths))
    return deeper and replace(small, blocks=large.blocks, given=small.given or large.given) == large


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
