"""What a column of a table is.

::

    cells ── understand ── Column, values ── fill ──> cells

A column is numbers, whole numbers, two truth values or categories. `understand` decides which, from the texts of a
file or from the type of a pandas column, and gives every cell a number: itself, or its place among the categories;
NaN where it is missing. The way back is in `unperturb.data.table_cells`.
"""

import functools
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from importlib.util import find_spec
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from unperturb.data.numerals import Numerals, number_of, numerals_of
from unperturb.errors import UsageError

Series = Any
"""A pandas.Series; pandas comes with an extra."""

Frame = Any
"""A pandas.DataFrame likewise."""

Floats = NDArray[np.float64]
Kind = Literal["numeric", "integer", "boolean", "category"]
Held = Literal["text", "number", "boolean", "category", "other"]
"""What the cells of a column are, as they lie in memory."""

MARKS = ("", "?", "NA", "N/A", "n/a", "#N/A", "<NA>", "NaN", "nan", "null", "NULL")
"""Texts that mean a missing cell. White space around them does not count."""

AMONG_NUMBERS = ("-", "--", ".", "None", "none")
"""Texts that mean a missing cell where all others of the column are numbers; elsewhere they may be meant."""

_TRUTHS = (("false", "true"), ("no", "yes"), ("f", "t"), ("n", "y"))
_INFINITE = re.compile(r"[+-]?inf(inity)?", re.IGNORECASE)
_DAY = r"\d{4}(?P<a>[-/.])\d\d?(?P=a)\d\d?|\d\d?(?P<b>[-/.])\d\d?(?P=b)\d{4}|\d\d?/\d\d?/\d\d"
_CLOCK = r"\d\d?:\d\d(:\d\d([.,]\d+)?)?( ?[AaPp][Mm])?( ?(Z|[+-]\d\d:?\d\d))?"
_TIME = re.compile(rf"({_DAY})([ T]{_CLOCK})?|{_CLOCK}", re.ASCII)
_TYPES: dict[Held, set[type]] = {
    "text": {str},
    "boolean": {bool},
    "number": {int, float, Decimal},
    "category": {str, bool, int, float, Decimal},
}
_EXACT = 2.0**53
_WHOLE, _LONG = re.compile(r"[+-]?\d+", re.ASCII), 2**63


@dataclass(frozen=True)
class Column:
    """What is known of a column.

    Attributes
    ----------
    name
        As in the header, without white space around it; ``column 1``, ``column 2`` … where there is no header.
    kind
        ``numeric``, ``integer`` (all that was observed is whole), ``boolean`` or ``category``.
    categories
        For ``boolean`` and ``category``: the texts of the values, the one with code 0 first. False comes before true;
        other categories are sorted, as numbers where all are numbers, or in the order of a pandas category. Each was
        observed. Empty for numbers, and where nothing was observed.
    decimals
        The most digits behind the point that were observed: a number that is filled in gets as many. None where that is
        not known: for floats, and for texts with an exponent.
    numerals
        How texts write the numbers.
    """

    name: str
    kind: Kind
    categories: tuple[str, ...] = ()
    decimals: int | None = None
    numerals: Numerals = field(default_factory=Numerals)


@dataclass(frozen=True)
class Rules:
    """How cells are to be understood.

    Attributes
    ----------
    marks
        Texts that mean a missing cell; those that are numbers do so by their value.
    categories
        Names of columns that are categories, whatever their cells look like.
    decimal
        What stands before the decimals of a number that is a text.
    """

    marks: Collection[str] = MARKS
    categories: Collection[str] = ()
    decimal: str = "."

    def is_mark(self, text: str, number: float | None) -> bool:
        """Whether a text without white space around it, which may be a number, means that a cell is missing."""
        return text in self.texts or (number is not None and number in self.numbers)

    @functools.cached_property
    def texts(self) -> frozenset[str]:
        """The marks as texts."""
        return frozenset(mark.strip() for mark in self.marks)

    @functools.cached_property
    def numbers(self) -> frozenset[float]:
        """The marks that are numbers."""
        found = (number_of(text, point) for text in self.texts for point in {".", self.decimal})
        return frozenset(number for number in found if number is not None)


def understand(cells: Series, name: str, rules: Rules) -> tuple[Column, Floats] | None:
    """Decide what a column is.

    Texts are understood by what they say, wherever they come from: a column of texts that are numbers is numbers, with
    a unit or a sign of money too where all have it (`unperturb.data.numerals`), but whole ones that begin with zeros,
    or are longer than 64-bit integers, are categories. Other cells are what their
    type says, but floats that are all whole are whole numbers, as these become floats where one is missing.

    Parameters
    ----------
    cells
        A pandas column of any type.
    name
        Its name.
    rules
        How to understand cells.

    Returns
    -------
    (column, values) or None
        The values are ``(rows,)``, NaN where missing. None for what is none of the kinds: dates and times of day (also
        as texts, such as ``2024-02-03 04:05``), durations, bytes, lists …

    Raises
    ------
    UsageError
        A column of numbers holds infinity.
    """
    cells = dense(cells)
    kind = held(cells)
    if kind == "text":
        return _from_texts(cells, name, rules)
    if kind == "category" or name in rules.categories:
        return _from_labels(cells, name, rules)
    if kind == "other":
        return None
    values: Floats = cells.to_numpy(dtype=np.float64, na_value=np.nan).copy()
    if kind == "boolean":
        return Column(name, "boolean", ("False", "True")), values
    values[np.isin(values, list(rules.numbers))] = np.nan
    observed = values[~np.isnan(values)]
    if np.isinf(observed).any():
        raise _infinite(name, "inf")
    decimals = _decimals_of_numbers(cells)
    # Beyond 2^53 all floats are whole, and say nothing.
    seem_whole = observed.size and ((observed == np.rint(observed)) & (np.abs(observed) <= _EXACT)).all()
    return Column(name, "integer" if decimals == 0 or seem_whole else "numeric", decimals=decimals), values


def dense(cells: Series) -> Series:
    """Return a sparse column as one that has all its cells."""
    import pandas as pd

    return cells.sparse.to_dense() if isinstance(cells.dtype, pd.SparseDtype) else cells


def held(cells: Series) -> Held:
    """Tell what the cells are, by the type of the column or, where it is `object`, of each."""
    import pandas as pd

    dtype, types = cells.dtype, pd.api.types
    if isinstance(dtype, pd.CategoricalDtype):
        return "category"
    if dtype.kind == "O" and not types.is_extension_array_dtype(dtype):
        found = {_plain(kind) for kind in set(map(type, cells[cells.notna()]))}
        if not found:
            return "number"
        kinds: tuple[Held, ...] = ("text", "boolean", "number", "category")
        return next((each for each in kinds if found <= _TYPES[each]), "other")
    if types.is_bool_dtype(dtype):
        return "boolean"
    if types.is_numeric_dtype(dtype) and not types.is_complex_dtype(dtype):
        return "number"
    return "text" if types.is_string_dtype(dtype) else "other"


def check_twice(names: Sequence[str]) -> None:
    """Refuse names of which two are the same, with a UsageError."""
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UsageError(f"two columns have the name {twice!r}; give each its own.")


def need(package: str) -> None:
    """Refuse to go on without a package of the extra `tables`, with a UsageError."""
    if find_spec(package) is None:
        raise UsageError(f"this needs {package}, which comes with an extra: pip install 'unperturb[tables]'")


def _plain(kind: type) -> type:
    """Return the one of the known types that a type is: those of numpy are among them."""
    # Python's truth values are whole numbers, too: the order counts.
    known = {np.bool_: bool, bool: bool, np.integer: int, int: int, np.floating: float, float: float, str: str}
    return next((named for each, named in known.items() if issubclass(kind, each)), kind)


def _from_texts(cells: Series, name: str, rules: Rules) -> tuple[Column, Floats] | None:
    import pandas as pd

    codes, uniques = pd.factorize(cells)
    counts = np.bincount(codes[codes >= 0], minlength=len(uniques))
    texts = [str(text).strip() for text in uniques]
    numbers = [number_of(text, rules.decimal) for text in texts]
    pairs = zip(texts, numbers, strict=True)
    times: dict[str, int] = {}
    for text, gone, count in zip(texts, [rules.is_mark(*pair) for pair in pairs], counts, strict=True):
        if not gone:
            times[text] = times.get(text, 0) + int(count)
    column, of_text = _column_of_texts(name, times, rules)
    if column is None:
        return None
    # Code -1, a cell that is no text, finds the last.
    values = np.array([*(of_text.get(text, np.nan) for text in texts), np.nan])
    return column, values[codes]


def _column_of_texts(name: str, times: dict[str, int], rules: Rules) -> tuple[Column | None, dict[str, float]]:
    """Decide what a column is by the texts in it and how often each occurs; return the value of each, too."""
    if name not in rules.categories:
        infinite = [text for text in times if _INFINITE.fullmatch(text)]
        texts = [text for text in times if text not in AMONG_NUMBERS and text not in infinite]
        numerals = numerals_of(texts, rules.decimal)
        if numerals and (texts or infinite):
            plain = {text: numerals.plain(text) or "" for text in texts}
            if not infinite and _are_codes(plain.values()):
                return _category(name, texts, rules)
            values = {text: float(number) for text, number in plain.items()}
            infinite += [text for text, number in values.items() if np.isinf(number)]
            if infinite:
                raise _infinite(name, infinite[0])
            values = {text: number for text, number in values.items() if number not in rules.numbers}
            return _numbers(name, [plain[text] for text in values], numerals), values
        if not times:
            return Column(name, "numeric", numerals=Numerals(rules.decimal)), {}
        for pair in _TRUTHS:
            if {text.lower() for text in times} == {*pair}:
                labels = tuple(
                    max((text for text in times if text.lower() == each), key=lambda text: times[text]) for each in pair
                )
                column = Column(name, "boolean", labels, numerals=Numerals(rules.decimal))
                return column, {text: float(pair.index(text.lower())) for text in times}
        if all(map(_TIME.fullmatch, times)):
            return None, {}
    return _category(name, times, rules)


def _category(name: str, texts: Collection[str], rules: Rules) -> tuple[Column, dict[str, float]]:
    labels = _ordered(texts)
    column = Column(name, "category", labels, numerals=Numerals(rules.decimal))
    return column, {label: float(code) for code, label in enumerate(labels)}


def _are_codes(texts: Collection[str]) -> bool:
    """Whether texts are whole numbers that a number does not keep: zip codes as 00371, or very long identifiers."""
    return all(map(_WHOLE.fullmatch, texts)) and any(
        (len(text) > 1 and text.startswith("0")) or abs(Decimal(text)) >= _LONG for text in texts
    )


def _numbers(name: str, plain: Sequence[str], numerals: Numerals) -> Column:
    """Return the column of numbers that Python writes like this."""
    if not plain or any("e" in text.lower() for text in plain):
        return Column(name, "numeric", numerals=numerals)
    decimals = max(len(text.partition(".")[2]) for text in plain)
    whole = all(float(text).is_integer() for text in plain)
    return Column(name, "integer" if whole else "numeric", decimals=decimals, numerals=numerals)


def _from_labels(cells: Series, name: str, rules: Rules) -> tuple[Column, Floats]:
    import pandas as pd

    try:
        codes, uniques = pd.factorize(cells)
    except (TypeError, NotImplementedError):
        raise UsageError(f"column {name!r} holds lists or the like, which are no categories; leave it out.") from None
    texts = [str(value).strip() for value in uniques]
    known = {text for text in texts if not rules.is_mark(text, number_of(text))}
    declared = [str(value).strip() for value in getattr(cells.dtype, "categories", ())]
    labels = tuple(dict.fromkeys(text for text in declared if text in known)) or _ordered(known)
    of_text = {label: float(code) for code, label in enumerate(labels)}
    values = np.array([*(of_text.get(text, np.nan) for text in texts), np.nan])
    return Column(name, "category", labels), values[codes]


def _ordered(texts: Collection[str]) -> tuple[str, ...]:
    """Sort as numbers if all are numbers, else as texts."""
    numbers = {text: number_of(text) for text in texts}
    are_numbers = None not in numbers.values()
    return tuple(sorted(texts, key=lambda text: (numbers[text] if are_numbers else 0, text)))


def _decimals_of_numbers(cells: Series) -> int | None:
    import pandas as pd

    if pd.api.types.is_integer_dtype(cells.dtype):
        return 0
    observed = list(cells[cells.notna()]) if may_be_decimal(cells) else []
    if observed and all(isinstance(cell, Decimal) for cell in observed):
        return max(max(0, -int(cell.as_tuple().exponent)) for cell in observed if cell.is_finite())
    return 0 if observed and all(isinstance(cell, int | np.integer) for cell in observed) else None


def may_be_decimal(cells: Series) -> bool:
    """Whether numbers of the type `Decimal` may be among the cells."""
    return cells.dtype.kind == "O" or "decimal" in str(cells.dtype)


def _infinite(name: str, text: str) -> UsageError:
    return UsageError(f"column {name!r} holds {text}, which is no number to learn from; replace it or mark it missing.")
