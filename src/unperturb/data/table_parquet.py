"""Tables in Parquet files: read into types that hold their values bit for bit, and written as they came.

What pandas makes of a column by itself may hold less than the column: whole numbers, truth values and times have no
missing cells in numpy's types. So those come as Arrow's own, and a file is written by the schema that it had.
"""

from decimal import Decimal
from pathlib import Path
from typing import Any

from unperturb.data.table_cells import with_columns
from unperturb.data.table_columns import Frame, check_twice, need
from unperturb.errors import FileError, UsageError

PARQUET = b"PAR1"
"""What such files begin with."""

_OBJECTS = ("dictionary", "decimal", "string", "large_string")
_VIEWS = ("string_view", "binary_view", "list_view", "large_list_view")
"""Types that are read as pandas' own; as Arrow's, pandas does not know the views."""


def read_parquet(path: Path) -> tuple[Frame, Any]:
    """Read a file.

    Returns
    -------
    cells
        A pandas.DataFrame.
    schema
        The pyarrow.Schema of the file.

    Raises
    ------
    FileError
        Where it is damaged, has no rows, or two columns of the same name.
    """
    need("pyarrow")
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        check_twice(pq.read_schema(path).names)
        arrow = pq.read_table(path)
        cells = arrow.to_pandas(types_mapper=_type_of)
    except UsageError as error:
        raise FileError(f"{path}: {error}") from None
    except (pa.ArrowException, OSError, ValueError) as error:
        raise FileError(f"{path} cannot be read as Parquet, it is damaged or cut short; obtain it again.") from error
    if not len(cells):
        raise FileError(f"{path} holds no rows; a table has some.")
    return cells, arrow.schema


def write_parquet(cells: Frame, schema: Any, path: Path) -> None:
    """Write a file, by the schema of the one that the cells came from, or by their types where it is None."""
    need("pyarrow")
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pandas(cells) if schema is None else as_arrow(cells, schema), path)


def as_arrow(cells: Frame, schema: Any) -> Any:
    """Return cells as a pyarrow.Table of the schema of the file that they came from."""
    import pyarrow as pa

    arrow = pa.Table.from_pandas(_with_decimals(_as_in_file(cells, schema), schema), schema=schema.remove_metadata())
    return arrow.replace_schema_metadata(schema.metadata)


def _type_of(kind: Any) -> Any:
    """Return the type that pandas takes for a column, None for its own choice."""
    import pandas as pd
    import pyarrow as pa

    by_pandas = any(getattr(pa.types, f"is_{name}")(kind) for name in (*_OBJECTS, *_VIEWS))
    return None if by_pandas else pd.ArrowDtype(kind)


def _as_in_file(cells: Frame, schema: Any) -> Frame:
    """Return the cells with the names that the file has: pandas restores labels that are no texts, numbers say."""
    index = [name for name in (schema.pandas_metadata or {}).get("index_columns", ()) if isinstance(name, str)]
    return cells.set_axis([name for name in schema.names if name not in index], axis=1)


def _with_decimals(cells: Frame, schema: Any) -> Frame:
    """Return the cells with exact numbers in the columns of them: one that was empty has been filled with floats."""
    import pyarrow as pa

    new = {}
    for place, field in zip(range(cells.shape[1]), schema, strict=False):  # an index comes after the columns
        column = cells.iloc[:, place]
        if pa.types.is_decimal(field.type) and any(isinstance(value, float) for value in column[column.notna()]):
            new[place] = column.map(
                lambda value, scale=field.type.scale: Decimal(f"{value:.{scale}f}"), na_action="ignore"
            ).astype(object)
    return with_columns(cells, new) if new else cells
