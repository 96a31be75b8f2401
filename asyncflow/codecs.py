"""Codecs: how a value becomes the bytes of a file, and a value again. Nothing here reads or writes a file.

::

    LocalTarget("report.json", codec=Json())
    LocalTarget("orders.jsonl.gz", codec=JsonLines(gzip=True))

A codec of one's own is a subclass of ``Codec`` with ``dumps`` and ``loads``, or of ``RowCodec`` with an encoder and a
decoder. All of them are called in threads, and are values themselves: frozen, comparable, picklable.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import pickle
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Generic, Protocol, TypeVar

from .gzipped import Compressor, Decompressor

__all__ = ["Bytes", "Codec", "Csv", "Decoder", "Encoder", "Json", "JsonLines", "Pickle", "RowCodec", "Text"]

T = TypeVar("T")
R = TypeVar("R")
R_contra = TypeVar("R_contra", contravariant=True)


@dataclass(frozen=True, kw_only=True)
class Codec(Generic[T]):
    """Between a value and bytes. ``gzip`` compresses what ``dumps`` gives, and the other way round."""

    gzip: bool = False

    def dumps(self, value: T) -> bytes:
        """The bytes of ``value``. Raises ``TypeError`` or ``ValueError`` for one that has none."""
        raise NotImplementedError(f"{type(self).__name__} has no dumps(self, value)")

    def loads(self, data: bytes) -> T:
        """The value of these bytes, all that there are. Raises ``ValueError`` where they are not what it writes."""
        raise NotImplementedError(f"{type(self).__name__} has no loads(self, data)")

    def encode(self, value: T) -> bytes:
        """``dumps``, and compressed where that is wanted. Raises what ``dumps`` does."""
        data = self.dumps(value)
        return Compressor().encode(data, final=True) if self.gzip else data

    def decode(self, data: bytes) -> T:
        """``loads``, of what was compressed where it was. Raises what ``loads`` does."""
        return self.loads(Decompressor().decode(data, final=True) if self.gzip else data)


@dataclass(frozen=True)
class Bytes(Codec[bytes]):
    """``bytes``, as they are."""

    def dumps(self, value: bytes) -> bytes:
        """``value``, which may also be a ``bytearray`` or ``memoryview``. Raises ``TypeError`` for what is no bytes."""
        if not isinstance(value, (bytes, bytearray, memoryview)):
            raise TypeError(f"expected bytes, not {type(value).__name__}")
        return bytes(value)

    def loads(self, data: bytes) -> bytes:
        """``data``."""
        return data


@dataclass(frozen=True)
class Text(Codec[str]):
    """A ``str``, as it is: line ends are the caller's."""

    encoding: str = "utf-8"

    def dumps(self, value: str) -> bytes:
        """Raises ``TypeError`` for what is no string, ``UnicodeEncodeError`` (a ``ValueError``)."""
        if not isinstance(value, str):
            raise TypeError(f"expected a str, not {type(value).__name__}")
        return value.encode(self.encoding)

    def loads(self, data: bytes) -> str:
        """Raises ``UnicodeDecodeError`` (a ``ValueError``)."""
        return data.decode(self.encoding)


@dataclass(frozen=True)
class Json(Codec[Any]):
    """One JSON document in UTF-8. ``indent`` is in spaces, by default none and all in one line."""

    indent: int | None = None

    def dumps(self, value: Any) -> bytes:
        """Raises ``TypeError`` or ``ValueError`` for what JSON cannot say."""
        separators = (",", ":") if self.indent is None else None
        return (json.dumps(value, ensure_ascii=False, indent=self.indent, separators=separators) + "\n").encode()

    def loads(self, data: bytes) -> Any:
        """Raises ``json.JSONDecodeError`` or ``UnicodeDecodeError`` (``ValueError``s)."""
        return json.loads(data)


@dataclass(frozen=True)
class Pickle(Codec[Any]):
    """A pickle. Reading one runs what it says: only for files that nobody else can write."""

    protocol: int = pickle.DEFAULT_PROTOCOL

    def dumps(self, value: Any) -> bytes:
        """Raises ``TypeError`` for what cannot be pickled."""
        try:
            return pickle.dumps(value, self.protocol)
        except (pickle.PicklingError, AttributeError) as error:
            raise TypeError(str(error)) from error

    def loads(self, data: bytes) -> Any:
        """Raises ``ValueError`` for what is no pickle, and what the pickle's own code raises."""
        try:
            return pickle.loads(data)
        except (pickle.UnpicklingError, EOFError) as error:
            raise ValueError(str(error)) from error


# Rows ------------------------------------------------------------------------------------------------------


class Encoder(Protocol[R_contra]):
    """Makes the bytes of one file from its rows, some at a time."""

    def encode(self, rows: Iterable[R_contra], final: bool = False) -> bytes:
        """The bytes that these rows add. ``final``: they are the last. Raises ``TypeError``, ``ValueError``."""
        ...


class Decoder(Protocol[R]):
    """Makes rows from the bytes of one file, some at a time."""

    def decode(self, data: bytes, final: bool = False) -> list[R]:
        """The rows that ``data`` completes. ``final``: there is no more. Raises ``ValueError``."""
        ...


@dataclass(frozen=True, kw_only=True)
class RowCodec(Codec[Any], Generic[R]):
    """Between rows and bytes, a bunch at a time: a file of any size is written and read in a little memory.

    A value of the whole file is any iterable of rows when it is written, and a list of them when it is read.
    """

    def encoder(self) -> Encoder[R]:
        """A new one, for one file."""
        raise NotImplementedError(f"{type(self).__name__} has no encoder(self)")

    def decoder(self) -> Decoder[R]:
        """A new one, for one file."""
        raise NotImplementedError(f"{type(self).__name__} has no decoder(self)")

    def dumps(self, value: Iterable[R]) -> bytes:
        """The bytes of all the rows in ``value``."""
        return self.encoder().encode(value, final=True)

    def loads(self, data: bytes) -> list[R]:
        """All rows."""
        return self.decoder().decode(data, final=True)


@dataclass(frozen=True)
class JsonLines(RowCodec[Any]):
    """One JSON document in each line, UTF-8. Empty lines are nothing."""

    def encoder(self) -> Encoder[Any]:
        """A new one."""
        return _JsonLinesEncoder()

    def decoder(self) -> Decoder[Any]:
        """A new one."""
        return _JsonLinesDecoder()


class _JsonLinesEncoder:
    def __init__(self) -> None:
        self._row = 0
        self._dump = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode

    def encode(self, rows: Iterable[Any], final: bool = False) -> bytes:
        lines = []
        for row in rows:
            self._row += 1
            try:
                lines.append(self._dump(row))
            except (TypeError, ValueError) as error:
                raise _of_row(self._row, error) from error
        try:
            return "\n".join([*lines, ""]).encode() if lines else b""
        except UnicodeEncodeError:
            for row, line in enumerate(lines, self._row - len(lines) + 1):
                try:
                    line.encode()
                except UnicodeEncodeError as error:
                    raise _of_row(row, error) from error
            raise


def _of_row(number: int, error: Exception) -> Exception:
    kind = TypeError if isinstance(error, TypeError) else ValueError
    return kind(f"row {number:,}: {error}")


class _JsonLinesDecoder:
    def __init__(self) -> None:
        self._line = 0
        self._rest: list[bytes] = []  # of a line that has not ended
        self._load = json.JSONDecoder().decode

    def decode(self, data: bytes, final: bool = False) -> list[Any]:
        first, *lines = data.split(b"\n")
        self._rest.append(first)
        if lines or final:
            lines.insert(0, b"".join(self._rest))
            self._rest = [] if final else [lines.pop()]
        rows = []
        for line in lines:
            self._line += 1
            try:
                text = line.decode()
                if text and not text.isspace():
                    rows.append(self._load(text))
            except ValueError as error:
                raise ValueError(f"line {self._line:,}: {error}") from error
        return rows


@dataclass(frozen=True)
class Csv(RowCodec[Any]):
    """Comma-separated values, as the standard library writes and reads them; all of them are strings when read.

    With a ``header`` rows are dictionaries: the first line has their keys, which are those of the first row unless
    ``columns`` says which, in which order. Without one rows are lists. Every row must have all of the columns and no
    others.
    """

    columns: tuple[str, ...] | None = None
    header: bool = True
    delimiter: str = ","
    encoding: str = "utf-8"

    def __post_init__(self) -> None:
        if self.columns is not None:
            columns: Any = self.columns
            if isinstance(columns, str) or not all(isinstance(column, str) for column in columns):
                raise TypeError(f"Csv(columns={columns!r}): expected a sequence of names")
            if not columns:
                raise ValueError(f"Csv(columns={columns!r}): name a column, or leave it to the first row")
            object.__setattr__(self, "columns", tuple(columns))
        csv.reader((), delimiter=self.delimiter)  # raises TypeError for what is no delimiter
        codecs.lookup(self.encoding)

    def encoder(self) -> Encoder[Any]:
        """A new one."""
        return _CsvEncoder(self)

    def decoder(self) -> Decoder[Any]:
        """A new one."""
        return _CsvDecoder(self)


class _CsvEncoder:
    def __init__(self, codec: Csv) -> None:
        self._header = codec.header
        self._columns = codec.columns
        self._row = 0
        self._text = codecs.getincrementalencoder(codec.encoding)()  # one byte order mark in a file, if any
        self._lines: list[str] = []
        self._write = csv.writer(self, delimiter=codec.delimiter, lineterminator="\r\n").writerow
        self._begun = False
        self._longest = csv.field_size_limit()
        self._last: Sequence[Any] = ()  # the row that is being written

    def encode(self, rows: Iterable[Any], final: bool = False) -> bytes:
        if not self._begun and self._header and self._columns is not None:
            self._begin(self._columns)
        for row in rows:
            self._row += 1
            try:
                self._last = self._fields(row)
                self._write(self._last)
            except (TypeError, ValueError, csv.Error) as error:
                raise _of_row(self._row, error) from error
        lines, self._lines = self._lines, []
        try:
            return self._text.encode("".join(lines), final)
        except UnicodeEncodeError as error:
            ends = accumulate(map(len, lines))
            after = len(lines) - next(n for n, end in enumerate(ends, 1) if end > error.start)
            if after == self._row:
                raise ValueError(f"the header: {error}") from error
            raise _of_row(self._row - after, error) from error

    def write(self, line: str) -> None:
        """What the standard library's writer calls, with one row. It only puts what ends a line into quotes."""
        if len(line) > self._longest and any(len(str(field)) > self._longest for field in self._last):
            raise ValueError(f"a field is longer than the {self._longest:,} characters that csv reads")
        self._lines.append(line[:-2] + "\n")

    def _begin(self, columns: tuple[str, ...]) -> None:
        self._columns = columns
        self._begun = True
        self._write(columns)

    def _fields(self, row: Any) -> Sequence[Any]:
        if isinstance(row, (str, bytes)) or isinstance(row, Mapping) is not self._header:
            expected = "a mapping: the file has a header" if self._header else "a sequence: the file has no header"
            raise TypeError(f"expected {expected}, not {type(row).__name__}")
        if not self._header:
            fields = tuple(row)
            if not fields:
                raise ValueError("has no fields; an empty line is nothing to who reads it")
            if self._columns is not None and len(fields) != len(self._columns):
                raise ValueError(f"has {len(fields)} fields, and there are {len(self._columns)} columns")
            return fields
        if not self._begun:
            if not row:
                raise ValueError("has no fields, and its keys would be the header")
            self._begin(tuple(row))
        assert self._columns is not None
        try:
            fields = tuple([row[column] for column in self._columns])
        except KeyError as error:
            raise ValueError(f"has no {error.args[0]!r}") from None
        if len(row) != len(fields):
            others = ", ".join(repr(key) for key in row if key not in self._columns)
            raise ValueError(f"has {others}, and the header has no such column")
        return fields


class _More(Exception):
    """The text that is there has been read, and a row may go on in the next."""


class _CsvDecoder:
    def __init__(self, codec: Csv) -> None:
        self._delimiter = codec.delimiter
        self._header = codec.header
        self._columns = codec.columns if not codec.header else None
        self._wanted = codec.columns
        self._text = codecs.getincrementaldecoder(codec.encoding)()
        self._encoding = codec.encoding
        self._rest = ""
        self._row = 0
        self._line = 1  # that the next data begin in

    def decode(self, data: bytes, final: bool = False) -> list[Any]:
        lines: list[str] = []  # of the row that is being read
        text = self._rest + self._decoded(data, final)
        rows = []
        try:
            for row in csv.reader(_lines(text, lines, final), delimiter=self._delimiter):
                lines.clear()
                if row:
                    rows.append(row)
        except _More:
            pass
        except csv.Error as error:
            raise ValueError(f"row {self._row + len(rows) + 1:,}: {error}") from error
        self._rest = "".join(lines)
        return list(self._checked(rows))

    def _decoded(self, data: bytes, final: bool) -> str:
        try:
            text = self._text.decode(data, final)
        except UnicodeDecodeError as error:
            before = error.object[: error.start].decode(self._encoding, "ignore")
            raise ValueError(f"line {self._line + before.count(chr(10)):,}: {error}") from error
        self._line += text.count("\n")
        return text

    def _checked(self, rows: list[list[str]]) -> Iterator[Any]:
        for row in rows:
            if self._header and self._columns is None:
                self._columns = tuple(row)
                self._check_header()
                continue
            self._row += 1
            if self._columns is not None and len(row) != len(self._columns):
                raise ValueError(f"row {self._row:,} has {len(row)} fields, and there are {len(self._columns)} columns")
            yield dict(zip(self._columns, row, strict=True)) if self._header and self._columns else row

    def _check_header(self) -> None:
        assert self._columns is not None
        if len(set(self._columns)) != len(self._columns):
            raise ValueError(f"the header has a column twice: {', '.join(self._columns)}")
        if self._wanted is not None and self._wanted != self._columns:
            raise ValueError(f"the header is {', '.join(self._columns)}; expected {', '.join(self._wanted)}")


def _lines(text: str, taken: list[str], final: bool) -> Iterator[str]:
    """The lines of ``text``, each noted in ``taken``. The last may go on in the next text, unless this is ``final``."""
    left = len(text)
    for line in io.StringIO(text, newline=""):
        taken.append(line)
        left -= len(line)
        if not left and not final and not line.endswith("\n"):  # a \r may be half of a \r\n
            raise _More
        yield line
    if not final:
        raise _More
