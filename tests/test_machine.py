"""What is found out about the machine."""

import pytest
import torch

from unperturb.model import machine


@pytest.fixture
def busy(monkeypatch):
    """Measure convolutions that take 3 ms or 1 ms of a clock, ten times that while others keep the machine busy."""
    now = [0.0]

    def measure(begin: float, end: float) -> float:
        def convolution(_: str, dtype: torch.dtype):
            def convolve() -> None:
                seconds = 3e-3 if dtype == torch.float32 else 1e-3
                now[0] += seconds * (10 if begin <= now[0] < end else 1)

            return convolve

        now[0] = 0.0
        monkeypatch.setattr(machine, "_convolution", convolution)
        monkeypatch.setattr(machine.time, "perf_counter", lambda: now[0])
        machine.bfloat16_gain.cache_clear()
        return machine.bfloat16_gain("cpu")

    yield measure
    monkeypatch.undo()
    machine.bfloat16_gain.cache_clear()


@pytest.mark.parametrize("begin", [0.0, 0.006, 0.012, 0.018, 0.024, 0.03])
def test_a_busy_moment_does_not_decide_which_precision_is_faster(busy, begin):
    """Breaks: all turns of one precision after all of the other; the last in place of the fastest."""
    assert busy(begin, begin + 0.2) == pytest.approx(3)


def test_one_thread_measures_and_threads_are_as_before(monkeypatch):
    """Break: on all threads, which those of two processes wait for by turns, and find no gain."""
    threads = []
    monkeypatch.setattr(machine, "_convolution", lambda *_: lambda: threads.append(torch.get_num_threads()))
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        machine.bfloat16_gain.__wrapped__("cpu")
        assert set(threads) == {1}
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_bfloat16_is_chosen_where_it_is_faster(monkeypatch):
    for gain, dtype in ((1.1, torch.float32), (3.0, torch.bfloat16)):
        monkeypatch.setattr(machine, "bfloat16_gain", lambda _, gain=gain: gain)
        assert machine.choose_precision("auto", torch.device("cpu")) == dtype
        assert machine.choose_precision("float32", torch.device("cpu")) == torch.float32
