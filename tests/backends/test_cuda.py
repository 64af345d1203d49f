"""gpunn.backends.cuda: matmul's attributes and the switches of attention."""

import pytest

from gpunn import backends


def test_matmul_knows_its_attributes_only():
    assert backends.cuda.matmul.allow_fp16_reduced_precision_reduction is True
    with pytest.raises(AttributeError, match="Unknown attribute color"):
        backends.cuda.matmul.color  # noqa: B018
    with pytest.raises(AttributeError, match="Unknown attribute color"):
        backends.cuda.matmul.color = 1


@pytest.mark.parametrize("name", ["flash", "math", "mem_efficient", "cudnn"])
def test_attention_switches_are_kept(name):
    read, write = (getattr(backends.cuda, f) for f in (f"{name}_sdp_enabled", f"enable_{name}_sdp"))
    assert read() is True
    write(False)
    assert read() is False
    write(True)
