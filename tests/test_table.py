"""Tables: what a column is, what is missing, and that nothing but the missing cells is ever written anew."""

import csv
import dataclasses
import datetime
import gzip
import io
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unperturb.data.table import read_table, table_of, write_table
from unperturb.data.table_match import matched
from unperturb.data.table_text import text_bytes
from unperturb.errors import FileError, UnperturbError, UsageError

REAL = Path(__file__).parents[2] / "shared" / "data" / "test" / "tables"
HEADERS = {"concrete": True, "letter": True, "spam": True}
NAN = np.nan


@pytest.fixture
def table(tmp_path):
    """Write a text to a file, and read it as a table."""

    def make(text, name="a.csv", **options):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_table(path, **options)

    return make


def written(table, folder, name="out.csv"):
    write_table(table, folder / name, overwrite=True)
    return (folder / name).read_bytes()


def column_of(table):
    (column,) = table.columns
    return column


def kinds(table):
    return [column.kind for column in table.columns]


def column(*cells):
    """Return the text of a table of one column of interest; the other keeps rows from being blank."""
    return "x,row\n" + "".join(f"{cell},{row}\n" for row, cell in enumerate(cells))


# What a column is


@pytest.mark.parametrize(
    ("cells", "kind", "values"),
    [
        (("7", "12", "-3"), "integer", [7, 12, -3]),
        (("7.0", "12.0"), "integer", [7, 12]),
        (("00123", "5", "-"), "category", [1, 0, NAN]),
        (("0", "0.5", "-0.25"), "numeric", [0, 0.5, -0.25]),
        (("007.5", "8"), "numeric", [7.5, 8]),
        (("10000000000000000000000", "10000000000000000000001"), "category", [0, 1]),
        (("0", "1", "1"), "integer", [0, 1, 1]),
        (("1.5", "2", "+.5"), "numeric", [1.5, 2, 0.5]),
        (("1e-3", "2E2"), "numeric", [1e-3, 200]),
        (("1.5", "?", " NA ", "-", "None"), "numeric", [1.5, NAN, NAN, NAN, NAN]),
        (("No", "yes", "", "YES", "yes"), "boolean", [0, 1, NAN, 1, 1]),
        (("TRUE", "FALSE"), "boolean", [1, 0]),
        (("t", "f"), "boolean", [1, 0]),
        (("yes", "f"), "category", [1, 0]),
        (("yes", "yes"), "category", [0, 0]),
        (("b", "a", "NULL", "b "), "category", [1, 0, NAN, 1]),
        (("+", "-", "None"), "category", [0, 1, 2]),
        (("1_000", "2"), "category", [0, 1]),
        (("٣", "2"), "category", [1, 0]),
        (("inf", "a"), "category", [1, 0]),
        (("", "?", "NA"), "numeric", [NAN, NAN, NAN]),
    ],
)
def test_a_column_is_what_all_its_observed_cells_are(table, cells, kind, values):
    """Breaks: marks among numbers taken everywhere; ``7.0`` not whole; ``1_000``, zip codes, long codes numbers."""
    found = table(column(*cells))
    assert kinds(found)[0] == kind
    np.testing.assert_array_equal(found.values[:, 0], values)
    np.testing.assert_array_equal(found.missing[:, 0], np.isnan(values))


def test_categories_do_not_depend_on_the_order_of_rows(table):
    """As numbers where all are. Break: the order in which they occur."""
    assert table(column("10", "9", "2"), categories=["x"]).columns[0].categories == ("2", "9", "10")
    assert table(column("b", "c", "a")).columns[0].categories == ("a", "b", "c")
    assert table(column("Yes", "no", "yes", "yes")).columns[0].categories == ("no", "yes")


@pytest.mark.parametrize(
    ("cells", "decimals"), [(("1.50", "2"), 2), (("7", "8"), 0), (("7.0",), 1), (("1e-3", "2.5"), None)]
)
def test_decimals_are_the_most_that_occur(table, cells, decimals):
    """Break: the fewest."""
    assert table(column(*cells)).columns[0].decimals == decimals


def test_a_mark_that_is_a_number_marks_by_its_value(table):
    """Break: by its text alone."""
    found = table(column("-999", "-999.0", "1.5", "-99"), marks=["-999"])
    np.testing.assert_array_equal(found.missing[:, 0], [True, True, False, False])
    assert table_of(pd.DataFrame({"x": [-999, 2]}), marks=["-999"]).missing.tolist() == [[True], [False]]


def test_a_mark_that_is_not_among_those_given_is_a_category(table):
    assert table(column("NA", "DE"), marks=["?"]).columns[0].categories == ("DE", "NA")


@pytest.mark.parametrize("cells", [("1", "inf"), ("1", "-Infinity"), ("1e999", "2")])
def test_infinity_is_refused(table, cells):
    """Break: nobody asks whether the number of a text is infinite."""
    with pytest.raises(FileError, match=r"a\.csv: column 'x' holds .*, which is no number"):
        table(column(*cells))
    with pytest.raises(UsageError, match="column 'x' holds inf"):
        table_of(pd.DataFrame({"x": [1.0, np.inf]}))


def test_dates_and_what_is_to_be_kept_are_carried_through(table, tmp_path):
    """Missing cells too. Break: dates among the categories."""
    text = "time,id,x\n2024-02-03 04:05,a7,1\n,,\n2024-02-04T04:05:06Z,b9,2\n"
    found = table(text, keep=["id"])
    assert (found.kept, [each.name for each in found.columns]) == (("time", "id"), ["x"])
    assert written(found.filled(np.full((3, 1), 3.0)), tmp_path).decode() == text.replace(",,\n", ",,3\n")


@pytest.mark.parametrize(
    ("cells", "are_times"),
    [
        (("2024-02-03", "2024-02-04"), True),
        (("31/12/2024", "1/2/2025"), True),
        (("31.12.2024 10:30", "1.2.2025"), True),
        (("12/31/24", "1/2/25 4:05 PM"), True),
        (("10:30", "9:05:07.25"), True),
        (("2024/02/03", "2024.02.04T04:05:06+01:00"), True),
        (("1.2.10", "3.0.1"), False),
        (("12-04-88", "13-01-02"), False),
        (("120/80", "130/85"), False),
        (("31/12/2024", "soon"), False),
        (("31/12-2024", "1/2-2025"), False),
    ],
)
def test_dates_and_times_of_day_are_no_categories(table, cells, are_times):
    """Breaks: those of one country alone; numbers of versions among them; signs between that are not the same."""
    assert ("x" in table(column(*cells)).kept) == are_times


# What a file is


@pytest.mark.parametrize(
    ("text", "header"),
    [
        ("a,b\n1,x\n2,y\n", True),
        ("a,x\n?,x\n2,y\n", True),
        ("1,x\n2,y\n", False),
        ("?,x\n2,y\n", False),
        ("M,0.5\nF,0.7\n", False),
        ("sex,smokes\nM,yes\nF,no\n", True),
        ("M,yes\nF,no\nM,no\n", False),
        (",a\nr1,1\nr2,2\n", True),
        ("a,b,\n1,2,\n", True),
        ("a,a\nx,y\n", False),
        ("a,,c\n1,2,x\n3,4,y\n", True),
        ("country,2019,2020\nA,1,2\nB,3,4\n", True),
        ("id,0,1\n7,1.5,2\n8,3,4\n", True),
        ("id1,3,4\nid2,5,7\n", False),
        ("A,2019,2020\nA,1,2\nB,3,4\n", False),
        ("id,1.5,2\n7,3,4\n", False),
    ],
)
def test_a_header_is_found_out(table, text, header):
    """Breaks: no look at columns of numbers, nor at what is below; empty names as others; no number above, or any."""
    assert (table(text).text.header is not None) == header


def test_names_that_are_twice_above_numbers_are_refused(table):
    """Break: the header is taken for a row, and every column for categories."""
    with pytest.raises(FileError, match="two columns have the name 'a'"):
        table("a,a,c\n1,2,3\n4,5,6\n")


def test_a_table_without_header_counts_its_columns(table, tmp_path):
    """Break: names are written at the head all the same."""
    found = table("1,x\n?,y\n")
    assert [each.name for each in found.columns] == ["column 1", "column 2"]
    assert written(found.filled(np.full((2, 2), 4.0)), tmp_path) == b"1,x\n4,y\n"
    assert table("a,b\n1,2\n", header=False).columns[0].categories == ("1", "a")
    assert table("2019,2020\n1,2\n", header=True).columns[0].name == "2019"


@pytest.mark.parametrize(
    ("text", "delimiter", "values"),
    [
        ("a;b\n1,5;2\n2,5;3\n", ";", [[1.5, 2], [2.5, 3]]),
        ("1,5;2,5\n3,5;4,5\n", ";", [[1.5, 2.5], [3.5, 4.5]]),
        ("a\tb\n1\t2\n", "\t", [[1, 2]]),
        ("a|b\n1|2\n", "|", [[1, 2]]),
        ('a,b\n1,"x;y"\n2,"x;z"\n', ",", [[1, 0], [2, 1]]),
        ("a\n1\n\n2\n", ",", [[1], [NAN], [2]]),
    ],
)
def test_the_delimiter_is_found_out(table, text, delimiter, values):
    """Breaks: the one that occurs first; a decimal point between semicolons, too."""
    found = table(text)
    assert found.text.delimiter == delimiter
    np.testing.assert_array_equal(found.values, values)


STYLES = {
    "plain": b"a,b\n1,x\n2,y\n",
    "without an end": b"a,b\n1,x\n2,y",
    "Windows": b'a,b\r\n1,"x\ny"\r\n2,"y,z"\r\n',
    "old Macintosh": b"a,b\r1,x\r2,y\r",
    "byte order mark": b"\xef\xbb\xbfa,b\n1,x\n2,y\n",
    "UTF-16": "a\tb\r\n1\tå\r\n".encode("utf-16"),
    "Windows-1252": "a,b\n1,Zürich\n2,Genève\n".encode("cp1252"),
    "all quoted": b'"a","b"\n"1","x"\n"2","y ""z"""\n',
    "white space": b"a , b\n 1,x \n2 , y\n",
    "a decimal comma": b"a;b\n1,50;x\n2;y\n",
    "bars": b"a|b\n1|x\n",
    "leading zeros": b"a,b\n00000,38.50\n02208,+1.\n",
    "an index": b",a\nr1,1\nr2,2\n",
    "one column": b"a\n1\n2\n",
}


@pytest.mark.parametrize("name", STYLES)
def test_a_file_that_is_written_back_has_the_same_bytes(table, tmp_path, name):
    """Breaks: the style of line ends, of the last line, of encoding and of quotes forgotten, and the names stripped."""
    assert written(table(STYLES[name]), tmp_path) == STYLES[name]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.integers(2, 4).flatmap(
        lambda n: st.lists(
            st.lists(st.text(st.sampled_from('a1.,;|\t"\n\r é?-'), max_size=4), min_size=n, max_size=n), min_size=1
        )
    ),
    line_end=st.sampled_from(["\n", "\r\n", "\r"]),
)
def test_any_cells_survive(table, rows, line_end):
    """What Python's csv module writes and then reads again. Break: a lone carriage return written without quotes."""
    rows = [["x" * 9, *row] for row in rows]
    file = io.StringIO(newline="")
    csv.writer(file, lineterminator=line_end, quoting=csv.QUOTE_ALL).writerows(rows)
    options = {"header": False, "delimiter": ","}
    found = table(file.getvalue(), **options)
    again = text_bytes(found.cells, dataclasses.replace(found.text, quoted=None)).decode()
    assert list(csv.reader(io.StringIO(again, newline=""))) == rows
    assert table(again, **options).cells.to_numpy().tolist() == rows


def test_compressed_files_and_other_suffixes(table, tmp_path):
    """Breaks: compressed by nothing; tabs only where tabs were."""
    text = b"a,b\n1,x\n2,y\n"
    found = table(gzip.compress(text), "a.csv.gz")
    assert gzip.decompress(written(found, tmp_path, "b.csv.gz")) == text
    assert written(found, tmp_path, "b.csv.gz") == written(found, tmp_path, "b.csv.gz")
    assert written(found, tmp_path, "b.csv") == text
    assert written(found, tmp_path, "b.tsv") == text.replace(b",", b"\t")
    assert written(read_table(tmp_path / "b.tsv"), tmp_path, "c.csv") == text


def parquet(names):
    """Return the bytes of a Parquet file."""
    file = io.BytesIO()
    pq.write_table(pa.table([[1, 2]] * len(names), names=names), file)
    return file.getvalue()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"a,b\n1,2\n3\n", "in line 3 as in its first, 1 and 2"),
        (b'a,b\n1,"x\ny"\n1,2,3\n', "in line 4 as in its first, 3 and 2"),
        (b"", "is empty"),
        (b" \n\n", "is empty"),
        (b"a,b\n", "no rows"),
        (b"a,b\n1,\x002\n", r"is not text.*0x00 in line 2"),
        (bytes(range(256)) * 9, "is not text"),
        (b"a,\x81\n", "is not text"),
        (b"PK\x03\x04....", "a spreadsheet or an archive"),
        (b"\x1f\x8b\x08nonsense", "compressed and damaged"),
        (parquet(["a", "a"]), "two columns have the name 'a'"),
        (b"PAR1nonsense", "cannot be read as Parquet"),
        (b"a, a\n1,2\n", None),
        (b'a,b\n1,"2\n', "look at the quotes"),
        (b'a,b\n1,"2"3\n', "look at the quotes"),
        (b"a,b\n1," + b"x" * 200_000 + b"\n", "cannot be taken apart"),
    ],
)
def test_what_is_no_table_is_refused_in_one_sentence(table, data, said):
    """Breaks: short rows filled up; quotes that do not end; names that are twice called damage."""
    with pytest.raises(FileError, match=said or "two columns have the name 'a'") as refused:
        table(data, header=None if said else True)
    assert "a.csv" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_names_that_are_not_there_are_refused(table):
    for options in ({"categories": ["c"]}, {"keep": ["c"]}):
        with pytest.raises(UsageError, match="no column 'c'; there are a, b"):
            table("a,b\n1,2\n", **options)
    with pytest.raises(UsageError, match="both"):
        table("a,b\n1,2\n", categories=["a"], keep=["a"])
    with pytest.raises(UsageError, match="delimiter is one of"):
        table("a,b\n1,2\n", delimiter="::")


def test_files_that_are_not_there_are_refused(tmp_path):
    with pytest.raises(FileError, match="does not exist"):
        read_table(tmp_path / "none.csv")
    with pytest.raises(FileError, match="is a folder"):
        read_table(tmp_path)


# Filling


def test_a_filled_cell_looks_like_its_neighbours(table, tmp_path):
    """Breaks: numbers with all their digits; codes instead of labels; a decimal point where there are commas."""
    found = table("i;n;b;c;e\n7;1,50;no;red;1e-3\n;;;;\n+8;2,5;Yes;blue;2e-3\n")
    filled = found.filled(np.tile([3.6, -0.001, 1, 0, 0.0012345678], (3, 1)))
    assert (
        written(filled, tmp_path)
        == b"i;n;b;c;e\n7;1,50;no;red;1e-3\n4;0,00;Yes;blue;0,001234568\n+8;2,5;Yes;blue;2e-3\n"
    )
    assert not filled.missing.any()


def test_the_values_of_a_filled_table_are_those_that_its_file_says(table, tmp_path):
    """Breaks: the values as they were given; those of observed cells, too."""
    found = table("i,n,b,c\n7,1.50,no,red\n?,?,?,?\n8,2.25,yes,blue\n")
    filled = found.filled(np.tile([3.4, 1.23456, 1, 1], (3, 1)))
    written(filled, tmp_path)
    np.testing.assert_array_equal(filled.values, read_table(tmp_path / "out.csv").values)
    np.testing.assert_array_equal(filled.values[[0, 2]], found.values[[0, 2]])
    np.testing.assert_array_equal(found.missing[1], [True] * 4)


def test_values_that_cannot_be_written_are_refused(table):
    """Break: codes are not looked at."""
    found = table("n,c\n1.5,red\n?,?\n2,blue\n")
    for wrong in (NAN, np.inf):
        with pytest.raises(UsageError, match="column 'n'"):
            found.filled(np.tile([wrong, 0], (3, 1)))
    for wrong in (-1, 2, 0.5, NAN):
        with pytest.raises(UsageError, match="column 'c'"):
            found.filled(np.tile([1, wrong], (3, 1)))
    with pytest.raises(UsageError, match=r"shape \(2, 2\)"):
        found.filled(np.ones((2, 2)))
    observed = np.full((3, 2), NAN)
    observed[1] = 1, 0
    assert not found.filled(observed).missing.any()


def test_a_column_of_which_nothing_is_known_may_stay_missing(table, tmp_path):
    """Break: NaN refused there, too."""
    found = table("a,b\n1,\n?,\n")
    assert kinds(found) == ["integer", "numeric"]
    assert written(found.filled(np.array([[0, NAN], [2, NAN]])), tmp_path) == b"a,b\n1,\n2,\n"
    assert written(found.filled(np.array([[0, 0.5], [2, NAN]])), tmp_path) == b"a,b\n1,0.5\n2,\n"


# Data frames and Parquet


def frame():
    return pd.DataFrame(
        {
            "int": [2, 3, 7],
            "Int": pd.array([2**60 + 1, None, 5], "Int64"),
            "small": pd.array([1, None, 100], "Int8"),
            "float": [1.25, NAN, 2.5],
            "whole": [1.0, NAN, 3.0],
            "short": np.array([0.1, NAN, 3], "float32"),
            "bool": [True, False, True],
            "boolean": pd.array([True, None, True], "boolean"),
            "category": pd.Categorical(["low", None, "high"], ["low", "mid", "high"], ordered=True),
            "numbers": pd.Categorical([30, None, 4]),
            "text": pd.array(["b", None, "a"], "string"),
            "objects": pd.Series(["u", None, "v"], dtype=object),
            "counted": pd.Series([1, None, 2], dtype=object),
            "truths": pd.Series([True, None, False], dtype=object),
            "decimal": pd.Series([Decimal("1.50"), None, Decimal("2.00")], dtype=object),
            "texts": ["1.50", "?", "2"],
            "date": pd.to_datetime(["2024-02-03", None, "2024-02-04"]),
            "days": pd.Series([datetime.date(2024, 2, 3), None, None], dtype=object),
            "list": pd.Series([[1], None, [2]], dtype=object),
            "empty": [NAN, NAN, NAN],
        }
    ).set_axis(["r1", "r2", "r3"])


def test_types_of_a_frame_are_respected():
    """Breaks: whole floats for numbers; categories sorted rather than in their order."""
    found = table_of(frame())
    assert {each.name: each.kind for each in found.columns} == {
        **dict.fromkeys(["int", "Int", "small", "whole", "counted"], "integer"),
        **dict.fromkeys(["float", "short", "decimal", "texts", "empty"], "numeric"),
        **dict.fromkeys(["bool", "boolean", "truths"], "boolean"),
        **dict.fromkeys(["category", "numbers", "text", "objects"], "category"),
    }
    by_name = {each.name: each for each in found.columns}
    assert by_name["category"].categories == ("low", "high")
    assert by_name["numbers"].categories == ("4", "30")
    assert by_name["boolean"].categories == ("False", "True")
    assert by_name["decimal"].decimals == by_name["texts"].decimals == 2
    assert found.kept == ("date", "days", "list")


def filling(table):
    """Return values for all cells: 0, except in numbers."""
    return np.tile([3.14159 if not each.categories else 0 for each in table.columns], (len(table.values), 1))


def test_a_filled_frame_keeps_its_types_and_what_was_observed():
    """Breaks: columns with new cells joined as objects; a category filled with its code."""
    before = frame()
    found = table_of(before)
    after = found.filled(filling(found)).frame()
    assert list(after.dtypes) == list(before.dtypes)
    for name in before:
        observed = before[name].notna() & (before[name].astype(str) != "?")
        pd.testing.assert_series_equal(after[name][observed], before[name][observed], check_exact=True)
    new = {name: after[name].iloc[1] for name in after}
    expected = {"Int": 3, "small": 3, "float": 3.14159, "whole": 3.0, "short": np.float32(3.14159), "boolean": False}
    expected |= {"category": "low", "numbers": 4, "text": "a", "objects": "u", "counted": 3, "truths": False}
    expected |= {"decimal": Decimal("3.14"), "texts": "3.14", "empty": 3.14159}
    assert {name: new[name] for name in expected} == expected
    assert pd.isna(new["date"])
    pd.testing.assert_frame_equal(before, frame())


def test_numbers_stay_within_what_their_column_can_hold():
    """Break: the range of the type is not looked at."""
    found = table_of(pd.DataFrame({"x": pd.array([1, None], "UInt8"), "y": np.array([0.5, NAN], "float16")}))
    assert found.filled(np.full((2, 2), 1e6)).frame().iloc[1].tolist() == [255, 65504]
    assert found.filled(np.full((2, 2), -7.0)).frame().iloc[1].tolist() == [0, -7]


def test_named_categories_of_a_frame_may_be_of_any_type():
    """Break: a truth value by its code, where it is the only category."""
    data = pd.DataFrame({"n": [3.0, NAN, 1.0], "b": pd.array([True, None, True], "boolean"), "m": ["x", None, 2]})
    found = table_of(data, categories=["n", "b", "m"])
    assert [each.categories for each in found.columns] == [("1.0", "3.0"), ("True",), ("2", "x")]
    assert found.filled(np.zeros((3, 3))).frame().iloc[1].tolist() == [1.0, True, 2]
    with pytest.raises(UsageError, match="no categories"):
        table_of(pd.DataFrame({"x": [[1], [2]]}), categories=["x"])


def test_frames_that_are_no_tables_are_refused():
    for data, said in [
        (pd.DataFrame({"a": []}), "no rows"),
        (pd.DataFrame(), "no columns"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "two columns"),
        (pd.DataFrame([[1, 2]], columns=[1, "1"]), "two columns"),
    ]:
        with pytest.raises(UsageError, match=said):
            table_of(data)


def arrow_table():
    """Columns that pandas' usual types would not return as they were."""
    return pa.table(
        {
            "long": pa.array([2**60 + 1, None, 3], pa.int64()),
            "short": pa.array([1, None, 3], pa.int16()),
            "float": pa.array([0.1, None, float("nan")], pa.float32()),
            "bool": pa.array([True, None, False]),
            "text": pa.array(["x", None, "y"], pa.large_string()),
            "view": pa.array(["x", None, "y"], pa.string_view()),
            "bytes": pa.array([b"x", None, b"y"], pa.binary_view()),
            "coded": pa.array(["b", None, "a"]).dictionary_encode(),
            "money": pa.array([Decimal("1.50"), None, Decimal("2.00")], pa.decimal128(12, 4)),
            "time": pa.array([1, None, 3], pa.timestamp("ns", "UTC")),
            "nested": pa.array([[1], None, [2]]),
            "nothing": pa.nulls(3),
        }
    ).replace_schema_metadata({"of": "the file"})


def test_parquet_returns_bit_for_bit(tmp_path):
    """Breaks: read into the types of numpy; written without the schema of the file; a type that pandas has not."""
    pq.write_table(arrow_table(), tmp_path / "a.parquet")
    found = read_table(tmp_path / "a.parquet")
    assert found.kept == ("bytes", "time", "nested", "nothing")
    written(found, tmp_path, "same.parquet")
    before = pq.read_table(tmp_path / "a.parquet")
    assert pq.read_table(tmp_path / "same.parquet").schema.equals(before.schema, check_metadata=True)
    filled = found.filled(filling(found))
    written(filled, tmp_path, "filled.parquet")
    after = pq.read_table(tmp_path / "filled.parquet")
    assert after.schema.equals(before.schema, check_metadata=True)
    for name in before.column_names:
        old, new = before[name].to_pylist(), after[name].to_pylist()
        assert [new[0], *new[2:]] == [old[0], *old[2:]] or name == "float"
        assert (new[1] is None) == (name in found.kept)
    assert after["money"].to_pylist()[1] == Decimal("3.1416")
    assert after["float"].to_pylist() == [np.float32(0.1), np.float32(3.14159), np.float32(3.14159)]
    pd.testing.assert_frame_equal(filled.frame(), pd.read_parquet(tmp_path / "filled.parquet"))


@pytest.mark.parametrize("labels", [[0, 1], [("a", "b"), ("a", "c")], pd.to_datetime(["2020-01-01", "2021-01-01"])])
@pytest.mark.parametrize("index", [None, list("uvw")])
def test_labels_that_are_no_texts_return_from_parquet(tmp_path, labels, index):
    """Break: the names of the file looked for among the labels that pandas makes of them."""
    before = pd.DataFrame([[1.5, 2], [NAN, 3], [2.5, 4]], index=index, columns=pd.Index(labels))
    before.to_parquet(tmp_path / "a.parquet")
    found = read_table(tmp_path / "a.parquet")
    written(found.filled(np.full((3, 2), 7.0)), tmp_path, "b.parquet")
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "b.parquet"), before.fillna(7.0))
    assert pq.read_schema(tmp_path / "b.parquet").equals(pq.read_schema(tmp_path / "a.parquet"), check_metadata=True)


def test_an_empty_category_stays_as_it_is():
    """Break: it is refused as one that has a code -1 at most."""
    before = pd.DataFrame({"e": pd.Categorical([None, None], ["p", "q"]), "n": [1.0, NAN]})
    found = table_of(before)
    pd.testing.assert_frame_equal(found.filled(np.zeros((2, 2))).frame(), before.fillna({"n": 0}))


def test_sparse_columns_are_columns(tmp_path):
    """Break: cells that are none cannot be set, nor read as numbers."""
    before = pd.DataFrame({"s": pd.arrays.SparseArray([1.5, NAN, 2.5]), "c": ["u", None, "v"]})
    after = table_of(before).filled(np.ones((3, 2))).frame()
    assert list(after.dtypes) == list(before.dtypes)
    assert after.to_numpy().tolist() == [[1.5, "u"], [1.0, "v"], [2.5, "v"]]
    assert written(table_of(after), tmp_path) == b"s,c\n1.5,u\n1.0,v\n2.5,v\n"


def test_a_frame_returns_from_parquet_with_its_types(tmp_path):
    """Its index too. Break: the metadata of pandas forgotten."""
    before = frame().drop(columns=["counted", "truths", "numbers"])
    before.to_parquet(tmp_path / "a.parquet")
    found = read_table(tmp_path / "a.parquet")
    written(found.filled(filling(found)), tmp_path, "b.parquet")
    after = pd.read_parquet(tmp_path / "b.parquet")
    assert list(after.dtypes) == list(pd.read_parquet(tmp_path / "a.parquet").dtypes)
    assert list(after.index) == list(before.index)
    assert not after["category"].isna().any()
    with pytest.raises(UsageError, match="is Parquet"):
        read_table(tmp_path / "a.parquet", header=True)


def test_texts_become_numbers_in_a_frame_and_in_parquet(table, tmp_path):
    """Break: long whole numbers by way of floats."""
    found = table(
        "a,i,n,b,c,t\nkept,1152921504606846977,1.5,no,red,2024-02-03\n,?,?,?,?,\n,7.0,2,yes,blue,\n", keep=["a"]
    )
    typed = found.frame()
    assert [str(each) for each in typed.dtypes[1:5]] == ["Int64", "float64", "boolean", "category"]
    assert typed["i"].iloc[0] == 2**60 + 1
    assert typed.iloc[1, 1:5].isna().all()
    written(found, tmp_path, "b.parquet")
    again = read_table(tmp_path / "b.parquet", keep=["a"])
    assert kinds(again) == kinds(found)
    np.testing.assert_array_equal(again.values, found.values)
    assert written(again, tmp_path).decode().splitlines()[1] == "kept,1152921504606846977,1.5,False,red,2024-02-03"


def test_a_frame_is_written_with_the_names_of_its_rows_if_they_have_any(tmp_path):
    assert written(table_of(pd.DataFrame({"a": [1, 2]})), tmp_path) == b"a\n1\n2\n"
    assert written(table_of(pd.DataFrame({"a": [1, 2]}, index=["u", "v"])), tmp_path) == b",a\nu,1\nv,2\n"


# Files


def test_nothing_is_overwritten_or_half_written(table, tmp_path):
    """Break: written to the target itself."""
    found = table("a,b\n1,2\n")
    target = tmp_path / "b.csv"
    target.write_text("precious")
    with pytest.raises(FileError, match="exists already"):
        write_table(found, target)
    mixed = table_of(pd.DataFrame({"x": pd.Series(["a", 1], dtype=object)}))
    (tmp_path / "b.parquet").write_text("precious")
    with pytest.raises(FileError, match=r"b\.parquet could not be written"):
        write_table(mixed, tmp_path / "b.parquet", overwrite=True)
    assert target.read_text() == (tmp_path / "b.parquet").read_text() == "precious"
    assert {path.name for path in tmp_path.iterdir()} == {"a.csv", "b.csv", "b.parquet"}
    with pytest.raises(FileError, match=r"tables are written as \.csv"):
        write_table(found, tmp_path / "b.xlsx")


def test_a_missing_package_names_the_extra():
    code = (
        "import sys, importlib.util as u\nfind = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'pandas' else find(name, *a)\n"
        "from unperturb.data.table import read_table\n"
        "from unperturb.errors import UnperturbError\n"
        "try: read_table('a.csv')\nexcept UnperturbError as error: print(error)\n"
    )
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert "pandas" in said
    assert "unperturb[tables]" in said


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.one_of(st.binary(max_size=60), st.text(st.sampled_from('a1,;\n\r"\t?.- '), max_size=40).map(str.encode)))
def test_no_bytes_end_in_a_traceback(table, data):
    """They are a table, which can be written, or refused. Break: what the csv module cannot take apart."""
    try:
        found = table(data)
    except UnperturbError as error:
        assert "\n" not in str(error)
    else:
        assert text_bytes(found.cells, found.text)


@pytest.mark.parametrize(
    "name", ["abalone", "concrete", "horse-colic", "letter", "phoneme", "spam", "winequality-white"]
)
def test_real_tables(name, tmp_path):
    """The same bytes return; filling what is missing changes nothing else. Break: filled cells all over a column."""
    path = REAL / f"{name}.csv"
    if not path.is_file():
        pytest.skip("needs tables outside the repository")
    found = read_table(path)
    assert (found.text.header is not None) == HEADERS.get(name, False)
    assert written(found, tmp_path) == path.read_bytes()
    codes = {"abalone": 1, "horse-colic": 3}  # sexes; lesions, whose codes begin with zeros
    assert kinds(found).count("category") == codes.get(name, 0)
    filled = written(found.filled(np.full(found.values.shape, 4.0)), tmp_path).decode().splitlines()
    pairs = [
        (old, new)
        for before, after in zip(path.read_text().splitlines(), filled, strict=True)
        if before != after
        for old, new in zip(before.split(","), after.split(","), strict=True)
    ]
    assert sum(old != new for old, new in pairs) == found.missing.sum() == (1605 if name == "horse-colic" else 0)
    assert {(old, new) for old, new in pairs if old != new} <= {("?", "4"), ("?", "4.00")}


# New rows of columns that are known


def again(table, learned, new):
    """Return new rows with their columns as those of a table that was learned."""
    return matched(table(new, "new.csv"), table(learned).columns)


@pytest.mark.parametrize(
    ("learned", "new", "filling", "row"),
    [
        ("s,b\n12000000,1\n12000001,2\n", "s,b\n,3\n", 12000000.6, "12000001,3"),
        ("s,b\n0.25,1\n0.50,2\n", "s,b\n,3\n", 0.3181, "0.32,3"),
        ("s,b\n1,1\n2,2\n", "s,b\n-,3\n", 2.0, "2,3"),
    ],
)
def test_a_column_without_values_is_filled_as_it_was_learned(table, tmp_path, learned, new, filling, row):
    """Breaks: decimals of the new rows alone; a mark among numbers is a category where there are no numbers."""
    found = again(table, learned, new)
    assert written(found.filled(np.array([[filling, 0.0]])), tmp_path).decode().splitlines()[1] == row


def test_truth_values_are_the_same_in_large_and_small_letters(table):
    """Break: compared letter by letter."""
    found = again(table, "x,n\nTrue,1\nfalse,2\n", "x,n\nTRUE,1\nTRUE,2\n")
    assert found.columns[0].categories == ("false", "True")
    assert list(found.values[:, 0]) == [1, 1]


def test_categories_that_are_numbers_are_known_by_their_value(table, tmp_path):
    """Breaks: ``1.0``, which pandas writes beside gaps, is new; long numbers the same as floats; zeros lost."""
    learned = table("x,n\n2,1\n1,2\n0030,3\n", categories=["x"]).columns
    found = matched(table("x,n\n1.0,1\n,2\n7.0,3\n30.0,4\n", "new.csv", categories=["x"]), learned)
    np.testing.assert_array_equal(found.values[:, 0], [0, NAN, 3, 2])
    assert found.columns[0].categories == ("1", "2", "0030", "7.0")
    assert written(found.filled(np.full((4, 2), 2.0)), tmp_path) == b"x,n\n1.0,1\n0030,2\n7.0,3\n30.0,4\n"
    numbers = matched(table_of(pd.DataFrame({"x": [2.0, NAN, 5], "n": 1})), learned)
    np.testing.assert_array_equal(numbers.values[:, 0], [1, NAN, 3])
    assert numbers.filled(np.zeros((3, 2))).frame()["x"].tolist() == [2.0, 1.0, 5.0]
    long = "1" * 23
    assert again(table, f"x,n\n{long}1,1\n{long}2,2\n", f"x,n\n{long}2,1\n{long}3,2\n").values[:, 0].tolist() == [1, 2]
    twice = table("x,n\n1,1\n1.0,2\n", categories=["x"]).columns
    assert matched(table("x,n\n1.0,1\n1,1\n", categories=["x"]), twice).values[:, 0].tolist() == [1, 0]
    huge = table("x,n\n1e-9999999999999999999,1\n1,2\n", categories=["x"])
    assert matched(huge, learned).values[:, 0].tolist() == [3, 0]


def test_numbers_may_begin_with_zeros_where_numbers_are_known(table):
    """Break: they are taken for texts, and refused."""
    assert again(table, "x,n\n7,1\n12,2\n", "x,n\n08,1\n12,2\n").values[:, 0].tolist() == [8, 12]


def test_an_empty_column_that_is_not_known_is_carried(table):
    """Break: it is refused, though dates were there when the table was learned."""
    found = again(table, "d,x\n2020-01-01,1\n2020-01-02,2\n", "d,x\n,1\n,2\n")
    assert (kinds(found), found.kept) == (["integer"], ("d",))


def test_the_word_among_numbers_is_named(table):
    """Break: the first of all cells is."""
    with pytest.raises(UsageError, match="'hello'"):
        again(table, "x,n\n1,1\n2,2\n", "x,n\n2.0,1\nhello,2\n")


def test_numbers_far_from_zero_keep_what_they_differ_in(table, tmp_path):
    """Break: seven digits whatever they are."""
    found = table("x,n\n1.700000001e9,1\n1.700000029e9,2\n,3\n")
    assert (
        float(written(found.filled(np.full((3, 2), 1.700000015e9)), tmp_path).split()[-1].split(b",")[0])
        == 1.700000015e9
    )


def test_an_empty_column_of_exact_numbers_is_filled_in_parquet(tmp_path):
    """Break: floats, which the schema does not take."""
    arrow = pa.table({"x": pa.array([None, None], pa.decimal128(9, 2)), "n": [1, 2]})
    pq.write_table(arrow, tmp_path / "a.parquet")
    found = read_table(tmp_path / "a.parquet")
    write_table(found.filled(np.array([[1.239, 0], [2, 0]])), tmp_path / "b.parquet")
    assert pq.read_table(tmp_path / "b.parquet")["x"].to_pylist() == [Decimal("1.24"), Decimal("2.00")]
