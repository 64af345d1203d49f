"""Parameters as one vector, and back."""

from __future__ import annotations

from collections.abc import Iterable

from gpunn.ops.join import cat
from gpunn.tensor import Tensor

__all__ = ["parameters_to_vector", "vector_to_parameters"]


def parameters_to_vector(parameters: Iterable[Tensor]) -> Tensor:
    """All elements of the parameters, one after the other, as one vector.

    Gradients flow back to the parameters. Raises TypeError for parameters on several devices.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.parameters_to_vector.html

    >>> nn.utils.parameters_to_vector(nn.Linear(3, 2).parameters()).shape
    torch.Size([8])
    """
    parameters = list(parameters)
    _check_devices(parameters)
    return cat([p.reshape(-1) for p in parameters])  # type: ignore[attr-defined]


def vector_to_parameters(vec: Tensor, parameters: Iterable[Tensor]) -> None:
    """Gives the parameters the elements of a vector, in order; they share its memory.

    Raises TypeError for what is no tensor and for parameters on several devices.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.vector_to_parameters.html

    >>> layer = nn.Linear(1, 1)
    >>> nn.utils.vector_to_parameters(gpunn.tensor([2.0, 3.0]), layer.parameters())
    >>> layer.bias.item()
    3.0
    """
    if not isinstance(vec, Tensor):
        raise TypeError(f"expected gpunn.Tensor, but got: {type(vec).__name__}")
    parameters = list(parameters)
    _check_devices(parameters)
    start = 0
    for p in parameters:
        end = start + p.numel()
        p.data = vec.data[start:end].view(p.shape)  # type: ignore[index]
        start = end


def _check_devices(parameters: list[Tensor]) -> None:
    devices = {p.device for p in parameters}
    if len(devices) > 1:
        raise TypeError(
            "Found two parameters on different devices, this is currently not supported: "
            + ", ".join(sorted(map(str, devices)))
        )
