"""Scaled dot-product attention on the CPU: milliseconds of the forward pass, and of both.

Cases are named batch x heads x length x width. Query, key and value are views
(batch, length, heads, width).transpose(1, 2), as the heads of a transformer are.
"""

import compare

SIZES = {
    "encoder": [(16, 8, 128, 32), (16, 4, 128, 64)],
    "causal": [(8, 6, 256, 64), (1, 8, 4096, 64)],
    "plain": [(1, 8, 4096, 64), (2, 12, 512, 64), (1, 1, 2048, 128)],
    "padded": [(16, 8, 128, 32), (4, 8, 512, 64)],
    "dropout": [(16, 8, 128, 32), (1, 4, 2048, 64)],
    "tiny": [(1, 2, 8, 8), (8, 4, 16, 16)],
}


def options_of(T, kind, batch, length):
    """The keywords of one kind of attention."""
    if kind == "padded":
        allow = T.arange(length).expand(batch, 1, 1, length) < length - length // 4
        return {"attn_mask": allow}
    return {"causal": {"is_causal": True}, "dropout": {"dropout_p": 0.1}}.get(kind, {})


def operands(T, batch, heads, length, width):
    """Query, key, value and the gradient of the result."""

    def one():
        return T.randn(batch, length, heads, width).transpose(1, 2)

    return [one().requires_grad_() for _ in range(3)], one()


def both_passes(T, size, kind, backward=True):
    """A function that runs forward, or forward and backward."""
    inputs, dy = operands(T, *size)
    options = options_of(T, kind, size[0], size[2])
    attend = T.nn.functional.scaled_dot_product_attention

    def forward():
        with T.no_grad():
            attend(*inputs, **options)

    def train():
        T.autograd.grad(attend(*inputs, **options), inputs, dy)

    return train if backward else forward


def cases(T):
    """Each case, forward alone and with its gradient."""
    found = {}
    for kind, sizes in SIZES.items():
        for size in sizes:
            name = f"{kind} {'x'.join(map(str, size))}"
            found[f"{name} forward"] = both_passes(T, size, kind, backward=False)
            found[f"{name} both"] = both_passes(T, size, kind)
    return found


if __name__ == "__main__":
    compare.main(cases, unit="ms", scale=1e3)
