"""Specs: perturbations as one line of text, the same for training, evaluation, reports and model cards.

::

    spec        = sequence { "|" sequence }           one of them, drawn for every item
    sequence    = process { "+" process }             applied from left to right
    process     = name ":" field "=" level { "," field "=" level }
    level       = number [ ".." number ]              a range is drawn from for every item

    gaussian:sigma=0..0.5 + erase:fraction=0.5
    erase:fraction=0.1..0.9 | block:size=8..24,count=1..3

White space is free. `parse` reads a spec and ``str(perturbation)`` writes it, and ``parse(str(p)) == p`` exactly. What
cannot be read is refused with the column at which reading stopped and what was expected there.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, fields
from difflib import get_close_matches

from unperturb.errors import SpecError, UsageError
from unperturb.model.camera import Camera
from unperturb.model.coloured import Coloured
from unperturb.model.erasure import Block, Erase, Line, Scratch
from unperturb.model.level import Level, Limits, Range
from unperturb.model.optics import Blur, Downsample, Jpeg
from unperturb.model.perturbation import (
    Choice,
    Composition,
    Gaussian,
    Impulse,
    Perturbation,
    Poisson,
    PoissonGaussian,
    Process,
    Speckle,
    limits_of,
)

PERTURBATIONS: Mapping[str, type[Process]] = {
    kind.name: kind
    for kind in (
        *(Gaussian, Poisson, PoissonGaussian, Speckle, Coloured, Impulse),
        *(Erase, Block, Line, Scratch),
        *(Blur, Downsample, Jpeg, Camera),
    )
}
"""Every perturbation that a spec can name."""


def parse(text: str) -> Perturbation:
    """Read a perturbation from its spec.

    Raises
    ------
    SpecError
        Where the text is not a spec; the message holds the column, counted from 1, and what was expected.
    """
    reader = _Reader(text)
    choices = [_sequence(reader)]
    while reader.take(r"\|"):
        choices.append(_sequence(reader))
    if not reader.at_end():
        raise reader.unexpected("expected ',' and another field, '+' or '|' and another perturbation, or the end")
    return choices[0] if len(choices) == 1 else Choice(tuple(choices))


class _Reader:
    """The text and how far it has been read."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.position = 0

    def take(self, pattern: str) -> str:
        """Return what the pattern matches next and step over it, or return "" and stay."""
        self._skip_space()
        match = re.compile(pattern).match(self.text, self.position)
        if match is None:
            return ""
        self.position = match.end()
        return match.group()

    def at_end(self) -> bool:
        self._skip_space()
        return self.position == len(self.text)

    def unexpected(self, complaint: str) -> SpecError:
        """Return the error for what comes next."""
        column = self.column()
        found = re.compile(r"[\w.-]+|.", re.DOTALL).match(self.text, self.position)
        return self.error(column, f"{complaint}, found {f'{found.group()!r}' if found else 'the end'}")

    def error(self, column: int, complaint: str) -> SpecError:
        return SpecError(f"perturbation {self.text!r}, column {column}: {complaint}")

    def column(self) -> int:
        """Return the column of what comes next, counted from 1."""
        self._skip_space()
        return self.position + 1

    def _skip_space(self) -> None:
        while self.position < len(self.text) and self.text[self.position].isspace():
            self.position += 1


def _sequence(reader: _Reader) -> Perturbation:
    parts = [_process(reader)]
    while reader.take(r"\+"):
        parts.append(_process(reader))
    return parts[0] if len(parts) == 1 else Composition(tuple(parts))


def _process(reader: _Reader) -> Process:
    kind = PERTURBATIONS[_name(reader, PERTURBATIONS, "perturbation")]
    limits = limits_of(kind)
    given: dict[str, Level] = {}
    if reader.take(":"):
        _field(reader, kind, limits, given)
        while reader.take(","):
            _field(reader, kind, limits, given)
    required = [entry.name for entry in fields(kind) if entry.default is MISSING]  # type: ignore[arg-type]
    missing = [key for key in required if key not in given]
    if missing:
        before = "," if given else ":"
        raise reader.unexpected(f"{kind.name} needs {' and '.join(missing)}: expected '{before}{missing[0]}=…'")
    return kind(**given)


def _field(reader: _Reader, kind: type[Process], limits: Mapping[str, Limits], given: dict[str, Level]) -> None:
    """Read one ``field=level`` into what is given already."""
    column = reader.column()
    key = _name(reader, limits, f"field of {kind.name}")
    if key in given:
        raise reader.error(column, f"{key} is given twice; expected it once")
    if not reader.take("="):
        raise reader.unexpected(f"expected '=' and the level of {key}")
    given[key] = _level(reader, key, limits[key])


def _level(reader: _Reader, key: str, limits: Limits) -> Level:
    column = reader.column()
    low = _number(reader, key, limits)
    high = _number(reader, key, limits) if reader.take(r"\.\.") else None
    try:
        return limits.checked(low if high is None else Range(low, high))
    except UsageError as error:
        raise reader.error(column, f"{key}: {error}") from None


def _number(reader: _Reader, key: str, limits: Limits) -> float:
    # No digit, no dot: "0..5" is a range from 0 to 5, and never "0." and ".5".
    text = reader.take(r"[+-]?(?:[0-9]+(?:\.[0-9]+)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
    if not text:
        raise reader.unexpected(f"expected {limits} for {key}, or a range such as 1..2")
    return float(text)


def _name(reader: _Reader, known: Iterable[str], what: str) -> str:
    """Read a name out of those that are known."""
    column = reader.column()
    word = reader.take(r"[A-Za-z][A-Za-z0-9_-]*")
    known = list(known)
    if word in known:
        return word
    expected = f"expected {'one of ' if len(known) > 1 else ''}{', '.join(known)}"
    if not word:
        raise reader.unexpected(f"{expected} (a {what})")
    near = get_close_matches(word.lower(), known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else expected
    raise reader.error(column, f"{word!r} is not a {what}; {hint}")
