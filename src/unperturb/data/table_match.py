"""A table as another one was: new rows of columns that are known."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from unperturb.data.table import Table
from unperturb.data.table_columns import AMONG_NUMBERS, Column
from unperturb.data.table_text import number_of
from unperturb.errors import UsageError


def matched(table: Table, known: Sequence[Column]) -> Table:
    """Return a table whose columns are those that are known, with the same codes for the same categories.

    Parameters
    ----------
    table
        With columns of the same names, in the same order.
    known
        As another table had them.

    Returns
    -------
    Table
        Categories that are not known come after those that are. What kind a column is, is what was known of it.

    Raises
    ------
    UsageError
        Where columns are missing, there are others, they are in another order, or one holds texts where numbers are
        known.
    """
    table = _without_empty(table, {column.name for column in known})
    names, wanted = [column.name for column in table.columns], [column.name for column in known]
    if names != wanted:
        raise UsageError(_difference(names, wanted))
    columns, values = [], table.values.copy()
    for index, (mine, theirs) in enumerate(zip(table.columns, known, strict=True)):
        column, values[:, index] = _as_known(mine, theirs, values[:, index])
        columns.append(column)
    return dataclasses.replace(table, columns=tuple(columns), values=values)


def _without_empty(table: Table, known: set[str]) -> Table:
    """Return a table that carries through columns of which nothing is observed or known: of dates, say."""
    used = [
        at for at, column in enumerate(table.columns) if column.name in known or not np.isnan(table.values[:, at]).all()
    ]
    others = tuple(column.name for at, column in enumerate(table.columns) if at not in used)
    return dataclasses.replace(
        table,
        columns=tuple(table.columns[at] for at in used),
        values=table.values[:, used],
        kept=(*table.kept, *others),
        places=tuple(table.places[at] for at in used),
    )


def _as_known(mine: Column, theirs: Column, values: NDArray[np.float64]) -> tuple[Column, NDArray[np.float64]]:
    there = ~np.isnan(values)
    if not theirs.categories and {*mine.categories} <= {*AMONG_NUMBERS}:  # among numbers these mean a missing cell
        values = np.where(there & bool(mine.categories), np.nan, values)
        there = ~np.isnan(values)
    if not there.any():
        return theirs, values
    if not theirs.categories:
        if mine.categories:
            word = next((label for label in mine.categories if number_of(label) is None), mine.categories[0])
            raise UsageError(f"column {mine.name} holds {word!r}, where numbers are known")
        return dataclasses.replace(theirs, decimals=_most(mine.decimals, theirs.decimals)), values
    if not mine.categories:
        raise UsageError(f"column {mine.name} holds numbers, where {', '.join(theirs.categories[:3])} are known")
    known = {_plain(label, theirs): code for code, label in enumerate(theirs.categories)}
    new = [label for label in mine.categories if _plain(label, theirs) not in known]
    known |= {_plain(label, theirs): len(known) + number for number, label in enumerate(new)}
    labels = (*theirs.categories, *new)
    codes = np.array([known[_plain(label, theirs)] for label in mine.categories], np.float64)
    recoded = values.copy()
    recoded[there] = codes[values[there].astype(int)]
    return dataclasses.replace(theirs, categories=labels), recoded


def _plain(label: str, column: Column) -> str:
    """Return a label as it is compared: truth values may be written in large or small letters."""
    return label.lower() if column.kind == "boolean" else label


def _most(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else max(one, other)


def _difference(names: list[str], wanted: list[str]) -> str:
    absent = [name for name in wanted if name not in names]
    new = [name for name in names if name not in wanted]
    if absent:
        return f"the table has no column {absent[0]!r}, which is needed"
    if new:
        return f"the table has a column {new[0]!r}, which is not known; leave it out, or keep it"
    return "the columns are in another order than they are known in"
