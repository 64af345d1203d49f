"""Text from a trained model: a key-value cache, and greedy, top-k and nucleus sampling.

    python examples/transformer_lm.py                           # first: trains a model, saves it
    python examples/generate.py transformer_lm/model.pt --prompt "The " --prompt "A class is "
    python examples/generate.py transformer_lm/model.pt --temperature 0     # always the likeliest
    python examples/generate.py transformer_lm/model.pt --top-k 10 --top-p 0.9 --impl torch

Attention looks back at the keys and values of all earlier positions. They do not change when a
token is appended, so `KeyValueCache` keeps them, and a step computes one position instead of all:
the same scores for a fraction of the work. `generate` writes on from several prompts at once, of
any lengths; it takes any model that is called as `model(ids, cache)` and hands the queries, keys
and values of its layers to `cache.attend`. `self_attention` does so with the weights of an
nn.MultiheadAttention.
Nucleus sampling: Holtzman et al. 2020, "The Curious Case of Neural Text Degeneration".
"""

from __future__ import annotations

import argparse
import importlib
import sys
import time

# --- the cache ----------------------------------------------------------------------------


class KeyValueCache:
    """The keys and values of all that a model has read, layer by layer.

    `real` (batch, length) is False where prompts of unequal length were filled up in front:
    no position looks at those. Use it under `torch.no_grad()`.
    """

    def __init__(self, torch, real=None) -> None:
        self.torch, self.real = torch, real
        self.length = 0  # positions read
        self.mask = None  # which new position may look at which of all
        self.kept: dict = {}  # by layer: keys and values, (batch, heads, room, size) each

    def begin(self, ids) -> int:
        """Makes ready for the new tokens ids (batch, count); returns their first position."""
        start, self.length = self.length, self.length + ids.shape[1]
        self.mask = self._mask(start, ids.device)
        return start

    def attend(self, layer, q, k, v):
        """Attention of new queries over all keys so far; each (batch, heads, count, size).
        `layer` is anything that tells the layers of the model apart."""
        attention = self.torch.nn.functional.scaled_dot_product_attention
        keys, values = self._append(layer, k, v)
        return attention(q, keys, values, attn_mask=self.mask)

    def _append(self, layer, k, v):
        """All keys and values so far. The room for them doubles when it is used up."""
        start = self.length - k.shape[2]
        if layer not in self.kept or self.kept[layer][0].shape[2] < self.length:
            room = (*k.shape[:2], 2 * self.length, k.shape[3])
            bigger = k.new_empty(room), v.new_empty(room)
            if start:
                for new, old in zip(bigger, self.kept[layer]):
                    new[:, :, :start] = old[:, :, :start]
            self.kept[layer] = bigger
        for kept, new in zip(self.kept[layer], (k, v)):
            kept[:, :, start : self.length] = new
        return tuple(kept[:, :, : self.length] for kept in self.kept[layer])

    def _mask(self, start: int, device):
        """Where the new positions may look; None where there is one, which may see all."""
        torch, length = self.torch, self.length
        if length == start + 1 and self.real is None:
            return None
        at = torch.arange(length, device=device)
        rows = at[start:, None]
        mask = at <= rows
        if self.real is not None:
            known = self.real[:, :length]
            new = torch.ones(len(known), length - known.shape[1], dtype=torch.bool, device=device)
            seen = torch.cat([known, new], 1)[:, None, None]
            mask = mask & seen | (at == rows)  # filling sees itself: a softmax needs something
        return mask


def self_attention(torch, layer, x, cache=None):
    """Causal self-attention on x (batch, length, width) with the weights of `layer`, an
    nn.MultiheadAttention or what has its in_proj_weight, in_proj_bias, out_proj, num_heads."""
    F = torch.nn.functional
    packed = F.linear(x, layer.in_proj_weight, layer.in_proj_bias)
    q, k, v = split_heads(packed, layer.num_heads)
    if cache is None:
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    else:
        y = cache.attend(layer, q, k, v)
    return layer.out_proj(y.transpose(1, 2).flatten(2))


def split_heads(packed, heads: int):
    """Packed projections (batch, length, 3 * width) to q, k, v (batch, heads, length, size)."""
    return (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in packed.chunk(3, -1))


# --- sampling -----------------------------------------------------------------------------


def generate(
    torch,
    model,
    prompts: list[list[int]],
    count: int,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    generator=None,
    cache: bool = True,
) -> list[list[int]]:
    """The prompts, each with `count` more tokens.

    temperature 0 takes the likeliest token (greedy); below 1 likely tokens become likelier.
    top_k draws among that many of the likeliest only, top_p among the fewest that have this
    chance together. cache=False computes everything again for each token: for comparison.
    """
    check(prompts, count, temperature, top_k, top_p)
    device = next(model.parameters()).device
    longest = max(len(prompt) for prompt in prompts)
    fill = [longest - len(prompt) for prompt in prompts]  # in front, so that all end together
    ids = [[0] * n + list(prompt) for n, prompt in zip(fill, prompts)]
    ids = torch.tensor(ids, device=device)
    real = None
    if any(fill):
        real = torch.arange(longest, device=device) >= torch.tensor(fill, device=device)[:, None]

    training = model.training
    model.eval()
    with torch.no_grad():
        memory = KeyValueCache(torch, real)
        for _ in range(count):
            if not cache:
                memory = KeyValueCache(torch, real)
            scores = model(ids[:, memory.length :], memory)[:, -1]
            new = choose(torch, scores, temperature, top_k, top_p, generator)
            ids = torch.cat([ids, new[:, None]], 1)
    model.train(training)
    return [row[n:] for n, row in zip(fill, ids.tolist())]


def check(prompts, count: int, temperature: float, top_k, top_p) -> None:
    """Refuses arguments that mean nothing."""
    if not prompts or not all(len(prompt) for prompt in prompts):
        raise ValueError(f"generate: each prompt needs a token to begin with, got {list(prompts)}")
    if count < 0:
        raise ValueError(f"generate: count is the number of new tokens, got {count}")
    if not temperature >= 0:
        raise ValueError(f"generate: temperature is 0 (greedy) or more, got {temperature}")
    if top_k is not None and top_k < 1:
        raise ValueError(f"generate: top_k keeps 1 token or more, got {top_k}")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"generate: top_p is a chance above 0 and up to 1, got {top_p}")


def choose(torch, scores, temperature: float, top_k=None, top_p=None, generator=None):
    """The next token of each row of scores (batch, vocabulary)."""
    if temperature == 0:
        return scores.argmax(-1)
    chances = keep_likely(torch, scores / temperature, top_k, top_p).softmax(-1)
    return torch.multinomial(chances, 1, generator=generator)[:, 0]


def keep_likely(torch, scores, top_k: int | None = None, top_p: float | None = None):
    """The scores, -inf where a token is not among the top_k likeliest, or not among the fewest
    of those that have the chance top_p together. Of equal ones the first are kept."""
    ordered, order = scores.sort(dim=-1, descending=True, stable=True)
    if top_k is not None:
        ordered[:, top_k:] = -torch.inf
    if top_p is not None and top_p < 1:
        chances = ordered.softmax(-1)
        before = chances.cumsum(-1) - chances  # of those that are likelier; of the first it is 0
        ordered = ordered.masked_fill(before >= top_p, -torch.inf)
    return torch.empty_like(scores).scatter(-1, order, ordered)


# --- the script ---------------------------------------------------------------------------


def main(argv: list[str] | None = None) -> dict:
    """Writes on from the prompts, then says what the cache is worth."""
    from transformer_lm import decode, encode, load_model  # here: it imports this file

    args = parse(argv)
    how = {"temperature": args.temperature, "top_k": args.top_k, "top_p": args.top_p}
    begins = args.prompt or ["The ", "A class is "]
    try:
        check(begins, args.length, **how)
    except ValueError as error:
        sys.exit(str(error))
    torch = importlib.import_module(args.impl)
    model, characters = load_model(torch, args.model, args.device)
    prompts = [encode(prompt, characters) for prompt in begins]

    torch.manual_seed(args.seed)
    start = time.perf_counter()
    found = generate(torch, model, prompts, args.length, **how)
    seconds = time.perf_counter() - start
    texts = [decode(ids, characters) for ids in found]
    for number, text in enumerate(texts, 1):
        print(f"--- {number} ---\n{text}")

    torch.manual_seed(args.seed)
    start = time.perf_counter()
    again = generate(torch, model, prompts, args.length, **how, cache=False)
    without = time.perf_counter() - start
    written = len(prompts) * args.length
    difference = largest_difference(torch, model, found[0])
    print(
        f"--- {args.impl}: {written / seconds:,.0f} characters/s with the cache, "
        f"{written / without:,.0f} without; the text is {'' if again == found else 'not '}the "
        f"same, scores differ by at most {difference:.0e}"
    )
    return {"texts": texts, "difference": difference}


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="a checkpoint of transformer_lm.py")
    parser.add_argument("--impl", choices=["gpunn", "torch"], default="gpunn")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--prompt", action="append", help="how a text begins; may be repeated")
    parser.add_argument("--length", type=int, default=200, help="characters to write")
    parser.add_argument("--temperature", type=float, default=0.7, help="0: always the likeliest")
    parser.add_argument("--top-k", type=int, help="draw among this many of the likeliest")
    parser.add_argument("--top-p", type=float, help="draw among the fewest with this chance")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(argv)


def largest_difference(torch, model, ids: list[int]) -> float:
    """How far the scores of ids, token by token through a cache, are from those of one pass."""
    row = torch.tensor([ids], device=next(model.parameters()).device)
    with torch.no_grad():
        cache = KeyValueCache(torch)
        steps = torch.cat([model(token, cache) for token in row.split(1, 1)], 1)
        return (steps - model(row)).abs().max().item()


if __name__ == "__main__":
    main()
