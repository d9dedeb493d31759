"""A table as another one was: new rows of columns that are known."""

import dataclasses
from collections.abc import Mapping, Sequence
from decimal import Decimal

import numpy as np
from numpy.typing import NDArray

from unperturb.data.numerals import number_of
from unperturb.data.table import Table
from unperturb.data.table_columns import AMONG_NUMBERS, Column
from unperturb.errors import UsageError


def matched(table: Table, known: Sequence[Column]) -> Table:
    """Return a table whose columns are those that are known, with the same codes for the same categories.

    Parameters
    ----------
    table
        With columns of the same names, in any order.
    known
        As another table had them.

    Returns
    -------
    Table
        Its columns are in the order that is known, its cells in their own. Categories that are not known come after
        those that are. What kind a column is, is what was known of it.

    Raises
    ------
    UsageError
        Where columns are missing, there are others, or one holds texts where numbers are known.
    """
    table = _without_empty(table, {column.name for column in known})
    names, wanted = [column.name for column in table.columns], [column.name for column in known]
    if sorted(names) != sorted(wanted):
        raise UsageError(_difference(names, wanted))
    table = _with(table, [names.index(name) for name in wanted])
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
    return dataclasses.replace(_with(table, used), kept=(*table.kept, *others))


def _with(table: Table, used: Sequence[int]) -> Table:
    """Return a table of some of the columns, in this order."""
    return dataclasses.replace(
        table,
        columns=tuple(table.columns[at] for at in used),
        values=table.values[:, used],
        places=tuple(table.places[at] for at in used),
    )


def _as_known(mine: Column, theirs: Column, values: NDArray[np.float64]) -> tuple[Column, NDArray[np.float64]]:
    there = ~np.isnan(values)
    if not theirs.categories and {*mine.categories} <= {*AMONG_NUMBERS}:  # among numbers these mean a missing cell
        values = np.where(there & bool(mine.categories), np.nan, values)
        there = ~np.isnan(values)
    if not there.any():
        alike = theirs.numerals.decimal == mine.numerals.decimal
        return (theirs if alike else dataclasses.replace(theirs, numerals=mine.numerals)), values
    if not theirs.categories:
        theirs = dataclasses.replace(theirs, numerals=mine.numerals)
        if mine.categories:
            return theirs, _recoded(values, _numbers(mine))
        return dataclasses.replace(theirs, decimals=_most(mine.decimals, theirs.decimals)), values
    by_value = _by_value(theirs.categories)
    if not mine.categories:
        if not by_value:
            raise UsageError(f"column {mine.name} holds numbers, where {', '.join(theirs.categories[:3])} are known")
        found = np.unique(values[there])
        mine = dataclasses.replace(mine, categories=tuple(repr(float(number)) for number in found))
        values = np.where(there, np.searchsorted(found, values), np.nan)
    compared = [_plain(label, theirs, by_value) for label in mine.categories]
    known = {_plain(label, theirs, by_value): code for code, label in enumerate(theirs.categories)}
    new = [label for label, plain in zip(mine.categories, compared, strict=True) if plain not in known]
    known |= {_plain(label, theirs, by_value): len(known) + number for number, label in enumerate(new)}
    codes = np.array([known[plain] for plain in compared], np.float64)
    return dataclasses.replace(theirs, categories=(*theirs.categories, *new)), _recoded(values, codes)


def _recoded(values: NDArray[np.float64], of_code: NDArray[np.float64]) -> NDArray[np.float64]:
    there = ~np.isnan(values)
    recoded = values.copy()
    recoded[there] = of_code[values[there].astype(int)]
    return recoded


def _numbers(column: Column) -> NDArray[np.float64]:
    """Return the numbers that labels are: whole ones with leading zeros, say."""
    numbers = [number_of(label) for label in column.categories]
    for label, number in zip(column.categories, numbers, strict=True):
        if number is None or np.isinf(number):
            raise UsageError(f"column {column.name} holds {label!r}, where numbers are known")
    return np.array(numbers, np.float64)


def _by_value(labels: Sequence[str]) -> dict[Decimal, str]:
    """Return labels by the numbers that they are; nothing where one is none, or two are the same."""
    found = {number: label for label in labels if (number := _exact(label)) is not None}
    return found if len(found) == len(labels) else {}


def _exact(label: str) -> Decimal | None:
    """Return the number that a label is with all its digits, None where it is none."""
    try:
        return Decimal(label) if number_of(label) is not None else None
    except ArithmeticError:  # of an exponent
        return None


def _plain(label: str, column: Column, by_value: Mapping[Decimal, str]) -> str:
    """Return a label as it is compared: truth values in small letters, and numbers among numbers by their value."""
    number = _exact(label) if by_value else None
    if number is not None:
        return by_value.get(number, label)
    return label.lower() if column.kind == "boolean" else label


def _most(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else max(one, other)


def _difference(names: list[str], wanted: list[str]) -> str:
    absent = [name for name in wanted if name not in names]
    new = [name for name in names if name not in wanted]
    if absent:
        return f"the table has no column {absent[0]!r}, which is needed"
    return f"the table has a column {new[0]!r}, which is not known; leave it out, or keep it"
