"""The autoencoder over rows, as scikit-learn wants it, and against the closed form of Gaussian rows."""

import numpy as np
import pytest

pytest.importorskip("sklearn")
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

from unperturb.app.autoencoder import DenoisingAutoencoder
from unperturb.errors import UsageError


def quick(**more: object) -> DenoisingAutoencoder:
    return DenoisingAutoencoder(**{"n_components": 16, "max_steps": 10, "random_state": 0, **more})


@parametrize_with_checks([quick()])
def test_it_is_an_estimator(estimator, check):
    """All of scikit-learn's checks."""
    check(estimator)


FACTOR = np.random.default_rng(1).standard_normal((2, 5)) * [1, 10, 0.1, 3, 1]


def rows(n: int, seed: int = 0) -> np.ndarray:
    """Return rows of five columns, of any units, that two numbers decide but for a little."""
    generator = np.random.default_rng(seed)
    own = 0.1 * np.abs(FACTOR).mean(0) * generator.standard_normal((n, 5))
    return generator.standard_normal((n, 2)) @ FACTOR + [5, 0, 1, -40, 2] + own


@pytest.fixture(scope="module")
def learned() -> DenoisingAutoencoder:
    return DenoisingAutoencoder(64, max_steps=1500, random_state=0).fit(rows(3000))


def test_the_answer_is_the_posterior_mean(learned):
    """Of Gaussian rows that is a matrix product. Break: noise in the units of the columns."""
    clean = rows(2000, seed=2)
    sigma = 0.6
    unit = learned.scale_
    noisy = clean + sigma * unit * np.random.default_rng(3).standard_normal(clean.shape)
    covariance = np.cov(((rows(200_000, seed=4) - learned.mean_) / unit).T)
    gain = covariance @ np.linalg.inv(covariance + sigma**2 * np.eye(5))
    best = ((noisy - learned.mean_) / unit) @ gain.T * unit + learned.mean_
    ours, least = (np.square((found - clean) / unit).mean() for found in (learned.denoise(noisy, sigma), best))
    assert ours < 1.06 * least


def test_the_score_is_what_columns_say_of_each_other(learned):
    """Near 0 where they say nothing. Break: the error of noisy rows in place of what each column says of itself."""
    assert 0.4 < learned.score(rows(500, seed=5)) < 1
    generator = np.random.default_rng(0)
    alone = DenoisingAutoencoder(32, max_steps=600, random_state=0).fit(generator.standard_normal((2000, 5)))
    assert abs(alone.score(generator.standard_normal((1000, 5)))) < 0.05


def test_codes_are_features_for_others():
    """Two rings: a line through codes tells them apart, one through points does not. In a pipeline, and searched."""
    generator = np.random.default_rng(0)
    kind = generator.integers(0, 2, 600)
    angle = generator.uniform(0, 2 * np.pi, 600)
    points = np.stack([np.cos(angle), np.sin(angle)], 1) * (1 + kind)[:, None] + 0.1 * generator.standard_normal(
        (600, 2)
    )
    encoded = make_pipeline(DenoisingAutoencoder(32, max_steps=600, random_state=0), LogisticRegression(max_iter=2000))
    assert encoded.fit(points[:400], kind[:400]).score(points[400:], kind[400:]) > 0.9
    assert LogisticRegression().fit(points[:400], kind[:400]).score(points[400:], kind[400:]) < 0.7
    search = GridSearchCV(quick(), {"noise": [0.5, 1.0]}, cv=2).fit(points)
    assert search.best_params_["noise"] in (0.5, 1.0)


def test_a_constant_column_stays_and_what_makes_no_sense_is_refused():
    values = rows(50)
    values[:, 2] = 0.1
    fitted = quick(max_steps=200).fit(values)
    assert np.abs(fitted.denoise(values, 0.0)[:, 2] - 0.1).max() < 0.2
    assert fitted.scale_[2] == 1
    assert list(fitted.get_feature_names_out())[:2] == ["denoisingautoencoder0", "denoisingautoencoder1"]
    with pytest.raises(UsageError, match="from 0 to 1"):
        fitted.denoise(values, 1.5)
    with pytest.raises(UsageError, match="above 0"):
        quick(noise=0.0).fit(values)
    with pytest.raises(ValueError, match="NaN"):
        fitted.transform(np.full((1, 5), np.nan))


def test_noise_may_be_a_number_of_numpys():
    """As a search over a grid gives it. Break: its name goes into the spec."""
    found = GridSearchCV(quick(), {"noise": np.linspace(0.3, 0.6, 2)}, cv=2).fit(rows(40))
    assert found.best_params_["noise"] in (0.3, 0.6)


@pytest.mark.parametrize("unit", [1e200, 1e-170])
def test_units_make_no_difference_however_large_or_small(unit):
    """Break: standard deviations that are infinite, or 0."""
    values = rows(50)
    one, other = quick().fit(values), quick().fit(values * unit)
    np.testing.assert_allclose(other.denoise(values * unit, 0.1) / unit, one.denoise(values, 0.1), rtol=1e-4)
