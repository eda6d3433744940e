"""The shape of a network as data: all that rebuilding needs, so that pruning is a new config and sliced weights."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self, TypeVar, get_args

from triptych.errors import ModelError

T = TypeVar("T")
Precision = Literal["float32", "int8_weights", "int8"]
Squash = Literal["asinh", "softsign"]
Take = Literal["all", "grid", "first", "last", "mean"]
ChannelPer = Literal["block", "modality"]
RouteWay = Literal["batch", "random", "row", "score"]
Gates = Literal["softmax", "normalised"]
_LARGEST = 1_000_000  # of any size, so that a damaged file cannot ask for all memory
_LARGEST_FOLD = 32
_LARGEST_RANK = 4096


@dataclass(frozen=True)
class BackboneConfig:
    """A pretrained backbone as part of a stem.

    family: name in `triptych.model.backbones.BACKBONES`
    sizes:  plain JSON values, as the family's own dataclass of sizes names them
    take:   which of its tokens go on: 'all'; 'grid', those with a place, without class tokens; the 'first', such as a
            class token; the 'last' real one; or the 'mean' of the real ones
    """

    family: str
    sizes: Mapping[str, Any] = field(default_factory=dict)
    take: Take = "all"

    def __post_init__(self) -> None:
        if self.take not in get_args(Take):
            raise ModelError(f"take must be one of {get_args(Take)}, got {self.take!r}")
        if not (isinstance(self.family, str) and isinstance(self.sizes, Mapping)):
            raise ModelError(f"a backbone needs a family and a mapping of sizes, got {self.family!r}, {self.sizes!r}")


@dataclass(frozen=True)
class StemConfig:
    """How raw values become tokens.  Only the fields of the modality's kind are used."""

    form: str = ""  # name of the stem in `STEMS`; empty means the usual one of the modality's kind
    patch: int = 8  # image, video: pixels per side of a patch
    tubelet: int = 2  # video: frames of a token
    cells: int = 32  # points: cells per side of the bird's-eye grid
    cell_patch: int = 4  # points: cells per side of a token
    shrink: int = 1  # audio: average this many samples into one first
    window_s: float = 0.025  # audio: analysis window
    hop_s: float = 0.010  # audio: window step
    mels: int = 64  # audio: mel bands
    max_tokens: int = 100  # audio: frames are stacked until at most this many tokens are left
    frames_per_token: int = 10  # series
    averages: int = 4  # series, form 'summary': learnt averages over the frames of a token
    width: int = 0  # text, codes: embedding width before projection to `dim`; 0 means `dim`
    hidden: int = 128  # table, points, series of form 'convolved': hidden width
    squash: Squash = "asinh"  # series, table: what tames values far from the median
    mask: bool = True  # audio, series, points: mark tokens without a sample; unmarked ones count as zeros: cheaper
    backbone: BackboneConfig | None = None  # form 'pretrained'

    def __post_init__(self) -> None:
        if not (0 < self.window_s <= 10 and 0 < self.hop_s <= 10):
            raise ModelError(f"window_s and hop_s must be in (0, 10] seconds, got {self.window_s} and {self.hop_s}")
        if self.squash not in get_args(Squash):
            raise ModelError(f"squash must be one of {get_args(Squash)}, got {self.squash!r}")


@dataclass(frozen=True)
class ReduceConfig:
    """Fewer tokens from here on: a `method` of `triptych.select` and the fraction that stays."""

    method: str
    fraction: float

    def __post_init__(self) -> None:
        if not 0 < self.fraction <= 1:
            raise ModelError(f"the fraction of tokens to keep must be in (0, 1], got {self.fraction}")


@dataclass(frozen=True)
class RoutesConfig:
    """Which of the chosen pairs of a token and an expert are worked on (see `triptych.model.experts.sparsify`).

    way:      'row' and 'batch', the best-scored share of each row's pairs, or of the batch's; 'score', those that score
              enough; 'random', the control
    fraction: of the pairs that stay, in whole percents; not for 'score'
    least:    score of a pair that stays, for 'score'
    """

    way: RouteWay = "row"
    fraction: float = 1.0
    least: float = 0.0

    def __post_init__(self) -> None:
        if self.way not in get_args(RouteWay):
            raise ModelError(f"the way to choose routes must be one of {get_args(RouteWay)}, got {self.way!r}")
        if not 0 < self.fraction <= 1:
            raise ModelError(f"the fraction of routes to keep must be in (0, 1], got {self.fraction}")
        if not 0 <= self.least <= 1:
            raise ModelError(f"the least score of a route must be in [0, 1], got {self.least}")


@dataclass(frozen=True)
class BlockConfig:
    """One pre-norm block: a mixer, then a channel block, then perhaps fewer tokens."""

    mixer: str = "attention"
    heads: int = 4
    head_dim: int = 32
    kernel: int = 7  # depthwise, window, pooling, inverted_bottleneck: tokens per side
    rank: int = 16  # low_rank: folded keys and values; low_rank_experts: of each expert
    state: int = 16  # state_space: states per channel
    factor: float = 5.0  # prob_sparse: queries that attend, in units of ln(tokens)
    chunk: int = 16  # hashed: tokens that attend together
    channel: str = "mlp"
    hidden: int = 512
    knots: int = 5  # kan: bumps per edge
    experts: int = 8  # experts, low_rank_experts: how many, each of `hidden` width or `rank`
    active: int = 1  # experts, low_rank_experts: of them for each token; expert_choice: on average
    router: str = "top_k"  # experts, low_rank_experts: who decides, in `ROUTERS`
    ranks: tuple[int, ...] = ()  # low_rank_experts: of each expert, where they differ
    gates: Gates = "softmax"  # what a chosen expert counts: its share among all, or among the chosen ones
    routes: RoutesConfig | None = None  # experts: work on fewer of the chosen pairs
    channel_per: ChannelPer = "block"  # blocks that modalities share: one channel block, or one for every modality
    reduce: ReduceConfig | None = None

    def __post_init__(self) -> None:
        if self.kernel % 2 == 0:
            raise ModelError(f"the kernel of a block must be odd, got {self.kernel}")
        if self.factor <= 0:
            raise ModelError(f"the factor of ProbSparse must be above zero, got {self.factor}")
        if self.channel_per not in get_args(ChannelPer):
            raise ModelError(f"channel_per must be one of {get_args(ChannelPer)}, got {self.channel_per!r}")
        if self.gates not in get_args(Gates):
            raise ModelError(f"gates must be one of {get_args(Gates)}, got {self.gates!r}")
        if self.ranks and (len(self.ranks) != self.experts or not all(0 < r <= _LARGEST_RANK for r in self.ranks)):
            raise ModelError(f"ranks must be {self.experts} numbers from 1 to {_LARGEST_RANK}, got {self.ranks}")
        if self.active > self.experts:
            raise ModelError(f"{self.active} active experts of {self.experts}; choose at most as many as there are")


@dataclass(frozen=True)
class ConnectorConfig:
    """What hands an encoder's tokens to the fusion.  Only the fields of the named connector are used."""

    name: str = "linear"
    dim: int = 128  # width that it gives
    hidden: int = 512  # mlp
    fold: int = 2  # pixel_shuffle, region_cross_attention, deep_stack: tokens per side of what is taken together
    queries: int = 8  # resampler, q_former: tokens that it gives
    blocks: tuple[BlockConfig, ...] = ()  # resampler, q_former, region_cross_attention, deep_stack: layers

    def __post_init__(self) -> None:
        if self.fold > _LARGEST_FOLD:
            raise ModelError(f"fold must be at most {_LARGEST_FOLD} tokens per side, got {self.fold}")
        if any(block.reduce for block in self.blocks):
            raise ModelError("the blocks of a connector must not reduce tokens; reduce in the encoder's blocks")


@dataclass(frozen=True)
class EncoderConfig:
    """A stem, the blocks after it, and perhaps a connector to the fusion."""

    dim: int = 128
    stem: StemConfig = StemConfig()
    blocks: tuple[BlockConfig, ...] = ()
    connector: ConnectorConfig | None = None

    @property
    def width(self) -> int:
        """Of the tokens that the fusion gets."""
        return self.dim if self.connector is None else self.connector.dim


@dataclass(frozen=True)
class SharedConfig:
    """Blocks that every modality's tokens go through after its own, one modality at a time, with the same weights."""

    dim: int = 128
    blocks: tuple[BlockConfig, ...] = ()


@dataclass(frozen=True)
class FusionConfig:
    """How the modalities' tokens become one vector."""

    name: str = "late"
    dim: int = 128
    blocks: tuple[BlockConfig, ...] = ()
    bottlenecks: int = 4  # bottleneck fusion: shared tokens
    tensor_dim: int = 8  # tensor fusion: features of a modality in the product
    tensor_rank: int = 4  # low-rank tensor fusion: products in the sum
    latents: int = 32  # perceiver: learnt tokens that read the others
    latent_depth: int = 1  # perceiver: blocks among the latents after every reading, all of the same sizes


@dataclass(frozen=True)
class GateConfig:
    """What decides, row by row, how much of each modality is read.

    shares: of a modality's tokens that it may keep, in whole percents; 0 leaves the modality out
    hidden: features that it takes from each token
    cap:    most that one row may cost, gate included, as a share of what the network costs without one; 0 is no limit
    rank:   learn which tokens of a modality go first, which only gradients teach; else they are spread evenly
    """

    name: str = "adaptive"
    shares: tuple[float, ...] = (0.0, 0.25, 0.5, 1.0)
    hidden: int = 16
    cap: float = 0.0
    rank: bool = False

    def __post_init__(self) -> None:
        known = isinstance(self.shares, tuple) and all(isinstance(one, int | float) for one in self.shares)
        if not known or not all(0 <= one <= 1 for one in self.shares) or not any(self.shares):
            raise ModelError(f"the shares of a gate must be in [0, 1], one of them above 0, got {self.shares!r}")
        if not 0 <= self.cap <= 1:
            raise ModelError(f"the cap of a gate must be in [0, 1], got {self.cap}")


@dataclass(frozen=True)
class AdapterConfig:
    """What is trained beside a network that rests.  Only the fields of the named adapter are used.

    targets: lora, dora, bottleneck: layers by a part of their names, such as 'query_key_value' or 'encoders.text.stem';
             ladder and prompts: modalities; empty means the usual ones
    also:    parts of the network that are trained too, by the start of their names, such as 'head'
    rank:    lora, dora: rank of the change; bottleneck, ladder, conditional_prompt: hidden width
    alpha:   lora, dora: the change counts alpha / rank
    prompts: prompt, deep_prompt, conditional_prompt: learnt tokens
    blend:   cache_model: weight of what the cache says
    sharpness: cache_model: how quickly a cached example's say falls with its distance
    entries: cache_model: cached examples, as many as it is given
    """

    name: str = "lora"
    targets: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    rank: int = 8
    alpha: float = 16.0
    prompts: int = 8
    blend: float = 1.0
    sharpness: float = 5.5
    entries: int = 0

    def __post_init__(self) -> None:
        for name in ("targets", "also"):
            value = getattr(self, name)
            if not (isinstance(value, tuple) and all(isinstance(part, str) and part for part in value)):
                raise ModelError(f"{name} must be a tuple of names, got {value!r}")
        for name in ("rank", "prompts"):
            if getattr(self, name) < 1:
                raise ModelError(f"the {name} of an adapter must be at least 1, got {getattr(self, name)}")


@dataclass(frozen=True)
class ModelConfig:
    """A whole network.  A dual encoder, for retrieval, has no fusion."""

    encoders: Mapping[str, EncoderConfig]
    fusion: FusionConfig | None = FusionConfig()
    embedding: int = 128  # retrieval: width of each side's vector
    head_hidden: int = 128
    dropout: float = 0.1
    exits: bool = False  # a head per modality on its own tokens, for early exit
    precision: Precision = "float32"
    shared: SharedConfig | None = None  # between the encoders and the fusion
    fill: str = ""  # what stands for a missing modality before the fusion, of `FILLS`; empty leaves it to the fusion
    recipe: tuple[str, ...] = field(default=())  # the techniques that led here, in order
    adapter: AdapterConfig | None = None
    gate: GateConfig | None = None  # between the stems and the blocks

    def __post_init__(self) -> None:
        if self.precision not in get_args(Precision):
            raise ModelError(f"precision must be one of {get_args(Precision)}, got {self.precision!r}")
        if not 0 <= self.dropout < 1:
            raise ModelError(f"dropout must be in [0, 1), got {self.dropout}")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Self:
        """Read what `to_dict` wrote.  Raises ModelError on unknown or ill-typed keys."""
        given = record.get("encoders") if isinstance(record, Mapping) else None
        if not isinstance(given, Mapping):
            raise ModelError(f"a model config must map names to encoders, got {given!r}")
        encoders = {name: _encoder(value) for name, value in given.items()}
        given = record.get("fusion", {})
        fusion = None if given is None else make(FusionConfig, given, blocks=_blocks)
        parts = {**record, "encoders": encoders, "fusion": fusion}
        return make(cls, parts, shared=_shared, adapter=_adapter, recipe=tuple, gate=_gate)


def _encoder(record: Mapping[str, Any]) -> EncoderConfig:
    return make(EncoderConfig, record, stem=_stem, blocks=_blocks, connector=_connector)


def _stem(record: Mapping[str, Any]) -> StemConfig:
    return make(StemConfig, record, backbone=lambda v: None if v is None else make(BackboneConfig, v))


def _shared(record: Any) -> SharedConfig | None:
    return None if record is None else make(SharedConfig, record, blocks=_blocks)


def _connector(record: Any) -> ConnectorConfig | None:
    return None if record is None else make(ConnectorConfig, record, blocks=_blocks)


def _adapter(record: Any) -> AdapterConfig | None:
    return None if record is None else make(AdapterConfig, record, targets=_names, also=_names)


def _gate(record: Any) -> GateConfig | None:
    return None if record is None else make(GateConfig, record, shares=_shares)


def _shares(value: Any) -> tuple[float, ...]:
    if not isinstance(value, list | tuple):
        raise ModelError(f"shares must be a list of numbers, got {value!r}")
    return tuple(value)


def _names(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list | tuple):
        raise ModelError(f"names must be a list, got {value!r}")
    return tuple(value)


def _blocks(records: Any) -> tuple[BlockConfig, ...]:
    if not isinstance(records, list | tuple):
        raise ModelError(f"blocks must be a list, got {records!r}")
    return tuple(make(BlockConfig, record, reduce=_reduce, ranks=_ranks, routes=_routes) for record in records)


def _routes(record: Any) -> RoutesConfig | None:
    return None if record is None else make(RoutesConfig, record)


def _reduce(record: Any) -> ReduceConfig | None:
    return None if record is None else make(ReduceConfig, record)


def _ranks(value: Any) -> tuple[int, ...]:
    if not isinstance(value, list | tuple) or not all(type(rank) is int for rank in value):
        raise ModelError(f"ranks must be a list of whole numbers, got {value!r}")
    return tuple(value)


def make(cls: type[T], record: Mapping[str, Any], **read: Any) -> T:
    """A dataclass of plain values from untrusted ones.  read: how to read single fields.  Raises ModelError."""
    known = {f.name: f.default for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    if not isinstance(record, Mapping) or not record.keys() <= known.keys():
        raise ModelError(f"{cls.__name__} must be a mapping with keys among {sorted(known)}, got {record!r}")
    for name, value in record.items():
        _check(f"{cls.__name__}.{name}", value, known[name])
    try:
        return cls(**{name: read[name](value) if name in read else value for name, value in record.items()})
    except TypeError as error:
        raise ModelError(f"cannot read {cls.__name__}: {error}") from error


def _check(name: str, value: Any, default: Any) -> None:
    """Raise ModelError unless a plain value has the type of its default, and sizes are possible ones."""
    if type(default) in (bool, int, str) and type(value) is not type(default):
        raise ModelError(f"{name} must be of type {type(default).__name__}, got {value!r}")
    if type(default) is float and not (type(value) in (int, float) and math.isfinite(value)):
        raise ModelError(f"{name} must be a finite number, got {value!r}")
    if type(default) is int and not min(default, 1) <= value <= _LARGEST:
        raise ModelError(f"{name} must be from {min(default, 1)} to {_LARGEST}, got {value}")
