"""The diagnosis of noise as a page: variance against brightness, and how far noise reaches."""

from unperturb.app.diagnosing import Diagnosis
from unperturb.app.report import Section, page, plot, table


def diagnosis_page(found: Diagnosis, inputs: str) -> str:
    """Return a self-contained HTML page.

    Parameters
    ----------
    found
        What there is to show.
    inputs
        The names of what was looked at.
    """
    noise = found.noise
    distances = [float(distance) for distance in range(len(noise.autocorrelation))]
    line = [_expected(found, at) for at in noise.brightness.tolist()]
    rows = [("", "value", "95 % interval")]
    for name, measured in (("sigma", noise.sigma), ("gain", noise.gain), ("read", noise.read)):
        rows.append((name, f"{measured.value:.4g}", f"{measured.low:.4g} to {measured.high:.4g}"))
    if noise.whiteness is not None:
        white = noise.whiteness
        rows.append(("whiteness", f"{white.value:.3g}", f"{white.low:.3g} to {white.high:.3g}"))
    faults = found.faults
    rows += [
        ("at black, at white", f"{faults.dark:.2%}, {faults.bright:.2%}", ""),
        ("faulty pixels", f"{faults.faulty:.3%}", ""),
        ("offsets of rows, of columns", f"{faults.rows:.3g}, {faults.columns:.3g}", ""),
        ("grid of JPEG", f"{faults.grid:.2f}", "1 without"),
    ]
    return page(
        "What noise is in it",
        f"{inputs}: {found.looked_at} of {found.files} files",
        [found.spec, *found.advice],
        [
            Section(
                "In numbers", "Levels are in units where white is 1; those of float files in their own.", [table(rows)]
            ),
            Section(
                "How strong, at which brightness",
                "Points: the variance in groups of patches of like brightness. Line: what gain and read say, or sigma alone.",
                [plot(noise.brightness.tolist(), noise.variance.tolist(), line, "brightness", "variance")],
            ),
            Section(
                "How far it reaches",
                "What neighbours have in common, by their distance in pixels; 0 from the first on is white noise.",
                [
                    plot(
                        distances,
                        noise.autocorrelation.tolist(),
                        None,
                        "pixels apart",
                        "in common",
                    )
                ],
            ),
        ],
    )


def _expected(found: Diagnosis, brightness: float) -> float:
    """Return the variance that the answer stands for."""
    noise = found.noise
    return noise.gain.value * brightness + noise.read.value**2 if noise.grows else noise.sigma.value**2
