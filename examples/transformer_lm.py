"""A small GPT: a transformer that learns to write English, letter by letter.

    python examples/transformer_lm.py                        # a few minutes on two CPU cores
    python examples/transformer_lm.py --resume transformer_lm/model.pt     # goes on where it was
    python examples/transformer_lm.py --impl torch           # the very same script with PyTorch
    python examples/transformer_lm.py --device cuda --autocast --width 384 --heads 6 --steps 5000
    python examples/generate.py transformer_lm/model.pt --prompt "To import a module, "

The text is the one of char_lm.py, the manual that Python ships, and so are the batches, the
course of the learning rate and the measure: bits per character. Four blocks of causal attention
and a two-layer network each, with normalisation before both (GPT-2), and rotary positions: queries
and keys are turned by an angle that grows with the position, so that their product depends on how
far apart they are (Su et al. 2021, "RoFormer"). At the end it writes, with the cache of
generate.py.
"""

from __future__ import annotations

import argparse
import importlib
import math
import os
import sys
import time
from pathlib import Path

from char_lm import draw_batch, read_text, set_rate
from generate import generate, split_heads
from tqdm import trange

PROMPTS = ["The ", "A class is ", "If an exception "]


def main(argv: list[str] | None = None) -> dict:
    """Trains as the command line says; returns losses, bits per character and samples."""
    args = parse(argv)
    # The one line that differs between the two packages. In your own script it is
    # `import gpunn as torch`, and all that follows stays as PyTorch's documentation has it.
    torch = importlib.import_module(args.impl)
    torch.manual_seed(args.seed)

    text = read_text()
    characters = "".join(sorted(set(text)))
    ids = torch.tensor(encode(text, characters))
    split = len(ids) * 9 // 10
    train, val = ids[:split], ids[split:]

    config = {name: getattr(args, name) for name in ("width", "heads", "layers", "dropout")}
    model = make_model(torch, len(characters), **config).to(args.device)
    config["characters"] = characters
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr)
    where = torch.Generator().manual_seed(args.seed)  # decides which pieces of text are read
    losses: list[float] = []
    if args.resume:
        losses = resume(torch, args, config, model, optimizer, where)

    start = time.perf_counter()
    with trange(len(losses), args.steps, initial=len(losses), total=args.steps) as bar:
        for step in bar:
            set_rate(optimizer, args.lr, step, args.steps)
            x, y = draw_batch(torch, train, args, where)
            losses.append(train_step(torch, model, optimizer, x, y, args.autocast))
            bar.set_postfix(bits=f"{losses[-1] / math.log(2):.3f}", refresh=False)
            if len(losses) % args.save_every == 0 or len(losses) == args.steps:
                save(torch, Path(args.out), config, model, optimizer, where, losses)
    seconds = time.perf_counter() - start

    bits = bits_per_character(torch, model, val, args)
    count = sum(p.numel() for p in model.parameters())
    print(
        f"{args.impl}: {args.steps} steps, {seconds:.1f} s, {count:,} parameters, "
        f"{bits:.3f} bits per character of text that it was not trained on"
    )
    prompts = [encode(prompt, characters) for prompt in PROMPTS]
    written = generate(torch, model, prompts, args.sample, temperature=0.7, top_p=0.95)
    texts = [decode(row, characters) for row in written]
    for number, sample in enumerate(texts, 1):
        print(f"--- {number} ---\n{sample}")
    print(f"--- more: python examples/generate.py {Path(args.out, 'model.pt')}")
    return {"loss": losses, "bits": bits, "samples": texts}


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--impl", choices=["gpunn", "torch"], default="gpunn")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--length", type=int, default=256, help="characters of a training piece")
    parser.add_argument("--width", type=int, default=128, help="of the vector of a position")
    parser.add_argument("--heads", type=int, default=4, help="of attention; they share the width")
    parser.add_argument("--layers", type=int, default=4, help="blocks of attention and network")
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--autocast", action="store_true", help="bfloat16 where it does no harm")
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sample", type=int, default=200, help="characters to write at the end")
    parser.add_argument("--resume", metavar="FILE", help="a checkpoint to go on from")
    parser.add_argument("--save-every", type=int, default=100, help="steps between checkpoints")
    parser.add_argument("--out", default="transformer_lm", help="folder of the checkpoint")
    args = parser.parse_args(argv)
    if args.width % (2 * args.heads):
        parser.error(f"--width {args.width} is not a multiple of 2 * --heads {args.heads}")
    return args


def encode(text: str, characters: str) -> list[int]:
    """Each character's number; those that training did not show end the script."""
    unknown = sorted(set(text) - set(characters))
    if unknown:
        sys.exit(f"the text that the model was trained on has no {', '.join(map(repr, unknown))}")
    code = {character: number for number, character in enumerate(characters)}
    return [code[character] for character in text]


def decode(ids: list[int], characters: str) -> str:
    return "".join(characters[i] for i in ids)


# --- model --------------------------------------------------------------------------------


def make_model(torch, vocabulary: int, width: int, heads: int, layers: int, dropout: float = 0.0):
    """Characters (batch, length) to scores of the next one (batch, length, vocabulary)."""
    nn, F = torch.nn, torch.nn.functional

    class Attention(nn.Module):
        """Each position gathers from itself and those before what its query asks for."""

        def __init__(self) -> None:
            super().__init__()
            self.qkv = nn.Linear(width, 3 * width)
            self.out = nn.Linear(width, width)

        def forward(self, x, cos, sin, cache):
            q, k, v = split_heads(self.qkv(x), heads)
            q, k = rotate(torch, q, cos, sin), rotate(torch, k, cos, sin)
            if cache is None:
                drop = dropout if self.training else 0.0
                y = F.scaled_dot_product_attention(q, k, v, dropout_p=drop, is_causal=True)
            else:
                y = cache.attend(self, q, k, v)
            return self.out(y.transpose(1, 2).flatten(2))

    class Block(nn.Module):
        """Attention, then two layers on each position; both are added to what comes in."""

        def __init__(self) -> None:
            super().__init__()
            self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
            self.attention = Attention()
            self.network = nn.Sequential(
                nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
            )
            self.drop = nn.Dropout(dropout)

        def forward(self, x, cos, sin, cache):
            x = x + self.drop(self.attention(self.norm1(x), cos, sin, cache))
            return x + self.drop(self.network(self.norm2(x)))

    class GPT(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(vocabulary, width)
            self.blocks = nn.ModuleList(Block() for _ in range(layers))
            self.norm = nn.LayerNorm(width)
            self.head = nn.Linear(width, vocabulary)
            size = width // heads
            speed = 10000.0 ** (-torch.arange(0, size, 2) / size)  # of the turns of each pair
            self.register_buffer("speed", speed, persistent=False)

        def forward(self, ids, cache=None):
            start = 0 if cache is None else cache.begin(ids)
            at = torch.arange(start, start + ids.shape[1], device=ids.device)
            angle = at[:, None] * self.speed  # (length, size / 2)
            cos, sin = angle.cos(), angle.sin()
            x = self.embedding(ids)
            for block in self.blocks:
                x = block(x, cos, sin, cache)
            return self.head(self.norm(x))

    return GPT()


def rotate(torch, x, cos, sin):
    """x (batch, heads, length, size) with each pair of numbers turned by its angle."""
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1).to(x.dtype)  # of v, by autocast


# --- training -----------------------------------------------------------------------------


def train_step(torch, model, optimizer, x, y, autocast: bool) -> float:
    """One step of the optimizer; returns the loss in nats."""
    model.train()
    optimizer.zero_grad()
    with torch.autocast(x.device.type, dtype=torch.bfloat16, enabled=autocast):
        scores = model(x)
        loss = torch.nn.functional.cross_entropy(scores.flatten(0, 1), y.flatten())
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return loss.item()


def bits_per_character(torch, model, ids, args) -> float:
    """The mean loss in bits over text that was not trained on; each has some context."""
    length = args.length
    pieces = ids[: len(ids) // length * length].view(-1, length)[:64]
    total = count = 0
    model.eval()
    with torch.no_grad():
        for piece in pieces.split(16):
            scores = model(piece[:, :-1].to(args.device))[:, length // 4 :]
            target = piece[:, 1 + length // 4 :].to(args.device)
            loss = torch.nn.functional.cross_entropy(
                scores.flatten(0, 1), target.flatten(), reduction="sum"
            )
            total, count = total + loss.item(), count + target.numel()
    return total / count / math.log(2)


# --- checkpoints --------------------------------------------------------------------------


def save(torch, folder: Path, config, model, optimizer, where, losses: list[float]) -> None:
    """Writes all that training depends on; a crash while writing leaves the old file."""
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / "model.pt.part"
    checkpoint = {
        "config": config,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "where": where.get_state(),
        "rng": torch.get_rng_state(),
        "loss": losses,
    }
    torch.save(checkpoint, part)
    os.replace(part, folder / "model.pt")


def open_checkpoint(torch, path: str, device: str) -> dict:
    """What `save` wrote; ends the script with a line that says why if it is not there."""
    if not Path(path).is_file():
        sys.exit(f"there is no file {path}; python examples/transformer_lm.py trains and saves one")
    checkpoint = torch.load(path, map_location=device)
    if not isinstance(checkpoint, dict) or "config" not in checkpoint:
        sys.exit(f"{path} is not a checkpoint of transformer_lm.py")
    return checkpoint


def resume(torch, args, config, model, optimizer, where) -> list[float]:
    """Goes back to the state of a checkpoint; returns the losses so far."""
    checkpoint = open_checkpoint(torch, args.resume, args.device)
    theirs = checkpoint["config"]
    if theirs["characters"] != config["characters"]:
        sys.exit(f"{args.resume} was trained on the manual of another Python version")
    differ = [name for name in config if theirs[name] != config[name]]
    if differ:
        had = " ".join(f"--{name} {theirs[name]}" for name in differ)
        has = " ".join(f"--{name} {config[name]}" for name in differ)
        sys.exit(f"{args.resume} was made with {had}, this run has {has}")
    model.load_state_dict(checkpoint["model"])
    optimizer.load_state_dict(checkpoint["optimizer"])
    where.set_state(checkpoint["where"].cpu())
    torch.set_rng_state(checkpoint["rng"].cpu())
    return checkpoint["loss"]


def load_model(torch, path: str, device: str):
    """The trained model of a checkpoint, and its characters."""
    checkpoint = open_checkpoint(torch, path, device)
    config = dict(checkpoint["config"])
    characters = config.pop("characters")
    model = make_model(torch, len(characters), **config).to(device)
    model.load_state_dict(checkpoint["model"])
    return model.eval(), characters


if __name__ == "__main__":
    main()
