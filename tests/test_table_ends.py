"""How far cells may lie beyond what was observed of a column."""

import json
import signal
import threading

import numpy as np
import pytest
import torch
from scipy import stats

from unperturb.app.columns import cards_of
from unperturb.app.imputing import Learning, learn_rows
from unperturb.data.table_ends import FEWEST, ends_of, is_multiplied
from unperturb.errors import UsageError
from unperturb.infer.impute import best, bounds, draws
from unperturb.model.checkpoint import read_tensors, write_tensors
from unperturb.model.joint import LARGEST
from unperturb.model.row_model import FORMAT, ColumnCard, RowModel, load_rows, save_rows
from unperturb.model.rows import Belief, RowSettings
from unperturb.train.rows import RowTraining

AT_ONCE = Learning(members=1, training=RowTraining(least=1, most=1))
ROW = np.arange(1.0, 101)
MOST = float(np.finfo(np.float64).max)


@pytest.mark.parametrize(
    ("observed", "low", "high"),
    [
        (ROW - 0.5, 0, 100),
        (ROW / 102, 0, 1),
        (ROW / 50 - 1.005, -1, 1),
        (np.clip(2 * ROW, 5, 196), 5, 196),
        (50 * ROW[:19], 50, 950),
        (0 * ROW + 3, 3, 3),
        (np.array([4.0]), 4, 4),
    ],
    ids=["percents", "shares", "correlations", "shared ends", "few", "constant", "one"],
)
def test_where_something_speaks_against_it_nothing_lies_beyond(observed, low, high):
    """Breaks: ranges left out; ends that are shared go on; few cells tell as well."""
    found = ends_of(observed)
    assert low <= found[0] <= observed.min()
    assert observed.max() <= found[1] <= high


def test_numbers_of_any_size_have_ends():
    """Of even numbers the next is at most two steps away. Break: differences that are no numbers."""
    for size in (1e-300, 1.0, 1.7e306):
        assert ends_of(size * (ROW - 50)) == pytest.approx((-50.92 * size, 51.92 * size), rel=1e-3)
    assert ends_of(MOST / 100 * ROW)[1] == MOST
    tiny = np.append(10.0 ** np.linspace(-250, -163, 9), np.linspace(0.01, 1, 51))
    assert 0 < ends_of(tiny)[0] < 1e-250
    assert is_multiplied(10.0 ** np.linspace(-300, 0, 80))


@pytest.mark.parametrize("law", ["norm", "expon", "uniform", "laplace"])
@pytest.mark.parametrize("count", [50, 400])
def test_most_of_the_next_cells_lie_within_the_ends(law, count):
    """Beyond all of n lies the next with probability 1 / (n + 1), on either side. Breaks: no room; thrice as much."""
    law = getattr(stats, law)()
    samples = law.rvs((400, count), random_state=np.random.default_rng(0)) + 200  # 0 speaks against nothing
    ends = np.array([ends_of(sample) for sample in samples]) - 200
    beyond = np.array([law.cdf(ends[:, 0]).mean(), law.sf(ends[:, 1]).mean()]) * (count + 1)
    assert (beyond < 0.5).all()
    # No farther than where one of a hundred such columns has its next cell, mostly.
    farthest = law.isf(0.01 / (count + 1)) + 0.3 * law.std()
    assert np.median(ends[:, 1]) < farthest


def test_what_is_positive_stays_so():
    """And what is negative. Breaks: no logarithms; logarithms of one side alone."""
    observed = np.exp(2 * np.random.default_rng(0).standard_normal(200))
    low, high = ends_of(observed)
    assert observed.min() / 20 < low < observed.min()
    assert high > observed.max()
    assert ends_of(-observed) == (-high, -low)
    assert ends_of(np.append(observed, 0))[0] == 0


def test_logarithms_are_told_of_what_differs_by_factors():
    """In any units. Breaks: units matter; of all that is positive; of codes."""
    generator = np.random.default_rng(0)
    normal = generator.standard_normal(200)
    for unit in (1e-290, 1.0, 1e290):
        assert is_multiplied(unit * np.exp(normal))
        assert not is_multiplied(unit * (6 + normal))
    assert not is_multiplied(generator.uniform(1, 9, 200))
    assert not is_multiplied(np.append(np.exp(normal), 0))
    assert not is_multiplied(10.0 ** generator.integers(0, 4, 200))
    assert not is_multiplied(np.exp(normal[: FEWEST - 1]))
    assert ends_of(np.exp(normal), logarithm=True) == pytest.approx(np.exp(ends_of(normal)))


def test_what_columns_have_to_do_with_each_other_says_how_they_are_told():
    """By amounts: as they are, though by itself one looks lognormal. Breaks: each by itself; no mean of logarithms."""
    generator = np.random.default_rng(0)
    normal = generator.standard_normal((200, 3))
    factor = np.exp(normal[:, 0])
    weight = 5 + factor + 0.02 * normal[:, 1]  # what a wine weighs goes with the amount of its sugar
    for unit in (1e-6, 1.0, 1e6):
        assert told_as_logarithms(unit * factor, 6 + 0.2 * normal[:, 1]) == [True, False]
        assert told_as_logarithms(unit * factor, weight) == [False, False]
        assert told_as_logarithms(unit * factor, factor**2 * np.exp(0.1 * normal[:, 2])) == [True, True]
    many = [generator.standard_normal(200) for _ in range(LARGEST)]
    assert told_as_logarithms(factor, 6 + normal[:, 1], 2 * factor, *many)[:3] == [True, False, True]  # too many
    category, empty = np.arange(200.0) % 3, np.full(200, np.nan)
    settings = RowSettings((3, 1, 1), (True, False, False))
    cards = cards_of(np.stack([category, empty, factor], 1), settings)
    assert [(card.logarithm, card.seen) for card in cards] == [(False, True), (False, False), (True, True)]


def told_as_logarithms(*columns: np.ndarray) -> list[bool]:
    values = np.stack(columns, 1)
    values = np.where(np.random.default_rng(1).random(values.shape) < 0.2, np.nan, values)
    count = len(columns)
    return [card.logarithm for card in cards_of(values, RowSettings((1,) * count, (False,) * count))]


def test_what_differs_by_factors_is_known_by_factors(tmp_path):
    """Of a number that spans four decades, known to a half. Breaks: no logarithms; the mean of those for the mean."""
    generator = np.random.default_rng(0)
    middle = 2 * generator.standard_normal(300)
    values = np.stack([np.exp(middle), middle + 0.8 * generator.standard_normal(300)], 1)
    learning = Learning(members=2, training=RowTraining(least=400, most=400))
    model = learn_rows(values[:200], [0, 0], learning)
    assert [card.logarithm for card in model.columns] == [True, False]
    hidden = np.column_stack([np.full(100, np.nan), values[200:, 1]])
    drawn, guess = draws(model, hidden, 40)[:, :, 0], best(model, hidden)[:, 0]
    assert np.abs(np.log(drawn) - middle[200:]).mean() < 1.1
    low, high = (side[:, 0] for side in bounds(model, hidden, 0.9))
    assert 0.8 < float(((low <= values[200:, 0]) & (values[200:, 0] <= high)).mean()) < 0.97
    assert (low > 0).all()
    assert float(np.median(guess / drawn.mean(0))) == pytest.approx(1, abs=0.1)
    assert float(np.median(guess / np.median(drawn, 0))) > 1.15
    save_rows(model, tmp_path / "rows.safetensors")
    assert np.array_equal(best(load_rows(tmp_path / "rows.safetensors"), hidden)[:, 0], guess)
    unheard = np.array([[0.0, np.nan], [-5, np.nan], [1e-300, np.nan], [values[:, 0].min(), np.nan]])
    told = best(model, unheard)[:, 1]
    assert np.isfinite(told).all()
    assert (told[:3] <= told[3]).all()


def model_of(*cards: ColumnCard) -> RowModel:
    count = len(cards)
    return RowModel(RowSettings((1,) * count, (False,) * count), cards, (), torch.zeros(0, count))


def test_what_goes_beyond_comes_near_an_end_and_does_not_cross():
    """Breaks: cut off at the end; in units of another column; no end; not in order; one side alone."""
    free, heap = ColumnCard(10, 2, 8, 14, 6, 20), ColumnCard(10, 2, 8, 14, 8, 14)
    numbers = torch.tensor(
        [[-99.0, -1.5, -1, 0.5, 2, 2.5, 99], [-99.0, -1.5, -1, 0.5, 2, 2.5, 99]], dtype=torch.float64
    )
    found = model_of(free, heap).restored(numbers.T)
    down, up = 8 - 2 * (1 - np.exp(-0.5)), 14 + 6 * (1 - np.exp(-1 / 6))
    wanted = torch.tensor([[6, down, 8, 11, 14, up, 20], [8, 8, 8, 11, 14, 14, 14]], dtype=torch.float64)
    torch.testing.assert_close(found, wanted.T)
    assert (found[1:-1, 0].diff() > 0).all()


def test_logarithms_come_near_their_ends_as_logarithms():
    """And cells at a shared end are there digit for digit. Breaks: bent in units of the table; e to its logarithm."""
    card = ColumnCard(0, 1, 1, 365, 0.01, 365, logarithm=True)
    told = torch.tensor([0.5, 0.1, 1e-3, 1e-9, 400]).double().log()
    found = model_of(card).restored(told[:, None])[:, 0]
    room = np.log(100)
    wanted = np.exp(-room * (1 - np.exp(np.log([0.5, 0.1, 1e-3, 1e-9]) / room)))
    np.testing.assert_allclose(found[:-1].numpy(), wanted)
    assert found[-1] == 365
    zero = model_of(card).between({0: (0, np.inf)}).restored(told[:, None])[:, 0]
    assert (zero[:4] <= found[:4] * (1 + 1e-9)).all()
    assert (zero > 0).all()


@pytest.mark.parametrize("spread", [0.5, 1.0, 1.5, 2.0])
def test_the_mean_of_what_differs_by_factors_counts_the_largest(spread):
    """Lognormal: exp(s² / 2). Break: 31 quantiles, which hold 97, 89 and 75 hundredths of it from 1 on."""
    card = ColumnCard(0, spread, 1e-9, 1e9, 1e-9, 1e9, logarithm=True)
    levels = RowSettings((1,), (False,)).levels.double()
    quantiles = torch.special.ndtri(levels)[None, None]
    nothing = torch.zeros(1, 1, dtype=torch.float64)
    found = float(model_of(card).mean(Belief(nothing, quantiles, nothing, nothing, nothing)))
    assert found == pytest.approx(np.exp(spread**2 / 2), rel=0.06)


def test_no_heap_of_draws_lies_at_an_end():
    """Of columns whose cells do not. Breaks: draws end where what was observed does; they are cut off."""
    generator = np.random.default_rng(0)
    seen = np.exp(generator.standard_normal((100, 2)))
    model = learn_rows(seen, [0, 0], Learning(members=2, training=RowTraining(least=400, most=400)))
    drawn = draws(model, np.full((500, 2), np.nan), 8)
    low, high = ([getattr(card, end) for card in model.columns] for end in ("low", "high"))
    assert (drawn > 0).all()
    assert float(((drawn <= low) | (drawn >= high)).mean()) < 0.005
    assert 0 < float(((drawn < seen.min(0)) | (drawn > seen.max(0))).mean()) < 0.15


def test_somebody_may_know_the_ends():
    """Breaks: one end alone; what was found out forgotten."""
    model = model_of(ColumnCard(0, 1, -2, 2, -2, 2), ColumnCard(0, 1, -2, 2, -3, 3))
    first, second = model.between({0: (-3, 2), 1: (-np.inf, 5)}).columns
    assert (first.low, first.high) == (-3, 2)
    assert (second.low, second.high) == (-3, 5)
    for ends, why in (({2: (0, 1)}, "lower first"), ({0: (1, 0)}, "lower first"), ({0: (-1, 3)}, "lies between -2")):
        with pytest.raises(UsageError, match=why):
            model.between(ends)
    wide = model_of(ColumnCard(-1.6e308, 1e306, -1.7e308, -1.5e308, -1.7e308, -1.5e308)).between(
        {0: (-np.inf, 1.7e308)}
    )
    assert wide.restored(torch.full((1, 1), 12.0, dtype=torch.float64)).isfinite().all()


def test_models_that_were_kept_before_ends_were_found_keep_within_what_was_observed(tmp_path):
    """Break: everything lies at 0."""
    values = np.random.default_rng(0).standard_normal((40, 2)) + 9
    save_rows(learn_rows(values, [0, 0], AT_ONCE), tmp_path / "rows.safetensors")
    tensors, texts = read_tensors(tmp_path / "rows.safetensors", FORMAT)
    card = json.loads(texts["card"])
    for column, part in zip(card["columns"], values.T, strict=True):
        del column["least"], column["most"]
        column |= {"low": part.min(), "high": part.max()}
    write_tensors(tmp_path / "old.safetensors", FORMAT, tensors, {"card": json.dumps(card)})
    model = load_rows(tmp_path / "old.safetensors")
    drawn = draws(model, np.full((200, 2), np.nan), 2)
    assert [(card.least, card.most) for card in model.columns] == [(part.min(), part.max()) for part in values.T]
    assert (drawn >= values.min(0)).all()
    assert (drawn <= values.max(0)).all()


def test_what_is_far_off_says_what_far_off_says():
    """New rows may hold anything finite. Break: no number any more."""
    values = np.random.default_rng(0).standard_normal((40, 3))
    model = learn_rows(values, [0] * 3, AT_ONCE)
    rows = np.array([[1e39, np.nan, np.nan], [-1e300, np.nan, 0]])
    answers = [best(model, rows), *bounds(model, rows, 0.9), *draws(model, rows, 2)]
    for answer in answers:
        assert np.isfinite(answer).all()
        assert answer[0, 0] == 1e39


def test_learning_stops_where_somebody_asks_for_it():
    """Break: networks that are being trained go on to their end."""
    values, calls = np.random.default_rng(0).standard_normal((40, 3)), []

    def done(step: int, _: int) -> None:
        calls.append(step)
        if len(calls) == 10:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    learning = Learning(members=2, training=RowTraining(least=3000, most=3000), threads=2)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # which is no one's in the background
    try:
        with pytest.raises(KeyboardInterrupt):
            learn_rows(values, [0] * 3, learning, done)
    finally:
        signal.signal(signal.SIGINT, before)
    assert len(calls) < 3000
