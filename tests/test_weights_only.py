"""What files may not do: every pickle here is made to do harm or is damaged."""

import collections
import contextlib
import io
import os
import pickle
import struct

import numpy as np
import pytest

import gpunn
from gpunn import weights_only
from gpunn.archive import Writer
from gpunn.serialization import add_safe_globals, clear_safe_globals, safe_globals

LOADING_ERRORS = (pickle.UnpicklingError, RuntimeError, EOFError)


@pytest.fixture(autouse=True)
def nothing_is_trusted():
    yield
    clear_safe_globals()


def load(program, storages=(bytes(16),)):
    """What an archive with these pickle bytes and storages holds."""
    file = io.BytesIO()
    writer = Writer(file, "archive")
    writer.record("data.pkl", program)
    for key, data in enumerate(storages):
        writer.record(f"data/{key}", data)
    writer.close()
    file.seek(0)
    return gpunn.load(file)


def name(path):
    module, _, last = path.rpartition(".")
    return f"c{module}\n{last}\n".encode()


def text(value):
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def number(value):
    return pickle.dumps(value, 2)[2:-1]


def call(path, *args):
    """The opcodes that call `path` with arguments that are opcodes themselves."""
    return name(path) + b"(" + b"".join(args) + b"tR"


def storage(count=4, kind="torch.FloatStorage", key="0"):
    return b"(" + text("storage") + name(kind) + text(key) + text("cpu") + number(count) + b"tQ"


def tensor(offset=0, size=(4,), stride=(1,), **of):
    return call("torch._utils._rebuild_tensor_v2", storage(**of), number(offset), number(size),
                number(stride), b"\x89", call("collections.OrderedDict"))  # fmt: skip


def refused(program, match, error=pickle.UnpicklingError):
    with pytest.raises(error, match=match):
        load(b"\x80\x02" + program + b".")


def test_the_tools_of_this_file_make_a_tensor():
    out = load(b"\x80\x02" + tensor(1, (3,)) + b".", [np.arange(4, dtype=np.float32).tobytes()])
    assert out.tolist() == [1, 2, 3]


# --- code ------------------------------------------------------------------------------------


class Reduced:
    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize(
    "function, args",
    [
        (os.system, ("touch hacked",)),
        (eval, ("open('hacked', 'w')",)),
        (exec, ("open('hacked', 'w')",)),
        (__import__, ("os",)),
        (open, ("hacked", "w")),
        (os.remove, ("hacked",)),
        (collections.deque, ([],)),
        (pickle.loads, (b"cos\nsystem\n(S'touch hacked'\ntR.",)),
    ],
)
def test_functions_are_not_called(function, args, protocol, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    program = pickle.dumps(Reduced(function, args), protocol)
    with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
        load(program)
    assert list(tmp_path.iterdir()) == []


def test_the_refusal_names_what_was_asked_for_and_the_way_out():
    refused(call("builtins.eval", text("1")), "GLOBAL eval was not an allowed global by default")
    refused(call("__builtin__.eval", text("1")), "GLOBAL eval was not an allowed global")
    refused(call("my.code.Net"), r"add_safe_globals\(\[Net\]\)")
    refused(call("posix.system", text("ls")), "GLOBAL posix.system whose module posix is blocked")
    refused(call("os.path.join"), "whose module os.path is blocked")
    refused(call("torch.float8_e4m3fn"), r"gpunn has no counterpart of it. In PyTorch, save")


@pytest.mark.parametrize(
    "path",
    [
        "torch._utils._rebuild_tensor_v2.__globals__",
        "collections.OrderedDict.__init__",
        "torch.Tensor.__reduce_ex__",
        "torch.Tensor.__init_subclass__",
        "builtins.getattr",
        "builtins.type",
        "builtins.object",
        "gpunn.load",
        "gpunn.storage.rebuild_tensor",
        "numpy.load",
        "numpy.core.multiarray.fromfile",
        "torch.storage._load_from_bytes",
        "torch.hub.load",
        "functools.partial",
        "operator.attrgetter",
        "copyreg._reconstructor",
    ],
)
def test_dotted_and_helper_names_are_refused(path):
    refused(name(path), "Unsupported global")
    module, _, last = path.partition(".")
    refused(text(module) + text(last) + b"\x93", "Unsupported global")


def test_only_names_of_the_list_are_called():
    refused(text("print") + b"(tR", "a call of 'print'")
    refused(name("torch.Tensor") + b"(tR", "a call of")
    refused(name("torch.FloatStorage") + b"(tR", "a call of")
    refused(name("torch.float32") + b"(tR", "a call of")
    refused(tensor() + b"(tR", "a call of")
    refused(name("collections.OrderedDict") + b"]R", "arguments are no tuple")
    hidden = [name("torch.Tensor") + b"N", name("builtins.eval") + b"N"]
    for function in hidden:
        refused(call("torch._tensor._rebuild_from_type_v2", function, b")", b"}"), "call|eval")


@pytest.mark.parametrize("opcode", ["NEWOBJ", "NEWOBJ_EX", "OBJ", "INST", "EXT1", "PERSID"])
def test_other_ways_to_make_objects(opcode):
    code = getattr(pickle, opcode)
    programs = {
        "NEWOBJ": name("collections.OrderedDict") + b")" + code,
        "NEWOBJ_EX": name("collections.OrderedDict") + b")}" + code,
        "OBJ": b"(" + name("collections.OrderedDict") + code,
        "INST": b"(" + code + b"collections\nOrderedDict\n",
        "EXT1": code + b"\x01",
        "PERSID": code + b"0\n",
    }
    refused(programs[opcode], "Weights only load failed")


# --- changes to objects ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "made",
    [
        name("collections.OrderedDict"),
        name("torch._utils._rebuild_tensor_v2"),
        name("torch.Tensor"),
        name("torch.float32"),
        call("torch.device", text("cpu")),
        call("torch.Size", number((1, 2))),
        tensor(),
        b"]",
        b"}",
        text("a string"),
        storage(),
    ],
)
@pytest.mark.parametrize("state", [{"x": 1}, (None, {"__code__": 1}), (None, {"xp": 1})])
def test_nothing_is_changed_that_others_use(made, state):
    refused(made + number(state) + b"b", "a change to a")
    assert not hasattr(weights_only._tensor, "x") and not hasattr(collections.OrderedDict, "x")


def test_attributes_may_not_hide_methods():
    made = call("collections.OrderedDict") + number({"items": 1}) + b"b"
    refused(made, "attribute 'items' that OrderedDict uses itself")
    parameter = call("torch._utils._rebuild_parameter_with_state", tensor(), b"\x88", b"N",
                     number({"backward": 1}))  # fmt: skip
    refused(parameter, "attribute 'backward' that Parameter uses itself")
    refused(call("collections.OrderedDict") + number({1: 1}) + b"b", "attribute 1")
    refused(call("collections.OrderedDict") + number([1]) + b"b", "that are no dict")
    ordered = load(b"\x80\x02" + call("collections.OrderedDict") + number({"_metadata": 5}) + b"b.")
    assert ordered._metadata == 5


def test_items_go_into_plain_containers_only():
    refused(tensor() + number(0) + b"a", "items added to a Tensor")
    refused(tensor() + b"(" + number(0) + b"e", "items added to a Tensor")
    refused(tensor() + number(0) + number(1) + b"s", "items added to a Tensor")
    refused(tensor() + b"(" + number(0) + number(1) + b"u", "items added to a Tensor")
    refused(b"](" + number(0) + b"\x90", "items added to a list")
    refused(b"}(" + number(0) + b"u", "zip")


# --- tensors ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "offset, size, stride",
    [
        (0, (5,), (1,)),
        (1, (4,), (1,)),
        (0, (2, 2), (3, 1)),
        (0, (2,), (2**62,)),
        (2**62, (1,), (1,)),
        (-1, (1,), (1,)),
        (0, (4,), (-1,)),
        (0, (-4,), (1,)),
        (0, (4, 1), (1,)),
        (0, (2**40,), (1,)),
        (0, (2**32, 2**32), (1, 1)),
        (True, (1,), (1,)),
        (0, (1.0,), (1,)),
        (0, ("1",), (1,)),
    ],
)
def test_tensors_stay_inside_their_storage(offset, size, stride):
    refused(tensor(offset, size, stride), "out of bounds|invalid storage offset|mismatch",
            RuntimeError)  # fmt: skip


def test_strange_sizes():
    refused(tensor(0, (2**62, 4), (0, 0)), "too big")
    refused(tensor(0, (1,) * 70, (0,) * 70), "maximum supported dimension")
    refused(call("torch.Size", number(("a",))), "torch.Size")
    refused(call("torch._utils._rebuild_tensor_v2", text("x"), number(0), b")", b")"), "no storage")
    huge = load(b"\x80\x02" + tensor(0, (2**40,), (0,)) + b".")  # an expanded one is legal
    assert huge.shape == (2**40,) and huge[2**39].item() == 0
    assert load(b"\x80\x02" + tensor(9, (0, 3), (3, 1)) + b".").shape == (0, 3)


def test_storages_are_those_of_the_file():
    refused(tensor(count=5), "has 16 bytes, its tensor needs 20", RuntimeError)
    refused(tensor(count=2**60), "its tensor needs", RuntimeError)
    refused(tensor(key="7"), "failed locating file data/7", RuntimeError)
    refused(tensor(key="../data.pkl"), "failed locating file", RuntimeError)
    refused(tensor(count=-1), "a storage of -1 elements")
    refused(tensor(kind="torch.QInt8Storage"), "Unsupported global")
    refused(tensor(kind="torch.float32"), "a storage of type")
    refused(b"(" + text("module") + name("torch.Tensor") + b"NNNtQ", "no storage")
    refused(number(3) + b"Q", "no storage")


def test_bools_are_zero_or_one():
    out = load(b"\x80\x02" + tensor(kind="torch.BoolStorage") + b".", [b"\0\1\2\xff"])
    assert out.array.view(np.uint8).tolist() == [0, 1, 1, 1]


def sparse(indices, size, layout="torch.sparse_coo", kind="torch.LongStorage"):
    pair = tensor(0, (1, 2), (2, 1), kind=kind, count=2)
    values = tensor(0, (2,), (1,), key="1", count=2)
    data = b"(" + pair + values + call("torch.Size", number(size)) + b"t"
    program = call("torch._utils._rebuild_sparse_tensor",
                   call("torch.serialization._get_layout", text(layout)), data)  # fmt: skip
    storages = [np.array(indices, np.int64).tobytes(), np.array([1, 2], np.float32).tobytes()]
    return b"\x80\x02" + program + b".", storages


def test_sparse_tensors_become_dense():
    assert load(*sparse([1, 1], (3,))).tolist() == [0, 3, 0]


def test_sparse_tensors_stay_inside_their_size():
    for bad in ([0, 3], [-1, 0], [2**62, 0]):
        with pytest.raises(RuntimeError, match="index outside"):
            load(*sparse(bad, (3,)))
    for size in ((), (-3,), (3, 3), (2**62, 2**62)):
        with pytest.raises(pickle.UnpicklingError):
            load(*sparse([0, 1], size))
    with pytest.raises(pickle.UnpicklingError, match="do not fit"):
        load(*sparse([0, 1], (3,), kind="torch.DoubleStorage"))
    with pytest.raises(pickle.UnpicklingError, match="torch.sparse_csr, which is not read"):
        load(*sparse([0, 1], (3,), "torch.sparse_csr"))


# --- other values ----------------------------------------------------------------------------


def test_arguments_that_cost_memory_or_import_modules():
    refused(call("builtins.bytearray", number(10**15)), "a bytearray of int")
    refused(call("builtins.bytes", number(10**15)), "corrupt")
    refused(call("_codecs.encode", text("x"), text("idna")), "a codec other than latin1")
    refused(call("_codecs.encode", text("x"), text("zlib")), "a codec other than latin1")
    refused(call("builtins.set", text("abc")), "a set of str")
    refused(call("torch.device", number(3)), "strange torch.device")
    refused(b"\x8b" + struct.pack("<i", 2**31 - 1), "Ran out of input", EOFError)
    refused(b"\x8e" + struct.pack("<Q", 2**60), "Ran out of input", EOFError)


def test_numpy_values():
    values = [np.float32(1.5), np.int64(3), np.bool_(True), np.complex128(1j), np.dtype(">i4"),
              np.arange(6).reshape(2, 3), np.arange(6.0).reshape(2, 3).T, np.arange(3, dtype=">f8"),
              np.zeros((0, 2), np.float16), np.array(5)]  # fmt: skip
    for protocol in (2, 3, 4):
        back = load(pickle.dumps(values, protocol))
        for a, b in zip(pickle.loads(pickle.dumps(values, protocol)), back, strict=True):
            assert type(a) is type(b) and str(a) == str(b)
            assert getattr(a, "dtype", None) == getattr(b, "dtype", None)
    old = pickle.dumps(values[5], 2).replace(b"numpy._core", b"numpy.core")
    assert (load(old) == values[5]).all()
    assert np.dtype("i4") == np.dtype("<i4") and np.float32(1).dtype.isnative


def test_numpy_values_that_are_not_numbers():
    for value in (np.array(["a"]), np.array([None, []], object), np.zeros(2, "i4,f8"),
                  np.datetime64("2020-01-01")):  # fmt: skip
        with pytest.raises(pickle.UnpicklingError, match=r"add_safe_globals\(\[numpy.dtype\]\)"):
            load(pickle.dumps(value, 2))
    with safe_globals([np.dtype]):
        assert load(pickle.dumps(np.array(["a", "bc"]), 2)).tolist() == ["a", "bc"]
        assert load(pickle.dumps(np.datetime64("2020-01-01"), 2)) == np.datetime64("2020-01-01")
        with pytest.raises(pickle.UnpicklingError, match="strange array"):
            load(pickle.dumps(np.array([None, []], object), 2))


def array_program(shape, data, dtype=b"", version=1):
    made = call("numpy._core.multiarray._reconstruct", name("numpy.ndarray"), number((0,)), b"N")
    f4 = call("numpy.dtype", text("f4"), b"\x89", b"\x88") + (
        dtype or number((3, "<", None, None, None, -1, -1, 0)) + b"b"
    )
    return made + b"(" + number(version) + number(shape) + f4 + b"\x89" + data + b"tb"


def test_numpy_arrays_own_the_bytes_they_claim():
    four = call("_codecs.encode", text("abcd"), text("latin1"))
    assert load(b"\x80\x02" + array_program((1,), four) + b".").shape == (1,)
    refused(array_program((2,), four), "do not fit its shape")
    refused(array_program((2**40, 2**40), four), "do not fit its shape")
    refused(array_program((-1,), four), "strange array")
    refused(array_program((1,), b"]"), "strange array")
    fields = number((3, "|", None, ("x",), {"x": 1}, 4, 1, 16)) + b"b"
    refused(array_program((1,), four, fields), "a NumPy dtype with fields")
    short = call("numpy._core.multiarray.scalar", call("numpy.dtype", text("f8")), four)
    refused(short, "do not fit its dtype")


# --- damage ----------------------------------------------------------------------------------


def test_damaged_pickles():
    refused(b"h\x07", "corrupt")
    refused(b"u", "corrupt")
    refused(b"R", "corrupt")
    refused(b"\xff", "corrupt")
    refused(b"(" * 3 + b"l", "corrupt")
    refused(b"}]N" + b"s", "unhashable")
    with pytest.raises(EOFError, match="Ran out of input"):
        load(b"")


@pytest.mark.parametrize("nested", [b")" + b"\x85" * 200_000, b")" + b"2\x86" * 90])
def test_keys_that_cannot_be_hashed_in_this_life(nested):
    nested = nested.replace(b"2", b"q\0h\0")  # the tuple twice
    for around in (b"}%bNs", b"}(%bNu", b"\x8f(%b\x90", b"(%b\x91"):
        refused(around % nested, "deeply nested tuples")
    refused(call("builtins.set", b"]" + nested + b"a"), "deeply nested tuples")
    refused(call("collections.OrderedDict", b"]" + nested + b"N\x86a"), "deeply nested tuples")
    assert load(b"\x80\x02}" + number((1, ("a", (2,)))) + b"Ns.") == {(1, ("a", (2,))): None}


def test_containers():
    values = {"a": {1, 2}, "b": frozenset({3}), "c": collections.Counter("aab"), (1, 2): [()],
              "d": collections.OrderedDict([("x", 1), ("y", [2])]), "e": b"", "f": bytearray(b"x"),
              "g": 10**1000, "h": 1e-300, "i": -1, "j": 1 + 2j}  # fmt: skip
    for protocol in (2, 3, 4):
        assert load(pickle.dumps(values, protocol)) == values
    old = call("collections.OrderedDict", number([["x", 1], ["y", 2]]))  # Python 2.6 to 3.4
    assert load(b"\x80\x02" + old + b".") == {"x": 1, "y": 2}
    refused(call("collections.OrderedDict", number(5)), "an OrderedDict of int")
    refused(call("collections.Counter", text("aab")), "a Counter of str")


def test_any_bytes_give_an_error_or_a_value():
    random = np.random.default_rng(0)
    good = pickle.dumps({"a": [1, 2.5, "x"], "b": (None, True)}, 2)[:-1] + tensor() + b"."
    for _ in range(3000):
        program = bytearray(good)
        for at in random.integers(2, len(program), 3):
            program[at] = random.integers(256)
        with contextlib.suppress(*LOADING_ERRORS):
            load(bytes(program))


# --- what the user trusts --------------------------------------------------------------------


class Config:
    def __init__(self, depth=3):
        self.depth = depth


class Slotted:
    __slots__ = ("width",)


class Group(list):
    pass


class Named(gpunn.Tensor):
    pass


def dumped(value):
    return pickle.dumps(value, 2)


def test_trusted_classes():
    with pytest.raises(pickle.UnpicklingError, match=r"GLOBAL \S*Config was not an allowed"):
        load(dumped(Config(5)))
    slotted = Slotted()
    slotted.width = 4
    with safe_globals([Config, Slotted, Group]):
        assert load(dumped(Config(5))).depth == 5
        assert load(dumped(slotted)).width == 4
        assert load(dumped(Group([1, 2]))) == [1, 2]
    with pytest.raises(pickle.UnpicklingError):
        load(dumped(Config(5)))
    add_safe_globals([(Config, "old.place.Config")])
    assert load(b"\x80\x02" + call("old.place.Config", number(7)) + b".").depth == 7


def test_the_list_of_trusted_classes():
    get = gpunn.serialization.get_safe_globals
    add_safe_globals([Config, (Config, "x.Config")])
    assert get() == [Config, (Config, "x.Config")]
    with safe_globals([Config, Slotted]):
        assert Slotted in get()
    assert get() == [Config, (Config, "x.Config")]
    clear_safe_globals()
    assert get() == []
    with pytest.raises(ValueError, match="Expected tuple of length 2"):
        add_safe_globals([(Config, "x", "y")])
    with pytest.raises(TypeError, match="Expected second item in tuple to be str"):
        add_safe_globals([(Config, 3)])


def test_os_stays_blocked_when_trusted():
    add_safe_globals([os.system])
    refused(call("posix.system", text("true")), "whose module posix is blocked")


def test_tensors_with_attributes_and_trusted_subclasses():
    x = gpunn.ones(2)
    x.note = "kept"
    named = Named([3.0, 4.0])
    named.label = "w"
    for value, cls, attribute in ((x, gpunn.Tensor, "note"), (named, Named, "label")):
        file = io.BytesIO()
        gpunn.save(value, file)
        file.seek(0)
        with safe_globals([] if cls is gpunn.Tensor else [Named]):
            back = gpunn.load(file)
        assert type(back) is cls and back.tolist() == value.tolist()
        assert getattr(back, attribute) == getattr(value, attribute)
    file.seek(0)
    with pytest.raises(pickle.UnpicklingError, match="Named was not an allowed"):
        gpunn.load(file)


def test_the_parameters_of_old_pytorch():
    old = call("torch.nn.parameter.Parameter", tensor()) + b"(\x89\x89NtbN0"
    back = load(b"\x80\x02" + old + b".")
    assert isinstance(back, gpunn.nn.Parameter) and not back.requires_grad
