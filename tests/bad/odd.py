"""Files that no encoder would write, for bad_input.sh.

  odd.py cmyk|poster FILE               a JPEG of four inks; one whose header claims 60000x40000
  odd.py scans FILE                     a progressive JPEG that ends in its second scan
  odd.py huge|crc FILE                  a PNG whose header claims 30000x30000; one with a broken body
  odd.py turned N IN.jpg FILE           the same JPEG with an EXIF orientation
  odd.py light N IN.png FILE            the same PNG with a chunk cICP: transfer N (16 PQ, 18 HLG), primaries BT.2020
  odd.py light N IN.png FILE PRIMARIES  or those of that number (1 sRGB, 12 Display P3)
  odd.py gamma N IN.png FILE            the same PNG with a chunk gAMA of N / 100000
  odd.py notes N BYTES IN.png FILE      the same PNG with N chunks of so many bytes of text before all others
  odd.py wav RATE CHANNELS BYTES FILE   a WAV whose header claims BYTES of samples and holds 6400
  odd.py nan PERCENT FILE [VALUE]       a WAV of floats of which so many are no numbers, or that VALUE
  odd.py zero FROM TO IN FILE           the same bytes with zeros from one fraction to another
  odd.py port COMMAND...                runs it while somebody listens on the PORT that it names
"""
import socket
import struct
import subprocess
import sys
import zlib


def put(path, data):
    with open(path, "wb") as f:
        f.write(data)


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(w, h, body):
    head = struct.pack(">IIBBBBB", w, h, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def huge(path):
    put(path, png(30000, 30000, zlib.compress(bytes(1 << 20))))


def poster(path):
    """A JPEG's frame header of 60000 by 40000, and nothing behind it."""
    frame = b"\xff\xc0" + struct.pack(">HBHHB", 17, 8, 40000, 60000, 3) + bytes([1, 17, 0, 2, 17, 0, 3, 17, 0])
    tables = b"\xff\xdb" + struct.pack(">HB", 67, 0) + bytes([1] * 64)
    scan = b"\xff\xda" + struct.pack(">HB", 12, 3) + bytes([1, 0, 2, 0, 3, 0, 0, 63, 0])
    put(path, b"\xff\xd8" + tables + frame + scan + bytes(4000) + b"\xff\xd9")


def crc(path):
    rows = b"".join(b"\0" + bytes((x * y) & 255 for x in range(128 * 3)) for y in range(128))
    body = bytearray(zlib.compress(rows, 1))
    for i in range(len(body) // 4, len(body)):
        body[i] ^= 0x5A
    put(path, png(128, 128, bytes(body)))


def scans(path):
    """Flat grey, progressive: all rows are there after the first scan, and none has its detail."""
    table = bytes([1] + [0] * 15 + [0])  # one code of one bit, for the value 0
    out = b"\xff\xd8\xff\xdb" + struct.pack(">HB", 67, 0) + bytes([1] * 64)
    out += b"\xff\xc2" + struct.pack(">HBHHB", 17, 8, 128, 128, 3) + b"".join(bytes([c, 0x11, 0]) for c in (1, 2, 3))
    for kind in (0x00, 0x10):
        out += b"\xff\xc4" + struct.pack(">HB", 20, kind) + table
    out += b"\xff\xda" + struct.pack(">HB", 12, 3) + b"".join(bytes([c, 0]) for c in (1, 2, 3)) + b"\x00\x00\x00"
    out += bytes(16 * 16 * 3 // 8)
    put(path, out + b"\xff\xda" + struct.pack(">HB", 8, 1) + bytes([1, 0]) + b"\x01\x3f\x00" + bytes(4))


def cmyk(path):
    """Flat grey, four components of one block each: all coefficients but none, so a few bits tell it all."""
    table = bytes([0, 1] + [0] * 15 + [0])  # one code of one bit, for the value 0
    out = b"\xff\xd8"
    out += b"\xff\xee" + struct.pack(">H", 14) + b"Adobe" + struct.pack(">HHHB", 100, 0, 0, 0)
    out += b"\xff\xdb" + struct.pack(">HB", 67, 0) + bytes([1] * 64)
    out += b"\xff\xc0" + struct.pack(">HBHHB", 20, 8, 128, 128, 4)
    out += b"".join(bytes([c, 0x11, 0]) for c in (1, 2, 3, 4))
    for kind in (0x00, 0x10):
        out += b"\xff\xc4" + struct.pack(">HB", 20, kind) + table[1:]
    out += b"\xff\xda" + struct.pack(">HB", 14, 4) + b"".join(bytes([c, 0]) for c in (1, 2, 3, 4)) + b"\x00\x3f\x00"
    put(path, out + bytes(16 * 16 * 4 * 2 // 8) + b"\xff\xd9")


def turned(orientation, source, path):
    exif = b"Exif\0\0MM\0\x2a" + struct.pack(">IHHHIHHI", 8, 1, 0x0112, 3, 1, int(orientation), 0, 0)
    data = open(source, "rb").read()
    put(path, data[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + data[2:])


def light(transfer, source, path, primaries=9):
    data = open(source, "rb").read()
    put(path, data[:33] + chunk(b"cICP", bytes([int(primaries), int(transfer), 0, 1])) + data[33:])


def gamma(n, source, path):
    data = open(source, "rb").read()
    put(path, data[:33] + chunk(b"gAMA", struct.pack(">I", int(n))) + data[33:])


def notes(n, size, source, path):
    data = open(source, "rb").read()
    put(path, data[:33] + chunk(b"tEXt", b"note\0" + bytes(int(size))) * int(n) + data[33:])


def wav(rate, channels, size, path):
    rate, channels, size = int(rate), int(channels), int(size)
    samples = struct.pack("<3200h", *((i * 37 % 400 - 200) * 40 for i in range(3200)))
    form = struct.pack("<HHIIHH", 1, channels, rate, (rate * channels * 2) & 0xFFFFFFFF, (channels * 2) & 0xFFFF, 16)
    put(path, b"RIFF" + struct.pack("<I", (36 + size) & 0xFFFFFFFF) + b"WAVEfmt " + struct.pack("<I", 16) + form
        + b"data" + struct.pack("<I", size & 0xFFFFFFFF) + samples)


def nan(percent, path, value="nan"):
    n, step = 16000, round(100 / float(percent))
    x = [float(value) if i % step == 0 else (i % 100 - 50) / 200 for i in range(n)]
    form = struct.pack("<HHIIHH", 3, 1, 16000, 64000, 4, 32)
    put(path, b"RIFF" + struct.pack("<I", 36 + 4 * n) + b"WAVEfmt " + struct.pack("<I", 16) + form + b"data"
        + struct.pack("<I", 4 * n) + struct.pack(f"<{n}f", *x))


def port(*command):
    with socket.create_server(("127.0.0.1", 0)) as s:
        sys.exit(subprocess.run([w.replace("PORT", str(s.getsockname()[1])) for w in command]).returncode)


def zero(start, end, source, path):
    data = bytearray(open(source, "rb").read())
    a, b = int(len(data) * float(start)), int(len(data) * float(end))
    data[a:b] = bytes(b - a)
    put(path, bytes(data))


globals()[sys.argv[1]](*sys.argv[2:])
