"""Training gains alone: every feature of a network is multiplied by a factor of its own, and all else stays.

A few thousand numbers are trained. One noisy image is enough to tell them, where millions of weights would learn its
noise by heart. With W_o what makes feature o, and L the loss,

    W_o ← W_o (1 − η · a),        a: Adam's direction for Σ W_o ∂L/∂W_o

Source: Mohan, Vincent, Manzorro, Crozier, Fernandez-Granda and Simoncelli, "Adaptive denoising via GainTuning", NeurIPS
2021.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from unperturb.model.machine import Map
from unperturb.train.optimizer import moments, restore_moments
from unperturb.train.processes import Processes


class Gains:
    """Updates the gains of a network in place, given the gradients of its weights.

    Parameters
    ----------
    network
        What to train, without biases.
    betas, epsilon
        Adam's.
    """

    def __init__(self, network: nn.Module, *, betas: tuple[float, float] = (0.9, 0.99), epsilon: float = 1e-8) -> None:
        self.names = [name for name, _ in network.named_parameters()]
        self.parameters = list(network.parameters())
        self.betas, self.epsilon = betas, epsilon
        self.steps = 0
        self.first = [torch.zeros(value.shape[_output(name)], device=value.device) for name, value in self._pairs()]
        self.second = [torch.zeros_like(value) for value in self.first]

    @torch.no_grad()
    def step(
        self,
        gradients: list[Tensor],
        rate: float,
        run: Map = map,  # noqa: ARG002 (it is soon done)
        processes: Processes | None = None,  # noqa: ARG002 (all do it)
    ) -> None:
        """Take one step; parameters as for `Optimizer.step`."""
        self.steps += 1
        beta, gamma = self.betas
        moments = zip(self.first, self.second, strict=True)
        for (name, parameter), gradient, (first, second) in zip(self._pairs(), gradients, moments, strict=True):
            axis = _output(name)
            others = [other for other in range(parameter.ndim) if other != axis]
            along = (parameter * gradient).sum(others)
            first.lerp_(along, 1 - beta)
            second.lerp_(along.square(), 1 - gamma)
            scale = (second / (1 - gamma**self.steps)).sqrt_().add_(self.epsilon)
            change = 1 - rate / (1 - beta**self.steps) * first / scale
            parameter.mul_(change.view(*(-1 if other == axis else 1 for other in range(parameter.ndim))))

    def state(self) -> dict[str, Tensor]:
        """Return all that the next step depends on, but for the parameters and `steps`."""
        return moments(self.names, self.first, self.second)

    def restore(self, tensors: dict[str, Tensor], steps: int) -> None:
        """Take up what `state` has returned after so many steps."""
        self.steps = steps
        restore_moments(self.names, self.first, self.second, tensors)

    def _pairs(self) -> Iterable[tuple[str, Tensor]]:
        return zip(self.names, self.parameters, strict=True)


def _output(name: str) -> int:
    """Return the axis of a kernel's output features; what doubles resolution has it the other way round."""
    return 1 if name.startswith("up.") else 0
