"""Numbers with something around them: what is one, and that what is written is what would be read."""

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unperturb.app.tables import columns_of
from unperturb.data.numerals import Numerals, numerals_of
from unperturb.data.table import read_table, table_of, write_table
from unperturb.data.table_match import matched

NAN = np.nan


@pytest.mark.parametrize(
    ("texts", "decimal", "numerals", "numbers"),
    [
        (("1.5", "-2", "+3e2"), ".", Numerals(), (1.5, -2, 300)),
        (("$1,234.50", "-$3"), ".", Numerals(".", "$", "", ","), (1234.5, -3)),
        (("$-5", "$12"), ".", Numerals(".", "$", inner=True), (-5, 12)),
        (("4%", "12.5%"), ".", Numerals(".", "", "%"), (4, 12.5)),
        (("12 kg", "-3.5 kg"), ".", Numerals(".", "", " kg"), (12, -3.5)),
        (("3 m/s", "4 m/s"), ".", Numerals(".", "", " m/s"), (3, 4)),
        (("20 °C", "-1 °C"), ".", Numerals(".", "", " °C"), (20, -1)),
        (("1.234,50 €", "7 €"), ",", Numerals(",", "", " €", "."), (1234.5, 7)),
        (("1\u202f234\u202f567", "999"), ",", Numerals(",", group="\u202f"), (1234567, 999)),
        (("1'000.5", "2"), ".", Numerals(".", group="'"), (1000.5, 2)),
        (("US$ 5", "US$ 1,000"), ".", Numerals(".", "US$ ", "", ","), (5, 1000)),
        (("0,5", "1234,5"), ",", Numerals(","), (0.5, 1234.5)),
        ((), ".", Numerals(), ()),
    ],
)
def test_what_stands_around_numbers_is_found(texts, decimal, numerals, numbers):
    """Breaks: the sign always before the money; groups of digits for decimals."""
    found = numerals_of(texts, decimal)
    assert found == numerals
    assert tuple(map(found.number, texts)) == numbers


@pytest.mark.parametrize(
    "texts",
    [
        ("$5", "5"),
        ("$5", "€5"),
        ("5 kg", "5 g"),
        ("5%", "5 %"),
        ("A1", "A2"),
        ("4WD", "2WD"),
        ("room 1", "room 2"),
        ("1,23", "4,56"),
        ("0,123", "1,234"),
        ("1,234", "12345"),
        ("1,234", "1'234"),
        ("1,2345", "1"),
        ("1,234,56", "1"),
        ("12,345'678", "1"),
        ("-$5", "$-5"),
        ("-$-5", "$5"),
        ("+-5", "5"),
        ("5 kg net", "6 kg net"),
        ("1_000", "2"),
        ("٣ kg", "2 kg"),
        ("$", "$5"),
        ("$ ", "%"),
        ("2024-01-02", "2024-01-03"),
        ("10:30", "11:00"),
    ],
)
def test_what_is_not_written_alike_is_no_numbers(texts):
    """Breaks: nobody compares what stands around, the groups, or the places of signs; groups of any length."""
    assert numerals_of(texts, ".") is None


def test_no_number_has_two_signs():
    """Break: a sign on either side of the money is taken for one."""
    assert Numerals(".", "$").number("-$-5") is None


@given(
    st.floats(-1e15, 1e15),
    st.integers(0, 4),
    st.sampled_from([Numerals(), Numerals(".", "$", "", ",", inner=True), Numerals(",", "", " kg", "\u202f")]),
)
def test_what_is_written_is_read_again(value, decimals, numerals):
    """Breaks: groups counted from the front; the sign lost."""
    plain = f"{value:.{decimals}f}"
    text = numerals.written(plain)
    assert numerals.plain(text) == plain
    assert numerals_of([text, numerals.written("-1"), numerals.written("1234")], numerals.decimal) == numerals


TABLE = "price;share;weight\n$1,234.50;4 %;12 kg\n;;\n-$3;12 %;\n$-;5 %;9.5 kg\n".replace("$-;", "-;")


@pytest.fixture
def read(tmp_path):
    """Write a text to a file, and read it as a table."""

    def make(text, **options):
        (tmp_path / "a.csv").write_text(text, encoding="utf-8")
        return read_table(tmp_path / "a.csv", **options)

    return make


def test_columns_of_such_numbers_are_numbers_and_are_filled_alike(read, tmp_path):
    """Breaks: numbers with a sign are categories; the bare number is written; decimals counted with the unit."""
    table = read(TABLE)
    assert [(column.kind, column.decimals) for column in table.columns] == [
        ("numeric", 2), ("integer", 0), ("numeric", 1),
    ]  # fmt: skip
    np.testing.assert_array_equal(table.values[:, 0], [1234.5, NAN, -3, NAN])
    np.testing.assert_array_equal(table.values[:, 2], [12, NAN, NAN, 9.5])
    filled = table.filled(np.tile([-12345.678, 7.4, 0.04], (4, 1)))
    write_table(filled, tmp_path / "b.csv")
    assert (tmp_path / "b.csv").read_text(encoding="utf-8") == (
        "price;share;weight\n$1,234.50;4 %;12 kg\n-$12,345.68;7 %;0.0 kg\n-$3;12 %;0.0 kg\n-$12,345.68;5 %;9.5 kg\n"
    )
    np.testing.assert_array_equal(filled.values, read_table(tmp_path / "b.csv").values)
    frame = table.frame()
    assert frame["share"].dtype == "Int64"
    assert frame["share"].dropna().tolist() == [4, 12, 5]


def test_texts_of_a_frame_are_read_alike():
    """Break: in files alone."""
    table = table_of(pd.DataFrame({"x": ["$1", None, "$2,000"]}))
    filled = table.filled(np.full((3, 1), 1500.2)).frame()
    assert filled["x"].tolist() == ["$1", "$1,500", "$2,000"]


def test_a_mark_means_a_missing_cell_by_its_value(read):
    """Break: before what stands around it is known, alone."""
    table = read("x;y\n-999 kg;1\n5 kg;2\n6 kg;3\n", marks=["-999"])
    np.testing.assert_array_equal(table.values[:, 0], [NAN, 5, 6])
    assert read("x;y\n-999 kg;1\n-999 kg;2\n", marks=["-999"]).missing[:, 0].all()


def test_codes_with_zeros_and_infinity_are_what_they_are_elsewhere(read):
    """Breaks: zeros in front are lost behind a sign; nobody asks whether such a number is infinite."""
    assert read("x;y\n$007;1\n$5;2\n").columns[0].categories == ("$007", "$5")
    with pytest.raises(Exception, match="column 'x' holds 1e999 kg"):
        read("x;y\n1e999 kg;1\n5 kg;2\n")


def test_a_category_stays_one_where_that_is_said(read):
    assert read("x;y\n4 %;1\n12 %;2\n", categories=["x"]).columns[0].categories == ("12 %", "4 %")


def test_a_decimal_comma_is_found_behind_groups(read):
    """Break: in numbers with nothing else in them alone."""
    table = read("x;y\n1.234,50 €;1\n7,5 €;2\n;3\n")
    np.testing.assert_array_equal(table.values[:, 0], [1234.5, 7.5, NAN])
    assert read("x;y\n1.234;1,5\n2.345;2\n").values[0].tolist() == [1234, 1.5]


def test_new_rows_may_be_written_otherwise_and_stay_so(read, tmp_path):
    """Breaks: written as the old table was, an empty column too where decimals have commas; or as if it were new."""
    told = [dataclasses.asdict(column) for column in read(TABLE).columns]
    known = columns_of(SimpleNamespace(about=json.loads(json.dumps({"columns": told}))), Path("model"))
    new = matched(read("price;share;weight\n1234,5;;\n;7 %;1,5 g\n"), known)
    filled = new.filled(np.tile([1000.25, 50, 2.25], (2, 1)))
    write_table(filled, tmp_path / "b.csv")
    assert (tmp_path / "b.csv").read_text(encoding="utf-8") == (
        "price;share;weight\n1234,5;50 %;2,2 g\n1000,25;7 %;1,5 g\n"
    )
    empty = matched(read("price,share,weight\n,4 %,12 kg\n,5 %,13 kg\n"), known).filled(np.full((2, 3), 1000.25))
    assert empty.cells[0].tolist() == ["$1,000.25"] * 2
    other = matched(read("price;share;weight\n;4 %;1,5 kg\n;5 %;13 kg\n"), known).filled(np.full((2, 3), 1000.25))
    assert other.cells[0].tolist() == ["1000,25"] * 2
    for mark in ("-", "007"):  # by themselves these are categories
        rows = matched(read(f"price;share;weight\n{mark};4 %;1,5 kg\n;5 %;13 kg\n"), known)
        assert rows.filled(np.full((2, 3), 1000.25)).cells[0].tolist()[1] == "1000,25"
