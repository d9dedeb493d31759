"""Training in several processes, one a device: each learns from a part of every batch, and gradients are added up.

::

    torchrun --nproc-per-node 2 -m unperturb fit photographs/ -o model.safetensors

A batch is shared out, not multiplied. On processors items, and all that is random about them, are those of one process,
and so is the loss, up to the order in which numbers are added; on GPUs every process draws a part of its own. All
processes hold the same weights, of which each moves some; the first of them alone writes files. Where one is lost, the
others stop before they change anything.
"""

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed

from unperturb.errors import ProcessLostError, TrainingError, UsageError
from unperturb.model.layout import lying, standing
from unperturb.model.machine import cores
from unperturb.train.boards import Boards, summed

PATIENCE = timedelta(hours=6)
"""For how long others are waited for; where one ends, that is known at once."""


@dataclass
class Stop:
    """Whether this process was told to end."""

    asked: bool = False


@dataclass(frozen=True)
class Processes:
    """The processes of one run, as one of them sees it; by default it is alone.

    Attributes
    ----------
    rank, world_size
        The number of this one, and how many there are.
    local_rank, local_world_size
        The same among those on this machine.
    stop
        Is asked for when the launcher says so.
    sums, values
        What they add up gradients by, and exchange values by, where all are on one machine and train on processors.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_world_size: int = 1
    stop: Stop = field(default_factory=Stop)
    sums: Boards = field(default_factory=Boards)
    values: Boards = field(default_factory=Boards)

    @property
    def leads(self) -> bool:
        """Whether this is the one that writes files and tells of progress."""
        return self.rank == 0

    @property
    def threads(self) -> int | None:
        """How many threads this process has; None for all cores."""
        return None if self.world_size == 1 else max(1, cores() // self.local_world_size)

    def device(self, device: torch.device) -> torch.device:
        """Return the device of this process, among those of a kind."""
        if device.type == "cpu" or self.world_size == 1:
            return device
        if self.local_rank >= torch.cuda.device_count():
            raise UsageError(
                f"there are {self.local_world_size} processes and {torch.cuda.device_count()} GPUs on this machine; "
                "start as many as there are GPUs"
            )
        return torch.device(device.type, self.local_rank)

    def parts(self, batch: int, share: int) -> list[range]:
        """Return what this process learns from: ranges of items of a batch, each of `share` items at most.

        Raises
        ------
        UsageError
            Where there are fewer items than processes.
        """
        if batch < self.world_size:
            raise UsageError(f"a batch of {batch} cannot be shared out to {self.world_size} processes")
        share = min(share, batch // self.world_size)
        return [
            range(first, min(first + share, batch))
            for first in range(self.rank * share, batch, self.world_size * share)
        ]

    def share_of(self, batch: int) -> int:
        """Return how many items of a batch are drawn at once on the device of this process.

        Raises
        ------
        UsageError
            Where they cannot be shared out evenly.
        """
        if batch % self.world_size:
            raise UsageError(f"on GPUs a batch of {batch} has to be a multiple of the {self.world_size} processes")
        return batch // self.world_size

    def add(self, loss: float, parts: Sequence[Sequence[Tensor]]) -> tuple[float, list[Tensor]]:
        """Return the sums of losses over all processes, and of tensors over all parts of a batch.

        Parameters
        ----------
        loss
            What this process has found.
        parts
            For each part that it has learned from, tensors of the same shapes. Their sums stay until this is asked for
            again.

        Raises
        ------
        ProcessLostError
            Where another has ended, or this one is to.
        """
        if self.world_size == 1:
            return loss, [summed(found) for found in zip(*parts, strict=True)]
        if self.stop.asked:
            raise ProcessLostError("this process was told to end")
        tensors = parts[0]
        total = torch.tensor([loss], dtype=torch.float64, device=tensors[0].device)
        with _together():
            boards = self._boards(self.sums, sum(tensor.numel() for tensor in tensors), tensors)
            if boards is None:
                flat = _in_a_row([summed(found) for found in zip(*parts, strict=True)])
                distributed.all_reduce(flat)
            else:
                for place, found in zip(_parts(boards[self.rank], tensors), zip(*parts, strict=True), strict=True):
                    summed(found, out=place)
            distributed.all_reduce(total)
            loss = float(total)  # what goes wrong on a GPU shows here at the latest
        if boards is not None:
            flat = self.sums.sum(boards)
        return loss, _parts(flat, tensors)

    def exchanged(self, made: Sequence[Tensor], makers: Sequence[int]) -> list[Tensor]:
        """Return tensors of which each was made by one of the processes.

        Parameters
        ----------
        made
            What all processes have of the same shapes, in the same order; only what this one has made is looked at.
            What is returned is theirs, and stays until something has been exchanged again, by all.
        makers
            Of each the number of the process that has made it.

        Raises
        ------
        ProcessLostError
            Where another has ended.
        """
        if self.world_size == 1:
            return list(made)
        theirs = [
            [tensor for tensor, maker in zip(made, makers, strict=True) if maker == rank]
            for rank in range(self.world_size)
        ]
        sizes = [sum(tensor.numel() for tensor in some) for some in theirs]
        with _together():
            boards = self._boards(self.values, max(sizes), made)
            if boards is None:
                told = [_in_a_row(some) if some else torch.empty(0) for some in theirs]
                for rank, flat in enumerate(told):
                    if len(flat):
                        distributed.broadcast(flat, rank)  # gloo's own gathering takes three times as long
            else:
                for place, tensor in zip(_parts(boards[self.rank], theirs[self.rank]), theirs[self.rank], strict=True):
                    place.copy_(tensor)
                distributed.barrier()
                told = [board[:size] for board, size in zip(boards, sizes, strict=True)]
            if made[0].is_cuda:
                torch.cuda.synchronize(made[0].device)  # what goes wrong on a GPU shows here at the latest
        found = [iter(_parts(flat, some)) for flat, some in zip(told, theirs, strict=True)]
        return [next(found[maker]) for maker in makers]

    def _boards(self, boards: Boards, size: int, tensors: Sequence[Tensor]) -> list[Tensor] | None:
        """Return boards to tell each other by, or None where that has to go another way."""
        if self.local_world_size != self.world_size or any(
            tensor.device.type != "cpu" or tensor.dtype != torch.float32 for tensor in tensors
        ):
            return None
        return boards.turn(size, self.world_size)

    def agreed(self, value: int, device: torch.device) -> int:
        """Return the value of the first process."""
        if self.world_size == 1:
            return value
        told = torch.tensor([value], device=device)
        with _together():
            distributed.broadcast(told, 0)
            return int(told)

    def alike(self, value: int, device: torch.device) -> bool:
        """Whether all processes have the same value; all of them are told."""
        if self.world_size == 1:
            return True
        ends = torch.tensor([value, -value], device=device)
        with _together():
            distributed.all_reduce(ends, distributed.ReduceOp.MAX)
            return int(ends[0]) == -int(ends[1])

    @contextmanager
    def one_first(self) -> Iterator[None]:
        """Let one process on each machine go through the block before the others do."""
        if self.local_rank:
            self._wait()
        yield
        if not self.local_rank:
            self._wait()

    def _wait(self) -> None:
        if self.world_size > 1:
            with _together():
                distributed.barrier()


def _in_a_row(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([lying(tensor).flatten() for tensor in tensors])


def _parts(flat: Tensor, tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return what is of each of some tensors in the numbers of all of them, in a row; in its shape."""
    sizes = [tensor.numel() for tensor in tensors]
    parts = torch.split(flat[: sum(sizes)], sizes)
    return [standing(part, tensor) for part, tensor in zip(parts, tensors, strict=True)]


@contextmanager
def processes(device: torch.device) -> Iterator[Processes]:
    """Lend the processes that a launcher has started together, as `torchrun` does; else this one alone.

    Parameters
    ----------
    device
        Of what kind all of them train on.
    """
    if any(name not in os.environ for name in _NAMES) or os.environ["WORLD_SIZE"] == "1":
        yield Processes()
        return
    rank, world_size, local_rank, local_world_size = (int(os.environ[name]) for name in _NAMES)
    found = Processes(rank, world_size, local_rank, local_world_size)
    if device.type == "cuda":
        torch.cuda.set_device(found.device(device))
    try:
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    except (RuntimeError, ValueError, distributed.DistError) as error:
        raise TrainingError(
            f"the processes of this run do not find each other ({error}); start them by torchrun"
        ) from error
    before = signal.signal(signal.SIGTERM, lambda *_: setattr(found.stop, "asked", True))
    try:
        yield found
    finally:
        signal.signal(signal.SIGTERM, before)
        distributed.destroy_process_group()


_NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")


@contextmanager
def _together() -> Iterator[Any]:
    """Say in one sentence what torch says of a lost connection in many."""
    try:
        yield
    except (RuntimeError, distributed.DistError) as error:
        raise ProcessLostError("another process of this run has ended") from error
