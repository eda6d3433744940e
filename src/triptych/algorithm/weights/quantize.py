"""Eight-bit integers in place of floats (Jacob et al. 2018): weights alone, or weights and activations."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, final, get_args

import torch
from torch import Tensor, nn

from triptych.algorithm.rebuild import rebuild
from triptych.algorithm.technique import Context, Needs, Space, Technique
from triptych.algorithm.weights.importance import run_whole
from triptych.errors import RecipeError
from triptych.model.dense import GridLayer
from triptych.model.multimodal import Multimodal

Clipping = Literal["minmax", "mse", "percentile"]
_SAMPLES = 65_536  # values per layer that clipping looks at
_PIXELS = (-2.0, 127 / 64)  # what an image stem reads from uint8 pixels


@final
@dataclass(frozen=True)
class Int8Weights(Technique):
    """Store the weights of dense layers, tables and a backbone's convolutions as integers; no data needed.

    Each has one step size per output.
    """

    saves: ClassVar[frozenset[str]] = frozenset({"size"})

    def apply(self, model: Multimodal, context: Context) -> Multimodal:  # noqa: ARG002
        """The same weights, rounded to the grid whenever they are used."""
        return rebuild(model, dataclasses.replace(model.config, precision="int8_weights"))


@final
@dataclass(frozen=True)
class Int8(Technique):
    """Multiply integers: weights on a symmetric grid per output, inputs on one grid per layer, from calibration data.

    clipping:   range of a layer's inputs: 'minmax', everything seen; 'percentile', all but a few outliers; 'mse', the
                range with the least squared rounding error
    percentile: share of the inputs inside the range, in percent, half of the rest on each side
    batches:    calibration batches

    Half of what a shared layer sees are complete rows, the other half the same rows without some of their modalities,
    so that ranges hold for whatever is missing later.
    """

    saves: ClassVar[frozenset[str]] = frozenset({"size", "latency"})
    space: ClassVar[Space] = {"clipping": get_args(Clipping)}
    clipping: Clipping = "mse"
    percentile: float = 99.99
    batches: int = 8

    def __post_init__(self) -> None:
        self.require("clipping", f"one of {get_args(Clipping)}", holds=self.clipping in get_args(Clipping))
        self.require_number("percentile", "in [50, 100]", 50, 100)
        self.require_number("batches", "a whole number from 1 to 10000", 1, 10_000, whole=True)

    @property
    def needs(self) -> Needs:
        """Calibration data."""
        return Needs.CALIBRATION

    def apply(self, model: Multimodal, context: Context) -> Multimodal:
        """Run calibration data through and set every layer's range.  Raises RecipeError for layers it never reaches."""
        result = rebuild(model, dataclasses.replace(model.config, precision="int8"))
        layers = {n: m for n, m in result.named_modules() if isinstance(m, GridLayer) and m.precision == "int8"}
        samples = _observe(result, layers, context, self.batches)
        if missing := sorted(layers.keys() - samples.keys()):
            raise RecipeError(f"no calibration batch reaches {missing[:4]}; add rows with all modalities")
        for name, layer in layers.items():
            low, high = self._range(samples[name], float(layer.low), float(layer.high))
            if _reads_pixels(result, name):
                low, high = _PIXELS
            layer.low.fill_(low)
            layer.high.fill_(high)
        return result

    def _range(self, values: Tensor, low: float, high: float) -> tuple[float, float]:
        if self.clipping == "minmax":
            return low, high
        if self.clipping == "percentile":
            outside = (100 - self.percentile) / 200
            cut = values.quantile(torch.tensor([outside, 1 - outside], dtype=values.dtype))
            return min(0.0, float(cut[0])), max(0.0, float(cut[1]))
        return least_error_range(values, low, high)


def least_error_range(values: Tensor, low: float, high: float, *, steps: int = 40) -> tuple[float, float]:
    """The range within [low, high] whose 256 levels round `values` with the least squared error.

    Each end shrinks in turn over a grid of `steps` shares of its size; zero stays inside.  values: (any,)
    """
    shares = [1 - step / steps for step in range(steps)]
    for _ in range(2):
        low = min((low * share for share in shares), key=lambda end: rounding_error(values, end, high))
        high = min((high * share for share in shares), key=lambda end: rounding_error(values, low, end))
    return low, high


def rounding_error(values: Tensor, low: float, high: float) -> float:
    """Mean squared error of rounding to the 256 levels from `low` to `high`, zero among them.  values: (any,)"""
    scale = max(high - low, 1e-8) / 255
    zero = min(255, max(0, round(-low / scale)))
    rounded = ((values / scale).round() + zero).clamp(0, 255).sub(zero) * scale
    return float((rounded - values).square().mean())


@torch.no_grad()
def _observe(model: Multimodal, layers: dict[str, GridLayer], context: Context, batches: int) -> dict[str, Tensor]:
    """Let the layers see calibration data in float; returns a sample of each one's inputs by name."""
    samples: dict[str, list[Tensor]] = {}
    data = context.calibration(batches)
    room = max(1, _SAMPLES // len(data))
    share = room

    def listen(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(_layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            values = inputs[0].detach().flatten().float().cpu()
            samples.setdefault(name, []).append(values[:: -(-len(values) // share)])

        return hook

    handles = [layer.register_forward_pre_hook(listen(name)) for name, layer in layers.items()]
    for layer in layers.values():
        layer.low.zero_()
        layer.high.zero_()
        layer.observing = True
    try:
        for batch in data:
            share = room
            streams = run_whole(model, batch)
            parts = subsets(tuple(streams))
            share = max(1, room // max(1, len(parts)))
            for names in parts:
                model.decide({name: streams[name] for name in names})
    finally:
        for layer in layers.values():
            layer.observing = False
        for handle in handles:
            handle.remove()
    return {name: torch.cat(parts) for name, parts in samples.items()}


def subsets(names: Sequence[str]) -> list[tuple[str, ...]]:
    """What may be left when others are missing: each alone, and all but each."""
    alone = [(name,) for name in names] if len(names) > 1 else []
    without = [tuple(other for other in names if other != name) for name in names] if len(names) > 2 else []
    return [*alone, *without]


def _reads_pixels(model: Multimodal, name: str) -> bool:
    kinds = {f"encoders.{m.name}.stem.project": m.kind for m in model.schema.modalities}
    return kinds.get(name) in {"image", "video"}
