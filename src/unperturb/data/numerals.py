"""How texts write numbers: what stands before and behind them, and between groups of three digits.

::

    $1,234.50      4 %      12 kg      1 234,5 €      -£3

All texts of a column do so alike, or else they are no numbers: a sign that is not the same everywhere says something
that a number does not keep. Letters are a unit only behind white space, or beside a sign of money or of degrees: ``A1``
and ``4WD`` are names.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass

_SPACES = " \u00a0\u2009\u202f"
_MONEY = "$¢£¤¥฿\u20a0-\u20c0"
_GROUPS = {".": f",'’{_SPACES}", ",": f".'’{_SPACES}"}

_BEFORE = rf"(?P<before>(?:[^\W\d_]{{0,3}}[{_MONEY}][{_SPACES}]?)?)"
_AFTER = rf"(?P<after>(?:[{_SPACES}]?[%‰°{_MONEY}][^\W\d_]?|[{_SPACES}][^\W\d_]\S*)?)"


def _bare(decimal: str) -> str:
    point = re.escape(decimal)
    return rf"(?:[0-9]+(?:{point}[0-9]*)?|{point}[0-9]+)(?:[eE][+-]?[0-9]+)?"


def _dressed(decimal: str) -> str:
    group = rf"(?P<group>[{_GROUPS[decimal]}])[0-9]{{3}}(?:(?P=group)[0-9]{{3}})*"
    digits = rf"(?P<digits>{_bare(decimal)}|[1-9][0-9]{{0,2}}{group}(?:{re.escape(decimal)}[0-9]*)?)"
    return rf"(?P<outer>[+-]?){_BEFORE}(?P<inner>[+-]?){digits}{_AFTER}"


_BARE = {decimal: re.compile(rf"[+-]?{_bare(decimal)}") for decimal in _GROUPS}
_DRESSED = {decimal: re.compile(_dressed(decimal)) for decimal in _GROUPS}


@dataclass(frozen=True)
class Numerals:
    """How the texts of a column write its numbers.

    Attributes
    ----------
    decimal
        What stands before decimals, ``.`` or ``,``.
    before, after
        What stands before and behind every number, white space included.
    group
        What stands between groups of three digits; nothing where it is empty.
    inner
        Whether a sign stands behind what is before the number: ``$-5``, not ``-$5``.
    """

    decimal: str = "."
    before: str = ""
    after: str = ""
    group: str = ""
    inner: bool = False

    def plain(self, text: str) -> str | None:
        """Return a text without white space around it as Python writes that number; None where it is none."""
        if not (self.before or self.after or self.group):
            return text.replace(self.decimal, ".") if _BARE[self.decimal].fullmatch(text) else None
        found = _parts(text, self.decimal)
        if found is None or (found["before"], found["after"]) != (self.before, self.after):
            return None
        if found["group"] not in (None, self.group):
            return None
        digits = found["digits"].replace(found["group"], "") if found["group"] else found["digits"]
        return found["outer"] + found["inner"] + digits.replace(self.decimal, ".")

    def number(self, text: str) -> float | None:
        """Return the number that a text without white space around it is; None where it is none."""
        plain = self.plain(text)
        return None if plain is None else float(plain)

    def written(self, plain: str) -> str:
        """Return what Python has written as these texts write it: the way back from `plain`."""
        digits = plain.removeprefix("-")
        sign = plain[: len(plain) - len(digits)]
        whole, point, rest = digits.partition(".")
        if self.group and whole.isdigit():
            whole = f"{int(whole):,}".replace(",", self.group)
        front = self.before + sign if self.inner else sign + self.before
        return front + whole + (self.decimal if point else "") + rest + self.after


def number_of(text: str, decimal: str = ".") -> float | None:
    """Return the number that a text without white space around it is, None where it is none.

    Digits with or without sign, decimals and exponent are a number, and nothing else is. A number too large for a float
    is infinite; ``inf`` and ``nan`` are words.
    """
    return float(text.replace(decimal, ".")) if _BARE[decimal].fullmatch(text) else None


def numerals_of(texts: Collection[str], decimal: str) -> Numerals | None:
    """Find out how texts write numbers.

    Parameters
    ----------
    texts
        Without white space around them.
    decimal
        What stands before decimals.

    Returns
    -------
    Numerals or None
        None where a text is no number, or they are not written alike.
    """
    if all(map(_BARE[decimal].fullmatch, texts)):  # which nearly all are, and it is found sooner
        return Numerals(decimal)
    found = [_parts(text, decimal) for text in texts]
    parts = [each for each in found if each is not None]
    around = {(each["before"], each["after"]) for each in parts}
    groups = {each["group"] for each in parts} - {None}
    signs = {name for each in parts for name in ("outer", "inner") if each[name]}
    if len(parts) < len(found) or max(len(around), len(groups), len(signs)) > 1:
        return None
    if groups and any(each["group"] is None and len(re.split(r"\D", each["digits"])[0]) > 3 for each in parts):
        return None
    before, after = around.pop() if around else ("", "")
    return Numerals(decimal, before, after, groups.pop() if groups else "", "inner" in signs)


def _parts(text: str, decimal: str) -> re.Match[str] | None:
    found = _DRESSED[decimal].fullmatch(text)
    return None if found is None or (found["outer"] and found["inner"]) else found
