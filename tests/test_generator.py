"""Generators: streams, states and errors, against PyTorch's CPU generator."""

import copy
import pickle
import threading

import numpy as np
import pytest

from gpunn import draw
from gpunn.device import _ARRAY_MODULE, CPU, Device
from gpunn.generator import Generator, default_for, default_generator, philox4x32, pick
from gpunn.tensor import wrap

SEEDS = [0, 1, 2**31, 2**32 + 5, 2**64 - 1, -1, -5, -(2**63)]
_ARRAY_MODULE.setdefault("emulated", lambda device: np)
EMULATED = Device("emulated")


def floats(generator, n=3):
    return draw.uniform((n,), np.float32, generator, device=generator.device)


def pickled(generator):
    return pickle.loads(pickle.dumps(generator))


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="parity tests need PyTorch")


@pytest.mark.parametrize("seed", SEEDS)
def test_seeds_give_pytorchs_stream(torch, seed):
    ours, theirs = Generator().manual_seed(seed), torch.Generator().manual_seed(seed)
    assert ours.initial_seed() == theirs.initial_seed()
    assert np.array_equal(ours.get_state().array, theirs.get_state().numpy())
    for n in (5, 623, 624, 1, 2000):
        assert np.array_equal(floats(ours, n), torch.rand(n, generator=theirs).numpy())
        assert np.array_equal(ours.get_state().array, theirs.get_state().numpy())


def test_new_generators_start_alike(torch):
    assert Generator().initial_seed() == torch.Generator().initial_seed()
    assert np.array_equal(floats(Generator()), torch.rand(3, generator=torch.Generator()).numpy())


@pytest.mark.parametrize("seed", [2**64, -(2**63) - 1])
def test_seed_out_of_range(torch, seed):
    for generator in (Generator(), torch.Generator()):
        with pytest.raises(ValueError, match="Overflow when unpacking long long"):
            generator.manual_seed(seed)


@pytest.mark.parametrize("seed", [1.5, "3", None, True])
def test_seed_that_is_no_int(torch, seed):
    for generator in (Generator(), torch.Generator()):
        with pytest.raises(RuntimeError, match="manual_seed expected a long, but got"):
            generator.manual_seed(seed)


def test_seed_takes_numpys_ints():
    assert Generator().manual_seed(np.int32(-1)).initial_seed() == 2**64 - 1


def test_seed_cannot_be_foreseen():
    generator = Generator()
    assert generator.seed() == generator.initial_seed()
    assert generator.seed() != generator.seed()


@pytest.mark.parametrize("before", [0, 1, 7, 624, 1000])
def test_states_go_both_ways(torch, before):
    ours, theirs = Generator().manual_seed(3), torch.Generator().manual_seed(4)
    torch.rand(before, generator=theirs)
    torch.randn(3, generator=theirs)  # leaves a normal number kept back
    ours.set_state(wrap(theirs.get_state().numpy()))
    assert ours.initial_seed() == 4
    assert np.array_equal(ours.get_state().array, theirs.get_state().numpy())
    floats(ours, 700)
    draw.normal((5,), np.float64, ours)
    back = torch.Generator()
    back.set_state(torch.from_numpy(ours.get_state().array))
    assert np.allclose(
        draw.normal((3,), np.float32, ours), torch.randn(3, generator=back), atol=1e-6
    )
    assert np.array_equal(floats(ours, 1300), torch.rand(1300, generator=back).numpy())


def test_state_of_pytorch_as_it_is(torch):
    ours, theirs = Generator(), torch.Generator().manual_seed(9)
    ours.set_state(theirs.get_state())
    assert np.array_equal(floats(ours), torch.rand(3, generator=theirs).numpy())


def test_float_spare_survives():
    state = Generator().get_state().array
    state[5048:5053] = np.frombuffer(np.float32(1.5).tobytes() + b"\x01", np.uint8)
    generator = Generator()
    generator.set_state(wrap(state))
    assert np.array_equal(generator.get_state().array, state)


def test_bad_states(torch):
    zeros = np.zeros(5056, np.uint8)
    for generator, tensor in ((Generator(), wrap), (torch.Generator(), torch.from_numpy)):
        with pytest.raises(RuntimeError, match="size 5056 but found the input RNG state"):
            generator.set_state(tensor(zeros[:10]))
        with pytest.raises(RuntimeError, match="Invalid mt19937 state"):
            generator.set_state(tensor(zeros))
        with pytest.raises(TypeError, match="RNG state must be a torch.ByteTensor"):
            generator.set_state(tensor(zeros.astype(np.float32)))
        with pytest.raises(TypeError, match="expected a torch.ByteTensor, but got list"):
            generator.set_state([1])
        with pytest.raises(RuntimeError, match="CPU Generator does not use offset"):
            generator.get_offset()
        with pytest.raises(RuntimeError, match="CPU Generator does not use offset"):
            generator.set_offset(4)


@pytest.mark.parametrize("device", [CPU, Device("cpu:1"), EMULATED], ids=str)
@pytest.mark.parametrize("twin", [copy.deepcopy, copy.copy, Generator.clone_state, pickled])
def test_copies_go_on_alone(device, twin):
    generator = Generator(device).manual_seed(5)
    floats(generator, 10)
    other = twin(generator)
    assert other.device is device
    first = floats(generator)
    assert np.array_equal(first, floats(other))
    floats(generator)
    assert not np.array_equal(floats(generator), floats(other))


def test_threads_share_a_generator():
    generator, alone = Generator().manual_seed(1), Generator().manual_seed(1)
    found = []

    def run():
        for _ in range(50):
            found.extend(draw.uniform((7,), np.float64, generator))

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == sorted(draw.uniform((4 * 50 * 7,), np.float64, alone))


def test_default_generators():
    assert default_for(CPU) is default_generator
    second = default_for(Device("cpu:1"))
    assert second is default_for(Device("cpu:1")) and second is not default_generator


def test_pick_refuses_another_kind_of_device():
    ours, counted = Generator(), Generator(EMULATED)
    assert pick(ours, CPU) is pick(ours, Device("cpu:1")) is ours
    assert pick(counted, EMULATED) is counted
    with pytest.raises(RuntimeError, match="Expected a 'emulated' device type for generator but"):
        pick(ours, EMULATED)
    with pytest.raises(RuntimeError, match="Expected a 'cpu' device type for generator but found"):
        pick(counted, CPU)


# Known answers from the authors' Random123 (kat_vectors).
ANSWERS = [
    ([0, 0], 0, "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ([2**64 - 1, 2**64 - 1], 2**64 - 1, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ([0x85A308D3243F6A88, 0x0370734413198A2E], 0x299F31D0A4093822,
     "d16cfe09 94fdcceb 5001e420 24126ea1"),
]  # fmt: skip


@pytest.mark.parametrize("counter, key, words", ANSWERS)
def test_philox_known_answers(counter, key, words):
    found = philox4x32(np.array([counter], np.uint64), key)
    assert found.dtype == np.uint32
    assert " ".join(f"{w:08x}" for w in found[0]) == words


def test_philox_stream_is_a_function_of_the_place():
    generator = Generator(EMULATED).manual_seed(11)
    whole = generator.words(64)
    assert generator.get_offset() == 64
    generator.set_offset(20)
    assert np.array_equal(generator.words(6), whole[20:26])
    assert generator.get_offset() == 28  # the rest of the last block is dropped
    block = philox4x32(np.array([[7, 0]], np.uint64), 11)[0]
    assert np.array_equal(whole[28:32], block)


def test_philox_state():
    generator = Generator(EMULATED).manual_seed(11)
    assert generator.reserve(5) == (11, 0)
    assert generator.reserve(1) == (11, 8)
    state = generator.get_state()
    assert state.array.dtype == np.uint8 and state.shape == (16,)
    first = generator.words(9)
    other = Generator(EMULATED)
    other.set_state(state)
    assert np.array_equal(first, other.words(9))
    with pytest.raises(RuntimeError, match="RNG state is wrong size"):
        other.set_state(wrap(np.zeros(5056, np.uint8)))
    with pytest.raises(RuntimeError, match="offset must be a multiple of 4"):
        other.set_offset(3)
    with pytest.raises(RuntimeError, match="does not use offset"):
        Generator().reserve(4)
