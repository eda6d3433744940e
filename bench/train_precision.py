"""Seconds per training step by width, precision and attention kernel: the figures behind `Precision` "auto".

Usage: python bench/train_precision.py [threads]
A synthetic 90-token series and a batch of 64; the fastest of several interleaved rounds. Writes
docs/results/train-precision.json, which docs/results.md shows; last line: JSON.
"""

import json
import sys
import time
from pathlib import Path

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from triptych.measure.environment import environment

ROUNDS, TOKENS, BATCH = 5, 90, 64
RESULT = Path(__file__).resolve().parents[1] / "docs" / "results" / "train-precision.json"


def encoder(width: int) -> nn.Module:
    layer = nn.TransformerEncoderLayer(width, 4, 4 * width, dropout=0.0, batch_first=True, norm_first=True)
    return nn.TransformerEncoder(layer, 4, enable_nested_tensor=False)


def step_s(network: nn.Module, x: torch.Tensor, *, half: bool, kernel: SDPBackend) -> float:
    begun = time.perf_counter()
    with torch.autocast("cpu", torch.bfloat16, enabled=half), sdpa_kernel(kernel):
        loss = network(x).float().square().mean()
    loss.backward()
    return time.perf_counter() - begun


def main() -> None:
    torch.set_num_threads(int(sys.argv[1]) if len(sys.argv) > 1 else torch.get_num_threads())
    ways = {
        f"{'bfloat16' if half else 'float32'}, {name}": (half, kernel)
        for half in (False, True)
        for name, kernel in (("fused", SDPBackend.FLASH_ATTENTION), ("plain", SDPBackend.MATH))
    }
    table = {}
    for width in (32, 64, 96, 128, 256):
        network, x = encoder(width), torch.randn(BATCH, TOKENS, width)
        rounds = [{n: step_s(network, x, half=h, kernel=k) for n, (h, k) in ways.items()} for _ in range(ROUNDS)]
        table[width] = {n: round(min(r[n] for r in rounds[1:]), 4) for n in ways}
        print(width, table[width])
    threads = torch.get_num_threads()
    record = {"threads": threads, "step_s": table, "environment": environment(threads=threads)}
    RESULT.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps({"threads": threads, "step_s": table}))


if __name__ == "__main__":
    main()
