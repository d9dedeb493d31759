"""From a file with missing cells to files without: the best guess, draws, and what the report is told."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unperturb.app.imputing import WIDEST, Learning, learn_rows
from unperturb.app.outputs import check_not_input
from unperturb.app.table_report import Filled, report
from unperturb.atomic import check_place, make_folder, whole
from unperturb.data.numerals import Numerals
from unperturb.data.table import SUFFIXES, Table, read_table, write_table
from unperturb.data.table_columns import Column
from unperturb.data.table_ends import check_ends
from unperturb.data.table_match import matched
from unperturb.errors import FileError, UsageError
from unperturb.infer.impute import best, bounds, draws
from unperturb.model.row_model import RowModel, load_rows, save_rows

Rows = NDArray[np.float64]

MANY = 10
"""Categories that make a column doubtful, where they are more than half of its observed cells."""

REPORTED = 20
"""Draws that a report is made from, at least."""

LEVEL = 0.95
"""Share of values that the report's intervals cover."""


@dataclass(frozen=True)
class Imputing:
    """What is asked for.

    Attributes
    ----------
    source, target
        The table, and the file of its best guess. Draws and report lie beside it.
    n_draws
        Drawn tables that are written.
    reading
        What `read_table` is told.
    model
        A model file to use; None to learn the table itself.
    keep_model
        Where the model is written, if it is to be kept.
    learning
        How the table is learned.
    overwrite
        Whether results may replace files.
    between
        Of columns, by name, the least and the greatest value that a cell can have; of others it is found out.
    """

    source: Path
    target: Path
    n_draws: int
    reading: dict[str, Any]
    model: Path | None
    keep_model: Path | None
    learning: Learning
    overwrite: bool
    between: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def drawn(self) -> list[Path]:
        """Return the files that draws are written to."""
        stem, suffix = _split(self.target)
        digits = max(2, len(str(self.n_draws)))
        return [self.target.with_name(f"{stem}_draw{number + 1:0{digits}d}{suffix}") for number in range(self.n_draws)]

    @property
    def report(self) -> Path | None:
        """Return the file that the report is written to; it comes with draws."""
        return self.target.with_name(f"{_split(self.target)[0]}_report.html") if self.n_draws else None

    @property
    def files(self) -> list[Path]:
        """Return all that is written."""
        return [file for file in (self.target, *self.drawn, self.report, self.keep_model) if file is not None]

    def check(self) -> None:
        """Refuse what cannot end well before anything is begun.

        Raises
        ------
        UsageError
            Where the table or the model in use would be replaced, or the output is no kind of table.
        FileError
            Where a result is there already.
        """
        if not self.target.name.lower().endswith(SUFFIXES):
            raise UsageError(f"{self.target}: tables are written as {', '.join(SUFFIXES)}")
        for file in self.files:
            check_place(file)
            check_not_input(file, (self.source,) if self.model is None else (self.source, self.model))
        twice = next((file for file in self.files if self.files.count(file) > 1), None)
        if twice is not None:
            raise UsageError(f"{twice} would be written twice; give another output, or another place for the model")
        taken = [file for file in self.files if file.exists()]
        if taken and not self.overwrite:
            raise FileError(f"{taken[0]} is there already; give --overwrite to replace")

    def run(self, show: Callable[[int, int, str], None]) -> dict[str, Any]:
        """Do it, and return what there is to tell."""
        if self.model is None:
            table = read_table(self.source, **self.reading)
            ends = self._ends(table, table.columns)
            learned, model = table.columns, self._learned(table, show)
        else:
            model = load_rows(self.model)
            learned = columns_of(model, self.model)
            table = matched(read_table(self.source, **self._read_as(learned, model.about)), learned)
            ends = self._ends(table, learned)
        model = model.between(ends)
        known = _known(table, learned)
        some = ~np.isnan(known)
        filled = best(model, known)
        filled[:, _empty(model)] = np.nan
        several = draws(model, known, max(REPORTED, self.n_draws), seed=self.learning.seed) if self.n_draws else None
        written, shown = [(self.target, table.filled(filled))], ""
        if several is not None:
            several[:, :, _empty(model)] = np.nan
            written += [(file, table.filled(drawn)) for file, drawn in zip(self.drawn, several, strict=False)]
            shown = report(Filled(str(self.source), table, filled, several, bounds(model, known, LEVEL), LEVEL))
        make_folder(self.target.parent)  # all is made before anything is written
        for file, made in written:
            write_table(made, file, overwrite=True)
        if self.report is not None:
            with whole(self.report, overwrite=True) as part:
                part.write_text(shown, encoding="utf-8")
        if self.keep_model is not None:
            make_folder(self.keep_model.parent)
            save_rows(model, self.keep_model)
        return _told(self, table, model, some)

    def _read_as(self, learned: Sequence[Column], about: Mapping[str, Any]) -> dict[str, Any]:
        """Return what `read_table` is told, so that what was a category, or meant a missing cell, does so again."""
        named = {column.name for column in learned if column.kind == "category"}
        marks = (*self.reading["marks"], *about.get("marks", ()))
        return {**self.reading, "marks": marks, "categories": tuple({*self.reading["categories"], *named})}

    def _ends(self, table: Table, learned: Sequence[Column]) -> dict[int, tuple[float, float]]:
        """Return what columns lie between, by their numbers; refuse what cannot be before anything is learned."""
        names = [column.name for column in learned]
        found = {}
        for name, (low, high) in self.between.items():
            if name not in names or learned[names.index(name)].categories:
                raise UsageError(f"there is no column of numbers {name!r}, that could lie between {low:g} and {high:g}")
            check_ends(table.values[:, names.index(name)], f"column {name!r}", low, high)
            found[names.index(name)] = _inward(low, high, learned[names.index(name)].decimals)
        return found

    def _learned(self, table: Table, show: Callable[[int, int, str], None]) -> RowModel:
        """Learn the table."""
        if not table.columns or not len(table.values):
            raise UsageError(f"{self.source} has no column that can be learned from")
        sizes = [len(column.categories) for column in table.columns]
        if sum(max(size, 1) for size in sizes) > WIDEST:
            many = ", ".join(
                f"{table.columns[at].name} ({sizes[at]:,})" for at in np.argsort(sizes)[::-1][:5] if sizes[at]
            )
            raise UsageError(
                f"{self.source} has more categories than the {WIDEST:,} that can be learned: {many}; say --keep COLUMN of "
                "those whose texts hardly repeat, such as names, and they are carried through"
            )
        model = learn_rows(table.values, sizes, self.learning, lambda step, steps: show(step, steps, ""))
        about = {
            "table": self.source.name,
            "columns": [dataclasses.asdict(column) for column in table.columns],
            "marks": list(self.reading["marks"]),
        }
        return dataclasses.replace(model, about=about)


def _inward(low: float, high: float, decimals: int | None) -> tuple[float, float]:
    """Return the ends of a column that is written with so many decimals: what is filled in is rounded."""
    if decimals is None:
        return low, high
    unit = 10.0**-decimals
    ends = np.ceil(low / unit - 1e-9) * unit, np.floor(high / unit + 1e-9) * unit
    return (float(ends[0]), float(ends[1])) if ends[0] <= ends[1] else (low, high)


def columns_of(model: RowModel, path: Path) -> tuple[Column, ...]:
    """Return the columns of the table that a model was learned from.

    Raises
    ------
    UsageError
        Where the model was learned from an array, whose columns have no names.
    """
    columns = model.about.get("columns")
    if columns is None:
        raise UsageError(f"{path} was not learned from a table with named columns")
    return tuple(
        Column(
            **{
                **column,
                "categories": tuple(column["categories"]),
                "numerals": Numerals(**column.get("numerals", {})),
            }
        )
        for column in columns
    )


def _known(table: Table, learned: Sequence[Column]) -> Rows:
    """Return the values as a model takes them: a category that it has not learned says nothing to it."""
    values = table.values.copy()
    for index, column in enumerate(learned):
        if column.categories:
            values[values[:, index] >= len(column.categories), index] = np.nan
    return values


def _empty(model: RowModel) -> list[int]:
    """Return the columns of which nothing was observed; nothing can be said of them."""
    return [index for index, column in enumerate(model.columns) if not column.seen]


def _mostly_different(table: Table) -> list[str]:
    """Return the columns that are categories, though most of their observed cells differ: texts, dates, numbers."""
    observed = (~table.missing).sum(0)
    return [
        column.name
        for column, count in zip(table.columns, observed, strict=True)
        if column.kind == "category" and len(column.categories) >= MANY and len(column.categories) > count / 2
    ]


def _told(imputing: Imputing, table: Table, model: RowModel, some: NDArray[np.bool_]) -> dict[str, Any]:
    missing = table.missing
    named = {column.name: int(count) for column, count in zip(table.columns, missing.sum(0), strict=True)}
    return {
        "input": str(imputing.source),
        "output": str(imputing.target),
        "draws": [str(file) for file in imputing.drawn],
        "report": None if imputing.report is None else str(imputing.report),
        "model": None if imputing.keep_model is None else str(imputing.keep_model),
        "rows": len(table.values),
        "columns": [{"name": column.name, "kind": column.kind} for column in table.columns],
        "kept": list(table.kept),
        "kept_missing": table.missing_of_kept((*imputing.reading["marks"], *model.about.get("marks", ()))),
        "missing": {name: count for name, count in named.items() if count},
        "mostly_different": [] if imputing.model is not None else _mostly_different(table),
        "left": [table.columns[index].name for index in _empty(model)],
        "unseen": int((~missing & ~some).sum()),
        "header": table.text is None or table.text.header is not None,
    }


def _split(path: Path) -> tuple[str, str]:
    """Return the name without its suffix, and the suffix, which may be two (.csv.gz)."""
    suffix = "".join(path.suffixes[-2:]) if path.suffix == ".gz" else path.suffix
    return path.name[: len(path.name) - len(suffix)], suffix


def default_output(table: Path) -> Path:
    """Return where the best guess goes where nothing is said: ``<stem>_imputed<suffix>`` beside the table."""
    stem, suffix = _split(table)
    return table.with_name(f"{stem}_imputed{suffix}")
