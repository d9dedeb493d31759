"""Columns of times: how they are known, and the sampling rate that they tell.

A column is one of times by its name (``t``, ``time (ms)``, ``time_us``, ``seconds`` …) or its unit (``Zeit (s)``), and
by rising at a constant step. Times are rounded when they are printed, so that their steps are constant but for the last
digit: a straight line through them is enough, and its slope is told with the digits that are known of it.
"""

import re
from decimal import Decimal
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unperturb.data.recording import Array
from unperturb.errors import FileError

_SECONDS = {
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), 1.0),
    **dict.fromkeys(("ms", "msec", "millisecond", "milliseconds"), 1e-3),
    **dict.fromkeys(("us", "µs", "μs", "usec", "microsecond", "microseconds"), 1e-6),
    **dict.fromkeys(("ns", "nanosecond", "nanoseconds"), 1e-9),
    **dict.fromkeys(("min", "minute", "minutes"), 60.0),
    **dict.fromkeys(("h", "hour", "hours"), 3600.0),
}
"""Names of units of time, in seconds."""

_TIMES = {"t", "time", "times", "timestamp", "elapsed", "elapsed time"}
_NO_NAMES = {"min", "h"}  # a minimum, a height
_DOUBTFUL = {"t", "s"}  # a temperature, an S wave: times only where they are spaced as times
_UNIT = re.compile(r"^(.*?)\s*[\[(]\s*([^\[\]()]*?)\s*[\])]$")


def split_unit(header: str) -> tuple[str, str]:
    """Split the head of a column into a name and a unit in brackets, ``""`` where there is none."""
    found = _UNIT.match(header.strip())
    return (found[1], found[2]) if found else (header.strip(), "")


def _split(header: str) -> tuple[str, str]:
    """Split the head of a column of times in lower case; of these the unit may stand behind a comma."""
    name, unit = (part.lower() for part in split_unit(header))
    first, comma, second = (part.strip() for part in name.partition(","))
    return (first, second) if comma and not unit else (name, unit)


def seconds_of(header: str) -> float | None:
    """Return the unit, in seconds, of a column that may be one of times by its name or unit; else None."""
    named, (_, unit) = _named(header), _split(header)
    return _SECONDS.get(unit) if named is None else named


def _named(header: str) -> float | None:
    """Return the unit, in seconds, of a column of times by its name; None where the name is another."""
    name, unit = _split(header)
    if name in _TIMES:
        return _SECONDS.get(unit) if unit else 1.0
    if name in _SECONDS and name not in _NO_NAMES and not unit:
        return _SECONDS[name]
    start, _, end = name.replace(" ", "_").rpartition("_")
    return _SECONDS.get(end) if start.replace("_", " ") in _TIMES else None


def are_times(times: Array, header: str, path: Path) -> bool:
    """Whether a column with the name of times, ``(T,)``, holds times.

    Raises
    ------
    FileError
        Its name can mean nothing else, and it does not rise at a constant step.
    """
    by_unit = _named(header) is None
    if (len(times) == 1 and not by_unit) or is_rising_line(times):
        return True
    if by_unit or _split(header)[0] in _DOUBTFUL:
        return False
    raise FileError(
        f"{path} has times in the column {header!r} that do not rise at a constant step; resample it, or leave the "
        "column out."
    )


def rate_of(times: Array, header: str) -> float | None:
    """Return the samples a second that times, ``(T,)``, tell of; None where there is but one."""
    if len(times) == 1:
        return None
    since, step = _line(times)
    rate = 1.0 / (step * (seconds_of(header) or 1.0))
    known = 2 * _off(since, step) / float(since[-1]) + 1e-12
    rounded = (float(f"{rate:.{digits}g}") for digits in range(1, 18))
    return next((short for short in rounded if abs(short / rate - 1) <= known), rate)


def _line(times: Array) -> tuple[NDArray[np.float64], float]:
    """Return the times since the first, and the mean step."""
    since: NDArray[np.float64] = (times - times[0]).astype(np.float64)
    return since, float(since[-1]) / (len(since) - 1)


def _off(since: NDArray[np.float64], step: float) -> float:
    return float(np.abs(since - step * np.arange(len(since))).max())


def is_rising_line(times: Array) -> bool:
    """Whether numbers, ``(T,)``, rise at a constant step, as far as their last printed digit tells."""
    if len(times) < 2:
        return False
    since, step = _line(times)
    # Also false where a time is not a number.
    if not (np.diff(since) > 0).all():
        return False
    return _off(since, step) <= max(_last_digit(times), 1e-9 * float(np.abs(times).max()))


def _last_digit(times: Array) -> float:
    """Return the unit of the last printed digit; two times that are off by a half of it each are off by one."""
    if times.dtype.kind == "i":
        return 1.0
    printed = (Decimal(repr(time)).as_tuple().exponent for time in times[:1000].tolist())
    return 1.01 * 10.0 ** min(int(exponent) for exponent in printed)
