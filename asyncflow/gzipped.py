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
        self._members = 0  # that have been begun
        self._between = True  # of this one nothing has been read

    def decode(self, data: bytes, final: bool = False) -> bytes:
        """What ``data`` brings to light. ``final``: there is no more. Raises ``ValueError``."""
        parts = []
        try:
            while data:
                if self._between and self._members:
                    data = data.lstrip(b"\0")  # what pads some files at their end
                    if not data:
                        break
                self._members += self._between
                parts.append(self._zlib.decompress(data))
                data = self._zlib.unused_data
                self._between = self._zlib.eof
                if self._between:
                    self._zlib = zlib.decompressobj(_GZIP)
        except zlib.error as error:
            raise ValueError(f"it is not gzip, or damaged: {error}") from error
        if final and not self._between:
            raise ValueError("it ends in the middle of what is compressed")
        return b"".join(parts)
