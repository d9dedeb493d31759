"""Estimators for scikit-learn: tables with missing cells, filled in.

::

    imputer = DenoisingImputer(random_state=0)
    filled = imputer.fit_transform(X)                       # the best guess
    several = imputer.sample_posterior(X, 10)               # what else it could have been

Arrays of numbers come back as such, or as scikit-learn's ``set_output`` says. A pandas frame with other columns than
numbers (categories, texts, truth values) comes back as a frame of the same types.
"""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from unperturb.app.imputing import Learning, learn_rows
from unperturb.data.table import Table, table_of
from unperturb.data.table_columns import held
from unperturb.data.table_ends import check_ends
from unperturb.data.table_match import matched
from unperturb.errors import UsageError
from unperturb.infer.impute import best, bounds, draws
from unperturb.model.machine import cores
from unperturb.train.rows import RowTraining

try:
    from sklearn.base import BaseEstimator, TransformerMixin
    from sklearn.impute import MissingIndicator
    from sklearn.utils import check_random_state
    from sklearn.utils.validation import _check_feature_names_in, check_is_fitted, validate_data
except ImportError:
    raise UsageError("this needs scikit-learn, which comes with an extra: pip install 'unperturb[tables]'") from None

Rows = NDArray[np.float64]


class DenoisingImputer(TransformerMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Fills in missing cells by a denoising autoencoder over rows.

    Parameters
    ----------
    n_imputations
        Draws that `sample_posterior` makes where nothing else is said.
    n_members
        Networks that are trained; None for as many as suit the number of rows.
    max_steps
        The most steps that each is trained for; None for as many as suit the number of rows.
    missing_values
        What marks a missing cell beside NaN: a number, of categories and texts by its text; or a text.
    min_value, max_value
        What numbers lie between, of all columns or ``(n_features,)``; None, and what is not finite, for what is found
        out (`unperturb.data.table_ends`): an end that several cells share, an end of all shares, percents or amounts,
        or somewhat beyond what is there.
    add_indicator
        Whether to add columns that say where something was missing (arrays of numbers only).
    keep_empty_features
        Whether columns of which nothing was observed in `fit` are kept, with zeros where still nothing is, or left out.
    random_state
        Of everything random.
    n_jobs
        Networks that are trained at once; None for all cores, -1 for all, -2 for all but one.

    Attributes
    ----------
    model_
        The `RowModel`.
    n_features_in_, feature_names_in_
        As scikit-learn has them.
    """

    def __init__(
        self,
        *,
        n_imputations: int = 5,
        n_members: int | None = None,
        max_steps: int | None = None,
        missing_values: float | str = np.nan,
        min_value: Any = None,
        max_value: Any = None,
        add_indicator: bool = False,
        keep_empty_features: bool = False,
        random_state: Any = None,
        n_jobs: int | None = None,
    ) -> None:
        self.n_imputations = n_imputations
        self.n_members = n_members
        self.max_steps = max_steps
        self.missing_values = missing_values
        self.min_value = min_value
        self.max_value = max_value
        self.add_indicator = add_indicator
        self.keep_empty_features = keep_empty_features
        self.random_state = random_state
        self.n_jobs = n_jobs

    def fit(self, X: Any, y: Any = None) -> Self:  # noqa: N803, ARG002 (scikit-learn's names)
        """Learn how columns depend on each other.

        Parameters
        ----------
        X
            ``(n_samples, n_features)``: an array of numbers, or a pandas frame.
        y
            Not looked at.
        """
        self._check()
        values, table = self._read(X, reset=True)
        self._columns = None if table is None else table.columns
        self._categoricals = {} if table is None else dict(X.dtypes[[hasattr(kind, "categories") for kind in X.dtypes]])
        self._kept = np.flatnonzero(~np.isnan(values).all(0))
        sizes = [0] * values.shape[1] if table is None else [len(column.categories) for column in table.columns]
        training = RowTraining()
        if self.max_steps is not None:
            training = RowTraining(least=min(training.least, self.max_steps), most=self.max_steps)
        self._seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        threads = self.n_jobs if self.n_jobs is None or self.n_jobs > 0 else max(cores() + 1 + self.n_jobs, 1)
        ends = self._ends(values, sizes)
        self.model_ = learn_rows(values, sizes, Learning(self.n_members, training, self._seed, threads)).between(ends)
        self._indicator = None
        if self.add_indicator:
            self._indicator = MissingIndicator(error_on_new=False).fit(values)
        return self

    def transform(self, X: Any) -> Any:  # noqa: N803
        """Return X with its missing cells filled in by the best guess; the others as they are.

        Parameters
        ----------
        X
            ``(n_samples, n_features)``.

        Returns
        -------
        ndarray or DataFrame
            ``(n_samples, n_features_out)``.
        """
        check_is_fitted(self, "_kept")
        values, table = self._read(X, reset=False)
        filled = best(self.model_, self._known(values))
        return self._written(values, filled, table)

    def sample_posterior(self, X: Any, n_imputations: int | None = None, random_state: Any = None) -> list[Any]:  # noqa: N803
        """Return several versions of X, each with its missing cells drawn from what they may be.

        Parameters
        ----------
        X
            ``(n_samples, n_features)``.
        n_imputations
            How many; those of the estimator where None.
        random_state
            Of the draws; that of `fit` where None.

        Returns
        -------
        list
            Of frames where X is one, else of arrays; columns as `transform` has them.
        """
        check_is_fitted(self, "_kept")
        values, table = self._read(X, reset=False)
        count = self.n_imputations if n_imputations is None else n_imputations
        seed = self._seed if random_state is None else int(check_random_state(random_state).randint(2**31 - 1))
        found = [
            self._written(values, draw, table) for draw in draws(self.model_, self._known(values), count, seed=seed)
        ]
        if table is not None or not hasattr(X, "columns"):
            return found
        return [type(X)(each, index=X.index, columns=self.get_feature_names_out()) for each in found]

    def intervals(self, X: Any, level: float = 0.95) -> tuple[Rows, Rows]:  # noqa: N803
        """Return between which two values every missing number lies with probability `level`.

        Parameters
        ----------
        X
            ``(n_samples, n_features)``.
        level
            Between 0 and 1.

        Returns
        -------
        tuple of ndarray
            Both ``(n_samples, n_features)``: lower and upper ends; an observed number is its own ends, and of missing
            categories and of columns without any value they are NaN.
        """
        check_is_fitted(self, "_kept")
        values, _ = self._read(X, reset=False)
        low, high = bounds(self.model_, self._known(values), level)
        unseen = np.isnan(values).all(0) & ~np.isin(np.arange(values.shape[1]), self._kept)
        low[:, unseen] = high[:, unseen] = np.nan
        return low, high

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[np.object_]:
        """Return the names of the columns that `transform` returns."""
        check_is_fitted(self, "_kept")
        names = _check_feature_names_in(self, input_features)
        names = names if self.keep_empty_features else names[self._kept]
        if self._indicator is None:
            return names
        return np.concatenate(
            [names, self._indicator.get_feature_names_out(_check_feature_names_in(self, input_features))]
        )

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags

    def _check(self) -> None:
        """Refuse parameters that are none."""
        if self.n_jobs == 0:
            raise UsageError("n_jobs is a number of networks, or counted from all cores, -1 being all; got 0")
        if self.max_steps is not None and self.max_steps < 1:
            raise UsageError(f"max_steps is at least 1; got {self.max_steps}")
        if not isinstance(self.missing_values, str | float | int | np.number):
            raise UsageError(f"missing_values is a number, or a text; got {self.missing_values!r}")

    def _ends(self, values: Rows, sizes: Sequence[int]) -> dict[int, tuple[float, float]]:
        """Return what the columns of numbers are told to lie between."""
        sides = []
        for name, none in (("min_value", -np.inf), ("max_value", np.inf)):
            told = getattr(self, name)
            try:
                side = np.broadcast_to(np.asarray(none if told is None else told, np.float64), len(sizes))
            except (TypeError, ValueError):
                raise UsageError(f"{name} is a number, or {len(sizes)} of them, one a column; got {told!r}") from None
            sides.append(np.where(np.isfinite(side), side, none))
        names = getattr(self, "feature_names_in_", range(len(sizes)))
        ends = {at: (float(sides[0][at]), float(sides[1][at])) for at, size in enumerate(sizes) if not size}
        for at, (low, high) in ends.items():
            check_ends(values[:, at], f"column {names[at]}", low, high)
        return ends

    def _read(self, X: Any, *, reset: bool) -> tuple[Rows, Table | None]:  # noqa: N803
        """Return rows as numbers and codes, NaN where missing; and the table, where they are not all numbers."""
        learned = None if reset else self._columns
        if learned is not None and not hasattr(X, "columns"):
            raise UsageError("the imputer was fitted to a frame with other columns than numbers; give such a frame")
        if not reset and learned is None and _is_mixed(X):
            raise UsageError("the imputer was fitted to an array of numbers; this frame has other columns")
        if _is_mixed(X) or learned is not None:
            if self.add_indicator:
                raise UsageError("add_indicator is for arrays of numbers; this frame has other columns")
            validate_data(self, X, reset=reset, skip_check_array=True)
            table = table_of(X if learned is None else self._as_learned(X), marks=self._marks)
            if table.kept:
                raise UsageError(f"columns of dates and the like cannot be imputed; leave out {', '.join(table.kept)}")
            table = table if learned is None else matched(table, learned)
            return table.values.copy(), table
        values = validate_data(self, X, reset=reset, dtype=np.float64, ensure_all_finite="allow-nan")
        if self._marks and not isinstance(self.missing_values, str):
            values = np.where(values == self.missing_values, np.nan, values)
        return np.asarray(values, dtype=np.float64), None

    @property
    def _marks(self) -> tuple[str, ...]:
        """The text of what marks a missing cell beside NaN; in frames nothing else does, "NA" may be Namibia."""
        if isinstance(self.missing_values, str):
            return (self.missing_values,)
        return () if np.isnan(self.missing_values) else (repr(float(self.missing_values)),)

    def _as_learned(self, X: Any) -> Any:  # noqa: N803
        """Return a frame whose columns without any value have the types of the categories that were learned of them."""
        return X.astype({name: kind for name, kind in self._categoricals.items() if X[name].isna().all()})

    def _known(self, values: Rows) -> Rows:
        """Return rows as the model takes them: a category that it has not learned says nothing to it."""
        sizes = np.array(self.model_.settings.sizes)
        unknown = np.array(self.model_.settings.categories) & (values >= sizes)
        return np.where(unknown, np.nan, values)

    def _written(self, values: Rows, filled: Rows, table: Table | None) -> Any:
        """Return filled rows in the kind that they came in."""
        whole = np.where(np.isnan(values), filled, values)
        empty = np.setdiff1d(np.arange(values.shape[1]), self._kept)
        whole[:, empty] = np.where(np.isnan(values[:, empty]), 0.0, values[:, empty])
        if table is not None:
            frame = table.filled(whole).frame()
            return frame if self.keep_empty_features else frame.iloc[:, self._kept]
        kept = whole if self.keep_empty_features else whole[:, self._kept]
        if self._indicator is None:
            return kept
        return np.hstack([kept, self._indicator.transform(values)])


def _is_mixed(X: Any) -> bool:  # noqa: N803
    """Whether it is a pandas frame with columns that are not numbers; without any value, only by their type."""
    dtypes = getattr(X, "dtypes", None)
    if dtypes is None or not hasattr(X, "columns"):
        return False
    others = [X.iloc[:, place] for place, kind in enumerate(dtypes) if getattr(kind, "kind", "O") not in "iuf"]
    return any(column.notna().any() or held(column) == "other" for column in others)
