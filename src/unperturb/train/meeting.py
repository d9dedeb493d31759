"""How processes of one machine wait for each other: each says some numbers, and all hear those of all.

They hear a seventh of a millisecond after the last one has spoken; from gloo, one to two milliseconds, three times a
step. Where one has ended its sockets are closed, so that the first knows at once, and the others when the first ends.
"""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import distributed

from unperturb.errors import ProcessLostError

PATIENCE = timedelta(hours=6)
"""For how long others are waited for; where one ends, that is known at once."""

SHARED = Path("/dev/shm")
"""Where Linux keeps files that are memory."""


class Meeting:
    """The sockets of one process: the first has one to each of the others, these have one to the first."""

    def __init__(self) -> None:
        self.links: list[Connection] | None = None
        self._asked = False

    def begin(self, rank: int, world_size: int) -> bool:
        """Meet the others, all of which call this; False, for all of them, where they cannot meet.

        Parameters
        ----------
        rank, world_size
            The number of this process, and how many there are.
        """
        if not self._asked:
            self._asked, self.links = True, _met(rank, world_size)
        return self.links is not None

    def hear(self, rank: int, *numbers: float) -> NDArray[np.float64]:
        """Say numbers, as many as all others do, and return those of all: ``(process, number)``.

        Raises
        ------
        ProcessLostError
            Where another process has ended.
        """
        assert self.links is not None
        mine = np.array(numbers, np.float64).tobytes()
        try:
            if rank == 0:
                whole = b"".join([mine, *map(_heard, self.links)])
                for link in self.links:
                    link.send_bytes(whole)
                world_size = len(self.links) + 1
            else:
                self.links[0].send_bytes(mine)
                whole = _heard(self.links[0])
                world_size = len(whole) // max(len(mine), 1)
        except (OSError, EOFError) as error:
            raise ProcessLostError("another process of this run has ended") from error
        assert len(whole) == world_size * len(mine)
        return np.frombuffer(whole).reshape(world_size, len(numbers))

    def close(self) -> None:
        """Let others know that this one has ended."""
        for link in self.links or []:
            link.close()


def _heard(link: Connection) -> bytes:
    if not link.poll(PATIENCE.total_seconds()):
        raise EOFError
    return link.recv_bytes()


def _met(rank: int, world_size: int) -> list[Connection] | None:
    with ExitStack() as passing, ExitStack() as lasting:
        listener = _listening(passing, world_size) if rank == 0 else None
        told: list[Any] = [None if listener is None else listener.address]
        seen = [False] * world_size
        with together():
            distributed.broadcast_object_list(told, 0)
            link = _reached(told[0], lasting) if rank and told[0] else None
            distributed.all_gather_object(seen, bool(listener or link))
        if not all(seen):
            return None
        if listener is not None:
            links = [lasting.enter_context(listener.accept()) for _ in range(world_size - 1)]
            links.sort(key=lambda each: each.recv())  # of each it is asked once
        else:
            assert link is not None
            link.send(rank)
            links = [link]
        lasting.pop_all()
        return links


def _listening(stack: ExitStack, world_size: int) -> Listener | None:
    """Return a socket to be found, in a folder that others may not read; None where there cannot be one."""
    for folder in (SHARED, None):  # paths are to be short
        try:
            place = tempfile.mkdtemp(prefix="unperturb-", dir=folder)
        except OSError:
            continue
        stack.callback(shutil.rmtree, place, ignore_errors=True)
        try:
            return stack.enter_context(Listener(str(Path(place) / "socket"), "AF_UNIX", backlog=world_size))
        except (OSError, ValueError):
            continue
    return None


def _reached(path: str, stack: ExitStack) -> Connection | None:
    try:
        return stack.enter_context(Client(path, "AF_UNIX"))
    except OSError:
        return None


@contextmanager
def together() -> Iterator[None]:
    """Say in one sentence what torch says of a lost connection in many."""
    try:
        yield
    except (RuntimeError, distributed.DistError) as error:
        raise ProcessLostError("another process of this run has ended") from error
