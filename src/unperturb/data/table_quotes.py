"""Which cells of a text are in quotes: many are that need none, and they are so again when it is written back."""

import re
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

Marks = NDArray[np.bool_]


def quoted_cells(text: str, delimiter: str, records: Sequence[Sequence[str]]) -> Marks | None:
    """Find out which cells are in quotes.

    Parameters
    ----------
    text
        The whole file.
    delimiter
        What stands between cells.
    records
        What was read of it, all equally long: every record, or all but some blank ones.

    Returns
    -------
    ndarray or None
        ``(record, cell)``, True in quotes. None where there are none, or in such places that this cannot be told.
    """
    if '"' not in text:
        return None
    found: list[list[bool]] = []
    for record, marks in _scanned(text, delimiter):
        if len(found) < len(records) and record == list(records[len(found)]):
            found.append(marks)
    return np.array(found) if len(found) == len(records) else None


def quoted_like_others(quoted: Marks, new: Marks) -> Marks:
    """Return which cells are in quotes where some are new: those of columns most of whose other cells are.

    Parameters
    ----------
    quoted, new
        ``(row, cell)``, without the header.
    """
    others = ~new
    mostly = (quoted & others).sum(0) * 2 > others.sum(0)
    return np.where(new, mostly, quoted)


def with_quotes(cells: Sequence[str], quoted: Sequence[bool], delimiter: str) -> str:
    """Return a record as text, the cells in quotes that are to be, or have to be."""
    return delimiter.join(
        '"' + cell.replace('"', '""') + '"' if mark or _needs(cell, delimiter) else cell
        for cell, mark in zip(cells, quoted, strict=True)
    )


def _needs(cell: str, delimiter: str) -> bool:
    return cell.startswith('"') or any(sign in cell for sign in (delimiter, "\r", "\n"))


def _scanned(text: str, delimiter: str) -> Iterator[tuple[list[str], list[bool]]]:
    """Yield records, and which of their cells are in quotes, up to where a quote stands in a place of its own."""
    sign = re.escape(delimiter)
    within = r'"(?P<within>[^"]*(?:""[^"]*)*)"'
    cell = re.compile(rf'(?:{within}|(?P<bare>[^{sign}\r\n"][^{sign}\r\n]*)?)(?P<end>{sign}|\r\n|\r|\n|\Z)')
    place, record, marks = 0, list[str](), list[bool]()
    while place < len(text) or record:
        found = cell.match(text, place)
        if found is None:
            return
        is_quoted = found["within"] is not None
        record.append(found["within"].replace('""', '"') if is_quoted else found["bare"] or "")
        marks.append(is_quoted)
        place = found.end()
        if found["end"] != delimiter:
            yield record, marks
            record, marks = [], []
