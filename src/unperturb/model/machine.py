"""What this machine computes with: the device, the precision, and how freed memory is kept.

Nothing is assumed of a processor by its name: whether bfloat16 pays is measured, once, on a convolution of the kind
that the networks are made of. Processors with matrix units (AMX) gain severalfold, those without lose as much.
"""

import ctypes
import functools
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Lock
from typing import Any, Generic, TypeVar, cast

import torch
from torch import Tensor
from torch.nn import functional

from unperturb.errors import UsageError

Map = Callable[[Callable[[int], Any], Any], Any]
"""Something that calls a function for each number: in turn as the built-in does, or on several threads."""

Answer = TypeVar("Answer", bound=Tensor | tuple[Tensor, ...])

TURNS = 8
"""How often each precision is measured, to find out which is faster."""

_MEASURING = Lock()
"""Two that measure at once would find what they leave each other."""

_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8  # names of glibc's mallopt


def choose_device(name: str = "auto") -> torch.device:
    """Return the device of a name: "auto" (a GPU where there is one), "cpu" or "cuda".

    Raises
    ------
    UsageError
        Where "cuda" is asked for and there is none, or the name is another.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise UsageError(f"device is auto, cpu or cuda; got {name!r}")
    if name == "cuda" and not torch.cuda.is_available():
        raise UsageError("this machine has no CUDA device that torch can use; leave the device to auto, or say cpu")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """Return the type to compute in: "auto" (bfloat16 where it was measured to be faster), "float32" or "bfloat16".

    Raises
    ------
    UsageError
        Where the name is another.
    """
    if name not in ("auto", "float32", "bfloat16"):
        raise UsageError(f"precision is auto, float32 or bfloat16; got {name!r}")
    if name == "auto":
        return torch.bfloat16 if bfloat16_gain(device.type) > 1.2 else torch.float32
    return torch.bfloat16 if name == "bfloat16" else torch.float32


@functools.cache
def bfloat16_gain(device: str) -> float:
    """Return how many times faster a convolution is in bfloat16 than in float32 here, in about 0.1 s.

    Both are measured by turns, and the fastest of each counts: whoever was kept waiting by others at one time, was not
    at all times. On a processor one thread measures: where several processes of a run do so at once, threads of all
    would wait for each other.
    """
    both = {dtype: _convolution(device, dtype) for dtype in (torch.float32, torch.bfloat16)}
    fastest = dict.fromkeys(both, float("inf"))
    with _MEASURING, one_thread():
        for _ in range(TURNS):
            for dtype, convolve in both.items():
                start = time.perf_counter()
                convolve()
                fastest[dtype] = min(fastest[dtype], time.perf_counter() - start)
    return fastest[torch.float32] / fastest[torch.bfloat16]


def _convolution(device: str, dtype: torch.dtype) -> Callable[[], None]:
    """Return something that convolves, and is done when it returns."""
    side = 64 if device == "cpu" else 1024  # small work on a GPU takes the time of a call, whatever the type
    x = torch.zeros(1, 64, side, side, device=device, dtype=dtype).to(memory_format=torch.channels_last)
    kernel = torch.zeros(64, 64, 3, 3, device=device, dtype=dtype).to(memory_format=torch.channels_last)

    @torch.no_grad()
    def convolve() -> None:
        functional.conv2d(x, kernel, padding=1)
        if device == "cuda":
            torch.cuda.synchronize()

    return convolve


class Replayed(Generic[Answer]):
    """A function of tensors on a GPU that is recorded once for each shape, and played ever after.

    Where a function is a thousand small operations, a GPU waits for most of them to be asked for; those of a recording
    it goes through by itself. The function asks nothing of the values, gives a tensor or several, and what it gives may
    be kept. Of shapes beyond the first few no recording is made.

    Source: CUDA graphs, as `torch.cuda.CUDAGraph` has them.
    """

    MOST = 8

    def __init__(self, function: Callable[..., Answer]) -> None:
        self.function = function
        self._recorded: dict[tuple[Any, ...], tuple[torch.cuda.CUDAGraph, list[Tensor], Answer]] = {}

    def __call__(self, *values: Tensor) -> Answer:
        """Return the function of the values."""
        key = tuple((value.shape, value.dtype) for value in values)
        if key not in self._recorded:
            if len(self._recorded) == self.MOST or not values[0].is_cuda:
                return self.function(*values)
            self._recorded[key] = self._record(*values)
        graph, inputs, output = self._recorded[key]
        for place, value in zip(inputs, values, strict=True):
            place.copy_(value)
        graph.replay()
        return cast(Answer, output.clone() if isinstance(output, Tensor) else tuple(part.clone() for part in output))

    def _record(self, *values: Tensor) -> tuple[torch.cuda.CUDAGraph, list[Tensor], Answer]:
        inputs = [value.clone() for value in values]
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # once without, so that all that is set up at first use is
            self.function(*inputs)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            output = self.function(*inputs)
        return graph, inputs, output


def keep_freed_memory() -> None:
    """Let this process keep the memory it frees, for its next large arrays.

    By default the C library gives every large array back to the system and asks for it anew, and the system clears each
    page again: in the fast convolution of `winograd` that was measured to take longer than the arithmetic. Only glibc
    knows these settings; elsewhere nothing happens.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    for setting, value in ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, 2**31 - 1), (_ARENA_MAX, 1)):
        mallopt(setting, value)


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def workers(device: torch.device, threads: int | None) -> Iterator[Map]:
    """Lend a `map` that runs on all cores, each call on single-threaded kernels; on a GPU the built-in one.

    Kernels that share one operation among threads wait for the slowest of them at every operation, hundreds of times a
    step. Where each thread has items of its own, they wait once.

    Parameters
    ----------
    device
        Where the work is done.
    threads
        How many; all cores by default.
    """
    if device.type != "cpu":
        yield map
        return
    with (
        one_thread(),
        ThreadPoolExecutor(threads or cores(), initializer=torch.set_num_threads, initargs=(1,)) as pool,
    ):
        yield pool.map


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch run on one thread an operation, in this thread; others that begin meanwhile stay with one as well."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
