"""Tables with missing cells, as numbers and back.

::

    read_table(path) ── Table ── values, missing ──> imputation ── filled(values) ──> Table ── write_table(path)
    table_of(frame)  ──┘                                                                 └── frame()

A `Table` holds its cells as they were found, and beside them one number a cell (`values`): a number as it is, a
category as its place among the categories of its column, NaN where a cell is missing. What is written differs from
what was read in the missing cells alone: ``38.50`` stays ``38.50``, a column keeps its type.

Files are CSV (delimited by commas, semicolons, tabs or bars, perhaps compressed: `unperturb.data.table_text`) or
Parquet. What a column is, `unperturb.data.table_columns` says. Columns that are none of its kinds, dates above all, and
those that are to be kept are carried through untouched, their missing cells included.
"""

import dataclasses
import gzip
import warnings
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unperturb.atomic import whole
from unperturb.data.numerals import number_of
from unperturb.data.opening import readable
from unperturb.data.table_cells import fill, typed, with_columns
from unperturb.data.table_columns import MARKS, Column, Frame, Rules, check_twice, need, understand
from unperturb.data.table_parquet import PARQUET, as_arrow, read_parquet, write_parquet
from unperturb.data.table_text import DELIMITERS, TextStyle, read_text, text_bytes
from unperturb.errors import FileError, UnperturbError, UsageError

__all__ = ["MARKS", "SUFFIXES", "Column", "Table", "read_table", "table_of", "write_table"]

SUFFIXES = (".csv", ".tsv", ".txt", ".csv.gz", ".tsv.gz", ".txt.gz", ".parquet")
"""The suffixes of files that are tables."""


@dataclass(frozen=True, eq=False)
class Table:
    """A table, with what is known of its columns.

    `read_table` and `table_of` make tables.

    Attributes
    ----------
    columns
        The columns that have values, in the order of the table, or in that of another table that they match.
    values
        64-bit floats ``(rows, columns)``: numbers in their own units, codes for categories and truth values (their
        place in `Column.categories`), NaN where a cell is missing.
    kept
        Names of the columns that are carried through untouched.
    cells
        The cells as they were found, a pandas.DataFrame with all columns. Not to be changed.
    places
        Where each of `columns` is in `cells`.
    text
        How the file was written, None where it was no text.
    schema
        The pyarrow.Schema of a Parquet file, None otherwise.
    """

    columns: tuple[Column, ...]
    values: NDArray[np.float64]
    kept: tuple[str, ...]
    cells: Frame
    places: tuple[int, ...]
    text: TextStyle | None = None
    schema: Any = None

    @property
    def missing(self) -> NDArray[np.bool_]:
        """Which cells are missing, ``(rows, columns)``."""
        return np.isnan(self.values)

    def missing_of_kept(self, marks: Collection[str] = MARKS) -> dict[str, int]:
        """Return of the columns that are carried through how many cells are empty, or one of the marks; if any are."""
        counts, rules = {}, Rules(marks, decimal=self.text.decimal if self.text else ".")
        for place, name in enumerate(_names(self.cells, self.text)):
            if name in self.kept:
                cells = self.cells.iloc[:, place]
                texts = [str(cell).strip() for cell in cells]
                marked = [text == "" or rules.is_mark(text, number_of(text, rules.decimal)) for text in texts]
                counts[name] = int((cells.isna().to_numpy() | np.array(marked, bool)).sum())
        return {name: count for name, count in counts.items() if count}

    def filled(self, values: NDArray[Any]) -> "Table":
        """Return this table with its missing cells filled.

        Parameters
        ----------
        values
            ``(rows, columns)``, as `self.values`; only those of missing cells are looked at. Numbers are rounded: to
            whole ones in a column of whole ones, and to as many decimals as the texts of the column have. A column of
            integers or short floats takes the nearest that it can hold. A cell of a column of which nothing was
            observed may be NaN, and stays missing then.

        Returns
        -------
        Table
            Its observed cells are as they were; its `values` are those that its cells say, as rounded.

        Raises
        ------
        UsageError
            The shape is another, or a value for a missing cell is not finite, or is no code of its category.
        """
        values = np.asarray(values, dtype=np.float64)
        if values.shape != self.values.shape:
            raise UsageError(f"the new values have shape {values.shape}, the table has {self.values.shape}.")
        new, result = {}, self.values.copy()
        for at, column in enumerate(self.columns):
            _check(values[self.missing[:, at], at], column, nothing=bool(self.missing[:, at].all()))
            place = self.places[at]
            new[place], result[:, at] = fill(self.cells.iloc[:, place], column, self.values[:, at], values[:, at])
        cells = with_columns(self.cells, new)
        text = None if self.text is None else self.text.with_new((cells != self.cells).to_numpy())
        return dataclasses.replace(self, values=result, cells=cells, text=text)

    def frame(self) -> Frame:
        """Return the table as a pandas.DataFrame.

        One that came as a DataFrame returns with its types, one from Parquet with those that pandas reads there. Of
        texts, numbers become ``float64`` and ``Int64``, truth values ``boolean``, categories ``category``; columns that
        are kept stay texts.
        """
        if self.schema is not None:
            return as_arrow(self.cells, self.schema).to_pandas()
        frame = self.cells.copy()
        if self.text is None:
            return frame
        new = {
            place: typed(frame.iloc[:, place], column, self.values[:, at])
            for at, (place, column) in enumerate(zip(self.places, self.columns, strict=True))
        }
        frame = with_columns(frame, new)
        frame.columns = _names(self.cells, self.text)
        return frame


def table_of(
    frame: Frame, *, marks: Collection[str] = MARKS, categories: Collection[str] = (), keep: Collection[str] = ()
) -> Table:
    """Take a pandas.DataFrame for a table.

    Parameters
    ----------
    frame
        Any types. A cell is missing where pandas says so, or where it is a mark.
    marks
        Texts that mean a missing cell. Those that are numbers mean it by their value: ``-999`` marks -999.0, too.
    categories
        Names of columns that are categories even though they hold numbers.
    keep
        Names of columns to carry through untouched: identifiers, remarks.

    Raises
    ------
    UsageError
        There are no rows or columns, two columns have the same name, a name is not there, or a column of numbers holds
        infinity.
    """
    need("pandas")
    names = _names(frame, None)
    _check_names(names, categories, keep)
    if not frame.shape[0]:
        raise UsageError("the table has no rows.")
    return _understood(frame.copy(), names, Rules(marks, categories), keep)


def read_table(
    path: str | Path,
    *,
    marks: Collection[str] = MARKS,
    categories: Collection[str] = (),
    keep: Collection[str] = (),
    header: bool | None = None,
    delimiter: str | None = None,
    decimal: str | None = None,
) -> Table:
    r"""Read a file. Its format is told by its content.

    Parameters
    ----------
    path
        A CSV file, which may be delimited by a comma, semicolon, tab or bar and be compressed (gzip), or a Parquet
        file. Text is UTF-8, UTF-16 with a byte order mark, or else taken for Windows-1252.
    marks, categories, keep
        As in `table_of`. Columns of a file without header are called ``column 1``, ``column 2`` …
    header
        Whether the first row of a text holds names; None finds out.
    delimiter, decimal
        What stands between the cells of a text, one of ``, ; \t |``, and before the decimals of its numbers, a point
        or a comma. None finds out; a decimal comma is looked for between semicolons only.

    Raises
    ------
    FileError
        The file is missing, damaged, empty or no table: rows differ in length, two columns have the same name, a column
        of numbers holds infinity.
    UsageError
        A name is not there, or an option has no meaning for this file.
    """
    need("pandas")
    path = Path(path)
    if delimiter not in (None, *DELIMITERS) or decimal not in (None, ".", ","):
        raise UsageError("a delimiter is one of , ; | and tab, a decimal sign is . or ,")
    with readable(path, "a table"):
        data = path.read_bytes()
    text, schema = None, None
    if data.startswith(PARQUET):
        if (header, delimiter, decimal) != (None, None, None):
            raise UsageError(f"{path} is Parquet, which has no header, delimiter or decimal sign; leave them out.")
        cells, schema = read_parquet(path)
    else:
        cells, text = read_text(path, data, marks=marks, header=header, delimiter=delimiter, decimal=decimal)
    names = _names(cells, text)
    try:
        _check_names(names)
    except UsageError as error:
        raise FileError(f"{path}: {error}") from None
    _check_names(names, categories, keep)
    try:
        table = _understood(cells, names, Rules(marks, categories, text.decimal if text else "."), keep)
    except UsageError as error:
        raise FileError(f"{path}: {error}") from None
    return dataclasses.replace(table, text=text, schema=schema)


def write_table(table: Table, path: str | Path, *, overwrite: bool = False) -> None:
    """Write a file, whole or not at all. Its format is told by its suffix.

    Parameters
    ----------
    table
        What to write. Text that was read from a file with the same suffix is written in the style of that file: its
        delimiter, header or none, encoding, line ends.
    path
        The file to write, ending in one of `SUFFIXES`.
    overwrite
        Whether a file that is there already may be replaced.

    Raises
    ------
    FileError
        The suffix is another, the format cannot hold the table, or the file cannot be written.
    """
    target = Path(path)
    if not target.name.lower().endswith(SUFFIXES):
        raise FileError(f"{target}: tables are written as {', '.join(SUFFIXES)}")
    try:
        with whole(target, overwrite=overwrite) as temporary, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if target.suffix.lower() == ".parquet":
                write_parquet(table.frame() if table.schema is None else table.cells, table.schema, temporary)
            else:
                temporary.write_bytes(_text_of(table, target.name.lower()))
    except UnperturbError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise FileError(f"{target} could not be written ({reason}); try another format.") from error


def _understood(cells: Frame, names: list[str], rules: Rules, keep: Collection[str]) -> Table:
    columns, values, places = [], [], []
    for place, name in enumerate(names):
        found = None if name in keep else understand(cells.iloc[:, place], name, rules)
        if found:
            columns.append(found[0])
            values.append(found[1])
            places.append(place)
    kept = tuple(name for place, name in enumerate(names) if place not in places)
    stacked = np.stack(values, axis=1) if values else np.empty((len(cells), 0))
    return Table(tuple(columns), stacked, kept, cells, tuple(places))


def _names(cells: Frame, text: TextStyle | None) -> list[str]:
    """Return what the columns are called: those without a name by their number, from 1."""
    if text is None:
        found = [str(label).strip() for label in cells.columns]
    else:
        found = [name.strip() for name in text.header or [""] * cells.shape[1]]
    return [name or f"column {number}" for number, name in enumerate(found, 1)]


def _check_names(names: list[str], categories: Collection[str] = (), keep: Collection[str] = ()) -> None:
    if not names:
        raise UsageError("the table has no columns.")
    check_twice(names)
    absent = next((name for name in (*categories, *keep) if name not in names), None)
    if absent is not None:
        raise UsageError(f"there is no column {absent!r}; there are {', '.join(names)}.")
    both = next((name for name in categories if name in keep), None)
    if both is not None:
        raise UsageError(f"column {both!r} cannot both be kept as it is and be filled as a category.")


def _check(wanted: NDArray[np.float64], column: Column, *, nothing: bool) -> None:
    """Refuse values that a column cannot hold; `nothing` was observed of it."""
    if nothing:
        wanted = wanted[~np.isnan(wanted)]
    if not np.isfinite(wanted).all():
        raise UsageError(f"values for missing cells must be finite; those of column {column.name!r} are not all.")
    codes = np.arange(len(column.categories))
    unknown = column.kind == "category" and not column.categories
    if column.kind in ("boolean", "category") and not unknown and not np.isin(wanted, codes).all():
        raise UsageError(f"codes of column {column.name!r} must be whole numbers from 0 to {len(codes) - 1}.")


def _text_of(table: Table, name: str) -> bytes:
    style = table.text or TextStyle(header=tuple(_names(table.cells, None)))
    suffix = Path(name.removesuffix(".gz")).suffix
    if suffix != style.suffix:
        plain = "," if style.delimiter == "\t" else style.delimiter
        style = dataclasses.replace(style, delimiter="\t" if suffix == ".tsv" else plain)
    # The rows of a DataFrame may have names, too; numbers that count them are none.
    is_named = table.text is None and not _is_counted(table.cells.index)
    data = text_bytes(table.cells, style, index=is_named)
    return gzip.compress(data, mtime=0) if name.endswith(".gz") else data


def _is_counted(index: Any) -> bool:
    import pandas as pd

    return isinstance(index, pd.RangeIndex)
