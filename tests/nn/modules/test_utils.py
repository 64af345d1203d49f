"""nn.modules.utils: tuples of sizes, and the prefix of a wrapped model's state dict."""

import pytest
from both import refused, same

VALUES = [3, (1, 2), [4], "ab", 1.5, None]


@pytest.mark.parametrize("name", ["_single", "_pair", "_triple", "_quadruple"])
def test_tuples(name):
    def program(T):
        function = getattr(T.nn.modules.utils, name)
        return [function.__name__, *([*function(v)] for v in VALUES), [*function({1: 2})]]

    same(program)


def test_sizes():
    def program(T):
        utils = T.nn.modules.utils
        return [
            [*utils._ntuple(5)(1)], [*utils._reverse_repeat_tuple((1, 2, 3), 2)],
            utils._list_with_default([None, 3], [2, 5, 7, 8]), utils._list_with_default(3, [1]),
        ]  # fmt: skip

    same(program)
    refused(lambda T: T.nn.modules.utils._list_with_default([1, 2], [1, 2]), "at least 3")


def test_weights_of_a_wrapped_model_load():
    def program(T):
        wrapper = T.nn.Module()
        wrapper.module = T.nn.Sequential(T.nn.Linear(2, 3), T.nn.BatchNorm1d(3))
        state = wrapper.state_dict()
        state["module_count"] = T.ones(1)
        T.nn.modules.utils.consume_prefix_in_state_dict_if_present(state, "module.")
        extra = wrapper.module.load_state_dict(state, strict=False)
        meta = sorted((k, v["version"]) for k, v in state._metadata.items())
        return [list(state), str(extra), [list(m) for m in meta]]

    same(program)


def test_a_plain_dict():
    def program(T):
        state = {"a.b": 1, "c": 2, "a": 3}
        T.nn.modules.utils.consume_prefix_in_state_dict_if_present(state, "a.")
        return sorted(state.items())

    same(program)
