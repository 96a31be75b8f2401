"""Codecs: what is written comes back, whatever the pieces; what is not theirs is an error that says where."""

from __future__ import annotations

import csv
import gzip
import io
import json
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncflow.codecs import Bytes, Codec, Csv, Json, JsonLines, Pickle, RowCodec, Text
from asyncflow.gzipped import Compressor, Decompressor


class Odd(dict[str, str]):
    """A row whose error cannot be made again from a text."""

    def __getitem__(self, key: str) -> str:
        return b"\xff".decode()


documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
fields = st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
awkward = st.text(alphabet='a,"\n\r;\u2028\x85 ', max_size=6)


@given(documents, st.booleans())
def test_documents_come_back(value: Any, compressed: bool) -> None:
    for codec in (Json(gzip=compressed), Json(indent=2, gzip=compressed), Pickle(gzip=compressed)):
        assert codec.decode(codec.encode(value)) == value


@given(st.text(), st.binary(), st.booleans())
def test_text_and_bytes_come_back(text: str, data: bytes, compressed: bool) -> None:
    assert Text(gzip=compressed).decode(Text(gzip=compressed).encode(text)) == text
    assert Bytes(gzip=compressed).decode(Bytes(gzip=compressed).encode(data)) == data


def in_pieces(codec: RowCodec[Any], rows: list[Any], draw: Any) -> list[Any]:
    """Rows written some at a time, and read from pieces of any length."""
    encoder, compressor = codec.encoder(), Compressor()
    at, data = 0, b""
    while at < len(rows):
        count = draw.draw(st.integers(1, 5))
        part = encoder.encode(rows[at : at + count])
        data += compressor.encode(part) if codec.gzip else part
        at += count
    part = encoder.encode([], final=True)
    data += compressor.encode(part, final=True) if codec.gzip else part
    assert codec.decode(data) == codec.decode(codec.encode(rows))
    decoder, decompressor = codec.decoder(), Decompressor()
    found = []
    while data or decompressor.more:
        cut = 0 if decompressor.more else draw.draw(st.integers(1, 30))
        part = decompressor.decode(data[:cut], most=draw.draw(st.integers(0, 9))) if codec.gzip else data[:cut]
        found += decoder.decode(part)
        data = data[cut:]
    assert decompressor.decode(b"", final=True) == b""
    return found + decoder.decode(b"", final=True)


@given(st.lists(documents, max_size=12), st.booleans(), st.data())
def test_json_lines_come_back_whatever_the_pieces(rows: list[Any], compressed: bool, draw: Any) -> None:
    assert in_pieces(JsonLines(gzip=compressed), rows, draw) == rows


@given(
    st.lists(st.lists(fields | awkward, min_size=2, max_size=2), max_size=12),
    st.booleans(),
    st.sampled_from([",", ";", "\t"]),
    st.data(),
)
def test_csv_comes_back_whatever_the_pieces(rows: list[list[str]], compressed: bool, delimiter: str, draw: Any) -> None:
    codec = Csv(header=False, gzip=compressed, delimiter=delimiter)
    assert in_pieces(codec, rows, draw) == rows
    named = [dict(zip(("first", 'sec"ond\n'), row, strict=True)) for row in rows]
    assert in_pieces(Csv(gzip=compressed, delimiter=delimiter), named, draw) == named


@given(st.text(alphabet='a,"\n\r', max_size=40), st.data())
def test_csv_of_others_is_read_as_the_standard_library_reads_it(text: str, draw: Any) -> None:
    try:
        expected = [row for row in csv.reader(io.StringIO(text, newline="")) if row]
    except csv.Error:
        return
    decoder = Csv(header=False).decoder()
    data, found = text.encode(), []
    while data:
        cut = draw.draw(st.integers(1, 8))
        found += decoder.decode(data[:cut])
        data = data[cut:]
    assert found + decoder.decode(b"", final=True) == expected


def test_what_others_read_is_what_was_written() -> None:
    assert Json().dumps({"ä": [1, None]}) == '{"ä":[1,null]}\n'.encode()
    assert JsonLines().dumps(iter([{"a": 1}, [2], "x\ny"])) == b'{"a":1}\n[2]\n"x\\ny"\n'
    assert Csv().dumps([{"a": 1, "b": "x,y"}, {"b": None, "a": 2.5}]) == b'a,b\n1,"x,y"\n2.5,\n'
    assert Csv(columns=("b", "a")).dumps([]) == b"b,a\n"
    assert Csv().dumps([]) == b""
    assert Csv(encoding="utf-8-sig").dumps([{"ä": "ö"}]) == "\ufeffä\nö\n".encode()
    assert Csv(encoding="utf-8-sig").loads("\ufeffä\nö\n".encode()) == [{"ä": "ö"}]
    assert gzip.decompress(Text(gzip=True).encode("text")) == b"text"
    assert JsonLines(gzip=True).encode([1]) == JsonLines(gzip=True).encode([1])


def test_gzip_members_one_after_another() -> None:
    data = gzip.compress(b"1\n") + gzip.compress(b"2\n3") + gzip.compress(b"") + b"\0\0"
    assert JsonLines(gzip=True).decode(data) == [1, 2, 3]
    decompressor = Decompressor()
    found = b"".join(decompressor.decode(data[n : n + 1]) for n in range(len(data)))
    assert found + decompressor.decode(b"", final=True) == b"1\n2\n3"


@pytest.mark.parametrize("most", [1, 100, 1000])
def test_gzip_comes_to_light_a_little_at_a_time(most: int) -> None:
    data = gzip.compress(b"0" * 9_999) + gzip.compress(b"1" * 10)
    decompressor = Decompressor()
    parts = [decompressor.decode(data, final=True, most=most)]
    while decompressor.more:
        parts.append(decompressor.decode(b"", final=True, most=most))
    assert b"".join(parts) == b"0" * 9_999 + b"1" * 10
    assert max(map(len, parts)) == most
    short = Decompressor()
    short.decode(data[:20], most=most)
    with pytest.raises(ValueError, match="ends in the middle"):  # only when all of it has come to light
        while True:
            short.decode(b"", final=True, most=most)


def test_no_data_is_no_gzip_member() -> None:
    assert Bytes(gzip=True).decode(b"") == b""


@pytest.mark.parametrize(
    ("codec", "data", "said"),
    [
        (Json(), b'{"a":', "Expecting value"),
        (Json(), b"\xff", "invalid start byte"),
        (Text(), b"\xff", "invalid start byte"),
        (JsonLines(), b"1\n\n{\n3\n", "line 3: Expecting property name"),
        (JsonLines(), b"1\n2 3\n", "line 2: Extra data"),
        (JsonLines(), b"1\n\xff\n", "line 2: .*invalid start byte"),
        (Csv(), b"a,b\n1,2\n1\n", "row 2 has 1 fields, and there are 2 columns"),
        (Csv(), b"a,a\n1,2\n", "the header has a column twice: a, a"),
        (Csv(columns=("x", "y")), b"a,b\n1,2\n", "the header is a, b; expected x, y"),
        (Csv(columns=("x",), header=False), b"1,2\n", "row 1 has 2 fields, and there are 1 columns"),
        (Csv(), b"a,b\n" + b"1,2\n" * 99 + b"1,\xff\n", "line 101: .*invalid start byte"),
        (Csv(encoding="utf-16"), "a\nb\nc".encode("utf-16") + b"x", "line 3: .*truncated data"),
        (Csv(header=False), b"x" * 200_000, "row 1: field larger than field limit"),
        (Pickle(), b"", "Ran out of input"),
        (Pickle(), b"no pickle", "."),
        (Bytes(gzip=True), b"no gzip", "it is not gzip, or damaged"),
        (Bytes(gzip=True), gzip.compress(b"x" * 100)[:-9], "ends in the middle"),
        (JsonLines(gzip=True), gzip.compress(b"1\n")[:15], "ends in the middle"),
    ],
)
def test_what_is_not_theirs_says_where(codec: Codec[Any], data: bytes, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        codec.decode(data)


@pytest.mark.parametrize(
    ("codec", "value", "error", "said"),
    [
        (Text(), b"x", TypeError, "expected a str, not bytes"),
        (Text(encoding="ascii"), "ä", ValueError, "ordinal not in range"),
        (Bytes(), "x", TypeError, "expected bytes, not str"),
        (Json(), {1, 2}, TypeError, "set is not JSON serializable"),
        (JsonLines(), [1, object()], TypeError, "row 2: .*object is not JSON serializable"),
        (Csv(), [{"a": 1}, {"b": 1}], ValueError, "row 2: has no 'a'"),
        (Csv(), [{"a": 1}, {"a": 1, "b": 1}], ValueError, "row 2: has 'b', and the header has no such column"),
        (Csv(), [(1, 2)], TypeError, "row 1: expected a mapping: the file has a header, not tuple"),
        (Csv(header=False), [{"a": 1}], TypeError, "row 1: expected a sequence: the file has no header, not dict"),
        (Csv(header=False), ["text"], TypeError, "row 1: expected a sequence.*not str"),
        (Csv(header=False, columns=("a",)), [(1, 2)], ValueError, "row 1: has 2 fields, and there are 1 columns"),
        (Csv(), [{"a": "x" * 131_073}], ValueError, "row 1: a field is longer than the 131,072 characters"),
        (Csv(header=False), [["a"], []], ValueError, "row 2: has no fields"),
        (Csv(), [{}, {}], ValueError, "row 1: has no fields, and its keys would be the header"),
        (Csv(encoding="latin-1"), [{"a": "x"}, {"a": "\n"}, {"a": "€"}], ValueError, "row 3: .*can't encode"),
        (Csv(encoding="latin-1", header=False), ["€"], TypeError, "row 1"),
        (Csv(encoding="latin-1", header=False), [["€"]], ValueError, "row 1: .*can't encode"),
        (Csv(encoding="latin-1"), [{"€": "x"}], ValueError, "the header: .*can't encode"),
        (JsonLines(), ["a", "b", "\ud800"], ValueError, "row 3: .*surrogates not allowed"),
        (Csv(), [{"a": 1}, Odd()], ValueError, "row 2: .*invalid start byte"),
        (Pickle(), lambda: 1, TypeError, "lambda"),
    ],
)
def test_what_cannot_be_written_says_why(codec: Codec[Any], value: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        codec.encode(value)


def test_codecs_are_values() -> None:
    for codec in (Text(), Bytes(gzip=True), Json(indent=2), JsonLines(gzip=True), Csv(columns=("a",)), Pickle()):
        assert pickle.loads(pickle.dumps(codec)) == codec
        assert hash(codec) == hash(pickle.loads(pickle.dumps(codec)))
    assert JsonLines() != JsonLines(gzip=True)
    assert repr(JsonLines(gzip=True)) == "JsonLines(gzip=True)"
    assert Csv(columns=["a", "b"]) == Csv(columns=("a", "b"))  # type: ignore[arg-type]
    for wrong in ("ab", [1, 2]):
        with pytest.raises(TypeError, match="expected a sequence of names"):
            Csv(columns=wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="delimiter"):
        Csv(delimiter=", ")
    with pytest.raises(LookupError, match="unknown encoding"):
        Csv(encoding="utf-9")


def test_one_of_ones_own() -> None:
    class Upper(Codec[str]):
        def dumps(self, value: str) -> bytes:
            return value.upper().encode()

        def loads(self, data: bytes) -> str:
            return data.decode().lower()

    assert Upper(gzip=True).decode(Upper(gzip=True).encode("text")) == "text"
    assert gzip.decompress(Upper(gzip=True).encode("text")) == b"TEXT"
    with pytest.raises(NotImplementedError, match="Codec has no dumps"):
        Codec[str]().encode("x")
    assert json.loads(Json().encode(None)) is None
