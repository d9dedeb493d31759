"""Quotes in tables: cells that were in quotes are so again, and what is filled in is as its column is."""

import csv
import io

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from unperturb.data.table import read_table, write_table
from unperturb.data.table_quotes import quoted_cells, with_quotes

CELLS = st.text(st.sampled_from('a1.,;"\n\r é'), max_size=4)


def quoted(cell):
    return '"' + cell.replace('"', '""') + '"'


@settings(max_examples=200, deadline=None)
@given(
    st.integers(2, 4).flatmap(
        lambda width: st.lists(
            st.lists(st.tuples(CELLS, st.booleans()), min_size=width, max_size=width), min_size=1, max_size=4
        )
    ),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.booleans(),
)
@example([[("", True), ("", False)]], "\n", False)
def test_a_text_comes_back_as_it_was(rows, line_end, ended):
    """Breaks: quotes within quotes as they stand; an empty cell at the end of a record is none."""
    lines = [
        ",".join(
            quoted(cell) if mark or set(cell) & set(",\r\n") or cell.startswith('"') else cell for cell, mark in row
        )
        for row in rows
    ]
    text = line_end.join(lines) + line_end * ended
    records = list(csv.reader(io.StringIO(text, newline="")))
    marks = quoted_cells(text, ",", records)
    again = [[False] * len(rows[0])] * len(rows) if marks is None else marks.tolist()
    assert [with_quotes(*each, ",") for each in zip(records, again, strict=True)] == lines


@pytest.mark.parametrize("text", ["a,b\n1,2\n", 'a,"b"c\n1,2\n'])
def test_nothing_is_known_where_there_are_none_or_they_are_in_strange_places(text):
    """Break: what is behind a quote is taken for a cell of its own."""
    assert quoted_cells(text, ",", list(csv.reader(io.StringIO(text)))) is None


FILES = {
    "texts alone": 'id,"name",x\n1,"a",2.5\n2,NA,3\n3,"",NA\n4,"b ""c""",4\n',
    "numbers too": 'name,x\na,"1.5"\nb,"2.5"\n',
    "blank lines between": 'name,x\n"a",1\n\nb,2\n',
    "no header": '"a",1\n"b",2\n"a",3\n',
    "a mark within": 'name,x\n"a",1\nb"c,2\n',
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_written_as_it_was(tmp_path, name):
    """Breaks: those alone that need them; the header's forgotten; records that are left out counted."""
    file = tmp_path / "a.csv"
    file.write_text(FILES[name])
    write_table(read_table(file), tmp_path / "b.csv")
    assert (tmp_path / "b.csv").read_text() == FILES[name].replace("\n\n", "\n")


def test_what_is_filled_in_is_in_quotes_where_its_column_is(tmp_path):
    """Breaks: as the mark in its place was; where any other cell of the column is; marks counted among the others."""
    file = tmp_path / "a.csv"
    file.write_text('id,"name",x,y\n1,"a",2.5,"u"\n2,NA,3,v\n3,"b","NA",v\n4,"b","NA",\n5,"b","NA",v\n')
    table = read_table(file)
    write_table(table.filled(np.tile([0, 1, 2.25, 0], (5, 1))), tmp_path / "b.csv")
    assert (tmp_path / "b.csv").read_text() == (
        'id,"name",x,y\n1,"a",2.5,"u"\n2,"b",3,v\n3,"b",2.2,v\n4,"b",2.2,u\n5,"b",2.2,v\n'
    )


def test_a_cell_that_needs_quotes_has_them():
    """Breaks: a quote at its beginning, a line end of another kind, a delimiter."""
    assert with_quotes(['"a', "b\rc", "d\ne", "f;g", 'h"i'], [False] * 5, ";") == '"""a";"b\rc";"d\ne";"f;g";h"i'
