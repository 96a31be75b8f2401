"""gzip, some bytes at a time: what codecs compress by."""

from __future__ import annotations

import zlib

__all__ = ["Compressor", "Decompressor"]

_GZIP = 31  # for zlib: the gzip format, its largest window


class Compressor:
    """Of one file, in one gzip member."""

    def __init__(self) -> None:
        self._zlib = zlib.compressobj(wbits=_GZIP)  # its header says no time: the same rows are the same bytes

    def encode(self, data: bytes, final: bool = False) -> bytes:
        """What ``data`` adds to the file. ``final``: it is the last."""
        compressed = self._zlib.compress(data)
        return compressed + self._zlib.flush() if final else compressed


class Decompressor:
    """Of one gzip member after another, as ``cat`` makes them."""

    def __init__(self) -> None:
        self._zlib = zlib.decompressobj(_GZIP)
        self._data = b""  # what has not been read
        self._members = 0  # that have been begun
        self._between = True  # of this one nothing has been read

    @property
    def more(self) -> bool:
        """Whether there is more to come of what has been given: decode on, without data."""
        return bool(self._data)

    def decode(self, data: bytes, final: bool = False, most: int = 0) -> bytes:
        """What ``data`` brings to light, up to ``most`` bytes of it (0: all); the others come with the next call.

        ``final``: there is no more data. Raises ``ValueError`` for what is not gzip, or ends too early.
        """
        parts = []
        length = 0
        self._data += data
        try:
            while self._data and (not most or length < most):
                if self._between and self._members:
                    self._data = self._data.lstrip(b"\0")  # what pads some files at their end
                    if not self._data:
                        break
                self._members += self._between
                part = self._zlib.decompress(self._data, max(0, most - length))
                parts.append(part)
                length += len(part)
                self._between = self._zlib.eof
                self._data = self._zlib.unused_data if self._between else self._zlib.unconsumed_tail
                if self._between:
                    self._zlib = zlib.decompressobj(_GZIP)
        except zlib.error as error:
            raise ValueError(f"it is not gzip, or damaged: {error}") from error
        if final and not self._data and not self._between:
            raise ValueError("it ends in the middle of what is compressed")
        return b"".join(parts)
