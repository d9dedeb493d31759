"""What came out: one table, as Markdown and as JSON, and one plot of quality against time.

All three are made of the same rows. A row's PSNR is the mean over pictures; its time is the sum of the seconds over all
calls divided by the sum of the megapixels.
"""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.facts import in_words
from benchmarks.measure import Measurement
from benchmarks.peers import need
from unperturb.atomic import whole
from unperturb.errors import FileError

OURS, THEIRS = "#c2410c", "#475569"

RADIUS = 9
"""Of a point, in pixels of the plot."""

SIDES = (
    ((9, 0), "left", "center"),
    ((-9, 0), "right", "center"),
    ((0, 9), "center", "bottom"),
    ((0, -9), "center", "top"),
    ((7, 7), "left", "bottom"),
    ((-7, 7), "right", "bottom"),
    ((7, -7), "left", "top"),
    ((-7, -7), "right", "top"),
)
"""Where a label may lie: its distance from the point in points, and which part of it is there; the best come first."""


@dataclass(frozen=True)
class Row:
    """One method: mean PSNR in dB by noise level (of 255), and seconds a megapixel."""

    method: str
    psnr: Mapping[float, float]
    seconds_per_megapixel: float


@dataclass(frozen=True)
class Report:
    """All that one run found.

    Attributes
    ----------
    measurements
        One a call.
    settings
        What each method was set to, in words, by its name.
    factors
        Strengths that were tuned, in multiples of sigma, by method and by level.
    machine
        Facts, as `benchmarks.facts.machine` gives them.
    seed
        Of the noise.
    colour
        Whether the pictures were in colour.
    """

    measurements: Sequence[Measurement]
    settings: Mapping[str, str]
    factors: Mapping[str, Mapping[float, float]]
    machine: Mapping[str, Any]
    seed: int
    colour: bool = False

    @property
    def levels(self) -> list[float]:
        """Noise levels of 255, rising."""
        return sorted({each.level for each in self.measurements})

    @property
    def middle(self) -> float:
        """The level that the plot shows."""
        return self.levels[len(self.levels) // 2]

    @property
    def rows(self) -> list[Row]:
        """One a method, in the order of measuring."""
        return [self._row(name) for name in dict.fromkeys(each.method for each in self.measurements)]

    def _row(self, method: str) -> Row:
        mine = [each for each in self.measurements if each.method == method]
        means = {level: fmean(each.psnr for each in mine if each.level == level) for level in self.levels}
        return Row(method, means, sum(each.seconds for each in mine) / sum(each.megapixels for each in mine))


def write(report: Report, folder: Path) -> list[Path]:
    """Write ``denoise.md``, ``denoise.json`` and ``denoise.png`` into a folder, in place of what is there.

    Returns
    -------
    list of Path
        The three files.
    """
    make(folder)
    writers: dict[str, Callable[[Path], object]] = {
        "denoise.md": lambda path: path.write_text(as_markdown(report), encoding="utf-8"),
        "denoise.json": lambda path: path.write_text(json.dumps(as_json(report), indent=1) + "\n", encoding="utf-8"),
        "denoise.png": lambda path: plot(report, path),
    }
    for name, write_to in writers.items():
        with whole(folder / name, overwrite=True) as temporary:
            write_to(temporary)
    return [folder / name for name in writers]


def make(folder: Path) -> None:
    """Make a folder where it is missing.

    Raises
    ------
    FileError
        It cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"the folder {folder} cannot be made ({error.strerror}); choose another.") from error


def as_json(report: Report) -> dict[str, Any]:
    """Return the report as plain data: the rows, and every measurement behind them."""
    return {
        "rows": [asdict(row) | {"setting": report.settings[row.method]} for row in report.rows],
        "levels": report.levels,
        "seed": report.seed,
        "colour": report.colour,
        "factors": report.factors,
        "machine": report.machine,
        "measurements": [asdict(each) for each in report.measurements],
    }


def as_markdown(report: Report) -> str:
    """Return the table and the notes under it."""
    head = ["method", *(f"PSNR, σ = {level:g}" for level in report.levels), "seconds a megapixel"]
    lines = [head, ["---", *("---:" for _ in head[1:])]]
    lines += [
        [row.method, *(f"{row.psnr[level]:.2f}" for level in report.levels), f"{row.seconds_per_megapixel:.3g}"]
        for row in report.rows
    ]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{table}\n\n" + "\n".join(f"- {note}" for note in _notes(report)) + "\n"


def _notes(report: Report) -> list[str]:
    areas = {(each.group, each.image): each.megapixels for each in report.measurements}
    groups = Counter(group for group, _ in areas)
    kind = "colour" if report.colour else "gray"
    notes = [
        f"{len(areas)} {kind} pictures ({', '.join(f'{count} of {name}' for name, count in groups.items())}; "
        f"{sum(areas.values()):.2f} megapixels), Gaussian noise of the known σ (of 255), not clipped, by seed "
        f"{report.seed} and the picture's name; every method saw the same noise in the same run.",
        "PSNR in dB of answers clipped to [0, 1], mean over pictures. Time is the wall clock of the calls alone, over "
        "all levels, after a warm-up on a small crop. Everything ran on the processor.",
        "No setting was chosen on these pictures.",
    ]
    for name, factors in report.factors.items():
        chosen = ", ".join(f"{times:g} at σ = {level:g}" for level, times in factors.items())
        notes.append(f"{name}: its factor, chosen on scikit-image's `camera`, is {chosen}.")
    notes += [f"{row.method}: {report.settings[row.method]}" for row in report.rows]
    return [*notes, f"Machine: {in_words(report.machine)}"]


def plot(report: Report, path: Path) -> None:
    """Draw PSNR at the middle level against seconds a megapixel, one labelled point a method."""
    need("matplotlib")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot(xscale="log")
    points = [(row.seconds_per_megapixel, row.psnr[report.middle]) for row in report.rows]
    colours = [OURS if row.method.startswith("natural") else THEIRS for row in report.rows]
    axes.scatter([x for x, _ in points], [y for _, y in points], c=colours, s=56, zorder=3)
    axes.margins(x=0.12, y=0.14)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    if max(points)[0] < 10 * min(points)[0]:  # there may be no power of ten to name
        axes.xaxis.set_minor_formatter(lambda value, _: f"{value:g}")
    axes.set_xlabel("seconds a megapixel (left is faster)")
    axes.set_ylabel("PSNR in dB (up is better)")
    count = len({(each.group, each.image) for each in report.measurements})
    axes.set_title(f"Quality against time, σ = {report.middle:g}, {count} picture{'s' * (count > 1)}", loc="left")
    axes.grid(visible=True, color="#e2e8f0", zorder=0)
    axes.spines[["top", "right"]].set_visible(False)
    figure.draw_without_rendering()
    _label(axes, points, [row.method for row in report.rows], colours)
    figure.savefig(path, format="png")


def _label(axes: Any, points: Sequence[tuple[float, float]], names: Sequence[str], colours: Sequence[str]) -> None:
    """Put each name beside its point, on the first side where it covers no point, no other name and no border."""
    dots = axes.transData.transform(points)
    taken: list[Any] = []
    for point, name, colour in zip(points, names, colours, strict=True):
        for shift, horizontal, vertical in SIDES:
            look = {"ha": horizontal, "va": vertical, "color": colour, "fontsize": 9}
            text = axes.annotate(name, point, shift, textcoords="offset points", **look)
            box = text.get_window_extent()
            inside = axes.bbox.containsx(box.x0) and axes.bbox.containsx(box.x1)
            if inside and not box.padded(RADIUS).count_contains(dots) and not box.count_overlaps(taken):
                break
            text.remove()
        else:
            text = axes.annotate(name, point, (9, 0), textcoords="offset points", va="center", color=colour, fontsize=9)
        taken.append(text.get_window_extent())
