"""Writes an RGB picture without a picture library."""
import struct
import zlib


def write(path, a):
    """a u8 [h, w, 3]."""
    h, w, _ = a.shape
    raw = b"".join(b"\0" + a[i].tobytes() for i in range(h))
    chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    with open(path, "wb") as f:
        f.write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", w, h, 8, 2, 0, 0, 0)) +
                chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b""))
