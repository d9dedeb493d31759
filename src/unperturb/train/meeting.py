"""How processes of one machine wait for each other: each says some numbers, and all hear those of all.

They hear a seventh of a millisecond after the last one has spoken; from gloo, one to two milliseconds, three times a
step. Where one has ended the others know at once, for its sockets are closed then.
"""

import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import distributed


class Meeting:
    """The sockets of one process: the first has one to each of the others, these have one to the first."""

    def __init__(self, leads: bool, links: Sequence[Connection]) -> None:
        self.leads, self.links = leads, list(links)

    @classmethod
    def of(cls, rank: int, world_size: int, folder: Path) -> "Meeting | None":
        """Meet the other processes, all of which call this; None, for all of them, where they cannot meet.

        Parameters
        ----------
        rank, world_size
            The number of this process, and how many there are.
        folder
            Where the first has its socket, until all have found it.
        """
        with _place(folder) if rank == 0 else nullcontext() as place:
            listener = _listening(place, world_size) if place else None
            told: list[Any] = [None if listener is None else listener.address]
            distributed.broadcast_object_list(told, 0)
            link = _reached(told[0]) if rank and told[0] else None
            seen = [False] * world_size
            distributed.all_gather_object(seen, bool(listener or link))
            if not all(seen):
                for each in (listener, link):
                    if each is not None:
                        each.close()
                return None
            if listener is None:
                assert link is not None
                link.send(rank)
                return cls(False, [link])
            with listener:
                links = [listener.accept() for _ in range(world_size - 1)]
            return cls(True, sorted(links, key=lambda each: each.recv()))  # once each

    def hear(self, *numbers: float) -> NDArray[np.float64]:
        """Say numbers, as many as all others do, and return those of all: ``(process, number)``.

        Raises
        ------
        OSError, EOFError
            Where another process has ended.
        """
        mine = np.array(numbers, np.float64).tobytes()
        if self.leads:
            whole = b"".join([mine, *(link.recv_bytes() for link in self.links)])
            for link in self.links:
                link.send_bytes(whole)
        else:
            self.links[0].send_bytes(mine)
            whole = self.links[0].recv_bytes()
        return np.frombuffer(whole).reshape(-1, len(numbers)) if numbers else np.empty((0, 0))

    def close(self) -> None:
        """Let others know that this one has ended."""
        for link in self.links:
            link.close()


def _place(folder: Path) -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="unperturb-", dir=folder if folder.is_dir() else None)


def _listening(place: str, world_size: int) -> Listener | None:
    try:
        return Listener(str(Path(place) / "socket"), "AF_UNIX", backlog=world_size)
    except (OSError, ValueError):  # a path that is too long, a system without such sockets
        return None


def _reached(path: str) -> Connection | None:
    try:
        return Client(path, "AF_UNIX")
    except OSError:
        return None
