"""The readers of containers: every row of a table or list with where it stands, its pictures left undecoded."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, BinaryIO

from entropy_vision.errors import InputError, InputReason, UsageError

from .folder import BadRow as BadRow
from .folder import Folder, Found
from .media import Picture, cell_files, image_bytes

_LONGEST = 2**31 - 1  # characters of a field
_WHOLE = re.compile(r"[+-]?\d{1,256}")  # Python reads no number of thousands of digits


@dataclass(frozen=True)
class Row:
    """One record of a container.

    Attributes:
        where: file and number, for messages.
        number: its place, from 0, over all files of the container.
        values: what it holds, without pictures.
        pictures: {column: picture} of those that have columns.
    """

    where: str
    number: int
    values: Mapping[str, Any]
    pictures: Mapping[str, Picture] = field(default_factory=dict)

    def text(self, column: str) -> str:
        """A text that is not blank, as it stands."""
        value = self.values.get(column)
        if not isinstance(value, str) or not value.strip():
            raise BadRow(f"{column} is {_shown(value)}, not a text")
        return value

    def name(self, column: str) -> str:
        """A text or whole number, as text."""
        value = self.values.get(column)
        return str(value) if type(value) is int else self.text(column)

    def whole(self, column: str) -> int:
        """A whole number, also one written as text or as a float without a fraction."""
        value = self.values.get(column)
        if isinstance(value, str):
            value = int(value) if _WHOLE.fullmatch(value.strip()) else None
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if type(value) is not int:
            raise BadRow(f"{column} is {_shown(self.values.get(column))}, not a whole number")
        return value

    def texts(self, column: str, least: int = 2) -> list[str]:
        """A list of at least `least` texts; also one that a table holds as JSON."""
        value = self.values.get(column)
        if isinstance(value, str) and value.lstrip().startswith("["):
            with suppress(ValueError, RecursionError):
                value = json.loads(value)
        if not isinstance(value, list) or not all(isinstance(one, str) and one.strip() for one in value):
            raise BadRow(f"{column} is {_shown(self.values.get(column))}, not a list of texts")
        if len(value) < least:
            raise BadRow(f"{column} holds {len(value)} text(s), {least} are needed")
        return value


def parquet_rows(
    folder: Folder, patterns: Sequence[str], columns: Sequence[str], pictures: Sequence[str] = ()
) -> Iterator[Row]:
    """The rows of Parquet files; columns of pictures are read when a picture is asked for, a row group at a time.

    Raises:
        UsageError: no such file, a file that is not Parquet, or a column that is missing.
    """
    number = 0
    for file in folder.find(patterns, "table"):
        table = _Table(file)
        needed = [*columns, *pictures]
        check_columns(file.name, needed, table.columns)
        # {column: type} of what a row may hold besides, small enough to keep
        rest = [name for name in table.columns if name not in pictures and name not in table.heavy]
        for group, start, values in table.rows(rest):
            cells = {name: _Cell(table, group, values[0], name) for name in pictures}
            yield Row(f"{file.name} row {start}", number, values[1], cells)
            number += 1


def separated_rows(
    folder: Folder, patterns: Sequence[str], columns: Sequence[str], *, delimiter: str = ","
) -> Iterator[Row]:
    """The rows of a CSV file.

    Raises:
        UsageError: no such file, a file that is no such table, or a column that is missing.
    """
    number = 0
    for file in folder.find(patterns, "table"):
        with _told_as_table(file):
            lines = io.StringIO(file.read().decode("utf-8-sig"), newline="")
            reader = csv.DictReader(lines, delimiter=delimiter, strict=True)
            check_columns(file.name, columns, reader.fieldnames or ())
            rows = list(reader)
        for place, values in enumerate(rows):
            yield Row(f"{file.name} row {place}", number, values)
            number += 1


def tsv_rows(files: Sequence[Found], columns: Sequence[str], picture: str = "image") -> Iterator[Row]:
    """The rows of a TSV whose column `picture` holds base64 images (VLMEvalKit's), left in the file until asked for.

    A cell may be a list of images, or name the row (its `index`) that holds the same image.
    """
    number = 0
    for file in files:
        table = _Separated(file, picture)
        check_columns(file.name, columns, table.header)
        for place, values in enumerate(table.rows()):
            held = picture in table.header
            yield Row(f"{file.name} row {place}", number, values, {picture: table.cell(place)} if held else {})
            number += 1


def json_rows(records: Iterable[Any], where: str, fields: Sequence[str]) -> Iterator[Row]:
    """Records that were JSON objects.

    Raises:
        UsageError: a field that no record has.
    """
    records = list(records)
    objects = [one for one in records if isinstance(one, dict)]
    for name in fields:
        if not any(name in one for one in objects):
            held = sorted({key for one in objects[:10] for key in one})
            raise UsageError(f"{where}: no record has the field {name}; they have {', '.join(held) or 'none'}")
    for number, one in enumerate(records):
        yield Row(f"{where} record {number}", number, one if isinstance(one, dict) else {})


def read_json(file: Found) -> Any:
    """What a JSON file holds.

    Raises:
        UsageError: it is not JSON.
    """
    try:
        return json.loads(file.read())
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{file.name} cannot be read as JSON ({_first_line(error)})") from None


def read_json_lines(file: Found) -> list[Any]:
    """The records of a file with a JSON value a line; of a line that is not JSON, its text.

    (A record that is no object is counted as a row without a question.)
    """
    records: list[Any] = []
    for line in file.read().decode("utf-8-sig", errors="replace").split("\n"):
        if line.strip():
            try:
                records.append(json.loads(line))
            except (ValueError, RecursionError):
                records.append(line)
    return records


def read_records(file: Found) -> list[Any]:
    """The records of a list that may be one JSON array or JSON lines."""
    if file.read().lstrip()[:1] != b"[":
        return read_json_lines(file)
    records = read_json(file)
    return records if isinstance(records, list) else [records]


def check_columns(where: str, wanted: Sequence[str], held: Sequence[str]) -> None:
    """Refuse a table that lacks a column, in a line that names it."""
    for name in wanted:
        if name not in held:
            raise UsageError(f"{where} has no column {name}: it has {', '.join(map(str, held)) or 'none'}")


class _Table:
    """A Parquet file, opened anew for every reading so that it may be sent to other processes."""

    def __init__(self, file: Found) -> None:
        self.file = file
        self._group: tuple[int, str, Any] | None = None
        self._files: dict[tuple[int, str], list[tuple[str, ...]]] = {}
        with self._opened() as parquet:
            schema = parquet.schema_arrow
            self.columns: list[str] = list(schema.names)
            self.heavy = {name for name in schema.names if "binary" in str(schema.field(name).type)}
            self.groups: int = parquet.num_row_groups

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile

        source: BinaryIO = self.file.open()
        with source:
            try:
                yield ParquetFile(source)
            except ArrowException as error:
                raise UsageError(f"{self.file.name} cannot be read as Parquet ({_first_line(error)})") from None

    def rows(self, columns: Sequence[str]) -> Iterator[tuple[int, int, tuple[int, dict[str, Any]]]]:
        """(row group, row of the file, (row of the group, values))."""
        start = 0
        with self._opened() as parquet:
            for group in range(self.groups):
                read = parquet.read_row_group(group, columns=list(columns), use_threads=False).to_pylist()
                for place, values in enumerate(read):
                    yield group, start + place, (place, values)
                start += len(read)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_group": None}

    def cell(self, group: int, place: int, column: str) -> Any:
        """One value; the last row group asked for is kept."""
        if self._group is None or self._group[:2] != (group, column):
            self._group = group, column, self._column(group, column)
        return self._group[2][place].as_py()

    def images(self, group: int, place: int, column: str) -> list[bytes]:
        """The images in a cell."""
        return image_bytes(self.cell(group, place, column), self.cell_name(group, place, column))

    def files(self, group: int, place: int, column: str) -> tuple[str, ...]:
        """What tells a cell's images apart; a column of a row group is read once for all of its rows."""
        if (group, column) not in self._files:
            values = self._column(group, column)
            names = [self.cell_name(group, row, column) for row in range(len(values))]
            self._files[group, column] = [
                cell_files(partial(image_bytes, value.as_py(), name), name)
                for value, name in zip(values, names, strict=True)
            ]
        return self._files[group, column][place]

    def cell_name(self, group: int, place: int, column: str) -> str:
        """What messages call a cell."""
        return f"{self.file.name}:{column}[{group}:{place}]"

    def _column(self, group: int, column: str) -> Any:
        with self._opened() as parquet:
            return parquet.read_row_group(group, columns=[column], use_threads=False).column(column)


@dataclass(frozen=True)
class _Cell:
    """A picture in a Parquet file."""

    table: _Table
    group: int
    place: int
    column: str

    @property
    def name(self) -> str:
        return self.table.cell_name(self.group, self.place, self.column)

    @property
    def files(self) -> tuple[str, ...]:
        return self.table.files(self.group, self.place, self.column)

    def read(self) -> list[bytes]:
        return self.table.images(self.group, self.place, self.column)

    def missing(self) -> bool:
        return False


class _Separated:
    """A TSV with pictures in it: read once for everything else, then by offset."""

    def __init__(self, file: Found, picture: str) -> None:
        self.file, self.picture = file, picture
        self.offsets: list[int] = []
        self.places: dict[str, int] = {}
        with file.open() as source, _told_as_table(file), _wide_fields():
            self.header: list[str] = next(csv.reader(_Lines(source), delimiter="\t"), [])

    def rows(self) -> Iterator[dict[str, Any]]:
        with self.file.open() as source:
            lines = _Lines(source)
            reader = csv.reader(lines, delimiter="\t")
            with _told_as_table(self.file), _wide_fields():
                next(reader, None)
            while True:
                offset = lines.offset
                with _told_as_table(self.file), _wide_fields():
                    cells = next(reader, None)
                if cells is None:
                    return
                values: dict[str, Any] = dict(zip(self.header, cells, strict=False))
                values.pop(self.picture, None)
                self.places.setdefault(values.get("index", ""), len(self.offsets))
                self.offsets.append(offset)
                yield values

    def cell(self, place: int) -> _SeparatedCell:
        return _SeparatedCell(self, place)

    def read(self, place: int) -> str:
        with self.file.open() as source:
            source.seek(self.offsets[place])
            try:
                with _wide_fields():
                    cells = next(csv.reader(_Lines(source), delimiter="\t"), [])
            except (csv.Error, UnicodeDecodeError) as error:
                raise InputError(self.file.name, InputReason.DAMAGED, f"row {place} cannot be read ({error})") from None
        return dict(zip(self.header, cells, strict=False)).get(self.picture, "")


@dataclass(frozen=True)
class _SeparatedCell:
    """A picture in a TSV. Short text is no image but the `index` of the row that holds it (VLMEvalKit's rule: up to
    64 characters; from memory of its image_base.py)."""

    table: _Separated
    place: int

    @property
    def name(self) -> str:
        return f"{self.table.file.name}:{self.table.picture}[{self.place}]"

    @cached_property
    def files(self) -> tuple[str, ...]:
        return cell_files(self.read, self.name)

    def read(self) -> list[bytes]:
        text = self.table.read(self.place)
        if 0 < len(text) <= 64:
            if text not in self.table.places:
                raise InputError(self.name, InputReason.MISSING, f"it names the row {text!r}, which is not there")
            text = self.table.read(self.table.places[text])
        return image_bytes(_as_list(text), self.name)

    def missing(self) -> bool:
        return not self.table.read(self.place)


class _Lines:
    """Lines of a binary file as text, and the offset at which the next begins."""

    def __init__(self, source: BinaryIO) -> None:
        self.source, self.offset = source, source.tell()

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self.source.readline()
        if not line:
            raise StopIteration
        self.offset += len(line)
        return line.decode("utf-8-sig" if self.offset == len(line) else "utf-8")


@contextmanager
def _told_as_table(file: Found) -> Iterator[None]:
    """Say in a line that a file is no table of text."""
    try:
        yield
    except (csv.Error, UnicodeDecodeError) as error:
        raise UsageError(f"{file.name} cannot be read as a table ({error})") from None


@contextmanager
def _wide_fields() -> Iterator[None]:
    """csv's longest field is a setting of the whole interpreter; images are longer. Around one row at a time: readers
    of one thread take turns."""
    before = csv.field_size_limit(_LONGEST)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _as_list(text: str) -> list[str]:
    """One base64 image, or a list of them as Python or JSON writes it."""
    text = text.strip()
    if not text.startswith("["):
        return [text] if text else []
    return [one.strip().strip("'\"") for one in text[1:-1].split(",") if one.strip()]


def _shown(value: object) -> str:
    text = repr(value)
    return "missing" if value is None else text if len(text) <= 40 else f"{text[:37]}..."


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
