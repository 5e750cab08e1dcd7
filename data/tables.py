"""Small Parquet tables as rows, on one thread.

pyarrow's own `read_table` starts threads that now and then are still there when the interpreter ends, which aborts the
process (1 of 65 short runs).
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from entropy_vision.atomic import atomic_write
from entropy_vision.errors import InputError, InputReason


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a table.

    Raises:
        InputError: it is damaged.
    """
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    content = path.read_bytes()
    try:
        rows: list[dict[str, Any]] = ParquetFile(io.BytesIO(content)).read(use_threads=False).to_pylist()
    except (ArrowException, OSError) as error:
        said = next(iter(str(error).splitlines()), type(error).__name__)
        raise InputError(path, InputReason.DAMAGED, f"the table cannot be read ({said})") from None
    return rows


def write_rows(path: Path, kinds: Mapping[str, str], rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows as a table; its folder is made where it is not there.

    Args:
        kinds: {column: type}, as pyarrow calls them.
    """
    import pyarrow
    from pyarrow.parquet import ParquetWriter

    arrays = {name: pyarrow.array([row[name] for row in rows], kind) for name, kind in kinds.items()}
    table = pyarrow.table(arrays)
    buffer = io.BytesIO()
    with ParquetWriter(buffer, table.schema, compression="zstd") as writer:
        writer.write_table(table)
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, buffer.getvalue())
