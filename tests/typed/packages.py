"""The packages around tensors and layers, in typed code: optimizers, devices, files, data."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path

from typing_extensions import assert_type

import gpunn as torch
from gpunn import Tensor, nn
from gpunn.nn.parallel import DataParallel
from gpunn.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence
from gpunn.optim import LBFGS, Adam, Optimizer
from gpunn.optim.lr_scheduler import LambdaLR, OneCycleLR, ReduceLROnPlateau
from gpunn.utils.checkpoint import checkpoint
from gpunn.utils.data import DataLoader, IterableDataset, Subset, TensorDataset


def optimizers(model: nn.Module, x: Tensor) -> list[Optimizer]:
    groups = [{"params": list(model.parameters()), "lr": 0.1, "weight_decay": 0.0}]
    adam = Adam(groups, betas=(0.9, 0.95))
    for schedule in (LambdaLR(adam, lambda epoch: 0.9**epoch), OneCycleLR(adam, 0.1, 10)):
        adam.step()
        schedule.step()
    ReduceLROnPlateau(adam, patience=2).step(1.0)
    lbfgs = LBFGS(model.parameters(), max_iter=2, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        lbfgs.zero_grad()
        loss: Tensor = model(x).pow(2).mean()
        loss.backward()
        return loss

    lbfgs.step(closure)
    for group in adam.param_groups:
        print(group["lr"], len(group["params"]))
    return [adam, lbfgs]


class Lines(IterableDataset[Tensor]):
    def __iter__(self) -> Iterator[Tensor]:
        for length in (3, 1, 2):
            yield torch.ones(length)


def batch(lines: list[Tensor]) -> tuple[Tensor, Tensor]:
    return pad_sequence(lines, batch_first=True), torch.tensor([len(line) for line in lines])


def sequences() -> Tensor:
    rnn = nn.GRU(1, 4, batch_first=True)
    for padded, lengths in DataLoader(Lines(), batch_size=3, collate_fn=batch):
        packed = pack_padded_sequence(
            padded.unsqueeze(-1), lengths, batch_first=True, enforce_sorted=False
        )
        output, hidden = rnn(packed)
        again, lengths = pad_packed_sequence(output, batch_first=True)
        print(again.shape, hidden.shape, lengths)
    return torch.linalg.norm(torch.randn(3, 3)) + torch.special.expit(torch.zeros(1))


def devices(model: nn.Module, x: Tensor) -> Tensor:
    parallel = DataParallel(model, device_ids=["cpu:0", "cpu:1"])
    y: Tensor = parallel(x)
    again: Tensor = checkpoint(model, x, use_reentrant=False)
    for name, buffer in model.named_buffers():
        assert_type(name, str)
        assert_type(buffer, Tensor)
    if torch.cuda.is_available():
        with torch.cuda.device(0):
            x = x.cuda(non_blocking=True)
        torch.cuda.synchronize()
    return y + again


def files(model: nn.Module, folder: Path) -> OrderedDict[str, Tensor]:
    torch.save(model.state_dict(), folder / "model.safetensors")
    state: OrderedDict[str, Tensor] = torch.load(folder / "model.safetensors")
    model.load_state_dict(state)
    nn.init.normal_(nn.Parameter(torch.empty(3)), mean=0.0, std=0.02)
    nn.utils.parametrizations.weight_norm(nn.Linear(2, 2))
    return state


def watch(model: nn.Module) -> Callable[[], None]:
    norms: list[float] = []

    def note(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        norms.append(output.norm().item())

    handle = model.register_forward_hook(note)
    return handle.remove


if __name__ == "__main__":
    model = nn.Sequential(OrderedDict([("first", nn.Linear(2, 3)), ("norm", nn.BatchNorm1d(3))]))
    x = torch.randn(8, 2, requires_grad=True)
    watch(model)()
    print(len(optimizers(model, x)), sequences().shape, devices(model, x).shape)
    print(list(files(model, Path.cwd())))
    print(len(Subset(TensorDataset(x), [0, 2])), torch.get_default_dtype())
    torch.show_config()
