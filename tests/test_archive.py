"""The zip layout: PyTorch's byte for byte, and no trust in what a file says."""

import io
import zipfile
import zlib

import numpy as np
import pytest

from gpunn.archive import ALIGNMENT, Reader, Writer, fill

RECORDS = {"data.pkl": b"\x80\x02}.", "byteorder": b"little", "data/0": b"", "data/1": b"x" * 999}


def written(records=RECORDS, file=None, name="archive"):
    file = file or io.BytesIO()
    writer = Writer(file, name)
    for key, data in records.items():
        writer.record(key, data)
    writer.close()
    return file


def test_round_trip_and_alignment():
    file = written()
    reader = Reader(file)
    assert {name: reader.read(name) for name in RECORDS} == RECORDS
    assert zipfile.ZipFile(file).testzip() is None
    for info in reader.records.values():
        assert reader._start(info) % ALIGNMENT == 0


@pytest.mark.parametrize("shape", [(0,), (1,), (1000,), (3, 5)])
def test_layout_is_pytorchs(shape, tmp_path):
    torch = pytest.importorskip("torch", reason="parity tests need PyTorch")
    path = tmp_path / "model.v2.pt"
    torch.save({"a": torch.ones(shape), "b": torch.zeros(7)}, path)
    theirs = path.read_bytes()
    stored = zipfile.ZipFile(io.BytesIO(theirs))
    prefix = stored.namelist()[0].partition("/")[0]
    own_id = f"{prefix}/.data/serialization_id"  # a number of PyTorch's own, the last record
    records = {n.removeprefix(prefix + "/"): stored.read(n) for n in stored.namelist()}
    assert written(records, name=prefix).getvalue() == theirs
    assert prefix == "model.v2" and stored.namelist()[-1] == own_id


def test_arrays_are_written_as_their_bytes():
    values = np.arange(100, dtype=np.uint8)
    assert Reader(written({"data/0": values})).read("data/0") == values.tobytes()


def test_positions_past_4_gib(tmp_path):
    path = tmp_path / "sparse.pt"
    with open(path, "wb") as file:
        writer = Writer(file, "archive")
        writer.record("first", b"1")
        writer.position = file.seek(5 << 30)  # a hole: no disk is used
        for name, data in RECORDS.items():
            writer.record(name, data)
        writer.close()
    with open(path, "rb") as file:
        reader = Reader(file, mapped=True)
        assert {name: reader.read(name) for name in RECORDS} == RECORDS
        assert reader._start(reader.records["data/1"]) % ALIGNMENT == 0
        assert reader._start(reader.records["data/1"]) > 5 << 30


def test_compressed_archives_are_read():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as repacked:
        for name, data in RECORDS.items():
            repacked.writestr(f"model/{name}", data)
    reader = Reader(file)
    assert {name: reader.read(name) for name in RECORDS} == RECORDS
    reader.array("data/1", 999)[:] = 1  # writable
    bad = file.getvalue().replace(zlib.compress(b"x" * 999)[2:-4], b"\0" * 8, 1)
    with pytest.raises(RuntimeError, match="PytorchStreamReader failed"):
        Reader(io.BytesIO(bad)).read("data/1")


def test_an_archive_behind_other_bytes():
    file = io.BytesIO(b"a header of something else" + written().getvalue())
    assert Reader(file).read("data/1") == b"x" * 999


def test_mapped_records_are_private(tmp_path):
    path = tmp_path / "x.pt"
    with open(path, "wb") as file:
        written(file=file)
    with open(path, "rb") as file:
        array = Reader(file, mapped=True).array("data/1", 999)
    array[:] = 0  # the mapping outlives the file
    assert Reader(io.BytesIO(path.read_bytes())).read("data/1") == b"x" * 999


def test_damage_is_noticed():
    raw = bytearray(written().getvalue())
    at = raw.index(b"xxxx")
    raw[at] ^= 1
    with pytest.raises(RuntimeError, match="data/1 does not match its checksum"):
        Reader(io.BytesIO(raw)).read("data/1")
    for end in (4, 30, len(raw) - 1):
        with pytest.raises(RuntimeError, match="failed finding central directory"):
            Reader(io.BytesIO(raw[:end]))
    with pytest.raises(RuntimeError, match="failed locating file data/7: file not found"):
        Reader(written()).read("data/7")
    with pytest.raises(RuntimeError, match="has 999 bytes, its tensor needs 40"):
        Reader(written()).array("data/1", 40)


def test_a_claimed_size_costs_no_memory():
    raw = bytearray(written({"data/0": b"abc"}).getvalue())
    entry = raw.index(b"PK\1\2")
    raw[entry + 20 : entry + 28] = (0x7FFFFFFF).to_bytes(4, "little") * 2
    with pytest.raises(RuntimeError, match="past the end"):
        Reader(io.BytesIO(raw)).read("data/0")


def test_files_without_checksums():
    torch = pytest.importorskip("torch", reason="parity tests need PyTorch")
    file = io.BytesIO()
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(torch.ones(3), file)
    finally:
        torch.serialization.set_crc32_options(True)
    assert np.frombuffer(Reader(file).read("data/0"), np.float32).tolist() == [1, 1, 1]


class _OnlyRead:
    def __init__(self, data):
        self.read = io.BytesIO(data).read


def test_fill():
    out = np.empty(5, np.uint8)
    assert fill(_OnlyRead(b"hello, world"), out) == zlib.crc32(b"hello")
    assert fill(io.BytesIO(b"hello"), out) == zlib.crc32(b"hello")
    with pytest.raises(RuntimeError, match="unexpected EOF, expected 3 more bytes"):
        fill(io.BytesIO(b"he"), out)
