"""Training in several processes, one a device: each learns from a part of every batch, and gradients are added up.

::

    torchrun --nproc-per-node 2 -m unperturb fit photographs/ -o model.safetensors

A batch is shared out, not multiplied. On processors items, and all that is random about them, are those of one process,
and so is the loss, up to the order in which numbers are added; on GPUs every process draws a part of its own. All
processes hold the same weights: on one machine's processors each moves some of them; elsewhere each moves all by
itself, so that these are to be alike. The first alone writes files. Where one is lost, the others stop before they
change anything.
"""

import math
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, distributed

from unperturb.errors import ProcessLostError, TrainingError, UsageError
from unperturb.model.layout import lying, standing
from unperturb.model.machine import Map, cores
from unperturb.train.boards import Boards, summed
from unperturb.train.meeting import PATIENCE, Meeting, together


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
    sums, values, meeting
        What they add up gradients on, keep values on, and hear from each other by, where all are on one machine and
        train on processors.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_world_size: int = 1
    stop: Stop = field(default_factory=Stop)
    sums: Boards = field(default_factory=lambda: Boards(1))
    values: Boards = field(default_factory=lambda: Boards(2))
    meeting: Meeting = field(default_factory=Meeting)

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

    def add(
        self, loss: float, parts: Sequence[Sequence[Tensor]], largest: float = math.inf
    ) -> tuple[float, float, list[Tensor]]:
        """Return sums over all processes and all parts of a batch: of losses, and of tensors, and the norm of these.

        Parameters
        ----------
        loss
            What this process has found.
        parts
            For each part that it has learned from, tensors of the same shapes. All processes may have their sums in
            common, not to be changed, until this is asked for again.
        largest
            To which norm, of all of them together, sums are scaled where they have a larger one; what is returned is
            the one before.

        Raises
        ------
        ProcessLostError
            Where another has ended, or this one is to.
        """
        if self.world_size == 1:
            return loss, *_clipped([summed(found) for found in zip(*parts, strict=True)], largest)
        if self.stop.asked:
            raise ProcessLostError("this process was told to end")
        tensors = parts[0]
        size = sum(tensor.numel() for tensor in tensors)
        shared = self._board(self.sums, size * (self.world_size + 1), tensors)
        if shared is not None:
            return self._added(loss, parts, largest, [_parts(each, tensors) for each in torch.split(shared[0], size)])
        flat = _in_a_row([summed(found) for found in zip(*parts, strict=True)])
        total = torch.tensor([loss], dtype=torch.float64, device=flat.device)
        with together():
            distributed.all_reduce(flat)
            distributed.all_reduce(total)
            loss = float(total)  # what goes wrong on a GPU shows here at the latest
        return loss, *_clipped(_parts(flat, tensors), largest)

    def _added(
        self, loss: float, parts: Sequence[Sequence[Tensor]], largest: float, places: list[list[Tensor]]
    ) -> tuple[float, float, list[Tensor]]:
        """Do it where all can read: each adds up its own parts, then all parts of some of the tensors."""
        *theirs, sums = places
        for place, found in zip(theirs[self.rank], zip(*parts, strict=True), strict=True):
            summed(found, out=place)
        loss = math.fsum(self._hear(loss)[:, 0])
        mine = _shares([tensor.numel() for tensor in sums], self.world_size)[self.rank]
        for number in mine:
            summed([found[number] for found in theirs], out=sums[number])
        norms = np.zeros(len(sums))
        if mine:
            norms[mine] = torch.stack(torch._foreach_norm([sums[number] for number in mine])).numpy()
        norm = _joint_norm(torch.from_numpy(self._hear(*norms).sum(0)).float())
        if norm > largest:  # seldom; to scale by one takes as long as to find the norm
            for number in mine:
                sums[number].mul_(largest / norm)
            self._hear()
        return loss, norm, sums

    def made(
        self, like: Sequence[Sequence[Tensor]], make: Callable[[int, Sequence[Tensor | None]], list[Tensor]], run: Map
    ) -> list[list[Tensor]]:
        """Return what several pieces of work make: on one machine's processors each done once, by whoever comes first.

        Parameters
        ----------
        like
            For each piece tensors of the shapes of those that it makes, and in their layout.
        make
            ``make(number, out)`` does a piece; results are written where there is an `out`. They are to be the same,
            bit for bit, whoever does it. All then have them in common, not to be changed; they may be read while the
            next are made, and those after them take their place.
        run
            How the pieces are gone through.

        Raises
        ------
        ProcessLostError
            Where another has ended.
        """
        flat = [tensor for some in like for tensor in some]
        shared = None
        if self.world_size > 1:
            shared = self._board(self.values, sum(tensor.numel() for tensor in flat), flat, len(like))
        if shared is None:
            return list(run(lambda number: make(number, [None] * len(like[number])), range(len(like))))
        board, begins = shared
        all_places = iter(_parts(board, flat))
        places = [[next(all_places) for _ in some] for some in like]

        def once(turn: int) -> None:
            number = (turn + self.rank) % len(like)  # not all begin with the same
            if begins(number):
                make(number, places[number])

        list(run(once, range(len(like))))
        self._hear()
        return places

    def _board(
        self, boards: Boards, size: int, tensors: Sequence[Tensor], pieces: int = 0
    ) -> tuple[Tensor, Callable[[int], bool]] | None:
        """Return a board that all write on, or None where they have to tell each other in another way."""
        if self.local_world_size != self.world_size or any(
            tensor.device.type != "cpu" or tensor.dtype != torch.float32 for tensor in tensors
        ):
            return None
        return boards.turn(size, self.world_size, pieces) if self.meeting.begin(self.rank, self.world_size) else None

    def _hear(self, *numbers: float) -> NDArray[np.float64]:
        return self.meeting.hear(self.rank, *numbers)

    def agreed(self, value: int, device: torch.device) -> int:
        """Return the value of the first process."""
        if self.world_size == 1:
            return value
        told = torch.tensor([value], device=device)
        with together():
            distributed.broadcast(told, 0)
            return int(told)

    def alike(self, value: int, device: torch.device) -> bool:
        """Whether all processes have the same value; all of them are told."""
        if self.world_size == 1:
            return True
        ends = torch.tensor([value, -value], device=device)
        with together():
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
            with together():
                distributed.barrier()


def _clipped(tensors: list[Tensor], largest: float) -> tuple[float, list[Tensor]]:
    """Return the joint norm of tensors, and these, scaled in place so that it is at most `largest`."""
    norm = _joint_norm(torch.stack(torch._foreach_norm(tensors)))
    if norm > largest:
        torch._foreach_mul_(tensors, largest / norm)
    return norm, tensors


def _joint_norm(norms: Tensor) -> float:
    return float(norms.norm())


def _shares(sizes: Sequence[int], world_size: int) -> list[list[int]]:
    """Return which of some tensors each process takes, about equally many numbers."""
    ends = np.cumsum(sizes) - np.array(sizes) / 2
    takers = (ends / sum(sizes) * world_size).astype(int)
    return [np.flatnonzero(takers == rank).tolist() for rank in range(world_size)]


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
        found.meeting.close()
        distributed.destroy_process_group()


_NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
