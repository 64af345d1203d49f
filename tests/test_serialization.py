"""Files: PyTorch's both ways, safetensors both ways, and failures that leave nothing behind."""

import collections
import contextlib
import copy
import gzip
import io
import os
import pickle
import stat
import tarfile
from types import SimpleNamespace

import fake_cupy
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gpunn
from gpunn import cuda, serialization
from gpunn.archive import Reader, Writer
from gpunn.device import Device
from gpunn.serialization import load_safetensors, save_safetensors
from gpunn.tensor import wrap

LOADING_ERRORS = (pickle.UnpicklingError, RuntimeError, EOFError)


def saved(value, lib=gpunn, **options):
    file = io.BytesIO()
    lib.save(value, file, **options)
    file.seek(0)
    return file


def plain(value):
    """A nested value in which tensors of either library became tuples of what describes them."""
    if hasattr(value, "requires_grad"):
        t = value.detach()
        exact = t.to(dtype=_wide(t)).tolist()
        kind = "Parameter" if type(value).__name__ == "Parameter" else "Tensor"
        return (kind, str(value.dtype), tuple(value.shape), tuple(value.stride()),
                value.requires_grad, str(value.device), repr(exact))  # fmt: skip
    if isinstance(value, collections.abc.Mapping):
        items = [(plain(k), plain(v)) for k, v in value.items()]
        return type(value).__name__, items, plain(getattr(value, "_metadata", None))
    if isinstance(value, (list, tuple, set, frozenset)):
        items = sorted(value, key=repr) if isinstance(value, (set, frozenset)) else value
        return type(value).__name__, [plain(v) for v in items]
    return type(value).__name__.lower(), str(value)  # Device here, device there


def _wide(t):
    lib = gpunn if isinstance(t, gpunn.Tensor) else __import__("torch")
    if t.is_complex():
        return lib.complex128
    return lib.float64 if t.is_floating_point() or t.dtype is lib.bool else lib.int64


# --- PyTorch's files -------------------------------------------------------------------------


def _optimizer_state(torch):
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    return {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3}


def _views(torch):
    x = torch.arange(24.0).reshape(2, 3, 4)
    return [x, x[1], x.permute(2, 0, 1), x[:, ::2, 1:], x.expand(5, 2, 3, 4), x[0, 0, 0], x.mT]


def _dtypes(torch):
    names = ["bool", "uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32",
             "float64", "complex64", "complex128", "uint16", "uint32"]  # fmt: skip
    return {n: torch.tensor([0, 1, 3]).to(getattr(torch, n)) for n in names}


TORCH_VALUES = {
    "linear": lambda torch: torch.nn.Linear(3, 2).state_dict(),
    "conv": lambda torch: torch.nn.Conv2d(3, 4, 3).state_dict(),
    "lstm": lambda torch: torch.nn.LSTM(3, 4, 2, bidirectional=True).state_dict(),
    "embedding": lambda torch: torch.nn.Embedding(5, 2, padding_idx=0).state_dict(),
    "batch_norm": lambda torch: torch.nn.Sequential(torch.nn.BatchNorm1d(3)).state_dict(),
    "training": _optimizer_state,
    "views": _views,
    "dtypes": _dtypes,
    "parameters": lambda torch: list(torch.nn.Linear(2, 2).parameters()),
    "flags": lambda torch: [torch.ones(2, requires_grad=True), torch.ones(2)],
    "empty": lambda torch: [torch.zeros(0), torch.zeros(2, 0, 3), torch.ones(3)[:0]],
    "scalars": lambda torch: [torch.tensor(1.5), torch.tensor(True), torch.tensor(-7)],
    "special": lambda torch: torch.tensor([float("inf"), float("nan"), -0.0, 1e-40]),
    "plain": lambda torch: {
        "list": [1, -1, 2**40, 2**80, 1.5, float("inf"), True, None, "häh", b"\0\xff", 1j],
        "tuple": (1, (2, ()), torch.Size([2, 3])), "set": {1, 2}, 3: collections.OrderedDict(a=1),
        "counter": collections.Counter("aab"), "dtype": torch.bfloat16,
        "device": torch.device("cuda:1"), "bytes": bytearray(b"xy"),
    },
}  # fmt: skip


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("case", TORCH_VALUES)
def test_files_of_pytorch(case, legacy):
    torch = pytest.importorskip("torch", reason="parity tests need PyTorch")
    value = TORCH_VALUES[case](torch)
    if legacy and case == "dtypes":
        del value["uint16"], value["uint32"]  # PyTorch cannot read its own legacy file of these
    here = gpunn.load(saved(value, torch, _use_new_zipfile_serialization=not legacy))
    assert plain(here) == plain(value)
    back = torch.load(saved(here), weights_only=True)
    assert plain(back) == plain(value)


def test_whole_modules_of_pytorch_are_refused():
    torch = pytest.importorskip("torch", reason="parity tests need PyTorch")
    with pytest.raises(pickle.UnpicklingError, match="GLOBAL torch.nn.modules.linear.Linear"):
        gpunn.load(saved(torch.nn.Linear(2, 2), torch))


@pytest.mark.filterwarnings("ignore:Sparse")
@pytest.mark.parametrize("legacy", [False, True])
def test_sparse_and_lazy_tensors_of_pytorch(legacy):
    torch = pytest.importorskip("torch", reason="parity tests need PyTorch")
    i, v = torch.tensor([[0, 1, 1], [2, 0, 0]]), torch.tensor([[3.0, 1], [4, 1], [5, 1]])
    sparse = torch.sparse_coo_tensor(i, v, (2, 3, 2))
    here = gpunn.load(saved(sparse, torch, _use_new_zipfile_serialization=not legacy))
    assert here.tolist() == sparse.to_dense().tolist()
    if not legacy:
        z = torch.tensor([1 + 2j, 3 - 1j])
        values = [z.conj(), z.clone().conj().imag, z]
        for a, b in zip(gpunn.load(saved(values, torch)), values, strict=True):
            assert a.tolist() == b.tolist()
    with pytest.raises(pickle.UnpicklingError, match="torch.sparse_csr, which is not read"):
        gpunn.load(saved(torch.eye(2).to_sparse_csr(), torch))


@pytest.mark.parametrize("legacy", [False, True])
def test_sharing_from_pytorch(legacy):
    torch = pytest.importorskip("torch", reason="parity tests need PyTorch")
    x = torch.arange(6.0)
    a, b, c = gpunn.load(saved([x, x[2:], x.view(2, 3)], torch,
                               _use_new_zipfile_serialization=not legacy))  # fmt: skip
    a.array[3] = 100
    assert b.tolist() == [2, 100, 4, 5] and c.tolist() == [[0, 1, 2], [100, 4, 5]]


# --- round trips -----------------------------------------------------------------------------


def test_sharing_is_kept_and_written_once():
    x = gpunn.arange(6.0)
    file = saved([x, x[2:], x.reshape(2, 3).T, gpunn.ones(1)])
    assert [n for n in Reader(file).records if n.startswith("data/")] == ["data/0", "data/1"]
    file.seek(0)
    a, b, c, _ = gpunn.load(file)
    a.array[3] = 100
    assert b.tolist() == [2, 100, 4, 5] and c.tolist() == [[0, 100], [1, 4], [2, 5]]
    assert c.stride() == (1, 3)
    again = Reader(saved([a, b, c]))  # loaded tensors are saved like others
    assert again.records["data/0"].file_size == 24 and "data/1" not in again.records


def test_a_small_view_takes_its_storage_along():
    x = gpunn.zeros(1000)
    assert Reader(saved(x[:2])).records["data/0"].file_size == 4000
    assert Reader(saved(x[:2].clone())).records["data/0"].file_size == 8


LEAVES = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary()
    | st.complex_numbers() | st.sampled_from([gpunn.float32, gpunn.bfloat16, gpunn.bool])
    | st.sampled_from([gpunn.device("cpu"), gpunn.device("cpu:1"), gpunn.device("cuda:0")])
    | st.lists(st.integers(0, 9)).map(gpunn.Size)
    | st.sets(st.integers() | st.text()) | st.frozensets(st.integers())
    | st.floats(width=32).map(np.float32) | st.integers(-9, 9).map(np.int64)
    | st.lists(st.integers(-9, 9)).map(np.array)
    | st.lists(st.floats(width=16)).map(gpunn.tensor)
    | st.lists(st.booleans(), min_size=1).map(lambda v: gpunn.tensor(v)[::2])
)  # fmt: skip
KEYS = st.text() | st.integers() | st.tuples(st.integers(), st.text())
NESTED = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(KEYS, inner, max_size=4)
        | st.dictionaries(KEYS, inner, max_size=4).map(collections.OrderedDict)
    ),
    max_leaves=12,
)


@settings(deadline=None, max_examples=150)
@given(NESTED)
def test_nested_containers_round_trip(value):
    assert plain(gpunn.load(saved(value))) == plain(value)


class Scale(gpunn.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = gpunn.nn.Parameter(gpunn.rand(3))
        self.register_buffer("count", gpunn.tensor(2))


def test_a_model_that_is_a_file(tmp_path):
    model = gpunn.nn.Sequential(Scale(), Scale())
    path = tmp_path / "model.pt"
    gpunn.save(model.state_dict(), path)
    state = gpunn.load(path)
    assert type(state) is collections.OrderedDict and state._metadata[""] == {"version": 1}
    other = gpunn.nn.Sequential(Scale(), Scale())
    other.load_state_dict(state)
    assert plain(other.state_dict()) == plain(model.state_dict())
    assert path.read_bytes()[30:44] == b"model/data.pkl"


# --- arguments -------------------------------------------------------------------------------


def test_arguments_that_are_refused(tmp_path):
    file = saved(gpunn.ones(1))
    with pytest.raises(ValueError, match="weights_only=False would run code"):
        gpunn.load(file, weights_only=False)
    with pytest.raises(RuntimeError, match="Can not safely load weights when explicit pickle_mod"):
        gpunn.load(file, pickle_module=pickle)
    with pytest.raises(ValueError, match="f must be a file path in order to use the mmap"):
        gpunn.load(file, mmap=True)
    with pytest.raises(ValueError, match="Leave both out"):
        gpunn.save(1, io.BytesIO(), pickle_module=io)
    with pytest.raises(ValueError, match="Leave both out"):
        gpunn.save(1, io.BytesIO(), _use_new_zipfile_serialization=False)
    with pytest.raises(AttributeError, match="expected 'f' to be string, path, or a file-like"):
        gpunn.save(1, None)
    with pytest.raises(AttributeError, match="You can only load from a file that is seekable"):
        gpunn.load(None)
    with pytest.raises(FileNotFoundError):
        gpunn.load(tmp_path / "absent.pt")
    with pytest.raises(RuntimeError, match="Parent directory .*absent does not exist"):
        gpunn.save(1, tmp_path / "absent" / "x.pt")
    with pytest.raises(IsADirectoryError):
        gpunn.save(1, tmp_path)
    assert gpunn.load(file, "cpu", weights_only=None).tolist() == [1]


def test_pipes_are_not_seekable():
    read, write = os.pipe()
    os.close(write)
    with os.fdopen(read, "rb", 0) as pipe, pytest.raises(OSError, match="seek"):
        gpunn.load(pipe)


def test_files_that_are_open(tmp_path):
    with gzip.open(tmp_path / "x.gz", "wb") as file:
        file.write(saved([1, gpunn.ones(2)]).getvalue())
    with gzip.open(tmp_path / "x.gz", "rb") as file:
        assert gpunn.load(file)[1].tolist() == [1, 1]
    with open(tmp_path / "x.pt", "wb", buffering=0) as file:
        gpunn.save(gpunn.ones(2), file)
    with open(tmp_path / "x.pt", "rb", buffering=0) as file:
        assert gpunn.load(file).tolist() == [1, 1]


# --- writing to a path -----------------------------------------------------------------------


class Unpicklable:
    def __reduce__(self):
        raise TypeError("not me")


@pytest.mark.parametrize("name", ["model.pt", "model.safetensors"])
def test_a_failure_leaves_the_old_file(name, tmp_path, monkeypatch):
    path = tmp_path / name
    gpunn.save({"a": gpunn.ones(2)}, path)
    before = path.read_bytes()
    bad = {"a": gpunn.ones(3), "b": Unpicklable()}
    with pytest.raises((TypeError, ValueError), match="not me|is invalid"):
        gpunn.save(bad, path)

    def full(*args):
        raise OSError("No space left on device")

    monkeypatch.setattr(Writer, "close", full)
    monkeypatch.setattr("safetensors.numpy.save_file", full)
    with pytest.raises(OSError, match="No space left"):
        gpunn.save({"a": gpunn.ones(3)}, path)
    monkeypatch.undo()
    assert path.read_bytes() == before and os.listdir(tmp_path) == [name]
    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        gpunn.save({"a": gpunn.ones(3)}, path, fsync=True)
    assert path.read_bytes() == before and os.listdir(tmp_path) == [name]


def test_a_failure_writes_nothing_to_an_open_file():
    file = io.BytesIO()
    with pytest.raises(TypeError, match="not me"):
        gpunn.save([gpunn.ones(2), Unpicklable()], file)
    assert file.getvalue() == b""


@pytest.mark.skipif(os.name != "posix", reason="modes, links and pipes are those of POSIX")
def test_what_a_path_may_be(tmp_path):
    real, link = tmp_path / "real.pt", tmp_path / "link.pt"
    gpunn.save(1, real)
    assert stat.S_IMODE(real.stat().st_mode) == 0o666 & ~_umask()
    real.chmod(0o640)
    link.symlink_to(real)
    gpunn.save(2, link, fsync=True)
    assert link.is_symlink() and gpunn.load(real) == 2
    assert stat.S_IMODE(real.stat().st_mode) == 0o640
    gpunn.save(gpunn.ones(9), os.devnull)
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)
    with contextlib.chdir(tmp_path) if hasattr(contextlib, "chdir") else _chdir(tmp_path):
        gpunn.save(3, "bare.pt")
        assert gpunn.load("bare.pt") == 3
    gpunn.save(4, tmp_path / "größe")
    assert gpunn.load(tmp_path / "größe") == 4
    assert sorted(os.listdir(tmp_path)) == ["bare.pt", "größe", "link.pt", "real.pt"]


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


@contextlib.contextmanager
def _chdir(path):
    before = os.getcwd()
    os.chdir(path)
    try:
        yield
    finally:
        os.chdir(before)


# --- where it goes ---------------------------------------------------------------------------


def test_map_location():
    x = gpunn.ones(2)
    file = saved([x, x[1:], gpunn.ones(1, device="cpu:1")])

    def where(map_location):
        file.seek(0)
        out = gpunn.load(file, map_location)
        assert np.shares_memory(out[0].array, out[1].array)
        return [str(t.device) for t in out]

    assert where(None) == ["cpu", "cpu", "cpu:1"]
    assert where("cpu") == where(gpunn.device("cpu:0")) == ["cpu", "cpu", "cpu"]
    assert where("cpu:2") == where(gpunn.device("cpu:2")) == ["cpu:2", "cpu:2", "cpu:2"]
    assert where({"cpu:1": "cpu:3"}) == ["cpu", "cpu", "cpu:3"]
    assert where({"cpu:1": gpunn.device("cpu:3"), "cuda:0": "cpu"}) == ["cpu", "cpu", "cpu:3"]
    assert where(lambda storage, location: storage) == ["cpu", "cpu", "cpu"]
    assert where(lambda storage, location: None) == ["cpu", "cpu", "cpu:1"]
    seen = []

    def move(storage, location):
        seen.append((storage.nbytes(), location, storage.device))
        return storage.to("cpu:1")

    assert where(move) == ["cpu:1", "cpu:1", "cpu:1"]
    assert seen == [(8, "cpu", gpunn.device("cpu")), (4, "cpu:1", gpunn.device("cpu"))]


def test_map_location_errors():
    file = saved(gpunn.ones(2))
    for bad in ("xyz", "cpu:x", "mps"):
        with pytest.raises(RuntimeError, match="don't know how to restore data location of"):
            gpunn.load(file, bad)
        file.seek(0)
    for bad in (5, [gpunn.device("cpu")]):
        with pytest.raises(TypeError, match="map_location must be None, a device"):
            gpunn.load(file, bad)
    for bad in (lambda s, _: "cpu", lambda s, _: gpunn.zeros(1).untyped_storage()):
        with pytest.raises(TypeError, match="map_location must give the storage"):
            gpunn.load(saved(gpunn.ones(2)), bad)
    with pytest.raises(ZeroDivisionError):  # what a callable raises is not blamed on the file
        gpunn.load(saved(gpunn.ones(2)), lambda storage, location: 1 / 0)


def test_cuda_files_on_other_machines(monkeypatch, tmp_path):
    path = tmp_path / "cuda.pt"
    gpunn.save(wrap(np.ones(2, np.float32), Device("cuda:1")), path)
    monkeypatch.setattr(cuda, "is_available", lambda: False)
    with pytest.raises(
        RuntimeError,
        match=r"Attempting to deserialize object on a CUDA device but .*is_available\(\) is False"
        r".*map_location=torch.device\('cpu'\).*cuda.pt",
    ):
        gpunn.load(path)
    assert str(gpunn.load(path, map_location="cpu").device) == "cpu"
    assert str(gpunn.load(path, map_location={"cuda:1": "cpu:1"}).device) == "cpu:1"
    monkeypatch.setattr(cuda, "is_available", lambda: True)
    monkeypatch.setattr(cuda, "device_count", lambda: 1)
    with pytest.raises(RuntimeError, match=r"on CUDA device 1 but .*device_count\(\) is 1"):
        gpunn.load(path)


def test_cuda_location_of_pytorch():
    torch = pytest.importorskip("torch", reason="parity tests need PyTorch")
    text = saved(gpunn.ones(2)).getvalue()
    there = text.replace(b"X\3\0\0\0cpu", b"X\3\0\0\0xpu")
    file = io.BytesIO(there)
    assert torch.load(file, map_location="cpu").tolist() == [1, 1]


def test_mmap(tmp_path):
    path = tmp_path / "x.pt"
    x = gpunn.arange(1000.0)
    gpunn.save({"x": x, "y": x[5:], "e": gpunn.ones(0), "b": gpunn.ones(3).bool()}, path)
    before = path.read_bytes()
    out = gpunn.load(path, mmap=True)
    assert out["x"].tolist() == x.tolist() and np.shares_memory(out["x"].array, out["y"].array)
    out["x"].array[:] = 0
    assert out["y"].tolist() == [0] * 995 and path.read_bytes() == before
    assert Reader(saved(out["x"])).records["data/0"].file_size == 4000
    gpunn.save(out, path)  # over the very file that is mapped
    assert out["b"].tolist() == [True] * 3
    assert gpunn.load(path)["x"].tolist() == [0] * 1000


# --- damage ----------------------------------------------------------------------------------


def _files():
    value = {"a": gpunn.arange(3.0), "b": [1, "x", None]}
    yield saved(value).getvalue()
    with contextlib.suppress(ImportError):
        import torch

        state = {"a": torch.arange(3.0), "b": [1, "x", None]}
        yield saved(state, torch, _use_new_zipfile_serialization=False).getvalue()


def test_truncated_files():
    for raw in _files():
        for end in range(len(raw) - 1):
            with pytest.raises(LOADING_ERRORS):
                gpunn.load(io.BytesIO(raw[:end]))
    with pytest.raises(EOFError, match="Ran out of input"):
        gpunn.load(io.BytesIO())


def test_changed_bytes():
    random = np.random.default_rng(0)
    for raw in _files():
        for at in range(len(raw)):
            bad = bytearray(raw)
            bad[at] ^= random.integers(1, 256)
            with contextlib.suppress(*LOADING_ERRORS):
                gpunn.load(io.BytesIO(bad))
    raw = bytearray(next(_files()))
    raw[raw.index(np.arange(3, dtype=np.float32).tobytes()) + 5] ^= 1
    with pytest.raises(RuntimeError, match="data/0 does not match its checksum"):
        gpunn.load(io.BytesIO(raw))


def test_errors_name_the_file(tmp_path):
    path = tmp_path / "broken.pt"
    for data, error in ((b"PK\3\4", RuntimeError), (b"text", pickle.UnpicklingError),
                        (b"", EOFError)):  # fmt: skip
        path.write_bytes(data)
        with pytest.raises(error, match="broken.pt"):
            gpunn.load(path)


def legacy(program=None, keys=("0",), count=2, data=bytes(8), size=2):
    """A file of the format from before PyTorch 1.6, right or wrong."""
    head = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2)
    head += pickle.dumps({"protocol_version": 1001, "little_endian": True}, 2)
    storage = b"(X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\0%dX\3\0\0\0cpuK" + bytes([size])
    tensor = (b"ctorch._utils\n_rebuild_tensor\n(" + storage.replace(b"%d", b"0") + b"NtQK\0K\2\x85"
              b"K\1\x85tR.")  # fmt: skip
    body = pickle.dumps(list(keys), 2) + count.to_bytes(8, "little") + data
    return io.BytesIO(head + b"\x80\2" + (program or tensor) + body)


def test_legacy_files_by_hand():
    assert gpunn.load(legacy()).tolist() == [0, 0]
    for bad in (legacy(count=3), legacy(data=b"1234567"), legacy(keys=()), legacy(keys=("1",)),
                legacy(keys=("0", "0")), legacy(keys=("0", []))):  # fmt: skip
        with pytest.raises(RuntimeError):
            gpunn.load(bad)
    with pytest.raises(RuntimeError, match="the storages need 1020 bytes of the"):
        gpunn.load(legacy(size=255))
    raw = legacy().getvalue()
    with pytest.raises(RuntimeError, match="Invalid magic number"):
        gpunn.load(io.BytesIO(pickle.dumps(5, 2) + raw))
    with pytest.raises(RuntimeError, match="Invalid protocol version: 1000"):
        gpunn.load(io.BytesIO(raw.replace(pickle.dumps(1001, 2), pickle.dumps(1000, 2), 1)))
    with pytest.raises(RuntimeError, match="mmap can only be used with files saved with"):
        serialization._load(io.BytesIO(raw), None, True, "utf-8")
    both = io.BytesIO(raw + raw)  # one after the other in one file
    assert gpunn.load(both).tolist() == gpunn.load(both).tolist() == [0, 0]


def test_legacy_views_of_storages():
    storage = (b"(X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\0000X\3\0\0\0cpuK\2"
               b"(X\1\0\0\0vK%cK%ct" b"tQ")  # fmt: skip
    tensor = b"ctorch._utils\n_rebuild_tensor\n(" + storage + b"K\0K\1\x85K\1\x85tR."
    values = np.array([3, 4], np.float32).tobytes()
    assert gpunn.load(legacy(tensor % (1, 1), data=values)).tolist() == [4]
    for start, length in ((1, 2), (3, 0)):
        with pytest.raises(RuntimeError, match="reaches outside|out of bounds"):
            gpunn.load(legacy(tensor % (start, length), data=values))


def test_other_formats(tmp_path):
    with tarfile.open(tmp_path / "old.tar", "w") as tar:
        tar.add(__file__, "storages")
    with pytest.raises(RuntimeError, match="legacy .tar format"):
        gpunn.load(tmp_path / "old.tar")
    script = io.BytesIO()
    writer = Writer(script, "model")
    writer.record("constants.pkl", b"x")
    writer.close()
    script.seek(0)
    with pytest.raises(RuntimeError, match="TorchScript archives"):
        gpunn.load(script)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "complex64", "int16", "uint8", "bool"])
def test_files_of_the_other_byte_order(dtype):
    x = gpunn.tensor([1, 0, 3]).to(getattr(gpunn, dtype))
    part = x.itemsize // (2 if x.is_complex() else 1)
    swapped = io.BytesIO()
    writer = Writer(swapped, "archive")
    records = Reader(saved(x))
    for name in records.records:
        data = records.read(name)
        if name == "data/0":
            data = np.frombuffer(data, f"u{part}").byteswap().tobytes()
        writer.record(name, b"big" if name == "byteorder" else data)
    writer.close()
    swapped.seek(0)
    assert plain(gpunn.load(swapped)) == plain(x)


# --- safetensors -----------------------------------------------------------------------------


def _state(lib):
    names = ["bool", "uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32",
             "float64", "complex64", "uint16", "uint32", "uint64"]  # fmt: skip
    state = {n: lib.tensor([[0, 1, 3]]).to(getattr(lib, n)) for n in names}
    return {**state, "scalar": lib.tensor(2.5), "empty": lib.zeros(0, 3)}


def test_safetensors_of_others(tmp_path):
    torch = pytest.importorskip("torch", reason="parity tests need PyTorch")
    from safetensors.torch import load_file, save_file

    path = tmp_path / "x.safetensors"
    save_file(_state(torch), path)
    here = gpunn.load(path)
    assert sorted(map(plain, here.items())) == sorted(map(plain, _state(torch).items()))
    assert list(here) == list(load_file(path))
    gpunn.save(_state(gpunn), path)
    back = load_file(path)
    assert sorted(map(plain, back.items())) == sorted(map(plain, _state(torch).items()))


def test_safetensors_arguments(tmp_path):
    path = tmp_path / "x.safetensors"
    x = gpunn.arange(6.0).reshape(2, 3)
    save_safetensors({"t": x.T, "r": wrap(np.arange(3.0)[::-1])}, path, {"epoch": "3"}, fsync=True)
    out = load_safetensors(path, device="cpu:1")
    assert out["t"].tolist() == x.T.tolist() and out["r"].tolist() == [2, 1, 0]
    assert str(out["t"].device) == "cpu:1" and b'"epoch":"3"' in path.read_bytes()
    out["t"].array[:] = 0  # writable, its own memory
    assert Reader(saved(out["t"])).records["data/0"].file_size == 24
    assert str(gpunn.load(path, map_location=gpunn.device("cpu:1"))["t"].device) == "cpu:1"
    for bad, kind in (({"cpu": "cpu:1"}, "dict"), (lambda s, _: s, "callable")):
        with pytest.raises(RuntimeError, match=f"safetensors file with {kind} map_location"):
            gpunn.load(path, map_location=bad)


def test_safetensors_shared_memory(tmp_path):
    path = tmp_path / "x.safetensors"
    x = gpunn.arange(6.0)
    for tied in ({"a": x, "z": gpunn.ones(1), "b": x}, {"b": x[:4], "a": x[3:]},
                 {"a": x[::2], "b": x[1::2]}):  # fmt: skip
        with pytest.raises(RuntimeError, match=r"Some tensors share memory.*'[ab]' and '[ab]'.*cl"):
            gpunn.save(tied, path)
    assert not path.exists()
    gpunn.save({"a": x[:3], "b": x[3:], "c": x[:0], "d": x.clone()}, path)
    assert gpunn.load(path)["b"].tolist() == [3, 4, 5]


def test_safetensors_errors(tmp_path, monkeypatch):
    path = tmp_path / "x.safetensors"
    with pytest.raises(ValueError, match="Expected a dict of"):
        gpunn.save([gpunn.ones(2)], path)
    with pytest.raises(ValueError, match="Key `a` is invalid"):
        gpunn.save({"a": {"b": gpunn.ones(2)}}, path)
    with pytest.raises(ValueError, match="Key `3` is invalid"):
        gpunn.save({3: gpunn.ones(2)}, path)
    with pytest.raises(RuntimeError, match="complex128"):
        gpunn.save({"a": gpunn.ones(2).to(gpunn.complex128)}, path)
    assert os.listdir(tmp_path) == []
    gpunn.save({"a": gpunn.ones(100)}, path)
    raw = path.read_bytes()
    for end in (0, 5, 20, len(raw) - 1):
        path.write_bytes(raw[:end])
        with pytest.raises(RuntimeError, match="no complete safetensors file"):
            gpunn.load(path)
    path.write_bytes(raw.replace(b'"F32"', b'"F8_E5M2"').replace(b"[0,400]", b"[0,100]"))
    with pytest.raises(RuntimeError):
        gpunn.load(path)
    with pytest.raises(FileNotFoundError):
        gpunn.load(tmp_path / "absent.safetensors")
    monkeypatch.setattr(cuda, "is_available", lambda: False)
    with pytest.raises(RuntimeError, match="is_available"):
        gpunn.load(path, map_location="cuda:0")


def test_safetensors_dtypes_that_are_not_here(tmp_path):
    torch = pytest.importorskip("torch", reason="parity tests need PyTorch")
    from safetensors.torch import save_file

    path = tmp_path / "x.safetensors"
    save_file({"a": torch.ones(2).to(torch.float8_e4m3fn)}, path)
    with pytest.raises(RuntimeError, match="a dtype that gpunn has not: .*float8_e4m3fn"):
        gpunn.load(path)


# --- CUDA ------------------------------------------------------------------------------------


def _check_cuda_files():
    x = gpunn.arange(6.0).reshape(2, 3).to("cuda")
    value = {"x": x, "t": x.T, "p": gpunn.nn.Parameter(x.clone()), "e": gpunn.zeros(0).to("cuda")}
    file = saved(value)
    here = gpunn.load(file, map_location="cpu")
    assert {str(t.device) for t in here.values()} == {"cpu"}
    assert here["t"].tolist() == [[0, 3], [1, 4], [2, 5]]
    assert np.shares_memory(here["x"].array, here["t"].array)
    file.seek(0)
    there = gpunn.load(file)
    assert {str(t.device) for t in there.values()} == {"cuda:0"}
    assert plain({k: t.cpu() for k, t in there.items()}) == plain(
        {k: t.cpu() for k, t in value.items()}
    )
    assert there["x"].untyped_storage().data_ptr() == there["t"].untyped_storage().data_ptr()
    file.seek(0)
    moved = gpunn.load(file, lambda storage, location: storage.cuda())
    assert str(moved["t"].device) == "cuda:0" and moved["t"].cpu().tolist() == here["t"].tolist()
    pickled = pickle.loads(pickle.dumps(value))
    assert pickled["t"].cpu().tolist() == here["t"].tolist()
    assert str(pickled["t"].device) == "cuda:0" and pickled["t"].stride() == (1, 3)
    copied = copy.deepcopy(value)
    assert copied["t"].cpu().tolist() == here["t"].tolist() and copied["t"].stride() == (1, 3)
    old = gpunn.load(legacy(data=np.array([3, 4], np.float32).tobytes()), map_location="cuda:0")
    assert str(old.device) == "cuda:0" and old.cpu().tolist() == [3, 4]


@pytest.mark.gpu
@pytest.mark.skipif(not cuda.is_available(), reason="needs a CUDA device")
def test_cuda_files():
    _check_cuda_files()


def test_cuda_files_with_a_fake_cupy():
    module = fake_cupy.make()

    def address(self):
        return SimpleNamespace(mem=self.block, ptr=self.__array_interface__["data"][0])

    def as_strided(x, shape, strides):
        return np.ndarray(shape, x.dtype, x, 0, strides).view(module.ndarray)

    module.ndarray.data = property(address)
    module.ndarray.set = lambda self, values: self.__setitem__(..., values)
    module.lib = SimpleNamespace(stride_tricks=SimpleNamespace(as_strided=as_strided))
    with fake_cupy.installed(module):
        _check_cuda_files()
