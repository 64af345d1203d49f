"""DataParallel's state in and out of files, with and without "module.", and its copies."""

import copy
import io
import pickle

import pytest

import gpunn
from gpunn import nn
from tests.nn.parallel.models import CPUS, Net, Perceptron, close


def test_state_goes_both_ways():
    bare, net = Net(), nn.DataParallel(Net(), CPUS)
    assert list(net.state_dict()) == [f"module.{name}" for name in bare.state_dict()]
    net.load_state_dict(bare.state_dict())
    close(net.module.conv.weight, bare.conv.weight)
    other = nn.DataParallel(Net(), CPUS)
    other.load_state_dict(net.state_dict())
    close(other.module.conv.weight, bare.conv.weight)
    again = Net()
    again.load_state_dict(net.module.state_dict())
    state = net.state_dict()
    nn.modules.utils.consume_prefix_in_state_dict_if_present(state, "module.")
    again.load_state_dict(state)
    file = io.BytesIO()
    gpunn.save(bare.state_dict(), file)
    file.seek(0)
    other.load_state_dict(gpunn.load(file))


def test_state_of_a_module_inside():
    model = nn.Sequential(nn.DataParallel(nn.Linear(2, 3), CPUS), nn.Linear(3, 1))
    bare = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    model.load_state_dict(bare.state_dict())
    close(model[0].module.weight, bare[0].weight)
    model.load_state_dict(copy.deepcopy(model).state_dict())


def test_state_of_a_module_named_module():
    class Wrapper(nn.Module):
        def __init__(self):
            super().__init__()
            self.module = nn.Linear(2, 3)

    bare, net = Wrapper(), nn.DataParallel(Wrapper(), CPUS)
    net.load_state_dict(bare.state_dict())
    close(net.module.module.weight, bare.module.weight)
    net.load_state_dict(net.state_dict())
    before = copy.deepcopy(bare.state_dict())
    assert bare.state_dict().keys() == before.keys()


def test_errors_in_a_state_and_its_versions():
    net = nn.DataParallel(nn.BatchNorm1d(2), CPUS)
    with pytest.raises(RuntimeError, match=r'Unexpected key\(s\) in state_dict: "module.extra"'):
        net.load_state_dict({**nn.BatchNorm1d(2).state_dict(), "extra": gpunn.ones(1)})
    with pytest.raises(RuntimeError, match=r'Missing key\(s\) in state_dict: "module.weight"'):
        net.load_state_dict({"other": gpunn.ones(2)})
    bare = nn.BatchNorm1d(2).state_dict()
    old = {k: v for k, v in bare.items() if k != "num_batches_tracked"}
    net.load_state_dict(old)  # of a version that had none
    net.load_state_dict(bare)
    assert bare._metadata[""]["version"] == 2 and list(bare._metadata) == [""]
    del bare["num_batches_tracked"]
    with pytest.raises(RuntimeError, match="Missing key.*num_batches_tracked"):
        net.load_state_dict(bare)
    assert net.load_state_dict({"weight": gpunn.ones(2)}, strict=False).missing_keys
    with pytest.raises(TypeError, match="Expected state_dict to be dict-like"):
        net.load_state_dict([])


@pytest.mark.parametrize("twin", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies(twin):
    net = nn.DataParallel(Perceptron(), CPUS, output_device="cpu:2", reduce_scalars="mean")
    net(gpunn.ones(4, 5)).sum().backward()
    made = twin(net)
    assert made.device_ids == net.device_ids and made.module is not net.module
    close(made(gpunn.ones(4, 5)), net(gpunn.ones(4, 5)))
    assert made(gpunn.ones(4, 5)).device.index == 2
