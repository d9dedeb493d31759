"""Boards that processes of one machine write on and read from: memory that all of them have in common.

Sockets take more than twice as long: four million gradients of two processes were added up in 24 ms by gloo, in 10
this way, where a step of four crops takes 190.

Processes write, hear from each other (`unperturb.train.meeting`), and read. What is to stay while the next is being
written, as weights are, lies on two boards that take turns: who writes on the first again has heard, about the second,
from all others, and they were done with the first.

Work is shared out there as well. Who begins a piece leaves the number of the turn, without asking whether another does
so at this moment: where two do, both write the same numbers at the same place.
"""

import os
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, distributed

from unperturb.train.meeting import SHARED, together

TURNS = 2**20
"""After so many turns they are numbered anew, from 1: all of these are numbers of float32."""


class Boards:
    """One or several of them, made when they are first asked for, and anew where they are too small.

    Parameters
    ----------
    count
        How many take turns.
    """

    def __init__(self, count: int) -> None:
        self._boards = [(torch.empty(0), torch.empty(0))] * count
        self._possible = True
        self._turns = 0

    def turn(self, size: int, world_size: int, pieces: int = 0) -> tuple[Tensor, Callable[[int], bool]] | None:
        """Return the next board, and a function that says of a piece of work whether it is not begun, and begins it.

        What is written on it stays until its next turn. Two that ask for a piece at the same moment may both be told to
        do it. All processes take their turns together. None, for all of them, where there is no memory to share.

        Parameters
        ----------
        size
            How many numbers of float32 it has to hold; for all processes the same.
        world_size
            How many processes there are.
        pieces
            Of work, which are shared out in this turn.
        """
        if not self._possible:
            return None
        self._turns += 1
        place = self._turns % len(self._boards)
        board, begun = self._boards[place]
        if len(board) < size or len(begun) < pieces:
            made = _made(size + pieces, world_size)
            if made is None:
                self._possible, self._boards = False, []
                return None
            board, begun = self._boards[place] = made[:size], made[size:]
        return board[:size], partial(_begins, begun.numpy(), np.float32(1 + self._turns % TURNS))


def _begins(begun: NDArray[np.float32], turn: np.float32, piece: int) -> bool:
    if begun[piece] == turn:
        return False
    begun[piece] = turn
    return True


def summed(parts: Sequence[Tensor], out: Tensor | None = None) -> Tensor:
    """Return the sum of parts, in an order that is the same for any power of two of processes, and for one alone.

    Of two processes, one has learned from every second part; of four, from every fourth. What each has added up by
    itself comes together here as it does in one process, bit for bit.
    """
    if len(parts) == 1:
        return parts[0] if out is None else out.copy_(parts[0])
    return torch.add(summed(parts[0::2]), summed(parts[1::2]), out=out)


def _made(size: int, world_size: int) -> Tensor | None:
    """Return new memory; its file is gone by then, and it goes with the last process that has it."""
    n_bytes = size * torch.float32.itemsize
    mine = _reserved(n_bytes) if distributed.get_rank() == 0 else None
    told, seen = [mine], [False] * world_size
    try:
        with together():
            distributed.broadcast_object_list(told, 0)
            distributed.all_gather_object(seen, told[0] is not None and _is_here(told[0], n_bytes))
        if told[0] is None or not all(seen):
            return None
        found = torch.from_file(told[0], shared=True, size=size, dtype=torch.float32)
        with together():
            distributed.barrier()  # before the file goes
    finally:
        if mine is not None:
            Path(mine).unlink(missing_ok=True)
    return found


def _is_here(name: str, size: int) -> bool:
    """Whether a file is there: another process may have memory of its own, and mapping would make a new file."""
    try:
        return Path(name).stat().st_size == size
    except OSError:
        return False


def _reserved(size: int) -> str | None:
    """Return a new file of so many bytes, which are there; or None."""
    try:
        number, name = tempfile.mkstemp(prefix="unperturb-", dir=SHARED)
    except OSError:
        return None
    try:
        os.posix_fallocate(number, 0, size)  # else there would be too little when it is written on, which is fatal
    except (OSError, AttributeError):  # there is none on macOS
        Path(name).unlink()
        return None
    finally:
        os.close(number)
    return name
