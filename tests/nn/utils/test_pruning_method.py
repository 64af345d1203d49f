"""Pruning methods of one's own, as in PyTorch."""

from importlib import import_module


def tools(lib):
    return import_module(f"{lib.__name__}.nn.utils.prune")


def test_a_method_of_ones_own(near_torch, message):
    def scenario(lib):
        p = tools(lib)

        class EveryOther(p.BasePruningMethod):
            PRUNING_TYPE = "unstructured"

            def compute_mask(self, t, default_mask):
                mask = default_mask.clone()
                mask.view(-1)[::2] = 0
                return mask

        class Unknown(EveryOther):
            PRUNING_TYPE = "unknown"

        class NoDim(EveryOther):
            PRUNING_TYPE = "structured"

        layer = lib.nn.Linear(4, 3)
        EveryOther.apply(layer, "weight")
        EveryOther.apply(layer, "weight")
        return (
            layer.weight_mask, message(Unknown.apply, layer, "weight"),
            message(NoDim.apply, layer, "weight")[0],
        )  # fmt: skip

    near_torch(scenario)


def test_a_failed_method_leaves_the_parameter(near_torch, message):
    def scenario(lib):
        layer = lib.nn.Linear(4, 3)
        return message(tools(lib).ln_structured, layer, "bias", 1, 2, 0), sorted(layer.state_dict())

    near_torch(scenario)
