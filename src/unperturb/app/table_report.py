"""The report of a table that was filled in: what was missing, in which pattern, what went there, how sure that is."""

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from unperturb.app.pictures import Bytes
from unperturb.app.report import Section, curves, figure, page, table
from unperturb.infer.pooling import Estimate, Pooled, mean_of, pool

if TYPE_CHECKING:
    from unperturb.data.table import Table

Rows = NDArray[np.float64]

PATTERNS = 12
"""Patterns of missing cells that are listed, the most frequent first."""

SHOWN = 24
"""Columns whose distributions are drawn, those with most missing cells first."""

_PICTURED = 400
"""Rows that the picture of missing cells has at most."""


@dataclass(frozen=True, eq=False)
class Filled:
    """What the report is about.

    Attributes
    ----------
    name
        The file.
    table
        As it was read.
    best
        ``(row, column)``: the best guess.
    draws
        ``(draw, row, column)``.
    bounds
        Between which two values missing numbers lie with probability `level`, both ``(row, column)``.
    level
        Of these.
    """

    name: str
    table: "Table"
    best: Rows
    draws: Rows
    bounds: tuple[Rows, Rows]
    level: float

    @property
    def missing(self) -> NDArray[np.bool_]:
        """Which cells were missing and are filled in."""
        return np.isnan(self.table.values) & ~np.isnan(self.best)


def report(filled: Filled) -> str:
    """Return the page."""
    missing = np.isnan(filled.table.values)
    rows, columns = missing.shape
    about = f"{rows} rows, {columns} columns; {100 * missing.mean():.3g} % of the cells are missing"
    return page(f"What was missing in {filled.name}", about, _verdict(filled), [
        Section("Which cells were missing", "One row of the picture a row of the table, dark where a cell is missing."
                + (" Not all rows are shown." if rows > _PICTURED else ""),
                [figure(_picture(missing), "missing cells"), table(_patterns(filled))]),
        Section("Columns", "An interval holds the true value so often as it says, on average over cells, where cells are "
                "missing in the way that cells were hidden for measuring it: by chance, whatever their value.",
                [table(_columns(filled))]),
        Section("What went there", "The distribution of what was observed (blue), and of what was drawn for the missing "
                "cells (red). They need not agree: what is missing may be missing because it is different.",
                _distributions(filled)),
        Section("What follows for means", "Means over all rows. The interval counts in that some cells had to be imputed "
                "(Rubin's rules); information is what is lost of the knowledge of the mean by what is missing.",
                [table(_means(filled))]),
    ])  # fmt: skip


def _verdict(filled: Filled) -> list[str]:
    missing = np.isnan(filled.table.values)
    cells, rows = int(missing.sum()), int(missing.any(1).sum())
    if not cells:
        return ["Nothing is missing."]
    told = [f"{cells} cells are missing, in {rows} of {len(missing)} rows; the others are as they were."]
    wide = [(share, name) for name, share in _open_shares(filled).items()]
    if wide:
        share, name = max(wide)
        told.append(
            f"The least can be said of {name}: what was drawn for it is spread {100 * share:.0f} % as wide as the column "
            "itself. Work with the drawn tables, not with the best guess alone, where that matters."
        )
    empty = [column.name for index, column in enumerate(filled.table.columns) if np.isnan(filled.best[:, index]).all()]
    if empty:
        told.append(f"Nothing at all was observed of {', '.join(empty)}; it stays as it was.")
    return told


def _open_shares(filled: Filled) -> dict[str, float]:
    """Return, for numbers, the spread of the draws of a missing cell over that of the column."""
    found = {}
    for index, column in enumerate(filled.table.columns):
        gone = filled.missing[:, index]
        there = filled.table.values[:, index][~filled.missing[:, index]]
        spread = float(there.std()) if len(there) and not column.categories and gone.any() else 0.0
        if spread > 0:
            found[column.name] = float(np.sqrt(filled.draws[:, gone, index].var(0, ddof=1).mean())) / spread
    return found


def _patterns(filled: Filled) -> list[list[str]]:
    missing = np.isnan(filled.table.values)
    names = [column.name for column in filled.table.columns]
    found = Counter(map(bytes, np.packbits(missing, axis=1)))
    listed = [["missing together", "rows"]]
    for packed, count in found.most_common(PATTERNS):
        flags = np.unpackbits(np.frombuffer(packed, np.uint8), count=len(names)).astype(bool)
        gone = [name for name, flag in zip(names, flags, strict=True) if flag]
        listed.append(
            [", ".join(gone[:6]) + (f" and {len(gone) - 6} more" if len(gone) > 6 else "") or "nothing", f"{count}"]
        )
    rest = sum(found.values()) - sum(count for _, count in found.most_common(PATTERNS))
    return [*listed, ["other patterns", f"{rest}"]] if rest else listed


def _columns(filled: Filled) -> list[list[str]]:
    spreads = _open_shares(filled)
    listed = [["column", "kind", "missing", "observed", f"{100 * filled.level:.0f} % interval, width", "draws' spread"]]
    low, high = filled.bounds
    for index, column in enumerate(filled.table.columns):
        values, gone = filled.table.values[:, index], filled.missing[:, index]
        there = values[~np.isnan(values)]
        width = f"{float((high - low)[gone, index].mean()):.3g}" if gone.any() and not column.categories else ""
        spread = f"{100 * spreads[column.name]:.0f} % of the column's" if column.name in spreads else ""
        count = int(np.isnan(values).sum())
        listed.append([column.name, column.kind, f"{count} ({100 * count / max(len(values), 1):.3g} %)",
                       _observed(there, column.categories), width, spread])  # fmt: skip
    return listed


def _observed(there: Rows, categories: tuple[str, ...]) -> str:
    if not len(there):
        return "nothing"
    if categories:
        codes, counts = np.unique(there, return_counts=True)
        return f"{len(codes)} values, most often {categories[int(codes[counts.argmax()])]}"
    return f"{there.mean():.4g} ± {there.std():.3g}, {there.min():.4g} to {there.max():.4g}"


def _distributions(filled: Filled) -> list[str]:
    missing = filled.missing
    wanted = [index for index in np.argsort(-missing.sum(0), kind="stable") if missing[:, index].any()]
    shown = []
    for index in wanted[:SHOWN]:
        column, gone = filled.table.columns[index], missing[:, index]
        there = filled.table.values[:, index]
        there, drawn = there[~np.isnan(there)], filled.draws[:, gone, index].ravel()
        words = f"{column.name}, {int(gone.sum())} missing"
        if column.categories:
            shown.append(table(_shares(column.categories, there, drawn, words)))
            continue
        bins = int(np.clip(np.sqrt(len(there)), 6, 24))
        both = np.concatenate([there, drawn])
        edges = np.linspace(both.min(), both.max() + 1e-12, bins + 1)
        heights = [(np.histogram(values, edges)[0] / max(len(values), 1)).tolist() for values in (there, drawn)]
        shown.append(curves(((edges[:-1] + edges[1:]) / 2).tolist(), heights, words))
    return shown


def _shares(categories: tuple[str, ...], there: Rows, drawn: Rows, words: str) -> list[list[str]]:
    """Return how often each category was observed and drawn; of many categories, the most frequent."""
    counts = [np.bincount(values.astype(int), minlength=len(categories)) for values in (there, drawn)]
    shares = [count / max(count.sum(), 1) for count in counts]
    often = np.argsort(-shares[0], kind="stable")[:8]
    return [[words, "observed", "drawn"]] + [
        [categories[code], f"{100 * shares[0][code]:.0f} %", f"{100 * shares[1][code]:.0f} %"] for code in often
    ]


def _means(filled: Filled) -> list[list[str]]:
    listed = [["column", "mean", f"{100 * filled.level:.0f} % interval", "information lost"]]
    for index, column in enumerate(filled.table.columns):
        if column.categories or np.isnan(filled.best[:, index]).any() or len(filled.best) < 2:
            continue
        found = _pooled_mean(filled.draws[:, :, index])
        low, high = found.interval(filled.level)
        listed.append(
            [column.name, f"{float(found.estimate):.5g}", f"{float(low):.5g} to {float(high):.5g}",
             f"{100 * float(found.missing_information):.0f} %"]
        )  # fmt: skip
    return listed


def _pooled_mean(draws: Rows) -> Pooled:
    estimates: list[Estimate] = [mean_of(draw) for draw in draws]
    return pool(estimates)


def _picture(missing: NDArray[np.bool_]) -> Bytes:
    """Return missing cells as a picture: dark where missing."""
    rows = missing[np.linspace(0, len(missing) - 1, min(len(missing), _PICTURED)).astype(int)]
    wide, tall = max(1, 480 // rows.shape[1]), max(1, 240 // len(rows))
    gray = np.where(rows, 40, 225).astype(np.uint8).repeat(wide, 1).repeat(tall, 0)
    return np.repeat(gray[..., None], 3, axis=2)
