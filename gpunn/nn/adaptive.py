"""Adaptive log-softmax: many classes of uneven frequency, the rare ones in cheaper clusters."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

from gpunn.nn.container import ModuleList, Sequential
from gpunn.nn.linear import Linear
from gpunn.nn.module import Module
from gpunn.nn.softmax import log_softmax
from gpunn.tensor import Tensor


class _ASMoutput(NamedTuple):
    output: Tensor
    loss: Tensor


class AdaptiveLogSoftmaxWithLoss(Module):
    """Log-softmax over `n_classes` sorted by frequency, with the negative log-likelihood loss.

    The classes below `cutoffs[0]` and one entry for each cluster are in the head; cluster i has
    the classes from `cutoffs[i]` to the next cutoff, and in_features / div_value ** (i + 1)
    features. Called with input (batch, in_features) and target (batch), or (in_features) and (),
    it returns the log-probabilities of the targets and their mean loss, `output` and `loss`.
    ValueError for cutoffs that do not increase between 1 and n_classes - 1, RuntimeError for
    targets out of range and shapes that do not fit.
    Sources: https://docs.pytorch.org/docs/stable/generated/torch.nn.AdaptiveLogSoftmaxWithLoss.html;
    Grave et al., "Efficient softmax approximation for GPUs" (2017)

    >>> model = nn.AdaptiveLogSoftmaxWithLoss(8, 20, cutoffs=[4, 12], div_value=2.0)
    >>> model(gpunn.randn(3, 8), gpunn.tensor([0, 5, 19])).output.shape
    torch.Size([3])
    >>> model.predict(gpunn.randn(3, 8)).shape
    torch.Size([3])
    """

    def __init__(
        self, in_features: int, n_classes: int, cutoffs: Sequence[int], div_value: float = 4.0,
        head_bias: bool = False, device: Any = None, dtype: Any = None,
    ):  # fmt: skip
        super().__init__()
        cutoffs = list(cutoffs)
        if not cutoffs:
            raise ValueError("cutoffs should be a sequence of length larger than 0")
        if (
            cutoffs != sorted(set(cutoffs)) or cutoffs[0] <= 0 or cutoffs[-1] > n_classes - 1
            or any(int(c) != c for c in cutoffs)
        ):  # fmt: skip
            raise ValueError(
                "cutoffs should be a sequence of unique, positive integers sorted in an "
                "increasing order, where each value is between 1 and n_classes-1: got "
                f"{cutoffs} for {n_classes} classes"
            )
        self.in_features, self.n_classes = in_features, n_classes
        self.cutoffs = [*cutoffs, n_classes]
        self.div_value, self.head_bias = div_value, head_bias
        self.shortlist_size = cutoffs[0]
        self.n_clusters = len(cutoffs)
        self.head_size = self.shortlist_size + self.n_clusters
        made = {"device": device, "dtype": dtype}
        self.head = Linear(in_features, self.head_size, bias=head_bias, **made)
        self.tail = ModuleList()
        for i, (low, high) in enumerate(itertools.pairwise(self.cutoffs)):
            features = int(in_features // div_value ** (i + 1))
            self.tail.append(
                Sequential(
                    Linear(in_features, features, bias=False, **made),
                    Linear(features, high - low, bias=False, **made),
                )
            )

    def reset_parameters(self) -> None:
        """Draws all weights anew, as the constructor does."""
        self.head.reset_parameters()
        for projection in self.tail:
            for layer in projection:
                layer.reset_parameters()

    def forward(self, input_: Tensor, target_: Tensor) -> _ASMoutput:
        """The log-probability of each target, and the mean loss."""
        self._check(input_, target_)
        batched = target_.dim() > 0
        input = input_ if batched else input_.unsqueeze(0)
        target = target_ if batched else target_.unsqueeze(0)
        head = log_softmax(self.head(input), dim=1)
        entry, output = target.clone(), input.new_zeros(target.shape[0])
        for i, (low, high) in enumerate(itertools.pairwise(self.cutoffs)):
            rows = ((target >= low) & (target < high)).nonzero().squeeze(1)
            if rows.numel():
                logs = log_softmax(self.tail[i](input.index_select(0, rows)), dim=1)
                inner = (target.index_select(0, rows) - low).unsqueeze(1)
                output = output.index_copy(0, rows, logs.gather(1, inner).squeeze(1))
                entry.index_fill_(0, rows, self.shortlist_size + i)
        output = output + head.gather(1, entry.unsqueeze(1)).squeeze(1)
        return _ASMoutput(output if batched else output.squeeze(0), (-output).mean())

    def _check(self, input: Tensor, target: Tensor) -> None:
        if target.dim() > 1:
            raise RuntimeError("0D or 1D target tensor expected, multi-target not supported")
        if target.dim() and input.shape[0] != target.shape[0]:
            raise RuntimeError("Input and target should have the same size in the batch dimension.")
        if input.dim() != target.dim() + 1:
            raise RuntimeError(
                f"{target.dim()}D target tensor expects {target.dim() + 1}D input tensors, but "
                f"found inputs with size {input.shape}"
            )
        low, high = (target.min().item(), target.max().item()) if target.numel() else (0, 0)
        if low < 0 or high >= self.n_classes:
            raise RuntimeError(
                f"Target values should be in [0, {self.n_classes - 1}], but values in range "
                f"[{low}, {high}] were found. "
            )

    def log_prob(self, input: Tensor) -> Tensor:
        """The log-probabilities (batch, n_classes) of all classes, of an input (batch, features).

        Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.AdaptiveLogSoftmaxWithLoss.html
        """
        return self._all(input, self.head(input))

    def _all(self, input: Tensor, scores: Tensor) -> Tensor:
        from gpunn.ops.join import cat

        head = log_softmax(scores, dim=1)
        first = self.shortlist_size
        parts = [
            log_softmax(cluster(input), dim=1) + head[:, first + i].unsqueeze(1)
            for i, cluster in enumerate(self.tail)
        ]
        return cat([head[:, :first], *parts], 1)

    def predict(self, input: Tensor) -> Tensor:
        """The most probable class (batch) of each row of an input (batch, features).

        Where the head's best entry is a class and no cluster, the clusters are not computed.
        Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.AdaptiveLogSoftmaxWithLoss.html
        """
        scores = self.head(input)
        best = scores.argmax(dim=1)
        rows = (best >= self.shortlist_size).nonzero().squeeze(1)
        if rows.numel():
            logs = self._all(input.index_select(0, rows), scores.index_select(0, rows))
            best = best.index_copy(0, rows, logs.argmax(dim=1))
        return best
