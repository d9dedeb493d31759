"""Training a network for rows: cells that were observed are erased, and have to be given back.

No row has to be complete. Of a row's observed cells some are hidden from the network, one by one at a rate drawn a row,
or in the pattern in which another row of the table has lost its own; what the network says of them is held against what
they are, in units of their column's standard deviation,

    (mean − x)²  +  Σ_i ρ_τi(x − q_i) / (Q u)        numbers
    −log p(x)                                        categories

with the pinball loss ρ_τ(e) = max(τ e, (τ − 1) e) (Koenker and Bassett, "Regression quantiles", 1978); its mean over
many τ is half the continuous ranked probability score (Gneiting and Raftery, 2007, eq. 21). It is in units u of what
the network's start leaves open, so that the quantiles of a cell that all others determine are learned as well.

Every member of an ensemble has cells of its own that it is never shown. They say when it knew most, and later how
wide its intervals have to be.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from threading import Lock

import torch
from torch import Tensor, nn

from unperturb.model.joint import fit_joint
from unperturb.model.rows import Belief, RowNet, RowSettings, by_category, ranks_of

INDEPENDENT = (1.0, 10.0, 100.0)
"""Rows of independent cells that are tried beside those of a table, for its joint Gaussian."""

_SEEDING = Lock()
"""Fresh weights come from torch's global generator, which networks that are trained side by side share."""

CHECKS = 15
"""How often in a run the cells that are held out are looked at."""

ASKED = 512
"""Rows of the table that a step asks for likeness; chosen anew each step where there are more."""

FINEST = 0.05
"""Least unit that quantiles are learned in, as a share of the standard deviation of their column."""

LOOKED = 2048
"""The most rows that are looked at for what is held out, and the most that are asked then."""


@dataclass(frozen=True)
class RowTraining:
    """How a network for rows is trained.

    Attributes
    ----------
    epochs
        How often each row is seen, within the limits on steps.
    least, most
        Of steps.
    batch
        Rows a step.
    rate, warmup
        Learning rate of Adam, and the steps over which it rises; it falls along a cosine to 0.
    decay
        Of weights.
    average
        How slowly the running average of the weights, which is what is kept, follows them.
    hidden
        Least and largest share of a row's cells that is hidden.
    """

    epochs: int = 150
    least: int = 700
    most: int = 5000
    batch: int = 128
    rate: float = 2e-3
    warmup: int = 50
    decay: float = 1e-4
    average: float = 0.995
    hidden: tuple[float, float] = (0.03, 0.63)

    def steps(self, rows: int) -> int:
        """Return how many steps a table of so many rows is trained for."""
        return max(self.least, min(self.most, self.epochs * rows // self.batch))


def train_rows(
    values: Tensor,
    settings: RowSettings,
    held_out: Tensor,
    *,
    training: RowTraining | None = None,
    seed: int = 0,
    done: Callable[[int, int], None] | None = None,
) -> RowNet:
    """Train a network on a table.

    Parameters
    ----------
    values
        ``(row, column)``: numbers about standardised, codes of categories; NaN where missing.
    settings
        What the columns are.
    held_out
        Boolean, of the same shape: cells that are not shown, for finding out when to stop.
    training
        How.
    seed
        Of everything random.
    done
        Called with the steps done and all there are.
    """
    training = training or RowTraining()
    generator = torch.Generator().manual_seed(seed)
    observed = ~values.isnan()
    shown = observed & ~held_out
    features = settings.as_features(values)
    mask = settings.as_mask(shown)
    joint = min(
        (fit_joint(features, mask, rows) for rows in INDEPENDENT),
        key=lambda each: _gap(each.given(features, mask)[0] - features, settings.as_mask(observed & held_out)),
    )
    with _SEEDING, torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = RowNet(settings, joint, ranks_of(features, mask))
    net.remember(features, shown)
    run = _Run(net, values, features, shown, observed & held_out)
    for step, steps in run.over(training, generator):
        if done is not None:
            done(step, steps)
    return net.eval().requires_grad_(False)


class _Run:
    """The run of one network: steps, the running average of its weights, and the best of them.

    All weights are one vector, of which those of the layers are views: to go through thirty small tensors had taken a
    sixth of a step.
    """

    def __init__(self, net: RowNet, values: Tensor, features: Tensor, shown: Tensor, held_out: Tensor) -> None:
        self.net, self.values, self.features, self.shown, self.held_out = net, values, features, shown, held_out
        self.layers = list(net.parameters())
        self.weights = nn.Parameter(torch.cat([layer.detach().flatten() for layer in self.layers]))
        sizes = [layer.numel() for layer in self.layers]
        for layer, part in zip(self.layers, torch.split(self.weights.detach(), sizes), strict=True):
            layer.data = part.view_as(layer)
        self.average = self.weights.detach().clone()
        self.best, self.least = self.average, math.inf
        self.looked = self.asked = torch.arange(len(values))

    def over(self, training: RowTraining, generator: torch.Generator) -> Iterator[tuple[int, int]]:
        """Train, yielding after every step; at the end the network has the weights that did best."""
        optimizer = torch.optim.AdamW([self.weights], weight_decay=training.decay, fused=True)
        steps = training.steps(len(self.values))
        order = torch.randperm(len(self.values), generator=generator)
        self.looked, self.asked = order[:LOOKED], order[-LOOKED:]
        for step in range(steps):
            optimizer.param_groups[0]["lr"] = (
                training.rate * min(1, (step + 1) / training.warmup) * (1 + math.cos(math.pi * step / steps)) / 2
            )
            rows = torch.randint(len(self.values), (min(training.batch, len(self.values)),), generator=generator)
            shown = self.shown[rows]
            seen = shown & ~hide(shown, self.shown, training.hidden, generator)
            belief = self.net(self.features[rows], seen, generator, own=rows, among=self._asked(generator))
            loss = row_loss(belief, self.values[rows], shown & ~seen, self.net.settings, belief.unit.detach())
            gradients = torch.autograd.grad(loss, self.layers, materialize_grads=True)
            self.weights.grad = torch.cat([gradient.flatten() for gradient in gradients])
            nn.utils.clip_grad_norm_(self.weights, 1.0)
            optimizer.step()
            self.average.lerp_(self.weights.detach(), 1 - min(training.average, (step + 1) / (step + 10)))
            if (step + 1) % max(steps // CHECKS, 1) == 0:
                self._look()
            yield step + 1, steps
        self._put(self.best)
        for layer in self.layers:
            layer.data = layer.data.clone()  # memory of its own again

    def _asked(self, generator: torch.Generator) -> Tensor | None:
        if len(self.values) <= ASKED:
            return None
        return torch.randint(len(self.values), (ASKED,), generator=generator)

    @torch.no_grad()
    def _look(self) -> None:
        """Keep the average if no other has said more of the cells that are held out.

        What was said before is compared in units that do not depend on what has been learned since.
        """
        now = self.weights.detach().clone()
        self._put(self.average)
        part = self.looked
        belief = self.net(self.features[part], self.shown[part], own=part, among=self.asked)
        loss = float(row_loss(belief, self.values[part], self.held_out[part], self.net.settings, belief.deviation))
        if loss <= self.least:
            self.least, self.best = loss, self.average.clone()
        self._put(now)

    @torch.no_grad()
    def _put(self, weights: Tensor) -> None:
        self.weights.copy_(weights)


def hide(shown: Tensor, patterns: Tensor, shares: tuple[float, float], generator: torch.Generator) -> Tensor:
    """Return which cells of some rows to hide: ``(row, column)``, boolean.

    Half of the rows lose cells one by one, at a rate of their own; the others what some row of the table has lost too.

    Parameters
    ----------
    shown
        ``(row, column)``: what there is to be hidden.
    patterns
        ``(any, column)``: what rows of the table show.
    shares
        Least and largest rate.
    generator
        Where chance comes from.
    """
    rows, columns = shown.shape
    low, high = shares
    rate = low + (high - low) * torch.rand(rows, 1, generator=generator)
    single = torch.rand(rows, columns, generator=generator) < rate
    other = ~patterns[torch.randint(len(patterns), (rows,), generator=generator)]
    like = torch.rand(rows, 1, generator=generator) < 0.5
    # A pattern that takes nothing away teaches nothing.
    return torch.where(like & (other & shown).any(1, keepdim=True), other, single)


def row_loss(belief: Belief, values: Tensor, wanted: Tensor, settings: RowSettings, unit: Tensor) -> Tensor:
    """Return the mean loss of the cells that are wanted; 0 where there are none.

    Parameters
    ----------
    belief
        What a network said.
    values
        ``(row, column)``, what they are.
    wanted
        Boolean, of that shape.
    settings
        What the columns are.
    unit
        ``(row, number)``, that quantiles are judged in.
    """
    numbers = settings.numbers
    truth = torch.where(wanted, values, 0)
    at = truth[:, numbers]
    error = at[..., None] - belief.quantiles
    pinball = torch.maximum(settings.levels * error, (settings.levels - 1) * error).mean(-1)
    pinball = pinball / unit.clamp(min=FINEST, max=1)
    total = (((belief.mean - at).square() + pinball) * wanted[:, numbers]).sum()
    for column, chances in by_category(settings, belief.logits):
        said = chances.gather(1, truth[:, [column]].long())[:, 0]
        total = total - (said * wanted[:, column]).sum()
    return total / wanted.sum().clamp(min=1)


def _gap(error: Tensor, wanted: Tensor) -> float:
    return float((error.square() * wanted).sum())
