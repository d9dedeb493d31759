"""The estimators, as scikit-learn and pandas want them."""

import numpy as np
import pytest

pytest.importorskip("sklearn")
pd = pytest.importorskip("pandas")
from sklearn.base import clone  # noqa: E402
from sklearn.linear_model import LinearRegression  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.utils.estimator_checks import parametrize_with_checks  # noqa: E402

from unperturb.app.estimator import DenoisingImputer  # noqa: E402
from unperturb.errors import UsageError  # noqa: E402


def quick(**more: object) -> DenoisingImputer:
    return DenoisingImputer(n_members=1, max_steps=20, random_state=0, **more)


@parametrize_with_checks([quick()])
def test_it_is_an_estimator(estimator, check):
    """All of scikit-learn's checks; the one of arrays of other libraries runs only where scipy is told to take them."""
    check(estimator)


def rows(n: int = 60) -> np.ndarray:
    generator = np.random.default_rng(0)
    values = generator.standard_normal((n, 3)) @ generator.standard_normal((3, 4))
    values[generator.random((n, 4)) < 0.2] = np.nan
    return values


def test_observed_cells_come_back_bit_for_bit():
    """In the best guess and in every draw, of rows that were learned and of others. Break: float32 on the way."""
    values = rows()
    imputer = quick().fit(values[:40])
    for found in (imputer.transform(values), *imputer.sample_posterior(values, 2)):
        there = ~np.isnan(values)
        assert np.array_equal(found[there], values[there])
        assert np.isfinite(found).all()


def test_several_imputations_differ_and_are_the_seeds():
    values = rows()
    imputer = quick(n_imputations=3).fit(values)
    one, two, three = imputer.sample_posterior(values)
    assert not np.array_equal(one, two)
    assert np.array_equal(three, imputer.sample_posterior(values)[2])
    assert not np.array_equal(one, imputer.sample_posterior(values, 1, random_state=5)[0])
    again = clone(imputer).fit(values)
    assert np.array_equal(again.transform(values), imputer.transform(values))


def test_drawn_frames_keep_names_and_index():
    """Break: arrays, of which columns cannot be named."""
    frame = pd.DataFrame(rows(), columns=list("abcd"), index=np.arange(60) + 7)
    for drawn in quick().fit(frame).sample_posterior(frame, 2):
        assert list(drawn.columns) == list(frame.columns)
        assert drawn.index.equals(frame.index)
        assert drawn.notna().all().all()


def test_intervals_are_around_what_is_missing():
    values = rows()
    values[0] = [np.nan, 1, 2, 3]
    low, high = quick().fit(values).intervals(values, 0.9)
    gone = np.isnan(values)
    assert (low[gone] < high[gone]).all()
    assert np.array_equal(low[~gone], values[~gone])


def test_a_mark_is_a_missing_cell():
    """Break: the mark looked at as a value."""
    values = rows()
    marked = np.where(np.isnan(values), -999.0, values)
    found = quick(missing_values=-999.0).fit_transform(marked)
    assert np.array_equal(found, quick().fit_transform(values))


def test_indicators_and_empty_columns():
    """As scikit-learn's imputers have them. Break: the names of indicators without those that are left out."""
    values = rows()
    values[:, 1] = np.nan
    assert quick().fit_transform(values).shape == (60, 3)
    kept = quick(keep_empty_features=True).fit_transform(values)
    assert kept.shape == (60, 4)
    assert (kept[:, 1] == 0).all()
    imputer = quick(add_indicator=True).fit(pd.DataFrame(values, columns=list("abcd")))
    found = imputer.transform(pd.DataFrame(values, columns=list("abcd")))
    names = imputer.get_feature_names_out()
    assert found.shape[1] == len(names) == 3 + np.isnan(values).any(0).sum()
    assert list(names[:3]) == ["a", "c", "d"]


def mixed() -> "pd.DataFrame":
    generator = np.random.default_rng(1)
    colour = generator.choice(["red", "green"], 50)
    frame = pd.DataFrame(
        {
            "size": np.where(colour == "red", 10.0, 20.0) + generator.standard_normal(50),
            "colour": pd.Categorical(colour, categories=["green", "red", "blue"]),
            "count": pd.array(generator.integers(0, 5, 50), "Int64"),
            "good": pd.array(generator.random(50) < 0.5, "boolean"),
        },
        index=[f"row {number}" for number in range(50)],
    )
    for place, column in enumerate(frame.columns):
        frame.loc[frame.index[place::7], column] = pd.NA if column != "size" else np.nan
    return frame


def test_frames_keep_their_types():
    """Break: codes in place of categories."""
    frame = mixed()
    imputer = quick().fit(frame)
    for found in (imputer.transform(frame), *imputer.sample_posterior(frame, 2)):
        assert not found.isna().to_numpy().any()
        assert (found.dtypes == frame.dtypes).all()
        assert found.index.equals(frame.index)
        for name in frame:
            there = frame[name].notna()
            assert (found[name][there] == frame[name][there]).all()
        assert set(found["colour"]) <= {"red", "green"}


def test_new_frames_may_lack_a_category():
    """Only red is among the new rows, and green is what is missing. Breaks: codes among those of the new rows alone."""
    frame = mixed()
    imputer = DenoisingImputer(n_members=1, max_steps=300, random_state=0).fit(frame)
    new = frame.iloc[:3].assign(size=[10.0, 20.0, 10.0])
    new["colour"] = pd.Categorical(["red", None, "red"], categories=["green", "red", "blue"])
    assert list(imputer.transform(new)["colour"]) == ["red", "green", "red"]
    new["colour"] = pd.Categorical(["red", None, "red"], categories=["red"])
    with pytest.raises(UsageError, match="'green', which its type does not have"):
        imputer.transform(new)
    new = frame.iloc[:1].assign(size=pd.Categorical([None]))
    with pytest.raises(UsageError, match="'size' would become numbers, which its type does not have"):
        imputer.transform(new)


def test_one_new_row_may_lack_what_is_no_number():
    """Breaks: pandas takes a cell of nothing for a number; it takes it for anything else than one."""
    frame = pd.DataFrame({"a": np.linspace(-2, 2, 40), "c": ["p", "q"] * 20, "n": [1, 2] * 20, "t": [True, False] * 20})
    imputer = quick().fit(frame)
    for nothing in (None, np.nan):
        found = imputer.transform(pd.DataFrame([{"a": 1.0, "c": nothing, "n": nothing, "t": nothing}]))
        assert found["c"].iloc[0] in ("p", "q")
        assert found["n"].iloc[0] in (1, 2)
        assert found["t"].iloc[0] in (True, False)
    numbers = quick().fit(frame[["a", "n"]])
    assert np.isfinite(numbers.transform(pd.DataFrame([{"a": 1.0, "n": None}]))).all()


def test_a_mark_is_one_in_frames_as_well():
    """Breaks: it stays in the frame; codes of categories are compared with it; NaN beside it is refused."""
    frame = pd.DataFrame({"n": np.where(np.arange(40) < 5, 0.0, 7.0 + np.arange(40)), "c": ["p", "q"] * 20})
    frame.loc[6, "n"] = np.nan
    imputer = quick(missing_values=0).fit(frame)
    assert imputer.model_.rows[:, 1].isfinite().all()
    assert (imputer.transform(frame)["n"] > 1).all()
    values = rows()
    values[0, 0], values[1, 1] = -999, np.nan
    found = quick(missing_values=-999).fit_transform(values)
    assert np.isfinite(found).all()
    assert (found > -900).all()


def test_empty_columns_of_frames_are_left_out_or_zeros():
    """Break: they stay, and names say that they do not."""
    frame = mixed().assign(nothing=np.nan)
    imputer = quick().set_output(transform="pandas").fit(frame)
    assert list(imputer.transform(frame).columns) == list(imputer.get_feature_names_out()) == list(mixed().columns)
    kept = quick(keep_empty_features=True).fit(frame).transform(frame)
    assert (kept["nothing"] == 0).all()


def test_a_frame_may_hold_no_number():
    """Break: of no numbers no shape is found out."""
    frame = pd.DataFrame({"p": ["a", "b", None] * 8, "q": ["u", "v", "u"] * 8})
    imputer = quick().fit(frame)
    assert set(imputer.transform(frame)["p"]) == {"a", "b"}
    assert not imputer.sample_posterior(frame, 1)[0].isna().to_numpy().any()


def test_frames_of_other_columns_are_refused():
    frame = mixed()
    imputer = quick().fit(frame)
    with pytest.raises((UsageError, ValueError), match="feature names"):
        imputer.transform(frame.drop(columns="size"))
    with pytest.raises(UsageError, match="arrays of numbers"):
        quick(add_indicator=True).fit(frame)
    dated = frame.assign(day=pd.Timestamp("2020-01-01"))
    with pytest.raises(UsageError, match="day"):
        quick().fit(dated)


def test_what_was_fitted_is_what_can_be_given():
    """Break: codes of categories taken for numbers."""
    frame = mixed()
    with pytest.raises(UsageError, match="fitted to a frame"):
        quick().fit(frame).transform(np.zeros((2, 4)))
    with pytest.raises(UsageError, match="fitted to an array of numbers"):
        quick().fit(rows()).transform(frame)


def test_it_works_in_a_pipeline_and_says_its_frame():
    values = pd.DataFrame(rows(), columns=list("abcd"))
    made = make_pipeline(quick(), LinearRegression()).fit(values, values["a"].fillna(0))
    assert made.predict(values).shape == (60,)
    found = quick().set_output(transform="pandas").fit_transform(values)
    assert list(found.columns) == list("abcd")


def test_what_a_frame_holds_is_not_taken_for_missing():
    """Namibia's code, and an empty text. A mark of one's own may be a text. Break: marks of CSV files in frames."""
    frame = pd.DataFrame({"c": ["NA", "DE", ""] * 20, "f": rows()[:, 0]})
    assert quick().fit_transform(frame)["c"].tolist() == frame["c"].tolist()
    assert "" not in set(quick(missing_values="").fit_transform(frame)["c"])


@pytest.mark.parametrize("n_jobs", [-1, -99, 1])
def test_jobs_are_counted_as_scikit_learn_counts_them(n_jobs):
    """Break: handed on as they are, where -1 is no number of threads."""
    values = rows()
    assert np.array_equal(quick(n_jobs=n_jobs).fit_transform(values), quick().fit_transform(values))


def test_what_numbers_lie_between_may_be_said():
    """For all columns or each; what is not finite is found out. Breaks: one side alone; of the first column for all."""
    values = rows()
    low, high = np.nanmin(values, 0) - 1, np.nanmax(values, 0) + 1
    high[1] = np.inf
    cards = quick(min_value=low, max_value=high).fit(values).model_.columns
    found = quick().fit(values).model_.columns
    assert [card.low for card in cards] == pytest.approx(low)
    assert [card.high for card in cards] == pytest.approx([high[0], found[1].high, *high[2:]])
    everywhere = quick(min_value=-1e9, max_value=1e9).fit(values).model_.columns
    assert {(card.low, card.high) for card in everywhere} == {(-1e9, 1e9)}
    frame = pd.DataFrame({"a": [1.0, 2, np.nan, 3], "b": ["x", "y", "x", None]})
    assert quick(max_value=9).fit(frame).model_.columns[0].high == 9


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n_jobs", 0),
        ("max_steps", 0),
        ("max_steps", -1),
        ("missing_values", None),
        ("min_value", "none"),
        ("max_value", [1, 2]),
    ],
)
def test_parameters_that_are_none_are_refused(name, value):
    with pytest.raises(UsageError, match=name):
        quick().set_params(**{name: value}).fit(rows())
    with pytest.raises(UsageError, match="column 0 does not lie between"):
        quick(max_value=-1e9).fit(rows())


@pytest.mark.parametrize("unit", [1e200, 1e-170])
def test_units_make_no_difference_however_large_or_small(unit):
    """Breaks: standard deviations that are infinite, or 0; ends of columns in float32."""
    values = rows()
    found = quick().fit_transform(values * unit)
    np.testing.assert_allclose(found / unit, quick().fit_transform(values), rtol=1e-5, atol=1e-6)


def test_an_empty_category_is_left_out_or_stays():
    """As columns of texts do. Break: refused as one that has no codes."""
    frame = mixed().assign(e=pd.Categorical([None] * 50, categories=["p", "q"]))
    assert list(quick().fit_transform(frame).columns) == list(mixed().columns)
    kept = quick(keep_empty_features=True).fit_transform(frame)
    assert kept["e"].isna().all()
    assert kept["e"].dtype == frame["e"].dtype


@pytest.mark.parametrize("categories", [[1, 2, 3], [True, False], list(pd.date_range("2020-01-01", periods=2))])
def test_new_rows_have_the_categories_that_were_learned(categories):
    """Break: the text of each, where new rows have none of them."""
    cells = (categories * 60)[:60]
    imputer = quick().fit(pd.DataFrame({"c": pd.Categorical(cells), "f": np.arange(60.0)}))
    for nothing in (None, np.nan):
        found = imputer.transform(pd.DataFrame({"c": [nothing], "f": [1.0]}))["c"].iloc[0]
        assert found in categories
        assert type(found) is not str


@pytest.mark.parametrize("nothing", [pd.DatetimeIndex([None] * 60), pd.PeriodIndex([None] * 60, freq="D")])
def test_an_empty_column_of_dates_is_refused_in_a_sentence(nothing):
    """Break: it is handed on as numbers."""
    with pytest.raises(UsageError, match="columns of dates and the like cannot be imputed; leave out d"):
        quick().fit(pd.DataFrame({"x": rows()[:, 0], "d": nothing}))


def test_a_sparse_column_beside_texts_keeps_its_type():
    """Break: it cannot be read."""
    frame = pd.DataFrame({"s": pd.arrays.SparseArray(rows()[:, 0]), "c": ["p", "q"] * 30})
    found = quick().fit_transform(frame)
    assert list(found.dtypes) == list(frame.dtypes)
    assert not found["s"].isna().any()
