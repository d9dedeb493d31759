"""Tables as text: cells as they stand in a file, and how that file writes them.

::

    bytes ── read_text ── cells, TextStyle ── text_bytes ──> bytes

Every cell stays the text that it is, white space included, so that what is written back differs in the cells alone
that somebody filled. What the bytes do not say outright is found out from the records: the delimiter is the one that
splits them into equally many cells, the first record is a header where it looks like names and the rest does not.
"""

import codecs
import csv
import dataclasses
import gzip
import io
import re
import zlib
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import pairwise, repeat
from pathlib import Path
from typing import Any, Literal

import numpy as np

from unperturb.data.numerals import number_of, numerals_of
from unperturb.data.table_quotes import Marks, quoted_cells, quoted_like_others, with_quotes
from unperturb.errors import FileError

Frame = Any
"""A pandas.DataFrame; pandas comes with an extra."""

DELIMITERS = ("\t", ";", ",", "|")
"""What may stand between cells; of two that split the records equally well, the first is meant."""

_SAMPLE, _ENOUGH = 100, 1000
_YEARS = range(1500, 2200)
_GZIP, _ZIP = b"\x1f\x8b", b"PK\x03\x04"
_MARKED = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1b]")


@dataclass(frozen=True, eq=False)
class TextStyle:
    """How a file writes its table.

    Attributes
    ----------
    delimiter
        What stands between two cells.
    header
        The first record, as it stands there; None where the file has no header.
    decimal
        What stands before the decimals of a number: a point, or a comma.
    encoding
        Of the characters. ``utf-8-sig`` and ``utf-16-…`` begin with a byte order mark.
    line_end
        What ends a record.
    ended
        Whether that stands after the last record, too.
    quoted
        ``(record, cell)``, the header among the records: whether it is in quotes. None where nothing is known of that;
        those are then that need them.
    suffix
        Of the file, in small letters and without ``.gz``.
    """

    delimiter: str = ","
    header: tuple[str, ...] | None = None
    decimal: str = "."
    encoding: str = "utf-8"
    line_end: str = "\n"
    ended: bool = True
    quoted: Marks | None = None
    suffix: str = ".csv"

    def with_new(self, new: Marks) -> "TextStyle":
        """Return the style of a table some of whose cells, ``(row, cell)``, are new: as others of the column."""
        if self.quoted is None:
            return self
        above = self.quoted[: len(self.quoted) - len(new)]
        rows = quoted_like_others(self.quoted[len(above) :], new)
        return dataclasses.replace(self, quoted=np.concatenate([above, rows]))


def read_text(
    path: Path,
    data: bytes,
    *,
    marks: Collection[str],
    header: bool | None = None,
    delimiter: str | None = None,
    decimal: str | None = None,
) -> tuple[Frame, TextStyle]:
    """Take the bytes of a file apart.

    Parameters
    ----------
    path
        What to call the file in messages; its suffix is noted.
    data
        The bytes, which may be compressed (gzip).
    marks
        Texts that mean a missing cell; no header has them.
    header, delimiter, decimal
        What is known of the style; None is found out.

    Returns
    -------
    cells
        A DataFrame of texts, without the header; its columns are counted from 0.
    style
        How to write it back.

    Raises
    ------
    FileError
        The file is damaged, not text or empty, or its rows do not have equally many cells.
    """
    import pandas as pd

    text, encoding = _decoded(path, _expanded(path, data))
    known = delimiter or _delimiter_of(text)
    records = _records(path, text, known)
    point = decimal or _decimal_of(records, known)

    has_header = _has_header(records, marks, point) if header is None else header
    names, rows = (tuple(records[0]), records[1:]) if has_header else (None, records)
    if not rows:
        raise FileError(f"{path} holds no rows besides its header; a table has some.")
    style = TextStyle(
        delimiter=known,
        header=names,
        decimal=point,
        encoding=encoding,
        line_end=_line_end_of(text),
        ended=text.endswith(("\n", "\r")),
        quoted=quoted_cells(text, known, records),
        suffix=Path(path.name.lower().removesuffix(".gz")).suffix,
    )
    return pd.DataFrame(rows, dtype=object), style


def text_bytes(cells: Frame, style: TextStyle, *, index: bool = False) -> bytes:
    """Return the bytes of a file that holds the cells, not compressed: the way back from `read_text`.

    Parameters
    ----------
    cells
        Texts, or anything that pandas writes as text.
    style
        How to write them.
    index
        Whether the index of the DataFrame is written as columns, too.
    """
    text = _minimal(cells, style, index=index) if style.quoted is None else _as_marked(cells, style, style.quoted)
    if not style.ended:
        text = text.removesuffix(style.line_end)
    mark = {"utf-16-le": codecs.BOM_UTF16_LE, "utf-16-be": codecs.BOM_UTF16_BE}.get(style.encoding, b"")
    return mark + text.encode(style.encoding)


def _as_marked(cells: Frame, style: TextStyle, quoted: Marks) -> str:
    records = [*([] if style.header is None else [style.header]), *cells.to_numpy().tolist()]
    lines = map(with_quotes, records, quoted.tolist(), repeat(style.delimiter))
    return "".join(line + style.line_end for line in lines)


def _minimal(cells: Frame, style: TextStyle, *, index: bool) -> str:
    def as_text(quoting: Literal[0, 1]) -> str:
        return cells.to_csv(
            sep=style.delimiter,
            header=False if style.header is None else list(style.header),
            index=index,
            lineterminator=style.line_end,
            quoting=quoting,
        )

    text = as_text(csv.QUOTE_MINIMAL)
    # Within a cell, a line end of another kind gets no quotes by itself, and would split the row.
    return as_text(csv.QUOTE_ALL) if any(end in text for end in {"\r", "\n"} - {*style.line_end}) else text


def _expanded(path: Path, data: bytes) -> bytes:
    if data.startswith(_ZIP):
        raise FileError(f"{path} is a spreadsheet or an archive, not text; save the table as CSV or Parquet.")
    if not data.startswith(_GZIP):
        return data
    try:
        return gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise FileError(f"{path} is compressed and damaged or cut short; obtain the file again.") from error


def _decoded(path: Path, data: bytes) -> tuple[str, str]:
    """Return the text and its encoding. What is not UTF-8 and has no mark is taken for Windows-1252."""
    mark, marked = next(((mark, name) for mark, name in _MARKED if data.startswith(mark)), (b"", None))
    text = None
    for encoding in [marked] if marked else ["utf-8", "cp1252"]:
        try:
            text = data.removeprefix(mark).decode("utf-8" if marked == "utf-8-sig" else encoding)
            break
        except UnicodeDecodeError:
            continue
    control = None if text is None else _CONTROL.search(text)
    if text is None or control:
        line = 1 + text.count("\n", 0, control.start()) if text and control else 0
        place = f" (0x{ord(control[0]):02x} in line {line})" if control else ""
        raise FileError(f"{path} is not text, whatever its name says{place}; save the table as CSV (UTF-8) or Parquet.")
    if not text.strip():
        raise FileError(f"{path} is empty; a table has rows.")
    return text, encoding


def _parsed(text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the records that are not blank, each with the number of the line where it ends, counted from 1."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    for record in reader:
        yield reader.line_num, record


def _delimiter_of(text: str) -> str:
    """Find the delimiter that splits most of the first records into equally many cells, more than one."""

    def agreement(delimiter: str) -> float:
        try:
            some = [len(record) for _, (_, record) in zip(range(_SAMPLE), _parsed(text, delimiter), strict=False)]
        except csv.Error:
            return 0.0
        cells, times = Counter(count for count in some if count).most_common(1)[0]
        return times / sum(count > 0 for count in some) if cells > 1 else 0.0

    found = {delimiter: agreement(delimiter) for delimiter in DELIMITERS}
    best = max(found, key=lambda delimiter: found[delimiter])
    return best if found[best] > 0 else ","


def _records(path: Path, text: str, delimiter: str) -> list[list[str]]:
    """Return all records, and refuse rows that do not have as many cells as the first."""
    records: list[list[str]] = []
    line = 0
    try:
        for line, record in _parsed(text, delimiter):
            if not records and not record:
                continue
            width = len(records[0]) if records else len(record)
            if width > 1 and len(record) < 2 and not "".join(record).strip():
                continue
            if len(record) != width and (record or width > 1):
                raise FileError(
                    f"{path} does not have as many cells in line {line} as in its first, {len(record)} and {width}; "
                    "look for a delimiter too few or too many, or one that is not in quotes."
                )
            records.append(record or [""])
    except csv.Error as error:
        raise FileError(
            f"{path} cannot be taken apart behind line {line} ({error}); look at the quotes there."
        ) from error
    return records


def _decimal_of(records: list[list[str]], delimiter: str) -> str:
    """Find out whether decimals stand behind a comma: only where cells are separated by a semicolon.

    ``1,234`` and ``1.234`` may be thousands as well; what is a number one way alone counts more.
    """
    if delimiter != ";":
        return "."
    cells = {cell.strip() for record in records for cell in record}

    def used(point: str, other: str) -> tuple[bool, bool]:
        found = [cell for cell in cells if point in cell and numerals_of([cell], point)]
        return bool(found), any(numerals_of([cell], other) is None for cell in found)

    (comma, clearly_comma), (dot, clearly_dot) = used(",", "."), used(".", ",")
    return "," if (clearly_comma and not clearly_dot) or (comma and not dot) else "."


def _has_header(records: list[list[str]], marks: Collection[str], decimal: str) -> bool:
    """Whether the first record looks like names.

    No name is a mark, and one at least is a word; numbers among them count up, as years do. A word above a column of
    numbers is then enough. Else numbers are years, only the first or the last name is empty (an index, a delimiter at
    the end), and all differ; and below there is a column of numbers without a number above, or else no name is found
    again in its own column.
    """
    names = [name.strip() for name in records[0]]
    numbers = [number for name in names if (number := number_of(name, decimal)) is not None]
    words = {name for name in names if name and number_of(name, decimal) is None}
    if not words or words & {*marks} or not _counts_up(numbers):
        return False
    columns = [{cell.strip() for cell in column} for column in zip(*records[1:_ENOUGH], strict=True)]
    above = list(zip(names, columns, strict=False))
    if any(name in words and _are_numbers(column - {*marks}, decimal) for name, column in above):
        return True
    inner = names[1:-1] if len(names) > 2 else [name for name in names if name]
    if not all(inner) or len(set(names)) < len(names) or not all(number in _YEARS for number in numbers):
        return False
    if not numbers and any(_are_numbers(column - {*marks}, decimal) for column in columns):
        return True
    return all(name not in column for name, column in above)


def _counts_up(numbers: list[float]) -> bool:
    """Whether numbers are whole and follow each other in equal steps."""
    steps = {high - low for low, high in pairwise(numbers)}
    return all(number == round(number) for number in numbers if abs(number) < 1e15) and (
        not steps or (len(steps) == 1 and min(steps) > 0)
    )


def _are_numbers(cells: Collection[str], decimal: str) -> bool:
    return bool(cells) and all(number_of(cell, decimal) is not None for cell in cells)


def _line_end_of(text: str) -> str:
    found = re.search(r"\r\n|\n|\r", text)
    return found[0] if found else "\n"
