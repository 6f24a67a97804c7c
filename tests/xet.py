"""What Xet storage is sent: a file as a row of compressed chunks."""

from __future__ import annotations

import pyarrow

_AS_IT_IS, _LZ4, _GROUPED_LZ4 = range(3)


def content_of(xorb: bytes) -> bytes:
    """Return the bytes of a xorb's chunks, one after another; each has a header of 8 bytes."""
    content, at = b"", 0
    while at < len(xorb):
        packed, kind, size = (
            xorb[at + 1 : at + 4],
            xorb[at + 4],
            int.from_bytes(xorb[at + 5 : at + 8], "little"),
        )
        end = at + 8 + int.from_bytes(packed, "little")
        chunk, at = xorb[at + 8 : end], end
        if kind != _AS_IT_IS:
            chunk = pyarrow.Codec("lz4").decompress(chunk, size, asbytes=True)
        content += _ungrouped(chunk) if kind == _GROUPED_LZ4 else chunk
    return content


def _ungrouped(chunk: bytes) -> bytes:
    """Put back what stands by its place within four bytes."""
    whole, at = bytearray(len(chunk)), 0
    for place in range(4):
        count = len(range(place, len(chunk), 4))
        whole[place::4] = chunk[at : at + count]
        at += count
    return bytes(whole)
