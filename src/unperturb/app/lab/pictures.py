"""How the lab's pictures look: one colour for each thing, panels that say their point in their title."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from torch import Tensor

from unperturb.atomic import make_folder, whole
from unperturb.errors import FileError, UsageError

CLEAN, NOISY, MEAN, DRAW, OTHER = "#94a3b8", "#d97706", "#dc2626", "#2563eb", "#059669"
"""What is true, what is seen, the posterior mean, draws from the posterior, and whatever else there is."""

SMALL = 100_000
"""Bytes up to which a picture keeps all its colours."""

INK, FAINT = "#0f172a", "#64748b"


def need(*packages: str) -> None:
    """Refuse to begin where a package of the extra `lab` is missing.

    Raises
    ------
    UsageError
        Names it, and the extra to install.
    """
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise UsageError(f"this needs {' and '.join(missing)}, which come with an extra: pip install 'unperturb[lab]'")


def prepare(paths: Iterable[Path], *, overwrite: bool) -> None:
    """Make the folder of files to come, and refuse early to replace any of them unasked.

    Raises
    ------
    FileError
        Where one is there already.
    """
    paths = list(paths)
    taken = [path for path in paths if path.exists()]
    if taken and not overwrite:
        raise FileError(f"{taken[0]} is there already; give another folder, or --overwrite")
    for path in paths:
        make_folder(path.parent)


@contextmanager
def picture(path: Path, rows: int, columns: int, size: tuple[float, float], *, dpi: int = 110) -> Iterator[Any]:
    """Lend an array of axes ``(rows, columns)``; what was drawn there becomes a PNG file of few colours.

    Parameters
    ----------
    path
        Is replaced.
    rows, columns
        Of panels.
    size
        Of the whole, in inches.
    dpi
        Pixels an inch.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    figure = Figure(figsize=size, dpi=dpi, layout=ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08), facecolor="white")
    canvas = FigureCanvasAgg(figure)
    yield figure.subplots(rows, columns, squeeze=False)
    canvas.draw()
    with whole(path, overwrite=True) as part:
        part.write_bytes(_small_png(canvas.buffer_rgba()))


def title(axes: Any, text: str, figures: str = "", colour: str = INK) -> None:
    """Put a title over a panel, and the figures that bear it out on a line of their own below it."""
    axes.set_title(figures, loc="left", fontsize=8.5, color=FAINT, pad=5)
    place = {"xy": (0, 1), "xycoords": "axes fraction", "textcoords": "offset points"}
    axes.annotate(text, xytext=(0, 20 if figures else 6), fontsize=10, color=colour, fontweight="bold", **place)


def bare(axes: Any) -> None:
    """Leave nothing of a panel's frame but its place."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_color("#e2e8f0")


def framed(axes: Any, colour: str = "#cbd5e1") -> Any:
    """Leave the line below a panel alone of its frame, and return the panel."""
    axes.spines[["top", "left", "right"]].set_visible(False)
    axes.spines["bottom"].set_color(colour)
    axes.tick_params(length=0, labelsize=9, labelcolor=FAINT)
    return axes


def gray(axes: Any, image: Tensor, frame: str = "#e2e8f0") -> None:
    """Show an image of values in 0 … 1, pixel by pixel, in a frame of a colour."""
    bare(axes)
    axes.imshow(image.numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.spines[:].set(color=frame, linewidth=1.5)


def _small_png(pixels: Any) -> bytes:
    """Return a PNG; of 128 colours where it would be large: of a cloud of dots that loses nothing one sees, but size."""
    import io

    import numpy as np
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(np.asarray(pixels)[..., :3]))
    for kept in (image, image.quantize(128, dither=Image.Dither.NONE)):
        stream = io.BytesIO()
        kept.save(stream, "png", optimize=True)
        if len(stream.getvalue()) < SMALL:
            break
    return stream.getvalue()
