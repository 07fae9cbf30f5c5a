"""Parquet, Arrow and Feather files → rows. Only columns that are needed become Python values.

Times, decimals, bytes and whatever else is no text, number, list or structure stays where it is:
Arrow holds values that Python cannot (nanoseconds, years after 9999, unknown time zones).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import IO, TYPE_CHECKING, Any

from nomoat.aggregation.errors import BadData
from nomoat.lora.data.files import streams
from nomoat.lora.data.files.listing import DataFile, one_line

if TYPE_CHECKING:
    import pyarrow

MOST_ROWS = 1024  # read at a time
MOST_BYTES = 64 << 20
MAGIC = {b"ARROW1": "file", b"FEA1": "feather", b"PAR1": "parquet"}


def table_rows(file: DataFile, known: Collection[str]) -> Iterator[dict[str, Any]]:
    """Read a table's rows: plain columns, and those in `known` whatever their type.

    A column that is left out is there, with None, so that its name can be told. Raises BadData.
    """
    try:
        import pyarrow
    except ImportError:
        raise BadData(f"{file.shown}: reading tables needs pyarrow (pip install pyarrow)") from None
    number = 0
    broken = (ValueError, TypeError, LookupError, ArithmeticError, MemoryError)
    problems = (pyarrow.ArrowException, OSError, *broken)
    with streams.seekable(file) as stream:
        try:
            for batch in _batches(stream):
                batch.validate(full=True)  # offsets out of bounds, bytes that are not UTF-8
                _check_names(batch.schema, file)
                columns = [
                    _column(name, batch.column(place), name in known, f"{file.shown}:{number + 1}")
                    for place, name in enumerate(batch.schema.names)
                ]
                for values in zip(*columns, strict=True):
                    number += 1
                    yield dict(zip(batch.schema.names, values, strict=True))
        except problems as problem:
            reason = one_line(problem)
            what = file.kind.removeprefix(".").capitalize()
            raise BadData(f"{file.shown}:{number + 1}: not readable as {what}: {reason}") from None


def _batches(stream: IO[bytes]) -> Iterator[pyarrow.RecordBatch]:
    """The table in batches, in whichever of its formats it is, whatever the file is called."""
    import pyarrow
    from pyarrow import feather, parquet

    head = stream.read(6)
    stream.seek(0)
    match next((kind for magic, kind in MAGIC.items() if head.startswith(magic)), "stream"):
        case "parquet":
            with parquet.ParquetFile(stream) as table:
                yield from table.iter_batches(batch_size=_rows_at_once(table.metadata))
        case "file":
            with pyarrow.ipc.open_file(stream) as reader:
                for number in range(reader.num_record_batches):
                    yield from _sliced(reader.get_batch(number))
        case "feather":
            yield from feather.read_table(stream).to_batches(MOST_ROWS)
        case _:
            with pyarrow.ipc.open_stream(stream) as reader:
                for batch in reader:
                    yield from _sliced(batch)


def _rows_at_once(metadata: Any) -> int:
    """Fewer where rows are large, so that a batch stays within MOST_BYTES."""
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    largest = max((group.total_byte_size / max(1, group.num_rows) for group in groups), default=0)
    return max(1, min(MOST_ROWS, int(MOST_BYTES / max(1.0, largest))))


def _sliced(batch: pyarrow.RecordBatch) -> Iterator[pyarrow.RecordBatch]:
    for start in range(0, batch.num_rows, MOST_ROWS):
        yield batch.slice(start, MOST_ROWS)


def _check_names(schema: pyarrow.Schema, file: DataFile) -> None:
    if twice := next((name for name in schema.names if schema.names.count(name) > 1), None):
        raise BadData(f"{file.shown}: the column {twice[:40]!r} stands twice in the table")


def _column(name: str, array: pyarrow.Array, known: bool, origin: str) -> list[Any]:
    """A column's values; None for each where it is not plain and nobody needs it."""
    from pyarrow import types

    nested = types.is_nested(array.type)
    if nested and not known:
        return [None] * len(array)
    try:
        values = python_values(array)
    except UnicodeDecodeError:
        raise BadData(f"{origin} or below: column {name} holds bytes that are not UTF-8") from None
    if values is not None:
        return values
    if not known:
        return [None] * len(array)
    raise BadData(f"{origin}: column {name} is {array.type}, not text")


def python_values(array: pyarrow.Array, depth: int = 0) -> list[Any] | None:
    """Values as Python has them; None for an array of a type that is neither text nor number.

    Inside structures such a part is left out. So is what is null in a structure inside another one:
    a table gives every tool call the arguments of all.
    """
    from pyarrow import types

    kind = array.type
    if (inner := _unwrapped(array)) is not None:
        return python_values(inner, depth)
    if types.is_struct(kind):
        return _structures(array, depth)
    if types.is_map(kind):
        return _mappings(array, depth)
    if types.is_nested(kind) and not types.is_union(kind):
        return _lists(array, depth)
    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind):
        return _decoded(array)
    return list(array.to_pylist()) if any(test(kind) for test in _plain_types()) else None


def _unwrapped(array: Any) -> Any:
    """The values of an array that holds them in another way; None if it does not."""
    import pyarrow
    from pyarrow import types

    if isinstance(array.type, pyarrow.BaseExtensionType):
        return array.storage
    if types.is_dictionary(array.type):
        return array.dictionary_decode()
    if types.is_run_end_encoded(array.type):
        return pyarrow.compute.run_end_decode(array)
    return None


def _plain_types() -> tuple[Callable[[Any], bool], ...]:
    from pyarrow import types

    texts = types.is_string, types.is_large_string, types.is_string_view
    return (*texts, types.is_integer, types.is_floating, types.is_boolean, types.is_null)


def _structures(array: pyarrow.StructArray, depth: int) -> list[Any]:
    names = [array.type.field(place).name for place in range(array.type.num_fields)]
    parts = [python_values(part, depth + 1) for part in array.flatten()]
    given = [(name, part) for name, part in zip(names, parts, strict=True) if part is not None]
    return [
        {name: part[row] for name, part in given if not (depth and part[row] is None)}
        if there
        else None
        for row, there in enumerate(array.is_valid().to_pylist())
    ]


def _lists(array: Any, depth: int) -> list[Any] | None:
    import pyarrow.compute

    items = python_values(array.flatten(), depth)
    if items is None:
        return None
    found: list[Any] = []
    start = 0
    for length in pyarrow.compute.list_value_length(array).to_pylist():
        found.append(None if length is None else items[start : start + length])
        start += length or 0
    return found


def _mappings(array: Any, depth: int) -> list[Any] | None:
    import pyarrow

    pairs = pyarrow.struct([("key", array.type.key_type), ("value", array.type.item_type)])
    lists = python_values(array.cast(pyarrow.list_(pairs)), depth)
    return lists and [
        None if pairs is None else {pair["key"]: pair.get("value") for pair in pairs}
        for pairs in lists
    ]


def _decoded(array: Any) -> list[Any] | None:
    """Bytes that are text, as writers without a type for text leave it; None if they are not."""
    import pyarrow

    try:
        return list(array.cast(pyarrow.large_string()).to_pylist())
    except pyarrow.ArrowInvalid:
        return None
