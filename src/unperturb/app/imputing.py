"""From a table to a model of its rows: networks that are trained side by side, and how wide their intervals are to be."""

from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass, field
from threading import Lock

import numpy as np
import torch
from numpy.typing import NDArray

from unperturb.app.columns import cards_of
from unperturb.errors import UsageError
from unperturb.infer.impute import folds
from unperturb.infer.row_widths import measured_widths
from unperturb.model.machine import workers
from unperturb.model.row_model import REMEMBERED, RowModel, Widths, standardised
from unperturb.model.rows import RowSettings
from unperturb.train.rows import RowTraining, train_rows

HELD_OUT = 0.1
"""Share of the observed cells that each network is not shown."""

WIDEST = 3000
"""The most features, one a number and one a category: what is computed grows with their square."""


@dataclass(frozen=True)
class Learning:
    """How a table is learned.

    Attributes
    ----------
    members
        Networks; None for as many as suit its length.
    training
        Of each.
    seed
        Of everything random.
    threads
        Networks that are trained at once; all cores by default.
    """

    members: int | None = None
    training: RowTraining = field(default_factory=RowTraining)
    seed: int = 0
    threads: int | None = None

    def __post_init__(self) -> None:
        if self.members is not None and not 1 <= self.members <= round(1 / HELD_OUT):
            raise UsageError(f"networks are 1 to {round(1 / HELD_OUT)}; got {self.members}")

    def members_for(self, rows: int) -> int:
        """Return how many networks a table of so many rows gets: the shorter it is, the less each can be trusted."""
        return self.members or (6 if rows < 1000 else 4 if rows < 3000 else 2)


def learn_rows(
    values: NDArray[np.float64],
    categories: Sequence[int],
    learning: Learning | None = None,
    done: Callable[[int, int], None] | None = None,
) -> RowModel:
    """Learn how the columns of a table depend on each other.

    Parameters
    ----------
    values
        ``(row, column)``: numbers, codes of categories, NaN where missing.
    categories
        Of every column how many categories it has; 0 for numbers.
    learning
        How.
    done
        Called with the steps done and all there are, of all networks together.

    Raises
    ------
    UsageError
        Where there is no row or no column, a value is infinite or is no code of its column, or `categories` has not one
        number a column, or there are more features than `WIDEST`.
    """
    learning = learning or Learning()
    values = np.asarray(values, np.float64)
    if values.ndim != 2 or 0 in values.shape:
        raise UsageError(f"a table has at least one row and one column; got shape {values.shape}")
    if np.isinf(values).any():
        raise UsageError("a value is infinite; mark it as missing, or replace it")
    if len(categories) != values.shape[1]:
        raise UsageError(
            f"categories are one number a column, 0 for numbers; got {len(categories)} of {values.shape[1]}"
        )
    settings = RowSettings(tuple(max(count, 1) for count in categories), tuple(count > 0 for count in categories))
    if settings.features > WIDEST:
        raise UsageError(
            f"numbers and categories are {settings.features:,} together, and at most {WIDEST:,} can be learned; leave out "
            "columns whose texts hardly repeat, such as names"
        )
    columns = cards_of(values, settings)
    standard = standardised(torch.tensor(values), settings, columns)
    count = learning.members_for(len(values))
    held_out = folds(~standard.isnan(), count, HELD_OUT, learning.seed)
    counter = _Counter(count, done)

    def train(number: int) -> object:
        try:
            return train_rows(
                standard.float(), settings, held_out[number], training=learning.training,
                seed=learning.seed * 1000 + number, done=counter.of(number),
            )  # fmt: skip
        except BaseException:
            counter.stopped = True
            raise

    with workers(torch.device("cpu"), learning.threads) as run:
        try:
            members = tuple(run(train, range(count)))
        finally:  # where somebody has asked for it, those that are being trained stop
            counter.stopped = True
    chosen = np.sort(np.random.default_rng(learning.seed).permutation(len(values))[:REMEMBERED])
    kept = standard[torch.from_numpy(chosen)].float()
    unseen = [hidden[torch.from_numpy(chosen)] for hidden in held_out]
    for member, hidden in zip(members, unseen, strict=True):
        member.remember(settings.as_features(kept), ~kept.isnan() & ~hidden)
    widths = measured_widths(members, kept, unseen) if settings.numbers else Widths()
    return RowModel(settings, columns, members, kept, widths)


class _Counter:
    """Adds up the steps of runs that go on side by side, and stops them."""

    def __init__(self, runs: int, done: Callable[[int, int], None] | None) -> None:
        self.steps, self.done, self.lock, self.stopped = [0] * runs, done, Lock(), False

    def of(self, run: int) -> Callable[[int, int], None]:
        """Return what a run calls with its steps."""
        return lambda step, steps: self._add(run, step, steps)

    def _add(self, run: int, step: int, steps: int) -> None:
        if self.stopped:
            raise CancelledError
        if self.done is not None:
            with self.lock:
                self.steps[run] = step
                self.done(sum(self.steps), steps * len(self.steps))
