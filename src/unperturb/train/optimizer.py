"""The optimizer: orthogonalised momentum for the kernels inside the network, Adam for its ends and vectors.

A kernel W, as a matrix (channel_out, everything else as it lies in memory), moves along the orthogonal matrix nearest
to its momentum M,

    W ← W − η · √max(1, rows/columns) · U Vᵀ,        M = U S Vᵀ

so that all directions in which a layer can change get the same step, the rare ones too. U Vᵀ comes from five
Newton–Schulz steps.

Source: Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024; the coefficients are theirs.
torch has an optimizer of that name, for matrices alone and in bfloat16, which a processor without matrix units computes
slowly.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from unperturb.model.layout import lying, standing
from unperturb.model.machine import Map, Replayed
from unperturb.train.processes import Processes


def is_inner(name: str, parameter: Tensor) -> bool:
    """Whether a parameter is a kernel between features; the first and the last layer see values, and stay with Adam."""
    return parameter.ndim >= 2 and not name.startswith(("head", "tail", "layers.0."))


class Optimizer:
    """Updates the parameters of a network, given their gradients; on a processor each step gives kernels other memory.

    Parameters
    ----------
    network
        What to train.
    inner_scale
        Step of the orthogonalised updates, relative to Adam's.
    momentum
        Of the orthogonalised updates (Nesterov's form).
    betas, epsilon
        Adam's.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        inner_scale: float = 10.0,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.99),
        epsilon: float = 1e-8,
    ) -> None:
        self.names = [name for name, _ in network.named_parameters()]
        self.parameters = list(network.parameters())
        self.inner = [is_inner(name, value) for name, value in zip(self.names, self.parameters, strict=True)]
        self.inner_scale, self.momentum, self.betas, self.epsilon = inner_scale, momentum, betas, epsilon
        self.steps = 0
        self._orthogonalised = Replayed(orthogonalised)
        self.first = [torch.zeros_like(value) for value in self.parameters]
        self.second = [torch.zeros_like(value[:0] if inner else value) for value, inner in self._pairs()]

    @torch.no_grad()
    def step(self, gradients: list[Tensor], rate: float, run: Map = map, processes: Processes | None = None) -> None:
        """Take one step.

        Parameters
        ----------
        gradients
            One a parameter, in the network's order.
        rate
            Learning rate (Adam's; the orthogonalised updates take it times `inner_scale`).
        run
            How the parameters are gone through; they do not depend on each other.
        processes
            Those that take the same step and, on one machine's processors, share out the work; there nothing is changed
            before all have done theirs.
        """
        processes = processes or Processes()
        groups = self._groups(at_once=self.parameters[0].device.type != "cpu")
        moved = self._moved(groups, gradients, rate, run, processes)
        self.steps += 1
        for index, momentum, _ in moved:
            self.first[index] = momentum
        _take([self.parameters[index] for index, _, _ in moved], [value for _, _, value in moved])

        def adam(index: int) -> None:
            with torch.no_grad():  # threads have a mode of their own
                self._adam(index, gradients[index], rate)

        list(run(adam, [index for index, inside in enumerate(self.inner) if not inside]))

    def _groups(self, *, at_once: bool) -> list[list[int]]:
        """Return which kernels are moved together, the largest first: each by itself, or at once those of one shape.

        A GPU's time goes by calls; a processor's threads each take one.
        """
        groups: dict[Any, list[int]] = {}
        for index, parameter in enumerate(self.parameters):
            if self.inner[index]:
                groups.setdefault(parameter.shape if at_once else index, []).append(index)
        return sorted(groups.values(), key=lambda group: -self.parameters[group[0]].numel())

    def _moved(
        self, groups: list[list[int]], gradients: list[Tensor], rate: float, run: Map, processes: Processes
    ) -> list[tuple[int, Tensor, Tensor]]:
        """Return kernels, by their index, with the momentum and the value that each comes to have."""

        def move(number: int, out: Sequence[Tensor | None]) -> list[Tensor]:
            group = groups[number]
            with torch.no_grad():
                momenta = [
                    torch.add(gradients[index], self.first[index], alpha=self.momentum, out=place)
                    for index, place in zip(group, out, strict=False)
                ]
                return momenta + self._along(group, gradients, momenta, rate, out[len(group) :])

        kernels = [[self.parameters[index] for index in group] for group in groups]
        made = processes.made([some + some for some in kernels], move, run)
        return [
            moved
            for group, found in zip(groups, made, strict=True)
            for moved in zip(group, found[: len(group)], found[len(group) :], strict=True)
        ]

    def _along(
        self,
        group: list[int],
        gradients: list[Tensor],
        momenta: list[Tensor],
        rate: float,
        out: Sequence[Tensor | None],
    ) -> list[Tensor]:
        """Return values of kernels of one shape after a step along their orthogonalised momenta."""
        wanted = [
            lying(torch.add(gradients[index], momentum, alpha=self.momentum)).flatten(1)
            for index, momentum in zip(group, momenta, strict=True)
        ]
        directions = self._orthogonalised(torch.stack(wanted)) if len(group) > 1 else [self._orthogonalised(*wanted)]
        rows, columns = wanted[0].shape
        scale = -rate * self.inner_scale * max(1.0, rows / columns) ** 0.5
        kernels = [self.parameters[index] for index in group]
        return [
            torch.add(kernel, standing(direction, kernel), alpha=scale, out=place)
            for kernel, direction, place in zip(kernels, directions, out, strict=True)
        ]

    def _adam(self, index: int, gradient: Tensor, rate: float) -> None:
        first, second, (beta, gamma) = self.first[index], self.second[index], self.betas
        first.lerp_(gradient, 1 - beta)
        second.lerp_(gradient.square(), 1 - gamma)
        scale = (second / (1 - gamma**self.steps)).sqrt_().add_(self.epsilon)
        self.parameters[index].addcdiv_(first, scale, value=-rate / (1 - beta**self.steps))

    def state(self) -> dict[str, Tensor]:
        """Return all that the next step depends on, but for the parameters and `steps`."""
        return moments(self.names, self.first, self.second)

    def restore(self, tensors: dict[str, Tensor], steps: int) -> None:
        """Take up what `state` has returned after so many steps."""
        self.steps = steps
        restore_moments(self.names, self.first, self.second, tensors)

    def _pairs(self) -> Iterable[tuple[Tensor, bool]]:
        return zip(self.parameters, self.inner, strict=True)


def _take(parameters: list[Tensor], values: list[Tensor]) -> None:
    """Let parameters have other values: on a processor their memory; on a GPU their own, which recordings look at."""
    if parameters and parameters[0].is_cuda:
        torch._foreach_copy_(parameters, values)
        return
    for parameter, value in zip(parameters, values, strict=True):
        parameter.data = value


def moments(names: list[str], first: list[Tensor], second: list[Tensor]) -> dict[str, Tensor]:
    """Return first and second moments by the names of their parameters."""
    found = {f"first.{name}": value for name, value in zip(names, first, strict=True)}
    return found | {f"second.{name}": value for name, value in zip(names, second, strict=True)}


def restore_moments(names: list[str], first: list[Tensor], second: list[Tensor], tensors: dict[str, Tensor]) -> None:
    """Take up what `moments` has returned."""
    for name, one, two in zip(names, first, second, strict=True):
        one.copy_(tensors[f"first.{name}"])
        two.copy_(tensors[f"second.{name}"])


def orthogonalised(matrix: Tensor, steps: int = 5) -> Tensor:
    """Return about the nearest orthogonal matrix: singular values are brought into 0.7 … 1.2, directions are kept.

    Parameters
    ----------
    matrix
        ``(rows, columns)``, or several of them, ``(matrix, rows, columns)``.
    steps
        Newton–Schulz steps.
    """
    wide = matrix if matrix.shape[-2] <= matrix.shape[-1] else matrix.mT
    wide = wide / (torch.linalg.matrix_norm(wide, keepdim=True) + 1e-12)
    # Every step is a polynomial of the Gram matrix times the matrix; only the small Gram matrix has to be gone through.
    gram = wide @ wide.mT
    identity = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    product = identity
    for step in range(steps):
        factor = 3.4445 * identity - 4.7750 * gram + 2.0315 * (gram @ gram)
        product = factor @ product if step else factor
        if step < steps - 1:  # after the last nobody asks for it
            gram = factor @ gram @ factor
    wide = product @ wide
    return wide if matrix.shape[-2] <= matrix.shape[-1] else wide.mT
