"""Modules that compute nothing: Identity, Flatten, Unflatten."""

from __future__ import annotations

from typing import Any

from gpunn.nn.module import Module
from gpunn.tensor import Tensor

__all__ = ["Flatten", "Identity", "Unflatten"]


class Identity(Module):
    """Returns its input; takes any arguments and ignores them.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Identity.html

    >>> nn.Identity(54, unused=True)(gpunn.ones(2))
    tensor([1., 1.])
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()

    def forward(self, input: Any) -> Any:
        """The input."""
        return input


class Flatten(Module):
    """Joins the dimensions from `start_dim` to `end_dim` into one.

    (N, C, H, W) becomes (N, C * H * W) by default. Any dtype.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Flatten.html

    >>> nn.Flatten()(gpunn.ones(32, 1, 5, 5)).shape
    torch.Size([32, 25])
    """

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        super().__init__()
        self.start_dim = start_dim
        self.end_dim = end_dim

    def forward(self, input: Tensor) -> Tensor:
        """The input with those dimensions joined."""
        return input.flatten(self.start_dim, self.end_dim)  # type: ignore[attr-defined, no-any-return]

    def extra_repr(self) -> str:
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"


class Unflatten(Module):
    """Splits dimension `dim` into dimensions of the sizes `unflattened_size`.

    (N, L) becomes (N, *unflattened_size) for dim=1, where their product is L. Any dtype. Raises
    TypeError for sizes that are no tuple or list of ints.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Unflatten.html

    >>> nn.Unflatten(1, (2, 5, 5))(gpunn.ones(2, 50)).shape
    torch.Size([2, 2, 5, 5])
    """

    def __init__(self, dim: int, unflattened_size: Any) -> None:
        super().__init__()
        if not isinstance(unflattened_size, (tuple, list)):
            raise TypeError(
                f"unflattened_size must be a tuple of ints, but found type "
                f"{type(unflattened_size).__name__}"
            )
        for i, size in enumerate(unflattened_size):
            if not isinstance(size, int):
                raise TypeError(
                    f"unflattened_size must be tuple of ints, but found element of type "
                    f"{type(size).__name__} at pos {i}"
                )
        self.dim = dim
        self.unflattened_size = unflattened_size

    def forward(self, input: Tensor) -> Tensor:
        """The input with that dimension split."""
        return input.unflatten(self.dim, self.unflattened_size)  # type: ignore[attr-defined, no-any-return]

    def extra_repr(self) -> str:
        return f"dim={self.dim}, unflattened_size={self.unflattened_size}"
