"""Handwritten digits over several processes: DistributedDataParallel on one machine or more.

    python -m gpunn.distributed.run --nproc 2 examples/ddp_digits.py   # two processes
    mpiexec -n 2 python examples/ddp_digits.py                         # the same over MPI
    python examples/ddp_digits.py                                      # one process, no group
    torchrun --nproc-per-node 2 examples/ddp_digits.py --impl torch    # the very same with PyTorch

Every process has a copy of the model and reads its own part of each batch; gradients are averaged
while the backward pass goes on. --batch-size is that of all processes together, so the losses are
the same, but for rounding, whatever their number. Only rank 0 prints, draws a progress bar and
writes the checkpoint; accuracy is counted by all. With --device cuda each has a GPU of its own.
Needs: pip install scikit-learn
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import time
from pathlib import Path

from digits import make_model, write
from tqdm import tqdm


def main(argv: list[str] | None = None) -> dict:
    """Trains as the command line says; returns the history, the same on all ranks."""
    args = parse(argv)
    torch = importlib.import_module(args.impl)  # in your own script: import gpunn as torch
    rank, world, local = join(torch)
    try:
        return train(torch, args, rank, world, local)
    finally:
        if world > 1:
            torch.distributed.destroy_process_group()


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--impl", choices=["gpunn", "torch"], default="gpunn")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=64, help="of all processes together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", metavar="FILE", help="a checkpoint to go on from")
    parser.add_argument("--out", default="ddp_digits", help="folder for checkpoint and history")
    return parser.parse_args(argv)


def join(torch) -> tuple[int, int, int]:
    """(rank, number of processes, number on this machine); makes the group if there are several.

    The launcher, torchrun, mpiexec and Slurm each say in variables of their own who is who;
    init_process_group reads them.
    """
    sizes = ("WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_NTASKS")
    if max(int(os.environ.get(name, 1)) for name in sizes) < 2:
        return 0, 1, 0
    dist = importlib.import_module(f"{torch.__name__}.distributed")
    dist.init_process_group()  # gloo or MPI for the CPU, NCCL for GPUs
    on_machine = ("LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "SLURM_LOCALID")
    local = next((os.environ[name] for name in on_machine if name in os.environ), 0)
    return dist.get_rank(), dist.get_world_size(), int(local)


# --- data ---------------------------------------------------------------------------------


def make_data(torch, seed: int):
    """Training and test images; the same split in every process."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = torch.tensor(digits.images / 16.0, dtype=torch.float32).unsqueeze(1)  # (N, 1, 8, 8)
    dataset = torch.utils.data.TensorDataset(images, torch.tensor(digits.target))
    generator = torch.Generator().manual_seed(seed)
    return torch.utils.data.random_split(dataset, [0.8, 0.2], generator=generator)


# --- training -----------------------------------------------------------------------------


def train(torch, args, rank: int, world: int, local: int) -> dict:
    """All epochs of one process."""
    device = f"cuda:{local}" if args.device == "cuda" else args.device
    if args.batch_size % world:
        raise SystemExit(f"--batch-size {args.batch_size} does not divide over {world} processes")
    share = args.batch_size // world
    data, test = make_data(torch, args.seed)
    # The ranks draw the same order and take turns in it: together they read the batch that one
    # process would read. set_epoch below gives each epoch an order of its own.
    sampler = torch.utils.data.DistributedSampler(data, world, rank, seed=args.seed)
    loader = torch.utils.data.DataLoader(data, share, sampler=sampler, drop_last=True)

    torch.manual_seed(args.seed)
    bare = model = make_model(torch).to(device)
    optimizer = torch.optim.SGD(bare.parameters(), lr=0.1, momentum=0.9, nesterov=True)
    history = {"loss": [], "test_accuracy": [], "epoch": 0}
    if args.resume:
        history = load(torch, args.resume, bare, optimizer, device)
    if world > 1:
        ids = [local] if args.device == "cuda" else None
        model = torch.nn.parallel.DistributedDataParallel(bare, device_ids=ids)
    if rank == 0:
        print(f"{args.impl}: {world} process{'es' * (world > 1)} with {share} rows each of batches "
              f"of {args.batch_size}", flush=True)  # fmt: skip

    start, first = time.perf_counter(), history["epoch"]
    with tqdm(total=(args.epochs - first) * len(loader), unit="step", disable=rank != 0) as bar:
        for epoch in range(first, args.epochs):
            sampler.set_epoch(epoch)
            for images, labels in loader:
                loss = train_step(torch, model, optimizer, images.to(device), labels.to(device))
                history["loss"].append(mean_over_ranks(torch, loss, world))
                bar.update()
                bar.set_postfix(loss=f"{history['loss'][-1]:.4f}", refresh=False)
            history["test_accuracy"].append(accuracy(torch, bare, test, rank, world, device))
            history["epoch"] = epoch + 1
            if rank == 0:  # the others have the same weights
                save(torch, Path(args.out), bare, optimizer, history)
    if rank == 0:
        write(Path(args.out) / "history.json", json.dumps(history))
        print(f"{args.impl}: {args.epochs - first} epochs in {time.perf_counter() - start:.1f} s, "
              f"test accuracy over all processes {history['test_accuracy'][-1]:.2%}")  # fmt: skip
    return history


def train_step(torch, model, optimizer, images, labels):
    """One step; returns the loss of this process's part of the batch."""
    optimizer.zero_grad()
    loss = torch.nn.functional.cross_entropy(model(images), labels)
    loss.backward()  # and the averages of the gradients over the processes
    optimizer.step()
    return loss.detach()


def mean_over_ranks(torch, value, world: int) -> float:
    """The mean of a number that each process has."""
    if world > 1:
        torch.distributed.all_reduce(value)
    return value.item() / world


def accuracy(torch, model, test, rank: int, world: int, device: str) -> float:
    """The share of the test images that is right, each looked at by one process.

    The bare model: ranks may have different numbers of batches here, and there is nothing to
    average. A DistributedSampler would repeat images to make the parts equal.
    """
    part = torch.utils.data.Subset(test, range(rank, len(test), world))
    right = torch.zeros(1, device=device)
    model.eval()
    with torch.no_grad():
        for images, labels in torch.utils.data.DataLoader(part, 256):
            right += (model(images.to(device)).argmax(1) == labels.to(device)).sum()
    model.train()
    if world > 1:
        torch.distributed.all_reduce(right)
    return right.item() / len(test)


# --- checkpoints --------------------------------------------------------------------------


def save(torch, folder: Path, model, optimizer, history: dict) -> None:
    """A checkpoint of the bare model: it loads with any number of processes."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "history": history}
    torch.save(state, folder / "model.pt.part")
    os.replace(folder / "model.pt.part", folder / "model.pt")


def load(torch, path: str, model, optimizer, device: str) -> dict:
    """Goes back to the state of a checkpoint; every process reads it."""
    state = torch.load(path, map_location=device)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return state["history"]


if __name__ == "__main__":
    main()
