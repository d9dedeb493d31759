"""A table as another one was: new rows of columns that are known."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from unperturb.data.table import Table
from unperturb.data.table_columns import Column
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
    names, wanted = [column.name for column in table.columns], [column.name for column in known]
    if names != wanted:
        raise UsageError(_difference(names, wanted))
    columns, values = [], table.values.copy()
    for index, (mine, theirs) in enumerate(zip(table.columns, known, strict=True)):
        column, values[:, index] = _as_known(mine, theirs, values[:, index])
        columns.append(column)
    return dataclasses.replace(table, columns=tuple(columns), values=values)


def _as_known(mine: Column, theirs: Column, values: NDArray[np.float64]) -> tuple[Column, NDArray[np.float64]]:
    there = ~np.isnan(values)
    if not theirs.categories or not there.any():
        if mine.categories and there.any():
            raise UsageError(f"column {mine.name} holds {mine.categories[0]!r}, where numbers are known")
        return dataclasses.replace(theirs, decimals=_most(mine.decimals, theirs.decimals)), values
    if not mine.categories:
        raise UsageError(f"column {mine.name} holds numbers, where {', '.join(theirs.categories[:3])} are known")
    labels = (*theirs.categories, *(label for label in mine.categories if label not in theirs.categories))
    codes = np.array([labels.index(label) for label in mine.categories], np.float64)
    recoded = values.copy()
    recoded[there] = codes[values[there].astype(int)]
    return dataclasses.replace(theirs, categories=labels), recoded


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
