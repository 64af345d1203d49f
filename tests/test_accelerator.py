"""torch.accelerator: what tutorials ask for a device."""

import pytest

import gpunn
from gpunn import accelerator


def test_without_a_gpu_scripts_fall_back_to_the_cpu(monkeypatch):
    monkeypatch.setattr(gpunn.cuda, "is_available", lambda: False)
    found = accelerator.current_accelerator()
    assert not accelerator.is_available() and found is None
    assert accelerator.current_accelerator(check_available=True) is None
    with accelerator.device_index(None):
        pass
    for call in (
        accelerator.synchronize, accelerator.empty_cache, accelerator.memory_allocated,
        accelerator.current_device_index, accelerator.get_memory_info, accelerator.memory_stats,
        accelerator.reset_peak_memory_stats, accelerator.current_stream,
        lambda: accelerator.device_index(0), lambda: accelerator.set_device_index(0),
        lambda: accelerator.set_stream(None),
    ):  # fmt: skip
        with pytest.raises(RuntimeError, match="Cannot access accelerator device when none is av"):
            call()


def test_with_a_gpu_it_is_cuda(emulated):
    device = accelerator.current_accelerator()
    assert device == gpunn.device("cuda") and accelerator.is_available()
    assert accelerator.device_count() == gpunn.cuda.device_count() >= 1
    x = gpunn.ones(3, device=device)
    assert x.device.type == "cuda" and (x + x).cpu().tolist() == [2, 2, 2]
    accelerator.synchronize()
    assert accelerator.current_device_index() == gpunn.cuda.current_device() == 0
    with accelerator.device_index(0):
        assert accelerator.current_device_idx() == 0
    accelerator.set_device_index(0)


def test_functions_have_names_and_pages_of_their_own():
    assert accelerator.synchronize.__name__ == "synchronize"
    assert "torch.accelerator.memory_stats.html" in accelerator.memory_stats.__doc__
