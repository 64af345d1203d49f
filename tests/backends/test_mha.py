"""gpunn.backends.mha: a switch that scripts set, and that changes nothing."""

from both import same

import gpunn
from gpunn import backends, nn


def test_it_remembers():
    def program(T):
        found = [T.backends.mha.get_fastpath_enabled()]
        for value in (False, True):
            T.backends.mha.set_fastpath_enabled(value)
            found.append(T.backends.mha.get_fastpath_enabled())
        return found

    same(program)


def test_values_stay():
    layer, x = nn.TransformerEncoderLayer(8, 2, 6, batch_first=True).eval(), gpunn.ones(2, 3, 8)
    with gpunn.no_grad():
        on = layer(x)
        backends.mha.set_fastpath_enabled(False)
        off = layer(x)
    backends.mha.set_fastpath_enabled(True)
    assert gpunn.equal(on, off)
