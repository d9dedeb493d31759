"""How values become cells of a column again: missing ones filled, or all of them typed.

Missing cells alone are filled: nobody's observation is written anew.
"""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unperturb.data.digits import digits_of
from unperturb.data.numerals import number_of
from unperturb.data.table_columns import Column, Floats, Frame, Series, dense, held, may_be_decimal
from unperturb.errors import UsageError


def fill(cells: Series, column: Column, values: Floats, filling: Floats) -> tuple[Series, Floats]:
    """Put values into missing cells.

    Parameters
    ----------
    cells
        A pandas column.
    column, values
        What `understand` said of it.
    filling
        ``(rows,)``: what the missing cells become, codes for categories. Where it is NaN, and where a cell is not
        missing, the cell stays as it is, and so it does where no category is known. Numbers are rounded to the decimals
        of the column, and kept within what its type can hold.

    Returns
    -------
    cells
        A column of the same type.
    values
        What it now holds: the values as rounded.
    """
    places = np.flatnonzero(np.isnan(values) & ~np.isnan(filling))
    if not places.size or (column.kind == "category" and not column.categories):
        return cells, values
    whole = dense(cells)
    if whole is not cells:
        filled, values = fill(whole, column, values, filling)
        return filled.astype(cells.dtype), values
    if np.isnan(values).all() and (column.categories or column.kind == "integer"):
        cells = _open_to(cells, column)
    kind, wanted, filled = held(cells), filling[places], values.copy()
    if column.kind == "integer":
        wanted = np.rint(wanted) + 0.0
    if column.categories:
        filled[places] = wanted
        if kind == "text":
            return _placed(cells, places, [column.categories[int(code)] for code in wanted]), filled
        if column.kind == "boolean":
            return _placed(cells, places, [bool(code) for code in wanted]), filled
        return _placed(cells, places, [_of_label(cells, values, column, int(code)) for code in wanted]), filled
    new: list[Any]
    if kind == "text":
        digits = digits_of(values)
        plain = [_written(value, column, digits) for value in wanted]
        new = [column.numerals.written(text) for text in plain]
        filled[places] = [float(text) for text in plain]
    elif kind == "category":
        raise UsageError(f"column {column.name!r} would become numbers, which its type does not have; change it there.")
    else:
        new = _numbers_like(cells, column, wanted)
        filled[places] = [float(value) for value in new]
    return _placed(cells, places, new), filled


def _of_label(cells: Series, values: Floats, column: Column, code: int) -> Any:
    """Return what stands for a category in cells of any type: what a cell has that is of it, or what its type allows.

    Raises
    ------
    UsageError
        Where no cell is of it, as it was learned from another table, and the type of the column has no such value.
    """
    found = np.flatnonzero(values == code)
    if found.size:
        return cells.iloc[found[0]]
    label = column.categories[code]
    for value in getattr(cells.dtype, "categories", ()):
        if str(value).strip() == label:
            return value
    number = number_of(label)
    kind = getattr(cells.dtype, "kind", "O")
    if number is not None and (kind == "f" or (kind in "iu" and number.is_integer())):
        return number
    if cells.dtype == object and np.isnan(values).all():
        return label
    raise UsageError(f"column {column.name!r} would become {label!r}, which its type does not have; add it there.")


def _open_to(cells: Series, column: Column) -> Series:
    """Return a column without any value as one that can hold those of a column that was learned from another table.

    Where nothing is observed pandas makes a column of floats, whatever is meant to be in it.
    """
    if cells.dtype.kind != "f":
        return cells
    return cells.astype(object if column.categories else "Int64")


def typed(cells: Series, column: Column, values: Floats) -> Series:
    """Return a column of texts as numbers, truth values or categories of pandas, with its missing cells missing."""
    import pandas as pd

    missing = np.isnan(values)
    if column.kind == "category":
        codes = np.where(missing, -1, values).astype(int)
        return pd.Series(pd.Categorical.from_codes(codes, categories=list(column.categories)), index=cells.index)
    if column.kind == "boolean":
        return pd.Series(
            pd.array([None if np.isnan(value) else value == 1 for value in values], "boolean"), cells.index
        )
    if column.kind == "numeric":
        return pd.Series(values, index=cells.index)
    # Long whole numbers have more digits than a float: they are taken from the texts.
    whole = [
        None if gone else int(Decimal(column.numerals.plain(text.strip()) or text.strip()))
        for text, gone in zip(cells, missing, strict=True)
    ]
    fits = all(abs(number) < 2**63 for number in whole if number is not None)
    return pd.Series(pd.array(whole, "Int64") if fits else values, index=cells.index)


def _written(value: float, column: Column, digits: int) -> str:
    """Write a number with the decimals of its column; where these are not known, with so many digits."""
    if column.decimals is None:
        return f"{value:.{digits}g}"
    text = f"{value:.{column.decimals}f}"
    return text.removeprefix("-") if float(text) == 0 else text


def _numbers_like(cells: Series, column: Column, wanted: Floats) -> list[Any]:
    """Return numbers of the type that a column has, kept within its range."""
    observed = cells[cells.notna()]
    example = observed.iloc[0] if len(observed) and may_be_decimal(cells) else None
    if isinstance(example, Decimal):
        return [Decimal(f"{value:.{column.decimals or 0}f}") for value in wanted]
    dtype = _numpy_dtype(cells)
    if dtype.kind in "ui":
        info = np.iinfo(dtype)
        return [min(max(int(value), info.min), info.max) for value in wanted]
    if dtype.kind == "f":
        largest = float(np.finfo(dtype).max)
        return [dtype.type(value) for value in np.clip(wanted, -largest, largest)]
    return [int(value) if column.decimals == 0 else float(value) for value in wanted]


def _numpy_dtype(cells: Series) -> np.dtype[Any]:
    """Return the type of one number: also for the types of pandas and Arrow that know missing cells."""
    dtype = getattr(cells.dtype, "numpy_dtype", cells.dtype)
    return np.dtype(dtype)


def _placed(cells: Series, places: NDArray[np.intp], new: Sequence[Any]) -> Series:
    filled = cells.copy()
    filled.iloc[places] = new
    return filled


def with_columns(cells: Frame, new: Mapping[int, Series]) -> Frame:
    """Return the cells of a table with some columns replaced, by their place, whatever their type and name."""
    import pandas as pd

    columns = [new.get(place, cells.iloc[:, place]) for place in range(cells.shape[1])]
    result = pd.concat(columns, axis=1)
    result.columns = cells.columns
    return result
