"""Interpolation: sequences, images and volumes at another size."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from gpunn.amp.casts import AUTOCAST, casts_one
from gpunn.nn.adaptive_pool import adaptive_avg_pool1d, adaptive_avg_pool2d, adaptive_avg_pool3d
from gpunn.nn.module import Module
from gpunn.nn.resample import Axis, resample
from gpunn.ops._rows import NUMBERS, not_a_tensor, proper
from gpunn.tensor import Tensor

_AREA = {3: adaptive_avg_pool1d, 4: adaptive_avg_pool2d, 5: adaptive_avg_pool3d}
_KINDS = {  # mode -> (kind of resampling, dimensions of the input)
    "nearest": ("nearest", (3, 4, 5)),
    "nearest-exact": ("nearest-exact", (3, 4, 5)),
    "linear": ("linear", (3,)),
    "bilinear": ("linear", (4,)),
    "trilinear": ("linear", (5,)),
    "bicubic": ("cubic", (4,)),
    "lanczos": ("lanczos", (4,)),
}
_ALIGNING = ("linear", "bilinear", "bicubic", "trilinear")


def _sizes(
    x: Tensor, size: Any, scale_factor: Any, recompute: bool | None
) -> tuple[list[int], Sequence[Any]]:
    """(the spatial size of the result, the factor of each dimension, None for n and m's own)."""
    spatial = list(x.array.shape[2:])
    if size is not None and scale_factor is not None:
        raise ValueError("only one of size or scale_factor should be defined")
    if size is None and scale_factor is None:
        raise ValueError("either size or scale_factor should be defined")
    if size is not None:
        if recompute:
            raise ValueError("recompute_scale_factor is not meaningful with an explicit size.")
        return _given_size(spatial, size), [None] * len(spatial)
    if isinstance(scale_factor, (list, tuple)):
        if len(scale_factor) != len(spatial):
            raise ValueError(
                "Input and scale_factor must have the same number of spatial dimensions, but got "
                f"input with spatial dimensions of {spatial} and scale_factor of shape "
                f"{scale_factor}. Please provide input tensor in (N, C, d1, d2, ...,dK) format and "
                "scale_factor in (s1, s2, ...,sK) format."
            )
        factors = list(scale_factor)
    else:
        factors = [scale_factor] * len(spatial)
    for f in factors:
        if not isinstance(f, NUMBERS):
            raise TypeError(
                "interpolate() received an invalid combination of arguments: scale_factor must be "
                f"float or tuple of floats, but got {scale_factor!r}"
            )
    made = [int(n * f) for n, f in zip(spatial, factors, strict=True)]
    return made, [None] * len(factors) if recompute else [float(f) for f in factors]


def _given_size(spatial: list[int], size: Any) -> list[int]:
    if isinstance(size, (list, tuple)):
        if len(size) != len(spatial):
            raise ValueError(
                "Input and output must have the same number of spatial dimensions, but got input "
                f"with spatial dimensions of {spatial} and output size of {size}. Please provide "
                "input tensor in (N, C, d1, d2, ...,dK) format and output size in (o1, o2, ...,oK) "
                "format."
            )
        sizes = list(size)
    else:
        sizes = [size] * len(spatial)
    for n in sizes:
        if type(n) is bool or not hasattr(n, "__index__"):
            raise TypeError(
                "interpolate() received an invalid combination of arguments: expected size to be "
                "one of int or Tuple[int] or Tuple[int, int] or Tuple[int, int, int], but got size "
                f"with types {[type(n) for n in sizes]}"
            )
    return [int(n) for n in sizes]


def _check_kind(x: Tensor, mode: str, antialias: bool, align_corners: bool | None) -> None:
    ndim = x.ndim
    if antialias and not (mode in ("bilinear", "bicubic", "lanczos") and ndim == 4):
        raise ValueError(
            "Anti-alias option is restricted to bilinear, bicubic, and lanczos modes and requires "
            "a 4-D tensor as input"
        )
    if mode == "lanczos" and ndim == 4:
        if align_corners:
            raise ValueError("Lanczos mode does not support align_corners=True")
        if not antialias:
            raise ValueError("Lanczos mode requires antialias=True")
    dims = (3, 4, 5) if mode == "area" else _KINDS.get(mode, ("", ()))[1]
    if ndim in dims:
        return
    if ndim in (3, 4, 5) and mode in ("linear", "bilinear", "trilinear"):
        raise NotImplementedError(f"Got {ndim}D input, but {mode} mode needs {dims[0]}D input")
    raise NotImplementedError(
        f"Input Error: Only 3D, 4D and 5D input Tensors supported (got {ndim}D) for the modes: "
        "nearest | linear | bilinear | bicubic | trilinear | lanczos | area | nearest-exact "
        f"(got {mode})"
    )


def _check_input(x: Tensor, kind: str, out: list[int], antialias: bool) -> None:
    shape, dtype = x.array.shape, x.array.dtype
    if min(shape[2:]) <= 0 or min(out) <= 0:
        names = "DHW"[3 - len(out) :]
        sides = [
            ", ".join(f"{a}: {n}" for a, n in zip(names, sizes, strict=True))
            for sizes in (shape[2:], out)
        ]
        raise RuntimeError(
            "Input and output sizes should be greater than 0, but got input "
            f"({sides[0]}){' and' if len(out) == 1 else ''} output ({sides[1]})"
        )
    if 0 in shape[1:]:
        raise RuntimeError(
            f"Non-empty {len(shape)}D data tensor expected but got a tensor with sizes "
            f"{list(shape)}"
        )
    taken = dtype == np.uint8 and (len(out) == 2 or kind.startswith("nearest"))
    if not (x.is_floating_point() or taken):  # type: ignore[attr-defined]
        if antialias:
            told = "compute_index_ranges_weights"
        elif len(out) == 2 and kind != "cubic":
            told = f"upsample_{'bilinear' if kind == 'linear' else 'nearest'}2d_channels_last"
        else:
            told = f"compute_indices_weights_{kind.partition('-')[0]}"
        raise NotImplementedError(f"\"{told}\" not implemented for '{proper(x.dtype)}'")


def interpolate(
    input: Tensor, size: Any = None, scale_factor: Any = None, mode: str = "nearest",
    align_corners: bool | None = None, recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Tensor:  # fmt: skip
    """The input at another spatial size: `size`, or `scale_factor` times its own, rounded down.

    Each axis apart: entry i of m lies at (i + 1/2) n / m - 1/2 of the n, or at i (n - 1) / (m - 1)
    with `align_corners`; n / m is 1 / scale_factor where that is given, unless
    `recompute_scale_factor`. mode: nearest (rounded down from i n / m), nearest-exact, linear
    (3-D), bilinear (4-D) or trilinear (5-D) between 2 neighbours, bicubic (4-D) between 4, area
    (means, as adaptive pooling). `antialias`, for bilinear, bicubic and lanczos, widens the filter
    to all that an entry stands for, as Pillow does.
    Shapes: (N, C, *size), 1 to 3 sizes. dtypes: floating; uint8 for nearest and in 4-D, rounded
    and kept in 0 to 255. ValueError, NotImplementedError for arguments that do not go together.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.interpolate.html

    >>> F.interpolate(gpunn.tensor([[[1.0, 3.0]]]), size=3, mode="linear", align_corners=True)
    tensor([[[1., 2., 3.]]])
    """
    if not isinstance(input, Tensor):
        raise not_a_tensor("interpolate", input)
    if align_corners is not None and mode in ("nearest", "area", "nearest-exact"):
        raise ValueError(
            "align_corners option can only be set with the interpolating modes: linear | bilinear "
            "| bicubic | trilinear"
        )
    out, factors = _sizes(input, size, scale_factor, recompute_scale_factor)
    _check_kind(input, mode, antialias, align_corners)
    if mode == "area":
        return _AREA[input.ndim](input, out)
    if AUTOCAST:
        input = casts_one("interpolate", input)
    kind = _KINDS[mode][0]
    _check_input(input, kind, out, antialias)
    exact = kind == "nearest" and len(out) == 2  # there PyTorch passes over the factor given
    axes = [
        Axis(kind, n, m, None if exact and m in (n, 2 * n) else f, bool(align_corners), antialias)
        for n, m, f in zip(input.array.shape[2:], out, factors, strict=True)
    ]
    title = mode.title().replace("-", "") + f"{len(out)}D" + ("Aa" if antialias else "")
    return resample(input, axes, f"Upsample{title}Backward0")


def _deprecated(name: str) -> None:
    warnings.warn(
        f"`nn.functional.{name}` is deprecated. Use `nn.functional.interpolate` instead.",
        stacklevel=3,
    )


def upsample(
    input: Tensor, size: Any = None, scale_factor: Any = None, mode: str = "nearest",
    align_corners: bool | None = None,
) -> Tensor:  # fmt: skip
    """The old name of `interpolate`; warns.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.upsample.html

    >>> import warnings
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("ignore")
    ...     F.upsample(gpunn.tensor([[[1.0, 2.0]]]), scale_factor=2)
    tensor([[[1., 1., 2., 2.]]])
    """
    _deprecated("upsample")
    return interpolate(input, size, scale_factor, mode, align_corners)


def upsample_nearest(input: Tensor, size: Any = None, scale_factor: Any = None) -> Tensor:
    """The old name of `interpolate` in mode nearest; warns.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.upsample_nearest.html

    >>> import warnings
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("ignore")
    ...     F.upsample_nearest(gpunn.tensor([[[1.0, 2.0]]]), 4)
    tensor([[[1., 1., 2., 2.]]])
    """
    _deprecated("upsample_nearest")
    return interpolate(input, size, scale_factor, "nearest")


def upsample_bilinear(input: Tensor, size: Any = None, scale_factor: Any = None) -> Tensor:
    """The old name of `interpolate` in mode bilinear with aligned corners; warns.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.upsample_bilinear.html

    >>> import warnings
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("ignore")
    ...     F.upsample_bilinear(gpunn.tensor([[[[1.0, 3.0]]]]), (1, 3))
    tensor([[[[1., 2., 3.]]]])
    """
    _deprecated("upsample_bilinear")
    return interpolate(input, size, scale_factor, "bilinear", True)


class Upsample(Module):
    """The input at another spatial size: see `nn.functional.interpolate`.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Upsample.html

    >>> x = gpunn.tensor([[1.0, 2.0], [3.0, 4.0]]).reshape(1, 1, 2, 2)
    >>> nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)(x)
    tensor([[[[1.0000, 1.3333, 1.6667, 2.0000],
              [1.6667, 2.0000, 2.3333, 2.6667],
              [2.3333, 2.6667, 3.0000, 3.3333],
              [3.0000, 3.3333, 3.6667, 4.0000]]]])
    """

    __constants__ = ["size", "scale_factor", "mode", "align_corners", "name",
                     "recompute_scale_factor"]  # fmt: skip

    def __init__(
        self, size: Any = None, scale_factor: Any = None, mode: str = "nearest",
        align_corners: bool | None = None, recompute_scale_factor: bool | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.name = type(self).__name__
        self.size = size
        if isinstance(scale_factor, tuple):
            self.scale_factor: Any = tuple(float(f) for f in scale_factor)
        else:
            self.scale_factor = float(scale_factor) if scale_factor else None
        self.mode = mode
        self.align_corners = align_corners
        self.recompute_scale_factor = recompute_scale_factor

    def __setstate__(self, state: dict[str, Any]) -> None:
        state.setdefault("recompute_scale_factor", True)  # what modules saved before it did
        super().__setstate__(state)

    def forward(self, input: Tensor) -> Tensor:
        return interpolate(
            input, self.size, self.scale_factor, self.mode, self.align_corners,
            recompute_scale_factor=self.recompute_scale_factor,
        )  # fmt: skip

    def extra_repr(self) -> str:
        name = "size" if self.scale_factor is None else "scale_factor"
        return f"{name}={getattr(self, name)!r}, mode={self.mode!r}"


class UpsamplingNearest2d(Upsample):
    """Each pixel repeated: `Upsample` in mode nearest, for images.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.UpsamplingNearest2d.html

    >>> nn.UpsamplingNearest2d(scale_factor=2)(gpunn.tensor([[[[1.0, 2.0]]]]))
    tensor([[[[1., 1., 2., 2.],
              [1., 1., 2., 2.]]]])
    """

    def __init__(self, size: Any = None, scale_factor: Any = None) -> None:
        super().__init__(size, scale_factor, "nearest")


class UpsamplingBilinear2d(Upsample):
    """`Upsample` in mode bilinear with aligned corners, for images.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.UpsamplingBilinear2d.html

    >>> nn.UpsamplingBilinear2d((1, 3))(gpunn.tensor([[[[1.0, 3.0]]]]))
    tensor([[[[1., 2., 3.]]]])
    """

    def __init__(self, size: Any = None, scale_factor: Any = None) -> None:
        super().__init__(size, scale_factor, "bilinear", align_corners=True)
