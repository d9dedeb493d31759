"""One self-contained HTML page: what was found about an image, in words first, then in pictures.

The page needs nothing but itself: pictures are embedded, curves are drawn as SVG, and a few lines of script let one leaf
through pictures. What there is to say is handed in, as plain text and pictures; nothing is computed here.
"""

import base64
import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from unperturb.app.pictures import Bytes, png_bytes

_STYLE = """
:root { color-scheme: light; --ink: #1d2230; --soft: #5b6275; --line: #dfe2ea; --accent: #b0306a; }
body { margin: 0 auto; max-width: 1180px; padding: 24px; color: var(--ink); background: #fff;
       font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 26px; margin: 0 0 4px; } h2 { font-size: 20px; margin: 36px 0 8px; }
p, li { max-width: 78ch; } .soft, figcaption { color: var(--soft); font-size: 14px; }
ul.verdict { border-left: 4px solid var(--accent); margin: 16px 0; padding: 4px 0 4px 28px; }
ul.verdict li { margin: 6px 0; }
.row { display: flex; flex-wrap: wrap; gap: 18px; align-items: flex-start; }
figure { margin: 0; width: min-content; min-width: 190px; }
figure img { display: block; image-rendering: pixelated; }
.flip input { width: 100%; margin: 6px 0; } .flip img:not(.on) { display: none; }
table { border-collapse: collapse; } td, th { border-bottom: 1px solid var(--line); padding: 4px 14px 4px 0; text-align: left; }
svg { display: block; } pre { background: #f5f6f9; padding: 12px; overflow: auto; font-size: 13px; }
"""

_SCRIPT = """
for (const flip of document.querySelectorAll(".flip")) {
  const pictures = flip.querySelectorAll("img"), words = flip.querySelector(".now"), slider = flip.querySelector("input");
  const show = () => pictures.forEach((picture, number) => {
    const on = number == slider.value;
    picture.classList.toggle("on", on);
    if (on) words.textContent = picture.alt;
  });
  slider.addEventListener("input", show);
  show();
}
"""


@dataclass(frozen=True)
class Section:
    """A heading, words, and what is shown below them: the HTML that `figure`, `flip`, `curve` and `table` make."""

    title: str
    words: str = ""
    shown: Sequence[str] = field(default=())


def page(title: str, about: str, verdict: Sequence[str], sections: Iterable[Section]) -> str:
    """Return the page.

    Parameters
    ----------
    title, about
        Heading, and one line below it.
    verdict
        What the reader should take away, a sentence or two each.
    sections
        The rest.
    """
    told = "".join(f"<li>{html.escape(sentence)}</li>" for sentence in verdict)
    body = "".join(_section(section) for section in sections)
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_STYLE}</style></head><body>'
        f'<h1>{html.escape(title)}</h1><p class="soft">{html.escape(about)}</p><ul class="verdict">{told}</ul>{body}'
        f"<script>{_SCRIPT}</script></body></html>\n"
    )


def figure(picture: Bytes, caption: str) -> str:
    """Return a picture with words below."""
    return f"<figure>{_image(picture, caption)}<figcaption>{html.escape(caption)}</figcaption></figure>"


def flip(pictures: Sequence[tuple[str, Bytes]], caption: str, start: int = 0) -> str:
    """Return pictures in one place, to leaf through with a slider; the words of the one that is seen stand below."""
    images = "".join(_image(picture, words) for words, picture in pictures)
    name = html.escape(caption, quote=True)
    return (
        f'<figure class="flip">{images}<input type="range" min="0" max="{len(pictures) - 1}" value="{start}" '
        f'aria-label="{name}"><figcaption><b class="now"></b> {html.escape(caption)}</figcaption></figure>'
    )


def row(parts: Sequence[str]) -> str:
    """Return figures that belong together in a row of their own."""
    return f'<div class="row" style="flex-basis: 100%">{"".join(parts)}</div>'


def curve(at: Sequence[float], heights: Sequence[float], marks: Sequence[float], caption: str) -> str:
    """Return a density as a small plot, with marks at its modes; the axis is that of `at`."""
    width, height, pad = 300, 150, 22
    low, high, top = min(at), max(at), max(heights) or 1.0

    def x(value: float) -> float:
        return pad + (value - low) / ((high - low) or 1.0) * (width - 2 * pad)

    points = " ".join(
        f"{x(a):.1f},{height - pad - h / top * (height - 2 * pad):.1f}" for a, h in zip(at, heights, strict=True)
    )
    lines = "".join(
        f'<line x1="{x(mark):.1f}" x2="{x(mark):.1f}" y1="{pad}" y2="{height - pad}" stroke="#b0306a" stroke-dasharray="4 3"/>'
        for mark in marks
    )
    ticks = "".join(
        f'<text x="{x(value):.1f}" y="{height - 5}" text-anchor="middle" font-size="11" fill="#5b6275">{value:.3g}</text>'
        for value in (low, (low + high) / 2, high)
    )
    return (
        f'<figure><svg width="{width}" height="{height}" role="img" aria-label="{html.escape(caption, quote=True)}">'
        f'<line x1="{pad}" x2="{width - pad}" y1="{height - pad}" y2="{height - pad}" stroke="#9aa1b3"/>{lines}'
        f'<polyline points="{points}" fill="none" stroke="#2b4c9b" stroke-width="2"/>{ticks}</svg>'
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
    )


def curves(at: Sequence[float], heights: Sequence[Sequence[float]], caption: str) -> str:
    """Return shares over the same places as lines of one small plot, the first blue, the second red."""
    width, height, pad = 240, 130, 18
    low, high, top = min(at), max(at), max(max(each) for each in heights) or 1.0
    across, up = (width - 2 * pad) / ((high - low) or 1.0), (height - 2 * pad) / top
    lines = "".join(
        f'<polyline points="{" ".join(f"{pad + (a - low) * across:.1f},{height - pad - h * up:.1f}" for a, h in zip(at, each, strict=True))}" '
        f'fill="none" stroke="{colour}" stroke-width="2"/>'
        for each, colour in zip(heights, ("#2b4c9b", "#b0306a"), strict=False)
    )
    ticks = "".join(
        f'<text x="{place}" y="{height - 3}" text-anchor="{anchor}" font-size="11" fill="#5b6275">{value:.3g}</text>'
        for place, anchor, value in ((pad, "start", low), (width - pad, "end", high))
    )
    return (
        f'<figure><svg width="{width}" height="{height}" role="img" aria-label="{html.escape(caption, quote=True)}">'
        f'<line x1="{pad}" x2="{width - pad}" y1="{height - pad}" y2="{height - pad}" stroke="#9aa1b3"/>{lines}{ticks}</svg>'
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
    )


def plot(at: Sequence[float], points: Sequence[float], line: Sequence[float] | None, across: str, upwards: str) -> str:
    """Return points, and a line over the same places where there is one, as a plot with both axes named."""
    width, height, left, low_edge, right = 540, 320, 70, 46, 30
    heights = [*points, *(line or []), 0.0]
    (low, high), (bottom, top) = (min(at), max(at)), (min(heights), max(heights))

    def x(value: float) -> float:
        return left + (value - low) / ((high - low) or 1.0) * (width - left - right)

    def y(value: float) -> float:
        return height - low_edge - (value - bottom) / ((top - bottom) or 1.0) * (height - low_edge - 12)

    marks = "".join(
        f'<circle cx="{x(a):.1f}" cy="{y(p):.1f}" r="4" fill="#2b4c9b"/>' for a, p in zip(at, points, strict=True)
    )
    if line is not None:
        path = " ".join(f"{x(a):.1f},{y(p):.1f}" for a, p in sorted(zip(at, line, strict=True)))
        marks = f'<polyline points="{path}" fill="none" stroke="#b0306a" stroke-width="2"/>{marks}'
    style = 'font-size="12" fill="#5b6275"'
    ticks = "".join(
        f'<text x="{x(value):.1f}" y="{height - 28}" text-anchor="middle" {style}>{value:.3g}</text>'
        for value in (low, (low + high) / 2, high)
    ) + "".join(
        f'<text x="{left - 8}" y="{y(value) + 4:.1f}" text-anchor="end" {style}>{value:.2g}</text>'
        for value in (bottom, (bottom + top) / 2, top)
    )
    axes = (
        f'<line x1="{left}" x2="{width - right}" y1="{y(bottom):.1f}" y2="{y(bottom):.1f}" stroke="#9aa1b3"/>'
        f'<line x1="{left}" x2="{left}" y1="12" y2="{y(bottom):.1f}" stroke="#9aa1b3"/>'
        f'<text x="{(left + width) / 2}" y="{height - 8}" text-anchor="middle" {style}>{html.escape(across)}</text>'
    )
    return (
        f'<figure><svg width="{width}" height="{height}" role="img" '
        f'aria-label="{html.escape(f"{upwards} by {across}", quote=True)}">{axes}{marks}{ticks}</svg>'
        f"<figcaption>{html.escape(f'{upwards} by {across}')}</figcaption></figure>"
    )


def table(rows: Sequence[Sequence[str]]) -> str:
    """Return rows of words; the first is the heading."""

    def line(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    head, *rest = rows
    return f"<table>{line(head, 'th')}{''.join(line(row, 'td') for row in rest)}</table>"


def preformatted(text: str) -> str:
    """Return text as it is."""
    return f"<pre>{html.escape(text)}</pre>"


def _section(section: Section) -> str:
    words = "".join(f"<p>{html.escape(part)}</p>" for part in section.words.split("\n") if part)
    return f'<h2>{html.escape(section.title)}</h2>{words}<div class="row">{"".join(section.shown)}</div>'


def _image(picture: Bytes, words: str) -> str:
    data = base64.b64encode(png_bytes(picture)).decode()
    return f'<img alt="{html.escape(words, quote=True)}" src="data:image/png;base64,{data}">'
