"""Seeding CUDA devices."""

import fake_cupy
import numpy as np
import pytest

import gpunn
from gpunn import cuda
from gpunn.device import Device
from gpunn.generator import default_for


@pytest.fixture
def cupy():
    with fake_cupy.installed(fake_cupy.make(devices=2)) as cupy:
        yield cupy


def _seeds():
    return [default_for(Device("cuda", i)).initial_seed() for i in range(2)]


def test_seeds_before_cuda_is_used(cupy):
    cuda.manual_seed_all(5)
    assert _seeds() == [5, 5]
    cuda.manual_seed(6)
    assert _seeds() == [6, 5] and not cuda.is_initialized()


def test_seeds_of_the_current_device(cupy):
    cuda.manual_seed_all(5)
    with cuda.device(1):
        cuda.manual_seed(7)
        assert cuda.initial_seed() == 7
    assert _seeds() == [5, 7] and cuda.initial_seed() == 5


def test_the_seed_of_all_devices(cupy):
    cuda.manual_seed_all(1)
    gpunn.manual_seed(9)
    assert _seeds() == [9, 9]


def test_unforeseen_seeds(cupy):
    cuda.manual_seed_all(1)
    cuda.seed_all()
    first, second = _seeds()
    assert first == second != 1
    cuda.seed()
    assert _seeds()[0] != first and _seeds()[1] == second


def test_states(cupy):
    cuda.manual_seed_all(3)
    kept, one = cuda.get_rng_state_all(), cuda.get_rng_state(1)
    assert np.array_equal(kept[1].numpy(), one.numpy())
    cuda.manual_seed_all(4)
    cuda.set_rng_state(one, "cuda:1")
    assert _seeds() == [4, 3]
    cuda.set_rng_state_all(kept)
    assert _seeds() == [3, 3]
    with pytest.raises(ValueError, match="shorter"):
        cuda.set_rng_state_all(kept[:1])


def test_on_a_cpu_machine_nothing_happens():
    with fake_cupy.installed(packages=()):
        cuda.manual_seed(1), cuda.manual_seed_all(1), cuda.seed(), cuda.seed_all()
        assert cuda.get_rng_state_all() == []
        cuda.set_rng_state_all([])
        for ask in (cuda.initial_seed, cuda.get_rng_state):
            with pytest.raises(RuntimeError, match="CuPy is not installed"):
                ask()


@pytest.mark.gpu
def test_on_a_gpu():
    cuda.manual_seed(3)
    state, first = cuda.get_rng_state(), gpunn.rand(100, device="cuda").cpu()
    cuda.set_rng_state(state)
    assert gpunn.equal(first, gpunn.rand(100, device="cuda").cpu())
