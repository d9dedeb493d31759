"""`unperturb impute`."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pd = pytest.importorskip("pandas")

from unperturb.app import imputing  # noqa: E402
from unperturb.app.cli import main  # noqa: E402
from unperturb.app.tables import _inward  # noqa: E402
from unperturb.data.table import table_of  # noqa: E402
from unperturb.train.rows import RowTraining  # noqa: E402


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """Learn for a moment only."""
    quick = imputing.Learning(members=2, training=RowTraining(least=20, most=20))
    monkeypatch.setattr(imputing, "Learning", lambda seed=0: replace(quick, seed=seed))


@pytest.fixture
def table(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    lines = ["name,weight,legs,farm,sound"]
    for number in range(80):
        weight = "?" if number % 5 == 0 else f"{50 + generator.standard_normal():.2f}"
        legs = "" if number % 7 == 0 else str(generator.integers(2, 5))
        farm = "NA" if number % 6 == 0 else generator.choice(["north", "south"])
        lines.append(f"cow {number},{weight},{legs},{farm},{generator.choice(['yes', 'no'])}")
    path = tmp_path / "cows.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def run(*arguments: object) -> int:
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def lines(path: Path) -> list[list[str]]:
    return [line.split(",") for line in path.read_text().splitlines()]


def test_missing_cells_alone_are_filled(table, tmp_path, capsys):
    """Break: codes written in place of categories."""
    assert run("impute", table, "-o", tmp_path / "filled.csv", "--keep", "name") == 0
    before, after = lines(table), lines(tmp_path / "filled.csv")
    assert len(after) == len(before)
    for old, new in zip(before, after, strict=True):
        for is_, was in zip(new, old, strict=True):
            assert is_ == was if was not in ("?", "", "NA") else is_ not in ("?", "", "NA")
    assert all(re.fullmatch(r"\d+\.\d\d", row[1]) for row in after[1:])
    assert all(row[2] in "234" and row[3] in ("north", "south") for row in after[1:])
    said = capsys.readouterr()
    assert said.out.splitlines() == [str(tmp_path / "filled.csv")]
    assert "42 missing cells in 3 columns" in said.err


def test_draws_differ_and_come_with_a_report(table, tmp_path):
    assert run("impute", table, "-o", tmp_path / "out" / "filled.csv", "--draws", 3, "--keep", "name") == 0
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["filled.csv", "filled_draw01.csv", "filled_draw02.csv", "filled_draw03.csv", "filled_report.html"]
    texts = {(tmp_path / "out" / f"filled_draw0{number}.csv").read_text() for number in (1, 2, 3)}
    assert len(texts) == 3
    page = (tmp_path / "out" / "filled_report.html").read_text()
    for words in ("cows.csv", "weight", "missing together", "Rubin", "% interval", "north", "data:image/png"):
        assert words in page


def test_a_kept_model_fills_in_new_rows(table, tmp_path, capsys):
    """Categories that it has not learned stay; the rows are not learned. Break: codes of the new table's own."""
    model = tmp_path / "cows.safetensors"
    assert run("impute", table, "-o", tmp_path / "a.csv", "--keep", "name", "--save-model", model) == 0
    new = tmp_path / "new.csv"
    new.write_text("name,weight,legs,farm,sound\nox,?,4,west,yes\nbull,51.5,,south,\n")
    assert run("impute", new, "-o", tmp_path / "b.csv", "--keep", "name", "--model", model, "--json") == 0
    told = json.loads(capsys.readouterr().out.split("\n", 2)[2])
    assert told["unseen"] == 1
    ox, bull = lines(tmp_path / "b.csv")[1:]
    assert ox[2:] == ["4", "west", "yes"]
    assert float(ox[1]) == pytest.approx(50, abs=4)
    assert bull[:2] == ["bull", "51.5"]
    assert bull[2] in ("2", "3", "4")
    assert bull[4] in ("yes", "no")
    other = tmp_path / "other.csv"
    other.write_text("name,height\nox,1\n")
    assert run("impute", other, "-o", tmp_path / "c.csv", "--keep", "name", "--model", model) == 2
    assert not (tmp_path / "c.csv").exists()


def test_new_rows_may_have_their_columns_in_another_order(table, tmp_path):
    """Each stays where it is. Break: the first column filled as the first that was learned."""
    model = tmp_path / "cows.safetensors"
    assert run("impute", table, "-o", tmp_path / "a.csv", "--keep", "name", "--save-model", model) == 0
    new, other = ["weight,legs,farm,sound", "?,4,north,yes", "51.5,,south,"], []
    other = [",".join(row.split(",")[at] for at in (2, 0, 3, 1)) for row in new]
    for name, rows in (("new", new), ("other", other)):
        (tmp_path / f"{name}.csv").write_text("\n".join(rows) + "\n")
        assert run("impute", tmp_path / f"{name}.csv", "-o", tmp_path / f"{name}_.csv", "--model", model) == 0
    filled = lines(tmp_path / "new_.csv")
    assert lines(tmp_path / "other_.csv") == [[row[at] for at in (2, 0, 3, 1)] for row in filled]


def test_what_numbers_lie_between_may_be_said(table, tmp_path, capsys):
    """Breaks: not heard of; of another column; heard of when all is learned."""
    said = ("--keep", "name", "--draws", 3, "--overwrite")
    assert run("impute", table, "-o", tmp_path / "o.csv", *said, "--between", "weight", -9, 99, "--json") == 0
    json.loads(capsys.readouterr().out)
    for more, why in (
        (("weight", 50, 99), "column 'weight' does not lie between 50 and 99: it has 4"),
        (("weight", 99, 0), "the lower one comes first"),
        (("farm", 0, 1), "there is no column of numbers 'farm'"),
        (("height", 0, 1), "there is no column of numbers 'height'"),
        (("weight", 0, 99, "--between", "weight", 0, 98), "once"),
    ):
        assert run("impute", table, "-o", tmp_path / "no.csv", *said, "--between", *more) == 2
        assert why in capsys.readouterr().err
    assert not (tmp_path / "no.csv").exists()
    narrow = tmp_path / "narrow.csv"
    weights = [float(row[1]) for row in lines(table)[1:] if row[1] != "?"]
    ends = min(weights), max(weights)
    assert run("impute", table, "-o", narrow, *said, "--between", "weight", *ends) == 0
    drawn = [float(row[1]) for number in (1, 2, 3) for row in lines(tmp_path / f"narrow_draw0{number}.csv")[1:]]
    assert (min(drawn), max(drawn)) == ends


def test_ends_are_those_of_what_can_be_written():
    """Break: 4.6 rounded to 5."""
    assert _inward(0.4, 4.6, 0) == (1, 4)
    assert _inward(-0.25, 0.3, 1) == pytest.approx((-0.2, 0.3))
    assert _inward(0.4, 4.6, None) == (0.4, 4.6)
    assert _inward(0.4, 0.6, 0) == (0.4, 0.6)  # there is none within


def test_cells_that_stay_missing_are_told(table, tmp_path, capsys):
    """Of a column that is carried through. Breaks: not told; those that are there as well; marks not known."""
    assert run("impute", table, "-o", tmp_path / "o.csv", "--keep", "name", "--keep", "weight", "--keep", "legs") == 0
    said = capsys.readouterr().err
    assert "weight is carried through as it is, with 16 missing cells" in said
    assert "legs is carried through as it is, with 12 missing cells" in said
    assert "name is carried" not in said
    marked = table_of(pd.DataFrame({"id": [-999.0, 1, 2], "x": [1, np.nan, 2]}), keep=["id"])
    assert marked.missing_of_kept(("-999",)) == {"id": 1}


def test_marks_and_categories_are_what_is_said(tmp_path):
    """Break: -999 averaged in."""
    path = tmp_path / "t.csv"
    path.write_text(
        "a,b\n" + "".join(f"{1 + number % 3},{-999 if number % 4 == 0 else 10 + number % 2}\n" for number in range(60))
    )
    assert run("impute", path, "-o", tmp_path / "f.csv", "--mark", "-999", "--category", "a") == 0
    assert {row[1] for row in lines(tmp_path / "f.csv")[1:]} == {"10", "11"}


def test_nothing_missing_nothing_changed(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("a,b\n1,2\n3,4.50\n5,6\n")
    assert run("impute", path) == 0
    assert (tmp_path / "t_imputed.csv").read_text() == path.read_text()


def test_a_column_of_nothing_is_left(tmp_path, capsys):
    path = tmp_path / "t.csv"
    path.write_text("a,b\n" + "".join(f"{number},\n" for number in range(20)))
    assert run("impute", path, "--draws", 2) == 0
    assert (tmp_path / "t_imputed.csv").read_text() == path.read_text()
    assert "nothing was observed of b" in capsys.readouterr().err


def test_nothing_is_lost(table, tmp_path, capsys):
    """Breaks: the results looked for after learning; the input replaced."""
    (tmp_path / "cows_imputed.csv").write_text("mine")
    assert run("impute", table) == 1
    assert (tmp_path / "cows_imputed.csv").read_text() == "mine"
    assert run("impute", table, "-o", table, "--overwrite") == 2
    assert run("impute", tmp_path / "none.csv") == 1
    assert run("impute", table, "--dry-run", "-o", tmp_path / "x.csv", "--draws", 1) == 0
    said = capsys.readouterr()
    assert said.out.split() == [str(tmp_path / name) for name in ("x.csv", "x_draw01.csv", "x_report.html")]
    assert not (tmp_path / "x.csv").exists()
    assert all(line.startswith("unperturb: ") for line in said.err.splitlines())


@pytest.mark.parametrize("more", [(), ("--dry-run",)])
def test_an_output_that_is_no_table_is_refused_before_anything_is_learned(table, tmp_path, capsys, monkeypatch, more):
    """Break: the suffix looked at when all has been learned."""
    monkeypatch.setattr("unperturb.app.tables.learn_rows", None)
    assert run("impute", table, "-o", tmp_path / "filled.xlsx", *more) == 2
    assert "tables are written as .csv" in capsys.readouterr().err
    assert not (tmp_path / "filled.xlsx").exists()


def test_a_header_that_was_not_found_is_told(tmp_path, capsys):
    """Break: it is taken for a row in silence."""
    source = tmp_path / "a.csv"
    source.write_text("id,1.5,2\n" + "".join(f"{number},{number % 3},{number % 5}\n" for number in range(9)))
    assert run("impute", source, "-o", tmp_path / "b.csv") == 0
    assert "seems to have no header" in capsys.readouterr().err
    assert run("impute", source, "-o", tmp_path / "b.csv", "--overwrite", "--no-header") == 0
    assert "header" not in capsys.readouterr().err


def test_new_rows_without_any_value_of_a_column_come_with_a_report(table, tmp_path):
    """Breaks: the report looks for the least of no values; a mark that was learned with is forgotten."""
    assert run("impute", table, "-o", tmp_path / "a.csv", "--keep", "name", "--mark", "-999",
               "--save-model", tmp_path / "m.safetensors") == 0  # fmt: skip
    new = tmp_path / "new.csv"
    new.write_text("name,weight,legs,farm,sound\ncow 1,,-999,north,yes\n")
    assert run("impute", new, "-o", tmp_path / "b.csv", "--model", tmp_path / "m.safetensors", "--keep", "name",
               "--draws", 2) == 0  # fmt: skip
    row = lines(tmp_path / "b.csv")[1]
    assert re.fullmatch(r"\d+\.\d\d", row[1])
    assert row[2] in "234"
    assert (tmp_path / "b_report.html").is_file()


def test_no_file_is_written_twice(table, tmp_path, capsys):
    """Break: the model in place of the table."""
    both = tmp_path / "a.csv"
    assert run("impute", table, "-o", both, "--save-model", both) == 2
    assert "would be written twice" in capsys.readouterr().err
    assert not both.exists()


@pytest.mark.parametrize(
    ("text", "more", "said"),
    [
        ("a,b\n1,2\n3\n", (), "in line 3"),
        ("a,b\n1,2\n", ("--keep", "c"), "no column 'c'"),
        (None, (), "does not exist"),
    ],
)
def test_no_folder_is_made_for_nothing(tmp_path, capsys, text, more, said):
    """Break: made before the table is read."""
    if text:
        (tmp_path / "a.csv").write_text(text)
    assert run("impute", tmp_path / "a.csv", "-o", tmp_path / "made" / "for" / "o.csv", *more) > 0
    assert said in capsys.readouterr().err
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--seed", 2**32 - 1), None),
        (("-o", "x" * 300 + ".csv"), "its name is too long"),
        (("--model", "none.st"), "none.st does not exist"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(table, tmp_path, capsys, monkeypatch, more, said):
    """The largest seed is one. Breaks: the output compared before it is tried; no file called no model."""
    monkeypatch.chdir(tmp_path)
    assert (run("impute", table, "--keep", "name", *more) > 0) == bool(said)
    assert (said or "missing cells") in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["impute", "fit", "calibrate", "demo"])
def test_a_seed_that_no_generator_takes_is_none(verb, capsys):
    """Break: any number is one."""
    for seed in (2**63, -1):
        assert run(verb, "--seed", seed) == 2
        assert "is not in the range" in capsys.readouterr().err


def test_the_model_in_use_is_not_replaced(table, tmp_path, capsys):
    """Break: the table alone is looked at."""
    model = tmp_path / "m.csv"
    model.write_text("precious")
    assert run("impute", table, "-o", model, "--model", model, "--overwrite") == 2
    assert "would be replaced" in capsys.readouterr().err
    assert model.read_text() == "precious"


def test_columns_of_nothing_but_different_texts_are_told(tmp_path, capsys):
    """Breaks: nobody hears that texts become categories; categories that are told of, though they are few."""
    source = tmp_path / "a.csv"
    days = [f"{1 + number % 28:02} of month {1 + number // 28:02}" for number in range(40)]
    source.write_text("day,farm\n" + "".join(f"{day},{day[1]}x\n" for day in days) + ",\n")
    assert run("impute", source, "-o", tmp_path / "b.csv") == 0
    assert "most values of day are different" in capsys.readouterr().err
    assert run("impute", source, "-o", tmp_path / "c.csv", "--json") == 0
    assert json.loads(capsys.readouterr().out)["mostly_different"] == ["day"]
    assert run("impute", source, "-o", tmp_path / "d.csv", "--keep", "day") == 0
    assert "different" not in capsys.readouterr().err
    assert lines(tmp_path / "d.csv")[-1][0] == ""


def test_more_categories_than_can_be_learned_are_refused_by_name(tmp_path, capsys):
    """Not found out when memory ends. Break: left to what learns, which knows no names."""
    path = tmp_path / "genes.csv"
    path.write_text("gene,effect\n" + "".join(f"g{number},{number % 7 or ''}\n" for number in range(3100)))
    assert run("impute", path, "-o", tmp_path / "filled.csv") == 2
    assert "gene (3,100); say --keep COLUMN" in capsys.readouterr().err
    assert not (tmp_path / "filled.csv").exists()
    assert run("impute", path, "-o", tmp_path / "filled.csv", "--keep", "gene") == 0


def test_how_numbers_are_written_may_be_said(tmp_path, capsys):
    """Break: decimal commas between quotes and tabs are texts."""
    source = tmp_path / "a.csv"
    source.write_text("a\tb\n" + "".join(f"{number},5\t{number}|\n" for number in range(20)) + "\t3|\n")
    assert run("impute", source, "-o", tmp_path / "b.csv", "--delimiter", "tab", "--decimal", ",", "--json") == 0
    assert json.loads(capsys.readouterr().out)["columns"][0] == {"name": "a", "kind": "numeric"}
    assert re.fullmatch(r"\d+,\d\t3\|", (tmp_path / "b.csv").read_text().splitlines()[-1])
    pd.DataFrame({"a": [1.0, np.nan]}).to_parquet(tmp_path / "a.parquet")
    assert run("impute", tmp_path / "a.parquet", "--decimal", ",") == 2
    assert "is Parquet, which has no header" in capsys.readouterr().err


def test_zip_codes_and_identifiers_return_as_they_were(tmp_path):
    """In Parquet, too. Break: numbers, which keep neither zeros nor the last of many digits."""
    codes = [f"{code:05}" for code in (371, 10115, 80331)] * 8
    numbers = [f"{10**22 + number % 3}" for number in range(24)]
    source = tmp_path / "a.csv"
    rows = ["zip,id", *map(",".join, zip(codes, numbers, strict=True)), ","]
    source.write_text("\n".join(rows) + "\n")
    assert run("impute", source, "-o", tmp_path / "b.parquet") == 0
    found = pd.read_parquet(tmp_path / "b.parquet")
    assert found["zip"].tolist()[:24] == codes
    assert found["id"].tolist()[:24] == numbers
    assert found["zip"].iloc[24] in codes
    assert found["id"].iloc[24] in numbers


def test_progress_says_what_is_left_once_it_knows(capsys, monkeypatch):
    """Break: nothing left, before anything was done."""
    from unperturb.app import progress

    now = iter([0.0, 3.0, 40.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(now))
    with progress.progress_line("learning") as show:
        show(1, 100)
        show(38, 100)
    assert capsys.readouterr().err.splitlines() == ["learning: 1 %  ", "learning: 38 %, 1:07 left  "]
