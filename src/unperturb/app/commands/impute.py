"""`unperturb impute`: fill in the missing cells of a table."""

import sys
from pathlib import Path
from typing import Any

import click

from unperturb.app.options import SEEDS, echo_json, json_option
from unperturb.app.progress import progress_line


@click.command()
@click.argument("table", type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), default=None,
    help="The file to write, CSV or Parquet.  [default: <table>_imputed beside it]",
)  # fmt: skip
@click.option(
    "--draws", type=click.IntRange(0, 999), default=0, show_default=True,
    help="Tables to write whose missing cells are drawn from what they may be, and a report.",
)  # fmt: skip
@click.option("--mark", "marks", multiple=True, metavar="TEXT",
              help="A further mark of missing cells, such as -999; several times for several.")  # fmt: skip
@click.option("--category", "categories", multiple=True, metavar="COLUMN",
              help="A column of numbers that stand for categories; several times for several.")  # fmt: skip
@click.option("--keep", multiple=True, metavar="COLUMN",
              help="A column to carry through untouched, such as a number of a patient; several times for several.")  # fmt: skip
@click.option("--between", type=(str, float, float), multiple=True, metavar="COLUMN LOW HIGH",
              help="What the numbers of a column lie between; several times for several.  [default: found out]")  # fmt: skip
@click.option(
    "--header/--no-header", default=None, help="Whether the first line names the columns.  [default: found out]"
)
@click.option("--delimiter", type=click.Choice([",", ";", "|", "tab"]), default=None, metavar="SIGN",
              help="What stands between the cells of a text: , ; | or tab.  [default: found out]")  # fmt: skip
@click.option("--decimal", type=click.Choice([".", ","]), default=None,
              help="What stands before the decimals of numbers in a text.  [default: found out between semicolons, else .]")  # fmt: skip
@click.option("--model", type=click.Path(path_type=Path), default=None,
              help="A model that --save-model has written, for rows of the same columns; nothing is learned then.")  # fmt: skip
@click.option("--save-model", type=click.Path(dir_okay=False, path_type=Path), default=None,
              help="Where to keep what was learned of the table.")  # fmt: skip
@click.option("--seed", type=SEEDS, default=0, show_default=True, help="Of learning and draws.")
@click.option("--overwrite", is_flag=True, help="Replace results that are there already.")
@click.option("--dry-run", is_flag=True, help="Tell what would be done, and do nothing.")
@json_option
def impute(
    table: Path,
    output: Path | None,
    draws: int,
    between: tuple[tuple[str, float, float], ...],
    header: bool | None,
    delimiter: str | None,
    decimal: str | None,
    model: Path | None,
    save_model: Path | None,
    seed: int,
    overwrite: bool,
    dry_run: bool,
    as_json: bool,
    **reading: tuple[str, ...],
) -> None:
    """Fill in the missing cells of TABLE, a CSV or Parquet file, by their best guess.

    What is observed stays as it is. With --draws, tables are written as well in which each missing cell is drawn from
    what it may be, for analyses that count in that it was missing, and a report to read in a browser.
    """
    from unperturb.app.imputing import Learning
    from unperturb.app.tables import Imputing, default_output
    from unperturb.data.table import MARKS

    if model is not None and save_model is not None:
        raise click.UsageError("--save-model keeps what was learned; with --model nothing is")
    told: dict[str, Any] = {
        "marks": (*MARKS, *reading["marks"]), "categories": reading["categories"], "keep": reading["keep"],
        "header": header, "delimiter": "\t" if delimiter == "tab" else delimiter, "decimal": decimal,
    }  # fmt: skip
    target = default_output(table) if output is None else output
    ends = {name: (low, high) for name, low, high in between}
    if len(ends) < len(between):
        raise click.UsageError("--between says one range for a column; give each column once")
    imputing = Imputing(table, target, draws, told, model, save_model, Learning(seed=seed), overwrite, ends)
    imputing.check()
    if dry_run:
        _tell({"input": str(table), "outputs": [str(file) for file in imputing.files]}, header=header, as_json=as_json)
        sys.exit(0)
    with progress_line("learning") as show:
        result = imputing.run(show)
    _tell(result, header=header, as_json=as_json)


def _tell(result: dict[str, Any], *, header: bool | None, as_json: bool) -> None:
    if as_json:
        echo_json(result)
        return
    if "outputs" in result:
        click.echo("\n".join(result["outputs"]))
        return
    written = [result["output"], *result["draws"], result["report"], result["model"]]
    click.echo("\n".join(file for file in written if file is not None))
    if header is None and not result["header"]:
        click.echo(f"unperturb: {result['input']} seems to have no header; --header says that it has", err=True)
    count = sum(result["missing"].values())
    click.echo(f"unperturb: {count} missing cells in {len(result['missing'])} columns", err=True)
    if result["left"]:
        click.echo(f"unperturb: nothing was observed of {', '.join(result['left'])}; left as it is", err=True)
    for name, gone in result["kept_missing"].items():
        click.echo(f"unperturb: {name} is carried through as it is, with {gone} missing cells", err=True)
    if result["mostly_different"]:
        click.echo(
            f"unperturb: most values of {', '.join(result['mostly_different'])} are different, and were taken for "
            "categories; --keep leaves such a column as it is, --decimal says how its numbers are written",
            err=True,
        )
    if result["unseen"]:
        click.echo(
            f"unperturb: {result['unseen']} cells hold a category that was not learned; they stay, and say nothing of "
            "the others",
            err=True,
        )
