"""Tensors as a writer of typed code uses them: what a method returns is known, not guessed."""

from __future__ import annotations

import numpy as np
from typing_extensions import assert_type

import gpunn as torch
from gpunn import Tensor


def shapes(x: Tensor) -> Tensor:
    rows, columns = x.shape
    assert_type(x.size(0), int)
    assert_type(x.shape[0], int)
    assert_type(x.view(rows * columns), Tensor)
    assert_type(x.view(-1, columns).sum(), Tensor)
    assert_type(x.reshape((columns, rows)).t().contiguous(), Tensor)
    assert_type(x.permute(1, 0).transpose(0, 1).unsqueeze(-1).squeeze(-1), Tensor)
    assert_type(x.expand(rows, columns).flatten(), Tensor)
    assert_type(x[0], Tensor)
    assert_type(x[:, None, ..., 1:], Tensor)
    x[x > 0] = 0.0
    x[0, 0] += 1
    return torch.cat([x, x], dim=0) @ torch.stack([x[0], x[0]]).T


def arithmetic(x: Tensor, y: Tensor) -> Tensor:
    assert_type(x + y, Tensor)
    assert_type(2 * x - 1, Tensor)
    assert_type(1 / x, Tensor)
    assert_type(-x**2, Tensor)
    assert_type(2**x, Tensor)
    assert_type(x @ y, Tensor)
    assert_type(x == y, Tensor)
    assert_type((x > 0) & (y < 1) | ~(x != y), Tensor)
    x += y
    x *= 2
    assert_type(x.exp().log1p().clamp(min=0, max=1).sqrt(), Tensor)
    assert_type(x.add_(1).mul_(y).zero_(), Tensor)
    assert_type(abs(x), Tensor)
    return torch.where(x > 0, x, torch.zeros_like(x)).masked_fill(y == 0, float("-inf"))


def reductions(x: Tensor) -> None:
    assert_type(x.sum(), Tensor)
    assert_type(x.mean(dim=-1, keepdim=True), Tensor)
    assert_type(x.std(0, unbiased=False), Tensor)
    assert_type(x.argmax(dim=1), Tensor)
    assert_type(x.norm(), Tensor)
    assert_type(x.all(), Tensor)
    assert_type(x.any(), Tensor)
    values, indices = x.max(dim=1)
    assert_type(torch.softmax(values, dim=0), Tensor)
    largest, where = x.topk(2)
    ordered = x.sort(descending=True)
    print(indices, largest, where, ordered.values, ordered.indices)
    number = float(x.sum()) + int(x.numel())
    print(f"{x.mean():.3f} {number}", x.tolist(), x.item() if x.numel() == 1 else None)


def kinds(x: Tensor) -> Tensor:
    assert_type(x.to("cpu"), Tensor)
    assert_type(x.to(torch.device("cpu"), torch.float64), Tensor)
    assert_type(x.to(dtype=torch.float16, copy=True), Tensor)
    assert_type(x.float().double().half().long().bool().int(), Tensor)
    assert_type(x.cpu().detach().numpy(), np.ndarray)
    assert_type(x.dtype, torch.dtype)
    assert_type(x.device, torch.device)
    assert_type(x.dim(), int)
    assert_type(x.requires_grad, bool)
    y = torch.from_numpy(np.ones(3, np.float32)).requires_grad_()
    assert_type(y, Tensor)
    assert_type(torch.tensor([1.0, 2.0], dtype=torch.float32, device="cpu"), Tensor)
    assert_type(torch.arange(0, 10, 2), Tensor)
    assert_type(torch.zeros(2, 3) + torch.full((2, 3), 1.5) + torch.eye(2, 3), Tensor)
    assert_type(x.new_zeros(2).type_as(x), Tensor)
    parts = x.chunk(2, dim=0) + tuple(x.split(1))
    print(parts[0], x.is_contiguous(), x.stride(), x.clone().data_ptr())
    return parts[0]


def gradients(x: Tensor) -> Tensor | None:
    x.requires_grad_(True)
    loss = (x**3).sum()
    g: Tensor
    (g,) = torch.autograd.grad(loss, x, create_graph=True)
    g.sum().backward()
    handle = x.register_hook(lambda gradient: gradient * 2)
    handle.remove()
    with torch.no_grad():
        x -= 0.1
    for row in x:
        assert_type(row, Tensor)
    return x.grad


class Square(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx, g):  # type: ignore[no-untyped-def]
        (x,) = ctx.saved_tensors
        return 2 * x * g


@torch.no_grad()
def count(x: Tensor) -> int:
    return int(x.numel())


assert_type(count(torch.ones(2)), int)

if __name__ == "__main__":
    shapes(torch.randn(3, 3))
    arithmetic(torch.rand(3, 3), torch.rand(3, 3))
    reductions(torch.randn(3, 4))
    kinds(torch.randn(4, 4))
    gradients(torch.randn(3))
    Square.apply(torch.ones(2))
