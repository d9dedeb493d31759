"""Denoising autoencoders: trained on any data, under any perturbation, honest about what they do not know.

::

    import unperturb as up

    photo = up.read("noisy.png")
    clean = up.restore(photo.as_float(), up.load("natural"), channel_axis=photo.channel_axis)  # its noise is estimated
    up.write(photo.with_float(clean), "restored.png")

Names are loaded when they are first used, so that importing the package is quick and loads no torch.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "unperturb.app.autoencoder": ["DenoisingAutoencoder"],
    "unperturb.app.estimator": ["DenoisingImputer"],
    "unperturb.app.imputing": ["Learning", "learn_rows"],
    "unperturb.data.decoded": ["Preparation", "open_patches"],
    "unperturb.data.diagnosis": ["Measured", "NoiseCurve", "measure_noise"],
    "unperturb.data.listing": ["image_files"],
    "unperturb.data.missing": ["find_missing"],
    "unperturb.data.noise": ["estimate_sigma"],
    "unperturb.data.patches": ["Patches"],
    "unperturb.data.recording": ["Recording", "read", "write"],
    "unperturb.data.table": ["Table", "read_table", "table_of", "write_table"],
    "unperturb.data.table_columns": ["Column"],
    "unperturb.data.tiling": ["Tile", "tiles"],
    "unperturb.errors": ["FileError", "ModelError", "SpecError", "TrainingError", "UnperturbError", "UsageError"],
    "unperturb.infer.calibrate": ["Coverage", "Trial", "calibrate", "find_inflation", "measure", "trials"],
    "unperturb.infer.conformal": ["conformal_scale", "hoeffding_bentkus", "risk_controlled_scale"],
    "unperturb.infer.condition": ["condition", "observed_posterior"],
    "unperturb.infer.density": ["Density", "marginal", "max_entropy", "modes", "of_draws"],
    "unperturb.infer.evaluate": ["Score", "evaluate_image", "perturb"],
    "unperturb.infer.impute": ["best", "bounds", "draws"],
    "unperturb.infer.interval": [
        "Calibration", "Drawing", "Intervals", "calibrations", "find_calibration", "interval", "intervals",
        "pixel_spread", "with_calibration",
    ],
    "unperturb.infer.metrics": ["coverage", "psnr", "ranks", "sharpness", "ssim"],
    "unperturb.infer.observe": ["Observation", "observe"],
    "unperturb.infer.particles": ["ParticleDraws", "sample_observed"],
    "unperturb.infer.places": ["Place", "look", "widest_windows"],
    "unperturb.infer.polish": ["polish"],
    "unperturb.infer.pooling": [
        "Estimate", "Pooled", "coefficients_of", "mean_of", "pool", "quantile_of", "variance_of",
    ],
    "unperturb.infer.posterior": ["Posterior", "blind_posterior"],
    "unperturb.infer.residual": ["Residual", "residual"],
    "unperturb.infer.restore": ["restore"],
    "unperturb.infer.sample": ["METHODS", "State", "sample", "trajectory"],
    "unperturb.infer.statistic": ["Statistic", "region_mean"],
    "unperturb.infer.tiled": ["Compute", "Tiled"],
    "unperturb.infer.uncertainty": [
        "Components", "Moments", "components", "components_of_draws", "moments", "spread", "spread_of_draws",
        "total_variance",
    ],
    "unperturb.model.checkpoint": ["bundled", "load", "save_model"],
    "unperturb.model.camera": ["Camera"],
    "unperturb.model.coloured": ["Coloured"],
    "unperturb.model.card": ["Card"],
    "unperturb.model.denoiser": ["Conditioned", "Denoise", "Denoiser"],
    "unperturb.model.erasure": ["Block", "Erase", "Line", "Scratch"],
    "unperturb.model.exact": ["Empirical", "GaussianMixture"],
    "unperturb.model.level": ["Range"],
    "unperturb.model.linear": [
        "Likelihood", "LinearOperator", "blur_operator", "downsample_operator", "likelihood_of", "mask_operator",
    ],
    "unperturb.model.network": ["PRESETS", "UNet", "UNetSettings", "VectorNet", "VectorNetSettings"],
    "unperturb.model.optics": ["Blur", "Downsample", "Jpeg"],
    "unperturb.model.perturbation": [
        "Choice", "Composition", "Gaussian", "Impulse", "Perturbation", "Perturbed", "Poisson", "PoissonGaussian",
        "Speckle",
    ],
    "unperturb.model.row_model": ["RowModel", "load_rows", "save_rows"],
    "unperturb.model.spec": ["PERTURBATIONS", "parse"],
    "unperturb.model.stabilise": ["Stabiliser", "stabiliser"],
    "unperturb.train.adapt": ["NoisyReport", "learn_noisy"],
    "unperturb.train.fit": ["Progress", "fit"],
    "unperturb.train.noisy": ["NOISY", "Noisy"],
    "unperturb.train.settings": ["FitSettings"],
    "unperturb.train.state": ["FitState"],
    "unperturb.train.objective": ["OBJECTIVES", "absolute_error", "squared_error"],
    "unperturb.train.recordings": ["Recordings"],
    "unperturb.train.run": ["Habits", "Report", "RunFiles", "train_model"],
}  # fmt: skip

_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = ["__version__", *sorted(_HOME)]  # noqa: PLE0604 (all are strings)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'unperturb' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
