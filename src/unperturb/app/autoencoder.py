"""A denoising autoencoder over rows, for scikit-learn: denoise, encode, score.

::

    autoencoder = DenoisingAutoencoder(random_state=0).fit(X)
    clean = autoencoder.denoise(X, sigma=0.3)               # the posterior mean, given noise of that level
    features = autoencoder.transform(X)                     # what its last hidden layer makes of each row

Noise is in units of each column's standard deviation in `fit`. Rows with missing cells are for `DenoisingImputer`.
"""

from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from unperturb.errors import UsageError
from unperturb.model.denoiser import Denoiser
from unperturb.model.network import VectorNet, VectorNetSettings
from unperturb.train.fit import fit
from unperturb.train.settings import FitSettings
from unperturb.train.state import FitState

try:
    from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
    from sklearn.utils import check_random_state
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError:
    raise UsageError("this needs scikit-learn, which comes with an extra: pip install 'unperturb[tables]'") from None

Rows = NDArray[np.float64]

BATCH = 128
"""Rows a step, half of them on each of two threads."""

SCORED = 8
"""Noisy versions of every row that `score` looks at."""


class DenoisingAutoencoder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Learns how the columns of a table depend on each other, by giving back rows that noise was added to.

    Parameters
    ----------
    n_components
        Features that `transform` returns: the width of the network.
    n_layers
        Hidden layers.
    noise
        The largest noise that is learned, in units of each column's standard deviation; all levels below it are
        learned as well.
    max_steps
        Steps of training, of 128 rows each.
    learning_rate
        Of Adam.
    random_state
        Of everything random.

    Attributes
    ----------
    denoiser_
        The `Denoiser`, over rows in units of `scale_` around `mean_`.
    mean_, scale_
        ``(n_features,)``; the scale of a constant column is 1.
    n_features_in_, feature_names_in_
        As scikit-learn has them.

    Notes
    -----
    The representation that denoising learns: Vincent et al., "Extracting and composing robust features with denoising
    autoencoders", 2008.
    """

    def __init__(
        self,
        n_components: int = 128,
        *,
        n_layers: int = 3,
        noise: float = 1.0,
        max_steps: int = 2000,
        learning_rate: float = 2e-3,
        random_state: Any = None,
    ) -> None:
        self.n_components = n_components
        self.n_layers = n_layers
        self.noise = noise
        self.max_steps = max_steps
        self.learning_rate = learning_rate
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> Self:  # noqa: N803, ARG002 (scikit-learn's names)
        """Learn from rows without noise, or with as little as there is.

        Parameters
        ----------
        X
            ``(n_samples, n_features)``.
        y
            Not looked at.

        Raises
        ------
        UsageError
            Where a parameter is out of range.
        """
        values = validate_data(self, X, dtype=np.float64, ensure_min_samples=2)
        if not 0 < self.noise < np.inf:
            raise UsageError(f"noise is a number above 0; got {self.noise}")
        size = np.abs(values).max(0)  # squares of what is very large or small are no numbers any more
        unit = np.where(size > 0, size, 1.0)
        self.mean_, deviation = unit * (values / unit).mean(0), unit * (values / unit).std(0)
        # Of a constant column rounding leaves a deviation that is none.
        self.scale_ = np.where(deviation > 1e-12 * np.abs(self.mean_), np.where(deviation > 0, deviation, 1.0), 1.0)
        rows = self._standardised(values)
        settings = FitSettings(
            f"gaussian:sigma=0..{float(self.noise)!r}",
            VectorNetSettings(features=values.shape[1], width=self.n_components, layers=self.n_layers),
            steps=self.max_steps, batch=2, share=1, rate=self.learning_rate, warmup=min(50, self.max_steps),
            decay=0.6, average=0.99, seed=int(check_random_state(self.random_state).randint(2**31 - 1)),
        )  # fmt: skip
        state = FitState.start(settings)
        half = BATCH // settings.batch
        for _ in fit(state, lambda generator, _: rows[generator.integers(len(rows), size=half)], precision="float32"):
            pass
        self.denoiser_: Denoiser = state.averaged.eval().requires_grad_(False)
        return self

    def denoise(self, X: Any, sigma: float | None = None) -> Rows:  # noqa: N803
        """Return the posterior mean of rows that noise was added to.

        Parameters
        ----------
        X
            ``(n_samples, n_features)``.
        sigma
            Standard deviation of the noise, in units of `scale_`: from 0 to `noise`, which it is where None.

        Returns
        -------
        ndarray
            ``(n_samples, n_features)``, in the units of X.

        Raises
        ------
        UsageError
            Where the level is not one that was learned.
        """
        check_is_fitted(self)
        values = validate_data(self, X, dtype=np.float64, reset=False)
        level = self.noise if sigma is None else sigma
        if not 0 <= level <= self.noise:
            raise UsageError(f"sigma is from 0 to {self.noise:g}, the noise that was learned; got {sigma}")
        answer = self.denoiser_(torch.from_numpy(self._standardised(values)), torch.tensor(float(level)))
        restored: Rows = answer.double().numpy() * self.scale_ + self.mean_
        return restored

    def transform(self, X: Any) -> Rows:  # noqa: N803
        """Encode rows: return what the last hidden layer makes of them, taking them for as noisy as `noise` says.

        Parameters
        ----------
        X
            ``(n_samples, n_features)``.

        Returns
        -------
        ndarray
            ``(n_samples, n_components)``.
        """
        check_is_fitted(self)
        values = validate_data(self, X, dtype=np.float64, reset=False)
        network = self.denoiser_.network
        assert isinstance(network, VectorNet)
        rows = torch.from_numpy(self._standardised(values))
        return network.encode(rows, torch.tensor(float(self.noise))).double().numpy()

    encode = transform

    def score(self, X: Any, y: Any = None) -> float:  # noqa: N803, ARG002
        """Return how much of the noise is taken away: 1 is all of it, 0 what knowing the columns' means and scales does.

        Noise of level `noise` is added to every row, the same at every call.

        Parameters
        ----------
        X
            ``(n_samples, n_features)``, about without noise.
        y
            Not looked at.
        """
        check_is_fitted(self)
        values = validate_data(self, X, dtype=np.float64, reset=False)
        rows = np.repeat(self._standardised(values), SCORED, 0)
        noisy = rows + self.noise * np.random.default_rng(0).standard_normal(rows.shape)
        restored = (self.denoise(noisy * self.scale_ + self.mean_) - self.mean_) / self.scale_
        alone = noisy / (1 + self.noise**2)  # the best that any column says of itself, were it Gaussian
        return float(1 - np.square(restored - rows).mean() / np.square(alone - rows).mean())

    @property
    def _n_features_out(self) -> int:
        return self.n_components

    def _standardised(self, values: Rows) -> NDArray[np.float32]:
        return ((values - self.mean_) / self.scale_).astype(np.float32)
