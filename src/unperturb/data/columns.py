"""CSV columns as signals: each column of numbers is a channel, and one of times gives the sampling rate.

::

    time (ms),ECG (mV),remark        a header, or none; a unit in brackets is the channel's
    0,-0.145,                        an empty cell, nan, NA, N/A, #N/A, null, none or - is a gap
    2.5,-0.12,R                      columns of text, and the times, are carried

So are columns that count rows, or rise at a constant step over many of them, beside others. What is numbers for the
most part is not text: a cell that is none is refused, unless it is a gap.

Where no channel has fractions or gaps, samples are 64-bit integers, and are written as such; else they are 64-bit
floats, written with all their digits. A file is read twice, first for what its columns are and then for their numbers,
so that little more memory is needed than for the samples.

What comes back in another form: how numbers are spelt (0.10 as 0.1), and cells in quotes that need none.

Source: RFC 4180, Common Format and MIME Type for CSV Files.
"""

import csv
import itertools
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from unperturb.atomic import whole
from unperturb.data.recording import Array
from unperturb.data.signal import Signal, numbered
from unperturb.data.times import are_times, is_rising_line, rate_of, seconds_of, split_unit
from unperturb.errors import FileError

_GAPS = {"", "nan", "na", "n/a", "#n/a", "null", "none", "-"}
_COMMA = re.compile(r"[+-]?\d+,\d+([eE][+-]?\d+)?")
_EXACT, _MOST = 2**53, 2**63
_COUNTED, _LONG = 8, 64  # rows from which on a column that counts them is known, and one that rises at another step
_BLOCK = 2**14  # rows that are written at once


@dataclass
class Column:
    """What is known of a column.

    Attributes
    ----------
    kind
        The widest of its cells: ``"int"``, ``"float"`` or ``"text"``; ``""`` where all are empty.
    gap
        How its first gap is spelt, None where it has none.
    wide
        Whether it has integers that are no 64-bit floats.
    counts
        Whether each of its cells is a number that is greater by 1 than the one before.
    numbers, commas, others
        How many cells are numbers, numbers with a comma for the decimals, and neither.
    odd
        The first row whose cell is neither number nor gap, and what it says.
    """

    kind: str = ""
    gap: str | None = None
    wide: bool = False
    counts: bool = True
    numbers: int = 0
    commas: int = 0
    others: int = 0
    odd: tuple[int, str] | None = None
    _last: float | None = None

    @property
    def is_whole(self) -> bool:
        """Whether all its cells are integers."""
        return self.kind == "int" and self.gap is None

    def see(self, cell: str, line: int) -> None:
        """Learn from one more cell."""
        text = cell.strip()
        number = _number(text)
        known = number is not None and abs(number) < _EXACT
        self.counts &= known and (self._last is None or number == self._last + 1)
        self._last = number
        if text.lower() in _GAPS:
            self.gap = text if self.gap is None else self.gap
            return
        if number is None:
            comma = _COMMA.fullmatch(text) is not None
            self.commas, self.others = self.commas + comma, self.others + (not comma)
            self.odd = self.odd or (line, text)
            self.kind = "text"
            return
        self.numbers += 1
        if self.kind == "text":
            return
        if text.lstrip("+-").isdigit() and -_MOST <= int(text) < _MOST:
            self.kind = self.kind or "int"
            self.wide |= abs(int(text)) > _EXACT
        else:
            self.kind = "float"

    def check(self, name: str, path: Path) -> None:
        """Refuse a column that was not meant as text.

        Raises
        ------
        FileError
            Most of its cells are numbers, with commas for the decimals, or but for some that are no gaps.
        """
        if self.odd is None:
            return
        line, cell = self.odd
        if self.commas and self.commas + self.numbers > self.others:
            raise FileError(f"{path} has {cell!r} in line {line} of {name}; save numbers with points for decimals.")
        if self.numbers > self.others:
            raise FileError(
                f"{path} has {cell!r} in line {line} of {name}, which has numbers elsewhere; write nan for a gap, or "
                "leave the column out."
            )


@dataclass(frozen=True)
class Text:
    """How rows are written down.

    Attributes
    ----------
    remarks
        Lines that begin with #, at the head of the file.
    delimiter, end
        Between cells, and of a line.
    encoding
        UTF-8, perhaps with a mark at the head that says so.
    """

    remarks: tuple[str, ...] = ()
    delimiter: str = ","
    end: str = "\n"
    encoding: str = "utf-8"

    def rows(self, path: Path) -> Iterator[tuple[int, list[str]]]:
        """Yield all rows behind the remarks, each with the number of its line."""
        with path.open(encoding=self.encoding, newline="") as file:
            for _ in self.remarks:
                file.readline()
            reader = csv.reader(file, delimiter=self.delimiter, strict=True)
            for row in reader:
                yield len(self.remarks) + reader.line_num, row


@dataclass(frozen=True)
class Layout:
    """All of a file but its channels.

    Attributes
    ----------
    text
        How it is written down.
    header
        The cells of the first row, None where that holds numbers.
    columns
        What each one is.
    channels
        For each column, which channel it is, or None.
    carried
        The cells of the columns that are no channels: text, or times.
    """

    text: Text
    header: tuple[str, ...] | None
    columns: tuple[Column, ...]
    channels: tuple[int | None, ...]
    carried: dict[int, list[str] | Array] = field(default_factory=dict)


def read(path: Path, time_axis: int | None) -> Signal:  # noqa: ARG001
    """Read a CSV file.

    Raises
    ------
    FileError
        The file is no text in UTF-8, its rows differ in length, it has no column of numbers, its times do not rise at a
        constant step, or integers are too large to lie beside fractions.
    """
    try:
        return _read(path)
    except UnicodeDecodeError as error:
        raise FileError(f"{path} is not text in UTF-8; save it as that.") from error
    except csv.Error as error:
        raise FileError(f"{path} is not a CSV file ({error}); save it anew.") from error


def write(signal: Signal, target: Path, *, overwrite: bool) -> None:
    """Write a CSV file: the columns of the one that was read, or times, if the rate is known, and then channels.

    Raises
    ------
    FileError
        It cannot be written.
    """
    layout: Layout | None = signal.metadata.get("csv")
    if layout is None or not _fits(layout, signal):
        layout = _new_layout(signal, target)
    values, text = signal.in_units(), layout.text
    with (
        whole(target, overwrite=overwrite) as temporary,
        temporary.open("w", encoding=text.encoding, newline="") as file,
    ):
        file.writelines(remark + text.end for remark in text.remarks)
        writer = csv.writer(file, delimiter=text.delimiter, lineterminator=text.end)
        if layout.header is not None:
            writer.writerow(layout.header)
        for start in range(0, values.shape[1], _BLOCK):
            rows = slice(start, start + _BLOCK)
            writer.writerows(zip(*(_cells(layout, values, at, rows) for at in range(len(layout.columns))), strict=True))


def _read(path: Path) -> Signal:
    text = _text(path)
    header, columns, n_rows = _surveyed(path, text)
    for at, column in enumerate(columns):
        column.check(f"the column {header[at]!r}" if header else f"column {at + 1}", path)
    numeric = [at for at, column in enumerate(columns) if column.kind in {"int", "float"}]
    carried: dict[int, list[str] | Array] = {at: [] for at in range(len(columns)) if at not in numeric}
    rate = None
    for at in [at for at in numeric if header and seconds_of(header[at]) is not None]:
        assert header is not None
        times = np.empty((1, n_rows), np.int64 if columns[at].is_whole else np.float64)
        _fill(times, [at], {}, _numbers(path, text, header))
        if are_times(times[0], header[at], path):
            rate, carried[at] = rate_of(times[0], header[at]), times[0]
            break
    counting = [at for at in numeric if at not in carried and columns[at].counts and n_rows >= _COUNTED]
    if len(counting) + len(carried) < len(columns):
        carried |= {at: [] for at in counting}
    order = [at for at in numeric if at not in carried]
    if not order:
        raise FileError(f"{path} has no column of numbers; save one, with points for decimals.")
    values = np.empty((len(order), n_rows), _dtype([columns[at] for at in order], path))
    _fill(values, order, carried, _numbers(path, text, header))
    lines = [row for row in range(len(order)) if n_rows >= _LONG and is_rising_line(values[row])]
    if 0 < len(lines) < len(order):  # the axis of something, whatever its name
        for row in lines:
            carried[order[row]] = values[row].astype(np.int64) if columns[order[row]].is_whole else values[row].copy()
        values, order = np.delete(values, lines, 0), [at for at in order if at not in carried]
        if all(columns[at].is_whole for at in order):
            values = values.astype(np.int64)
    channels = tuple(order.index(at) if at in order else None for at in range(len(columns)))
    told = [split_unit(header[at]) for at in order] if header else []
    return Signal(
        values,
        "csv",
        rate=rate,
        names=tuple(name for name, _ in told),
        units=tuple(unit for _, unit in told) if any(unit for _, unit in told) else (),
        metadata={"csv": Layout(text, header, tuple(columns), channels, carried)},
    )


def _number(text: str) -> float | None:
    """Return what a cell says, None where it is no number."""
    if "_" in text or not text.isascii():
        return None
    try:
        return float(text)
    except ValueError:
        return None


def _text(path: Path) -> Text:
    with path.open("rb") as binary:
        encoding = "utf-8-sig" if binary.read(3) == b"\xef\xbb\xbf" else "utf-8"
    remarks = []
    with path.open(encoding=encoding, newline="") as file:
        line = file.readline()
        while line.startswith("#"):
            remarks.append(line.rstrip("\r\n"))
            line = file.readline()
    return Text(tuple(remarks), max(",;\t", key=line.count), "\r\n" if line.endswith("\r\n") else "\n", encoding)


def _numbers(path: Path, text: Text, header: tuple[str, ...] | None) -> Iterator[list[str]]:
    """Yield the rows without the header."""
    rows = (row for _, row in text.rows(path) if row)
    return itertools.islice(rows, 0 if header is None else 1, None)


def _surveyed(path: Path, text: Text) -> tuple[tuple[str, ...] | None, list[Column], int]:
    """Return the header, what the columns are, and how many rows of numbers there are."""
    rows = _checked(path, text)
    first = next(rows, None)
    if first is None:
        raise FileError(f"{path} holds no samples: it has no rows; save it with some.")
    head = first[1]
    is_header = any(cell.strip().lower() not in _GAPS and _number(cell.strip()) is None for cell in head)
    columns = [Column() for _ in head]
    n_rows = 0
    for line, row in rows if is_header else itertools.chain([first], rows):
        n_rows += 1
        for column, cell in zip(columns, row, strict=True):
            column.see(cell, line)
    if not n_rows:
        raise FileError(f"{path} holds no samples: it has a header and no rows; save it with some.")
    return tuple(head) if is_header else None, columns, n_rows


def _checked(path: Path, text: Text) -> Iterator[tuple[int, list[str]]]:
    """Yield all rows and their lines, refusing those of another length, and blank lines elsewhere than at the end."""
    n_cells, blank = 0, 0
    for number, row in text.rows(path):
        if not row:
            blank = blank or number
            continue
        if blank:
            raise FileError(f"{path} has nothing in line {blank}; leave the line out, or write nan for a gap.")
        n_cells = n_cells or len(row)
        if len(row) != n_cells:
            raise FileError(f"{path} has {len(row)} cells in line {number} and {n_cells} in the first row; mend it.")
        yield number, row


def _dtype(columns: list[Column], path: Path) -> type[np.generic]:
    if all(column.is_whole for column in columns):
        return np.int64
    if any(column.wide for column in columns):
        raise FileError(f"{path} has integers beyond 2^53 beside gaps or fractions; save them in a file of their own.")
    return np.float64


def _fill(values: Array, order: list[int], carried: dict[int, list[str] | Array], rows: Iterator[list[str]]) -> None:
    """Read numbers and text into their places."""
    texts: list[tuple[int, list[str]]] = [(at, cells) for at, cells in carried.items() if isinstance(cells, list)]
    known: dict[str, str] = {}
    number = int if values.dtype.kind == "i" else _float
    for position, row in enumerate(rows):
        for channel, at in enumerate(order):
            values[channel, position] = number(row[at])
        for at, cells in texts:
            cells.append(known.setdefault(row[at], row[at]))


def _float(cell: str) -> float:
    """Return the number in a cell of a column of numbers, NaN in a gap."""
    try:
        return float(cell)
    except ValueError:
        return math.nan


def _fits(layout: Layout, signal: Signal) -> bool:
    """Whether a signal is still one for the columns that were read."""
    n_channels = sum(channel is not None for channel in layout.channels)
    same_length = all(len(cells) == signal.values.shape[1] for cells in layout.carried.values())
    return same_length and n_channels == len(signal.values)


def _new_layout(signal: Signal, target: Path) -> Layout:
    """Return times, if the rate is known, and then channels."""
    n_channels, n_samples = signal.values.shape
    units = signal.units or ("",) * n_channels
    named = zip(numbered(signal.names, n_channels), units, strict=True)
    header = tuple(f"{name} ({unit})" if unit else name for name, unit in named)
    columns = tuple(Column("float", "nan") for _ in header)
    text = Text(delimiter="\t" if target.suffix.lower() == ".tsv" else ",")
    if signal.rate is None:
        return Layout(text, header, columns, tuple(range(n_channels)))
    times = np.arange(n_samples) / signal.rate
    return Layout(
        text, ("time (s)", *header), (Column("float"), *columns), (None, *range(n_channels)), carried={0: times}
    )


def _cells(layout: Layout, values: Array, at: int, rows: slice) -> list[Any]:
    """Return a part of a column, as it is to be printed."""
    channel, column = layout.channels[at], layout.columns[at]
    if channel is None:
        cells = layout.carried[at][rows]
        return cells if isinstance(cells, list) else cells.tolist()
    numbers: list[Any] = values[channel, rows].tolist()
    if values.dtype.kind != "f":
        return numbers
    gap = "nan" if column.gap is None else column.gap
    shortened = (int(n) if column.kind == "int" and n.is_integer() else n for n in numbers)
    return [gap if math.isnan(number) else number for number in shortened]
