"""Rows with missing cells: the joint Gaussian, the network, best guesses, draws, intervals."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from unperturb.app.imputing import Learning, learn_rows
from unperturb.errors import ModelError, UsageError
from unperturb.infer.impute import best, bounds, draws, folds
from unperturb.infer.row_widths import measured_widths, narrowed, quantile
from unperturb.model.joint import LARGEST, JointGaussian, fit_joint
from unperturb.model.neighbours import Described, Memory, Neighbours
from unperturb.model.row_model import RowModel, SharedBelief, Widths, believe, load_rows, save_rows
from unperturb.model.rows import Belief, RowNet, RowSettings
from unperturb.train.rows import RowTraining, _Run, hide, row_loss

QUICK = RowTraining(least=400, most=400)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def gaussian(rows: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return rows of a Gaussian, its mean and its covariance, in units of their own."""
    generator = np.random.default_rng(3)
    factor = generator.standard_normal((5, 5)) * [1, 3, 0.1, 10, 1]
    mean = np.array([5, -2, 0.1, 100, 0])
    values = np.random.default_rng(seed).standard_normal((rows, 5)) @ factor + mean
    return values, mean, factor.T @ factor


def erased(values: np.ndarray, share: float = 0.25, seed: int = 1) -> np.ndarray:
    return np.where(np.random.default_rng(seed).random(values.shape) < share, np.nan, values)


# --- the joint Gaussian -----------------------------------------------------------------------------------------------


def oracle(values: np.ndarray, mean: np.ndarray, covariance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return conditional mean and standard deviation of missing cells, row by row from the covariance."""
    filled, spread = values.copy(), np.zeros_like(values)
    for row, cells in enumerate(values):
        gone = np.isnan(cells)
        if gone.any():
            gain = covariance[np.ix_(gone, ~gone)] @ np.linalg.inv(covariance[np.ix_(~gone, ~gone)])
            filled[row, gone] = mean[gone] + gain @ (cells - mean)[~gone]
            left = covariance[np.ix_(gone, gone)] - gain @ covariance[np.ix_(~gone, gone)]
            spread[row, gone] = np.sqrt(np.diag(left))
    return filled, spread


def test_what_observed_cells_say_of_the_others_is_the_closed_form():
    """Breaks: the covariance in place of the precision; the deviation of cells as if nothing were observed."""
    values, mean, covariance = gaussian(40)
    seen = erased(values)
    joint = JointGaussian(torch.tensor(mean), torch.tensor(np.linalg.inv(covariance)))
    mask = torch.tensor(~np.isnan(seen))
    found, deviation = joint.given(torch.tensor(seen), mask)
    wanted, spread = oracle(seen, mean, covariance)
    assert np.allclose(found, wanted)
    assert np.allclose(deviation, spread, atol=1e-6)


def test_of_many_columns_what_is_missing_is_solved_for_alone():
    """Forty of them; rows that lack nothing, little, most and all.

    Breaks: those that are there first; a step less than is missing; the covariance where the first columns are.
    """
    generator = np.random.default_rng(3)
    loads = generator.normal(size=(40, 60))
    mean, covariance = generator.normal(size=40), loads @ loads.T / 60
    values = generator.multivariate_normal(mean, covariance, 41)
    gone = generator.random(values.shape).argsort(1) < np.arange(41)[:, None]
    seen = torch.tensor(np.where(gone, np.nan, values))
    joint = JointGaussian(torch.tensor(mean), torch.tensor(np.linalg.inv(covariance)))
    found, within = joint.moments(seen, ~seen.isnan())
    wanted, spread = oracle(seen.numpy(), mean, covariance)
    assert np.allclose(found, wanted)
    assert np.allclose(within.diagonal(dim1=1, dim2=2).sqrt(), spread)
    row, (first, second) = 20, np.flatnonzero(gone[20])[[2, 17]]
    there = ~gone[row]
    gain = covariance[np.ix_(gone[row], there)] @ np.linalg.inv(covariance[np.ix_(there, there)])
    left = covariance[np.ix_(gone[row], gone[row])] - gain @ covariance[np.ix_(there, gone[row])]
    assert float(within[row, first, second]) == pytest.approx(left[2, 17])
    torch.testing.assert_close(joint.moments(seen[7:9], ~seen[7:9].isnan())[0], found[7:9])  # whatever other rows lack


def test_a_gaussian_is_found_from_rows_with_missing_cells():
    """20,000 rows. Breaks: the covariance of the filled rows alone; one round of expectation maximisation."""
    values, mean, covariance = gaussian(20_000)
    scale = np.sqrt(np.diag(covariance))
    standard = torch.tensor((erased(values, 0.4) - mean) / scale)
    joint = fit_joint(standard, ~standard.isnan(), 1.0, rounds=100)
    correlation = covariance / np.outer(scale, scale)
    assert np.abs(joint.mean.numpy()).max() < 0.03
    assert np.abs(np.linalg.inv(joint.precision.numpy()) - correlation).max() < 0.04


def test_empty_constant_and_many_columns_are_no_obstacle():
    """Break: a variance of 0 for a constant column."""
    values = normal(30, 4)
    values[:, 0], values[:, 1] = torch.nan, 2.0
    joint = fit_joint(values, ~values.isnan(), 1.0)
    assert all(part.isfinite().all() for part in joint.given(values, ~values.isnan()))
    wide = normal(10, LARGEST + 1)
    wide[:5, 3] = torch.nan
    found, deviation = fit_joint(wide, ~wide.isnan(), 1.0).given(wide, ~wide.isnan())
    assert torch.allclose(found[:5, 3], wide[5:, 3].mean())
    assert torch.allclose(deviation[:5, 3], wide[5:, 3].std(correction=0))


# --- the network ------------------------------------------------------------------------------------------------------

MIXED = RowSettings((1, 3, 1), (False, True, False), width=16, blocks=1, quantiles=7)


def mixed_rows() -> Tensor:
    values = normal(20, 3)
    values[:, 1] = torch.arange(20) % 3
    return values


def test_rows_become_features_and_no_missing_cell_is_one():
    """Breaks: the code −1 of a missing category taken for the last one; NaN let through."""
    values = mixed_rows()
    values[0, 1] = values[1, 0] = torch.nan
    features = MIXED.as_features(values)
    assert features.shape == (20, 5)
    assert features[0, 1:4].tolist() == [0, 0, 0]
    assert features[5, 1:4].tolist() == [0, 0, 1]
    assert features[1, 0] == 0
    assert torch.equal(features[:, 4], values[:, 2])
    assert MIXED.as_mask(~values.isnan())[0].tolist() == [True, False, False, False, True]


def test_untrained_it_says_what_the_joint_gaussian_says():
    """Within what random small weights do. Break: quantiles not in units of the deviation."""
    values = erased(gaussian(500)[0])
    standard = torch.tensor((values - np.nanmean(values, 0)) / np.nanstd(values, 0)).float()
    settings = RowSettings((1,) * 5, (False,) * 5)
    mask = ~standard.isnan()
    joint = fit_joint(settings.as_features(standard), mask, 1.0)
    belief = RowNet(settings, joint).eval()(settings.as_features(standard), mask)
    mean, deviation = joint.given(settings.as_features(standard), mask)
    assert (belief.mean - mean)[~mask].abs().max() < 0.05
    spread = (belief.quantiles[..., -1] - belief.quantiles[..., 0])[~mask] / deviation[~mask]
    assert (spread / (2 * torch.special.ndtri(settings.levels[-1])) - 1).abs().max() < 0.1


def test_what_is_hidden_makes_no_difference():
    """Break: features of hidden cells among what the network is shown."""
    net = RowNet(MIXED, JointGaussian(torch.zeros(5), torch.eye(5)), normal(5, 33).sort(1).values).eval()
    values, mask = mixed_rows(), torch.rand((20, 3), generator=torch.Generator().manual_seed(0)) < 0.5
    features = MIXED.as_features(values)
    other = torch.where(MIXED.as_mask(mask), features, features + 5)
    one, two = net(features, mask), net(other, mask)
    assert all(torch.equal(getattr(one, name), getattr(two, name)) for name in ("mean", "quantiles", "logits"))


def test_the_loss_is_least_for_the_truth():
    """Of a skewed number and a category. Breaks: quantiles mirrored; the chance of another category."""
    settings = RowSettings((1, 2), (False, True), quantiles=9)
    values = torch.stack(
        [normal(4000, seed=1).exp(), (torch.rand(4000, generator=torch.Generator().manual_seed(2)) < 0.3).float()], 1
    )
    truth = torch.quantile(values[:, 0], settings.levels)
    unit = torch.rand((4000, 1), generator=torch.Generator().manual_seed(3))

    def loss(mean: float = 0.0, moved: float = 0.0, turned: bool = False, chance: float = 0.0) -> float:
        quantiles = truth.flip(0) if turned else truth + moved
        share = torch.tensor([0.7 - chance, 0.3 + chance]).log()
        belief = Belief(
            (values[:, :1].mean() + mean).expand(4000, 1), quantiles.expand(4000, 1, 9),
            torch.cat([torch.zeros(1), share]).expand(4000, 3)[:, :3],
            unit, unit,
        )  # fmt: skip
        return float(row_loss(belief, values, torch.ones(4000, 2, dtype=torch.bool), settings, unit))

    least = loss()
    assert least < min(loss(mean=0.2), loss(mean=-0.2), loss(moved=0.2), loss(moved=-0.2), loss(turned=True))
    assert least < min(loss(chance=0.1), loss(chance=-0.1))


def test_weights_that_say_more_are_kept_though_they_are_surer():
    """Whoever is surer learns in smaller units. Break: what was said is judged in the units in which it was said."""

    class Said(torch.nn.Module):
        """Says a number of mean 0 with an error that falls as its weight rises, and its unit faster."""

        settings = RowSettings((1,), (False,), quantiles=3)

        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(()))

        def forward(self, features: torch.Tensor, mask: torch.Tensor, **_: object) -> Belief:  # noqa: ARG002
            error = (1 - self.weight).expand(len(features), 1)
            return Belief(error, error[..., None].expand(-1, 1, 3), error, error**2, torch.ones_like(error))

    rows, cells = torch.zeros(20, 1), torch.ones(20, 1, dtype=torch.bool)
    run = _Run(Said(), rows, rows, ~cells, cells)
    for weight in (0.0, 0.8, 0.4):
        run.average = torch.tensor([weight])
        run._look()
    assert float(run.best) == pytest.approx(0.8)
    assert float(run.net.weight.detach()) == 0, "what is trained stays as it was"


def test_a_run_ends_with_the_best_of_its_averages():
    """Break: with what the last step has made."""
    torch.manual_seed(0)  # of the first weights
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(60, 2, generator=generator)
    hidden = torch.rand(60, 2, generator=generator) < 0.1
    net = RowNet(RowSettings((1, 1), (False, False), width=8, blocks=1))
    net.remember(rows, ~hidden)
    run = _Run(net, rows, rows, ~hidden, hidden)
    assert len(list(run.over(RowTraining(least=30, most=30), generator))) == 30
    ends = torch.cat([weight.flatten() for weight in net.parameters()])
    assert torch.equal(ends, run.best)
    assert not torch.equal(ends, run.average), "it was not the last average that was best"


def test_cells_are_hidden_one_by_one_and_in_the_patterns_of_the_table():
    """Columns 0 and 1 are always missing together. Breaks: a pattern that takes nothing away; cells by rate alone."""
    patterns = torch.ones(100, 4, dtype=torch.bool)
    patterns[:30, :2] = False
    shown = torch.ones(2000, 4, dtype=torch.bool)
    hidden = hide(shown, patterns, (0.4, 0.6), torch.Generator().manual_seed(0))
    pair = (hidden[:, 0] & hidden[:, 1] & ~hidden[:, 2] & ~hidden[:, 3]).float().mean()
    assert pair > 0.15 + 0.5 * 0.06 - 0.04  # three tenths of half of the rows, and some by chance
    assert hidden.any(1).float().mean() > 0.85


# --- like rows --------------------------------------------------------------------------------------------------------


def neighbours(count: int = 30) -> tuple[Neighbours, Described, Memory]:
    """Return attention of two heads over rows of three columns, four rows that ask, and rows that are asked."""
    torch.manual_seed(0)
    mask = torch.rand((count, 3), generator=torch.Generator().manual_seed(1)) < 0.6
    memory = Memory(normal(count, 5), normal(count, 6, seed=2), mask * normal(count, 3, seed=3), mask.float())
    asks = Described(normal(4, 3, seed=4), torch.ones(4, 3), normal(4, 5, seed=5), normal(4, 6, seed=6))
    return Neighbours(5, 6, heads=2), asks, memory


def test_like_rows_say_the_mean_of_what_they_have_observed():
    """Held against sums in a loop. Breaks: missing cells counted as zeros; the metric of another head."""
    layer, asks, memory = neighbours()
    mean, spread = (part.detach() for part in layer(asks, memory))

    def key(plain: Tensor, fine: Tensor, head: int) -> Tensor:
        return (layer.bent(plain) + layer.straight(fine))[:, 16 * head : 16 * (head + 1)]

    for row, head, column in ((0, 0, 0), (1, 1, 2), (3, 0, 1)):
        apart = key(asks.plain, asks.fine, head)[row] - key(memory.plain, memory.fine, head)
        weight = (-apart.detach().square().sum(1)).exp() * memory.seen[:, column]
        value = (weight * memory.values[:, column]).sum() / weight.sum()
        square = (weight * memory.values[:, column].square()).sum() / weight.sum()
        assert mean[row, column, head] == pytest.approx(float(value), abs=2e-3)
        assert spread[row, column, head] == pytest.approx(float((square - value**2).sqrt()), abs=5e-3)


def test_a_row_is_not_asked_of_itself_and_nobody_says_what_the_start_does():
    """Breaks: rows that are left out still counted; not a number where nobody is left."""
    layer, asks, memory = neighbours()
    alike = torch.zeros(4, 30, dtype=torch.bool)
    alike[:, 10:] = True
    few = memory.of(torch.arange(10))
    assert torch.allclose(layer(asks, memory, alike)[0], layer(asks, few)[0], atol=1e-5)
    for said, start in zip(layer(asks, memory, torch.ones_like(alike)), (asks.start, asks.deviation), strict=True):
        assert torch.allclose(said, start[..., None].expand_as(said), atol=1e-3)


def test_rows_of_a_step_do_not_see_themselves_in_the_table():
    """A network with the row's own hidden cell in its memory. Break: `own` not handed on."""
    net = RowNet(MIXED, JointGaussian(torch.zeros(5), torch.eye(5)), normal(5, 33).sort(1).values).eval()
    values, mask = mixed_rows(), torch.ones(20, 3, dtype=torch.bool)
    mask[:, 2] = False
    moved = values.clone()
    moved[7, 2] += 3
    said = []
    for table in (values, moved):
        net.remember(MIXED.as_features(table), torch.ones_like(mask))
        said.append(net(MIXED.as_features(values), mask, own=torch.arange(20)).mean)
    changed = (said[0] - said[1]).abs().amax(1)
    assert changed[7] == 0
    assert changed.max() > 1e-4
    among = torch.tensor([3, 7, 11])
    assert torch.equal(
        net(MIXED.as_features(values[:1]), mask[:1], among=among).mean,
        net(MIXED.as_features(values[:1]), mask[:1], among=among, own=torch.tensor([5])).mean,
    )


def test_a_value_that_rows_share_is_found_again():
    """A column decides another by its last digits, as the number of a site does. Break: keys without fine features."""
    generator = np.random.default_rng(0)
    sites = generator.random(60)
    belongs = generator.standard_normal(60)
    site = generator.integers(0, 60, 900)
    seen = np.stack([sites[site], belongs[site], generator.standard_normal(900)], 1)
    hidden = generator.random(900) < 0.2
    values = seen.copy()
    seen[hidden, 1] = np.nan
    model = learn_rows(seen, [0, 0, 0], Learning(members=1, training=RowTraining(least=900, most=900)))
    error = np.sqrt(np.mean((best(model, seen) - values)[hidden, 1] ** 2)) / belongs.std()
    assert error < 0.5


# --- best guesses, intervals, draws -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def learned() -> tuple[RowModel, np.ndarray, np.ndarray]:
    values, _, _ = gaussian(1500)
    seen = erased(values)
    return learn_rows(seen, [0] * 5, Learning(members=2, training=QUICK)), seen, values


def test_on_gaussian_rows_it_is_as_good_as_the_oracle(learned):
    """Law 15: the best guess, and 95 % intervals."""
    model, seen, values = learned
    _, mean, covariance = gaussian(1)
    gone = np.isnan(seen)
    unit = np.sqrt(np.diag(covariance))
    known, _ = oracle(seen, mean, covariance)
    ours, theirs = (np.sqrt(np.mean(((filled - values) / unit)[gone] ** 2)) for filled in (best(model, seen), known))
    assert ours <= 1.02 * theirs
    low, high = bounds(model, seen, 0.95)
    assert 0.93 < ((values >= low) & (values <= high))[gone].mean() < 0.97


def test_new_rows_are_as_good(learned):
    """Law 15 again, on rows that the model has not seen."""
    model, _, _ = learned
    values, mean, covariance = gaussian(1500, seed=9)
    seen = erased(values, seed=5)
    gone, unit = np.isnan(seen), np.sqrt(np.diag(covariance))
    known, _ = oracle(seen, mean, covariance)
    ours, theirs = (np.sqrt(np.mean(((filled - values) / unit)[gone] ** 2)) for filled in (best(model, seen), known))
    assert ours <= 1.02 * theirs


def test_what_is_observed_comes_back_bit_for_bit(learned):
    """Break: all cells in the units of the table again, rounded on the way."""
    model, seen, _ = learned
    there = ~np.isnan(seen)
    low, high = bounds(model, seen, 0.5)
    for found in (best(model, seen), low, high, *draws(model, seen[:50], 2)):
        assert np.array_equal(found[there[: len(found)]], seen[: len(found)][there[: len(found)]])


def test_drawn_cells_belong_together(learned):
    """Rows of which nothing is observed: draws have the covariance of the table. Break: every cell drawn by itself."""
    model, _, _ = learned
    _, _, covariance = gaussian(1)
    unit = np.sqrt(np.diag(covariance))
    drawn = draws(model, np.full((3000, 5), np.nan), 2).reshape(-1, 5)
    correlation = covariance / np.outer(unit, unit)
    assert np.abs(np.corrcoef(drawn.T) - correlation).max() < 0.12
    assert np.abs(drawn.std(0) / unit - 1).max() < 0.12


def test_draws_are_the_seeds(learned):
    """Breaks: one generator for all draws, so that more draws are other draws."""
    model, seen, _ = learned
    three = draws(model, seen[:40], 3, seed=7)
    assert np.array_equal(three[:2], draws(model, seen[:40], 2, seed=7))
    assert not np.array_equal(three[0], draws(model, seen[:40], 1, seed=8)[0])
    assert not np.array_equal(three[0], three[2])


def test_rows_do_not_know_of_each_other(learned):
    model, seen, _ = learned
    turned = best(model, seen[::-1].copy())[::-1]
    assert np.allclose(turned, best(model, seen), rtol=1e-5, atol=1e-5)
    assert np.allclose(best(model, seen[:1]), best(model, seen)[:1], rtol=1e-5, atol=1e-5)


def near(values: np.ndarray, place: float) -> np.ndarray:
    return np.abs(values - place) < 0.25


def test_categories_are_drawn_as_often_as_they_are():
    """A category that a number decides, three times out of four. Breaks: the most likely one drawn; codes shifted."""
    generator = np.random.default_rng(0)
    number = generator.standard_normal(2000)
    code = np.where(generator.random(2000) < 0.75, number > 0, number <= 0) + 1.0
    code[:20] = 0
    seen = erased(np.stack([number, code], 1), 0.3)
    model = learn_rows(seen, [0, 3], Learning(members=3, training=QUICK))
    asked = np.stack([np.repeat([-1.0, 1.0], 2000), np.full(4000, np.nan)], 1)
    drawn = draws(model, asked, 3)[:, :, 1].reshape(3, 2, 2000)
    # What some 140 rows say near each place, which is within 0.04 of the truth.
    told = [np.nanmean(np.where(np.isnan(seen[:, 1]), np.nan, seen[:, 1] == 1)[near(seen[:, 0], at)]) for at in (-1, 1)]
    assert np.abs((drawn == 1).mean((0, 2)) - told).max() < 0.08
    assert np.array_equal(best(model, asked)[:, 1], np.repeat([1.0, 2.0], 2000))
    low, _ = bounds(model, asked, 0.9)
    assert np.isnan(low[:, 1]).all()


# --- quantiles, widths, folds -----------------------------------------------------------------------------------------


def test_a_distribution_function_is_undone():
    """Break: quantiles taken to be at i/Q."""
    levels = (torch.arange(31) + 0.5) / 31
    quantiles = (3 * levels - 1).expand(5, 31)
    at = torch.tensor([0.02, 0.3, 0.5, 0.77, 0.99])
    half = torch.full((5,), 0.5)
    assert torch.allclose(quantile(quantiles, at, Widths(), half), 3 * at - 1, atol=1e-5)
    widths = Widths((0.2, 0.99), (0.25, 0.75), ((1.0, 1.0), (3.0, 3.0)))
    assert torch.allclose(quantile(quantiles, at, widths, half), 0.5 + 2 * (3 * at - 1.5), atol=1e-5)
    assert torch.allclose(quantile(quantiles, at, widths, 0 * half), 3 * at - 1, atol=1e-5)


def test_widths_make_intervals_hold():
    """Of a network that is sure to be three times as near as it is. Break: the scores of both sides taken together."""
    settings = RowSettings((1,), (False,), quantiles=31)
    values = 3 * normal(5000, 1, seed=4)
    net = RowNet(settings, JointGaussian(torch.zeros(1), torch.eye(1)), torch.zeros(1, 33)).eval().requires_grad_(False)
    hidden = torch.ones(5000, 1, dtype=torch.bool)
    widths = measured_widths([net], values, [hidden])
    belief = believe([net], torch.full((5000, 1), torch.nan))
    for share in (0.5, 0.8, 0.9, 0.95):
        low, high = (
            quantile(belief.quantiles, torch.tensor(level), widths, torch.ones(5000, 1))
            for level in ((1 - share) / 2, (1 + share) / 2)
        )
        assert ((values >= low) & (values <= high)).float().mean() == pytest.approx(share, abs=0.02)


def test_what_networks_are_apart_by_is_not_counted_twice():
    """Draws of several networks are together as wide as the mean of all errs, which is less than one of them does.

    Breaks: nothing taken away; once what they are apart by.
    """
    apart, cells = 0.2, 20000
    medians = math.sqrt(apart) * normal(6, cells, 1, seed=2)
    levels = torch.special.ndtri((torch.arange(31) + 0.5) / 31)  # of a network that errs by 1
    nothing = torch.zeros(cells, 1)
    mean = medians.mean(0)
    belief = SharedBelief(mean, mean[..., None] + levels, nothing, nothing, nothing, medians.var(0, correction=0))
    narrow = narrowed(belief, Widths(), nothing).expand(6, -1, -1)
    chance = torch.rand((6, cells, 1), generator=torch.Generator().manual_seed(3))
    drawn = quantile(medians[..., None] + levels, chance, Widths(), nothing.expand(6, -1, -1), narrow)
    assert float((drawn - mean).square().mean()) == pytest.approx(1 - float(belief.apart.mean()), abs=0.05)


def test_no_cell_is_held_out_by_two_networks():
    """Break: the same cells for all."""
    observed = torch.rand((200, 6), generator=torch.Generator().manual_seed(0)) < 0.8
    parts = folds(observed, 5, 0.1, 3)
    assert torch.stack(parts).sum(0).max() == 1
    assert all(not (part & ~observed).any() for part in parts)
    assert all(0.05 < float(part[observed].float().mean()) < 0.15 for part in parts)


# --- keeping it, and what is refused ----------------------------------------------------------------------------------


def test_a_kept_model_is_the_same(tmp_path):
    """Breaks: widths left out; members in another order."""
    values = erased(gaussian(100)[0])
    model = learn_rows(values, [0] * 5, Learning(members=3, training=RowTraining(least=20, most=20)))
    save_rows(model, tmp_path / "rows.safetensors")
    again = load_rows(tmp_path / "rows.safetensors")
    assert again.widths == model.widths
    assert again.columns == model.columns
    assert np.array_equal(best(again, values), best(model, values))
    assert np.array_equal(draws(again, values, 3), draws(model, values, 3))
    (tmp_path / "no.safetensors").write_bytes(b"no model")
    with pytest.raises(ModelError, match="not a model file"):
        load_rows(tmp_path / "no.safetensors")


def test_the_same_seed_learns_the_same_whatever_the_number_of_threads():
    """Breaks: weights from torch's global generator, unseeded; its dropout, whose generator all threads share."""
    values, training = erased(gaussian(60)[0]), RowTraining(least=60, most=60)
    one = learn_rows(values, [0] * 5, Learning(members=4, training=training, threads=1))
    torch.rand(3)
    two = learn_rows(values, [0] * 5, Learning(members=4, training=training, threads=4))
    assert np.array_equal(best(one, values), best(two, values))
    assert not np.array_equal(best(one, values), best(learn_rows(values, [0] * 5, Learning(4, training, 1)), values))


def test_what_makes_no_sense_is_refused():
    with pytest.raises(UsageError, match="at least one row"):
        learn_rows(np.empty((0, 3)), [0] * 3)
    with pytest.raises(UsageError, match="infinite"):
        learn_rows(np.array([[1.0, np.inf]]), [0, 0])
    with pytest.raises(UsageError, match="codes of column 0"):
        learn_rows(np.array([[3.0], [1.0]]), [2])
    with pytest.raises(UsageError, match="one number a column, 0 for numbers; got 1 of 2"):
        learn_rows(np.zeros((4, 2)), [0])
    with pytest.raises(UsageError, match="3,001 together, and at most 3,000"):
        learn_rows(np.zeros((4, 2)), [3000, 0])
    model = RowModel(RowSettings((1, 1), (False, False)), (), (), torch.zeros(0, 2))
    with pytest.raises(UsageError, match="2 columns"):
        model.standardised(torch.zeros(3, 4))
    with pytest.raises(UsageError, match="at least 1"):
        draws(model, np.zeros((1, 2)), 0)
    with pytest.raises(UsageError, match="1 to 10"):
        Learning(members=11)
