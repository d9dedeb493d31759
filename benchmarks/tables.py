"""Missing cells of tables, beside scikit-learn's imputers.

::

    python -m benchmarks.tables TABLES… [--rows N] [--masks 10] [--way mcar,mar,mnar] [--methods ours,mean,knn]

Of each table a fifth of the cells is hidden: by chance (mcar), by chance that depends on the first column, which is
never hidden (mar), or on the value itself (mnar). The error is the root of the mean square over hidden numbers, each in
units of the range that is left of its column. Methods that give draws are judged by these as well: the continuous
ranked probability score, in the same units, and how often the middle 95 % of many draws holds the truth.
"""

import json
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from unperturb.app.imputing import learn_rows
from unperturb.data.table import Table, read_table
from unperturb.infer.impute import best, bounds, draws
from unperturb.model.row_model import RowModel

Rows = NDArray[np.float64]

DRAWS = 50
"""Draws that methods which have any are judged by."""


@dataclass(frozen=True)
class Found:
    """What a method made of a table: its best guess, draws ``(draw, row, column)`` and 95 % bounds, if it has any."""

    best: Rows
    draws: Rows | None = None
    bounds: tuple[Rows, Rows] | None = None


def ours(values: Rows, categories: Sequence[int], seed: int) -> Found:
    """Learn the rows as `unperturb impute` does."""
    model: RowModel = learn_rows(values, categories)
    return Found(best(model, values), draws(model, values, DRAWS, seed=seed), bounds(model, values, 0.95))


def mean(values: Rows, categories: Sequence[int], seed: int) -> Found:  # noqa: ARG001 (one signature for all)
    """Fill in the mean of the column."""
    from sklearn.impute import SimpleImputer

    return Found(SimpleImputer().fit_transform(values))


def knn(values: Rows, categories: Sequence[int], seed: int) -> Found:  # noqa: ARG001
    """Fill in the mean of the 5 nearest rows, columns being scaled to 0 … 1."""
    from sklearn.impute import KNNImputer

    low, scale = np.nanmin(values, 0), np.maximum(np.nanmax(values, 0) - np.nanmin(values, 0), 1e-12)
    return Found(KNNImputer(n_neighbors=5).fit_transform((values - low) / scale) * scale + low)


def ridge(values: Rows, categories: Sequence[int], seed: int) -> Found:  # noqa: ARG001
    """Regress each column on the others by Bayesian ridge, ten rounds; draws from its posterior."""
    from sklearn.linear_model import BayesianRidge

    guess = _iterated(BayesianRidge(), seed).fit_transform(values)
    several = [
        _iterated(BayesianRidge(), seed + number, sample_posterior=True).fit_transform(values) for number in range(10)
    ]
    return Found(guess, np.stack(several))


def forest(values: Rows, categories: Sequence[int], seed: int) -> Found:  # noqa: ARG001
    """Regress each column on the others by a random forest, ten rounds, as MissForest does."""
    from sklearn.ensemble import RandomForestRegressor

    trees = RandomForestRegressor(100, max_features="sqrt", n_jobs=-1, random_state=seed)
    return Found(_iterated(trees, seed).fit_transform(values))


def _iterated(estimator: Any, seed: int, **more: Any) -> Any:
    from sklearn.experimental import enable_iterative_imputer  # noqa: F401
    from sklearn.impute import IterativeImputer

    return IterativeImputer(estimator, max_iter=10, random_state=seed, **more)


METHODS: Mapping[str, Callable[[Rows, Sequence[int], int], Found]] = {
    "ours": ours, "mean": mean, "knn": knn, "ridge": ridge, "forest": forest,
}  # fmt: skip


def hidden(values: Rows, way: str, seed: int, share: float = 0.2) -> NDArray[np.bool_]:
    """Return which cells to hide, ``(row, column)``.

    Parameters
    ----------
    values
        ``(row, column)``, complete or not; what is missing is not hidden.
    way
        "mcar", "mar" or "mnar".
    seed
        Of the choice.
    share
        Of the cells of the columns that lose any.
    """
    generator = np.random.default_rng(seed)
    chance = np.full(values.shape, share)
    if way != "mcar":
        ranks = np.argsort(np.argsort(np.nan_to_num(values), axis=0, kind="stable"), axis=0) / max(len(values) - 1, 1)
        chance = 2 * share * (np.repeat(ranks[:, :1], values.shape[1], 1) if way == "mar" else ranks)
    if way == "mar":
        chance[:, 0] = 0
    chosen: NDArray[np.bool_] = (generator.random(values.shape) < chance) & ~np.isnan(values)
    return chosen


@dataclass(frozen=True)
class Row:
    """One method on one table, over all masks."""

    table: str
    way: str
    method: str
    rmse: float
    seconds: float
    crps: float | None
    covered: float | None
    covered_by_bounds: float | None


def run(name: str, table: Table, ways: Sequence[str], methods: Sequence[str], masks: int) -> Iterator[Row]:
    """Measure methods on one table."""
    numbers = [index for index, column in enumerate(table.columns) if not column.categories]
    categories = [len(column.categories) for column in table.columns]
    for way in ways:
        for method in methods:
            found, took = [], 0.0
            for mask in range(masks):
                chosen = hidden(table.values, way, mask)
                seen = np.where(chosen, np.nan, table.values)
                # Peers take numbers; codes of categories are numbers to them.
                start = time.perf_counter()
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # of rounds that did not converge
                    made = METHODS[method](seen, categories, mask)
                took += time.perf_counter() - start
                found.append(_figures(table.values[:, numbers], seen[:, numbers], made, numbers))
            means = [None if part[0] is None else float(np.mean(part)) for part in zip(*found, strict=True)]
            assert means[0] is not None
            yield Row(name, way, method, means[0], took / masks, *means[1:])


def _figures(truth: Rows, seen: Rows, made: Found, numbers: list[int]) -> tuple[float, Any, Any, Any]:
    reach = np.nanmax(seen, 0) - np.nanmin(seen, 0)
    gone = np.isnan(seen) & ~np.isnan(truth) & (reach > 0)  # a column that has but one value left has no units
    scale = np.broadcast_to(reach, truth.shape)[gone]
    wanted = truth[gone]
    rmse = float(np.sqrt(np.mean(((made.best[:, numbers][gone] - wanted) / scale) ** 2)))
    crps = covered = within = None
    if made.draws is not None:
        drawn = np.sort(made.draws[:, :, numbers][:, gone], axis=0)
        crps = float(np.mean(_crps(drawn, wanted) / scale))
        if len(drawn) >= DRAWS:
            # Order statistic k of n exact draws has the level k / (n + 1) on average.
            low, high = np.quantile(drawn, [0.025, 0.975], axis=0, method="weibull")
            covered = float(np.mean((low <= wanted) & (wanted <= high)))
    if made.bounds is not None:
        low, high = (side[:, numbers][gone] for side in made.bounds)
        within = float(np.mean((low <= wanted) & (wanted <= high)))
    return rmse, crps, covered, within


def _crps(drawn: Rows, truth: Rows) -> Rows:
    """Return the score of sorted draws without the bias of few (Ferro, 2014: "fair")."""
    count = len(drawn)
    weights = 2 * np.arange(1, count + 1) - count - 1
    apart: Rows = (weights[:, None] * drawn).sum(0) / (count * (count - 1))
    missed: Rows = np.abs(drawn - truth).mean(0)
    return missed - apart


@click.command()
@click.argument("tables", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--way", default="mcar", show_default=True, help="Out of mcar, mar, mnar.")
@click.option("--methods", default=",".join(METHODS), show_default=True, help="Out of these.")
@click.option("--masks", default=10, show_default=True, help="How many.")
@click.option("--rows", type=int, default=None, help="The first so many rows alone.")
@click.option("-o", "--output", type=click.Path(path_type=Path), default=None, help="A JSON file for the rows.")
def main(tables: tuple[Path, ...], way: str, methods: str, masks: int, rows: int | None, output: Path | None) -> None:
    """Measure, and print one line for each table and method."""
    click.echo("| table | way | method | RMSE | CRPS | draws cover | bounds cover | s |")
    click.echo("| --- | --- | --- | ---: | ---: | ---: | ---: | ---: |")
    measured = []
    for path in tables:
        table = read_table(path)
        if rows is not None:
            table = replace(table, values=table.values[:rows])
        for row in run(path.stem, table, way.split(","), methods.split(","), masks):
            measured.append(asdict(row))
            told = [
                "–" if value is None else f"{value:.4f}" for value in (row.crps, row.covered, row.covered_by_bounds)
            ]
            click.echo(
                f"| {row.table} | {row.way} | {row.method} | {row.rmse:.4f} | {' | '.join(told)} | {row.seconds:.1f} |"
            )
    if output is not None:
        output.write_text(json.dumps(measured, indent=2))


if __name__ == "__main__":
    main()
