"""PyTorch's checkpoint archives: zip files of uncompressed records that start at multiples of 64.

`Writer` lays records out exactly as PyTorch's writer does (same headers, padding and data
descriptors), because PyTorch computes record positions from that layout when it maps a file.
`Reader` takes any zip file, also a repacked one, and trusts nothing it says about sizes.
"""

from __future__ import annotations

import mmap
import os
import struct
import zipfile
import zlib
from typing import Any

import numpy as np

ALIGNMENT = 64
_HEADER_SIZE = 30
_LARGE = 0xFFFFFFFF  # a size or position from here on needs zip64 fields
_FLAGS, _FLAGS_EMPTY = 0x0808, 0x0800  # utf-8 names; sizes follow in a data descriptor
_CHUNK = 1 << 24
_BAD_ZIP = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, ValueError,
            RuntimeError, IndexError, OverflowError)  # fmt: skip


class Writer:
    """Writes records to an open binary file; `close` writes the directory."""

    def __init__(self, file: Any, name: str):
        self.file = file
        self.name = name
        self.position = 0
        self.entries: list[tuple[bytes, int, int, int]] = []  # name, crc, size, header position

    def record(self, name: str, data: Any) -> None:
        """One record; `data` is bytes or a one-dimensional uint8 array."""
        path, start, size = f"{self.name}/{name}".encode(), self.position, len(data)
        crc = zlib.crc32(data)
        large = _zip64(size, start)
        unpadded = start + _HEADER_SIZE + len(path) + len(large) + 4
        padding = -unpadded % ALIGNMENT
        extra = large + struct.pack("<2sH", b"FB", padding) + b"Z" * padding
        flags = _FLAGS if size else _FLAGS_EMPTY
        fields = (b"PK\3\4", 0, flags, 0, 0, 0, 0, 0, 0, len(path), len(extra))
        self._write(struct.pack("<4s5H3I2H", *fields) + path + extra)
        if size:
            self._write(data)
            layout = "<4sI2Q" if large else "<4sI2I"
            self._write(struct.pack(layout, b"PK\7\x08", crc, size, size))
        self.entries.append((path, crc, size, start))

    def close(self) -> None:
        """Writes the directory of records; the archive is complete then."""
        directory = self.position
        for path, crc, size, start in self.entries:
            large = _zip64(size, start)
            flags, short = (_FLAGS if size else _FLAGS_EMPTY), min(size, _LARGE)
            fields = (b"PK\1\2", 0, 0, flags, 0, 0, 0, crc, short, short, len(path), len(large),
                      0, 0, 0, 0, min(start, _LARGE))  # fmt: skip
            self._write(struct.pack("<4s6H3I5H2I", *fields) + path + large)
        end, count = self.position, len(self.entries)
        length = end - directory
        fields64 = (b"PK\6\6", 44, 0x031E, 45, 0, 0, count, count, length, directory)
        self._write(struct.pack("<4sQ2H2I4Q", *fields64))
        self._write(struct.pack("<4sIQI", b"PK\6\7", 0, end, 1))
        short = min(count, 0xFFFF)
        last = (b"PK\5\6", 0, 0, short, short, min(length, _LARGE), min(directory, _LARGE), 0)
        self._write(struct.pack("<4s4H2IH", *last))

    def _write(self, data: Any) -> None:
        self.file.write(data)
        self.position += len(data)


def _zip64(size: int, start: int) -> bytes:
    """The field for sizes and positions that need more than 32 bits; empty where none does."""
    numbers = [n for n in (size, size, start) if n >= _LARGE]
    return struct.pack(f"<HH{len(numbers)}Q", 1, 8 * len(numbers), *numbers) if numbers else b""


class Reader:
    """The records of a zip file, named without the archive's own name in front.

    With `mapped`, records are read from disk when their pages are first touched, and changes
    to them stay in memory. Raises RuntimeError for what is no complete archive, and when a
    record's bytes do not match its checksum.
    """

    def __init__(self, file: Any, mapped: bool = False):
        self.file = file
        try:
            self.zip = zipfile.ZipFile(file)
        except _BAD_ZIP as e:
            raise _broken(f"failed finding central directory ({e})") from None
        self.size = file.seek(0, os.SEEK_END)
        names = self.zip.namelist()
        prefix = names[0].partition("/")[0] + "/" if names else ""
        self.records = {
            info.filename.removeprefix(prefix): info
            for info in self.zip.infolist()
            if info.filename.startswith(prefix)
        }
        self.map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) if mapped else None

    def read(self, name: str) -> bytes:
        """All bytes of a record."""
        return self.array(name, None).tobytes()

    def array(self, name: str, size: int | None) -> np.ndarray:
        """A record as a writable uint8 array; RuntimeError where it does not have `size` bytes."""
        info = self.records.get(name)
        if info is None:
            raise _broken(f"failed locating file {name}: file not found")
        if size is not None and info.file_size != size:
            raise _broken(f"file {name} has {info.file_size} bytes, its tensor needs {size}")
        if info.compress_type != zipfile.ZIP_STORED:
            return self._inflated(info)
        start = self._start(info)
        if start + info.file_size > self.size or info.flag_bits & 1:
            raise _broken(f"file {name} is encrypted or reaches past the end of the archive")
        if self.map is not None and start % ALIGNMENT == 0 and info.file_size:
            return np.frombuffer(self.map, np.uint8, info.file_size, start)
        out = np.empty(info.file_size, np.uint8)
        self.file.seek(start)
        crc = fill(self.file, out)
        if info.CRC not in (crc, 0):  # PyTorch writes 0 when told to compute no checksums
            raise _broken(f"file {name} does not match its checksum")
        return out

    def _start(self, info: zipfile.ZipInfo) -> int:
        start = max(info.header_offset, 0)
        self.file.seek(start)
        header = self.file.read(_HEADER_SIZE)
        if start != info.header_offset or len(header) != _HEADER_SIZE or header[:4] != b"PK\3\4":
            raise _broken(f"file {info.filename} has no header")
        return start + _HEADER_SIZE + sum(struct.unpack("<2H", header[26:]))

    def _inflated(self, info: zipfile.ZipInfo) -> np.ndarray:
        try:
            return np.frombuffer(bytearray(self.zip.read(info)), np.uint8)
        except _BAD_ZIP as e:
            raise _broken(f"file {info.filename} cannot be read ({e})") from None


def fill(file: Any, out: np.ndarray) -> int:
    """Reads an array full from a file and gives the CRC-32; RuntimeError where it ends early."""
    rest, crc = out.data, 0
    while rest:
        part = rest[:_CHUNK]
        if hasattr(file, "readinto"):
            count = file.readinto(part) or 0
        else:
            data = file.read(len(part))
            count = len(data)
            part[:count] = data
        if not count:
            raise RuntimeError(
                f"unexpected EOF, expected {len(rest)} more bytes. The file might be corrupted."
            )
        crc = zlib.crc32(part[:count], crc)
        rest = rest[count:]
    return crc


def _broken(what: str) -> RuntimeError:
    return RuntimeError(
        f"PytorchStreamReader failed reading zip archive: {what}. The checkpoint is corrupted: it "
        f"was not written or copied to the end, or was changed afterwards."
    )
