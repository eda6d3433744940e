"""wav2vec 2.0 (Baevski et al. 2020) and HuBERT (Hsu et al. 2021), which is the same network, trained otherwise.

Meta's weights of both (facebook/wav2vec2-*, facebook/hubert-*) are tagged Apache-2.0 on Hugging Face.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, final, get_args

from torch import Tensor, nn
from torch.nn import functional

from triptych.errors import ModelError
from triptych.model.backbones.folder import Folder
from triptych.model.backbones.layer import LayerSizes, PostNorm, PreNorm, activation_of, padding_bias, stack
from triptych.model.backbones.waveform import AudioBackbone, fitted
from triptych.model.backbones.words import layer_names
from triptych.model.config import Precision, make
from triptych.model.dense import Dense
from triptych.schema import Modality
from triptych.tokens import Tokens

Order = Literal["first", "last"]
Within = Literal["clip", "frame"]
_CONVOLUTIONS = ((512, 10, 5), *((512, 3, 2),) * 4, *((512, 2, 2),) * 2)
_LAYER = {
    "query_key_value": ("attention.q_proj", "attention.k_proj", "attention.v_proj"),
    "out": ("attention.out_proj",),
    "mix_norm": ("layer_norm",),
    "up": ("feed_forward.intermediate_dense",),
    "down": ("feed_forward.output_dense",),
    "channel_norm": ("final_layer_norm",),
}
_PLACE = "encoder.pos_conv_embed.conv."
_SPARE = r"masked_spec_embed|quantizer\..*|project_(hid|q)\..*|lm_head\..*|projector\..*|classifier\..*|layer_weights"


@dataclass(frozen=True)
class Wav2Vec2Sizes(LayerSizes):
    """Sizes of a wav2vec 2.0 or HuBERT encoder.

    convolutions: channels, kernel and stride of each, from the waveform on;  convolution_bias: whether they have one
    convolution_norm: 'clip', of each channel of the first one over the clip; 'frame', of each frame of all of them
    project_norm: whether frames are normalised before they are projected
    reach, groups: tokens that a place is told from, and groups of the convolution that does
    norm: where a layer has its norms, 'first' or 'last';  scaled: whether clips get mean 0 and variance 1
    """

    convolutions: tuple[tuple[int, ...], ...] = _CONVOLUTIONS
    convolution_bias: bool = False
    convolution_norm: Within = "clip"
    project_norm: bool = True
    epsilon: float = 1e-5
    reach: int = 128
    groups: int = 16
    norm: Order = "last"
    scaled: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.convolution_norm not in get_args(Within) or self.norm not in get_args(Order):
            known = f"{get_args(Within)} and {get_args(Order)}"
            raise ModelError(f"convolution_norm and norm are of {known}, got {self.convolution_norm!r}, {self.norm!r}")
        whole = all(len(one) == 3 and all(type(n) is int and 1 <= n <= 4096 for n in one) for one in self.convolutions)
        if not whole or not 1 <= len(self.convolutions) <= 16:
            raise ModelError(f"convolutions are up to 16 times channels, kernel and stride, got {self.convolutions}")
        if self.width % self.groups or self.reach > 4096:
            raise ModelError(f"groups must divide the width and reach be at most 4096, got {self.groups}, {self.reach}")


@final
class Wav2Vec2(AudioBackbone):
    """A token per 20 ms, each of 25 ms; it is real where those lie within the clip.

    Whatever is computed over time — the clip's mean and variance, norms, places, attention — sees what is real only,
    so that a clip's tokens are those that it has by itself, whatever it is padded to.
    """

    model_types: ClassVar[frozenset[str]] = frozenset({"hubert", "wav2vec2"})

    def __init__(self, modality: Modality, sizes: Wav2Vec2Sizes, precision: Precision) -> None:
        super().__init__(modality, sizes, precision)
        self.scaled, self.norm_first = sizes.scaled, sizes.norm == "first"
        least = 1
        for _, kernel, stride in reversed(sizes.convolutions):
            least = (least - 1) * stride + kernel
        self.samples = tokens = max(modality.max_samples, least)
        for _, kernel, stride in sizes.convolutions:
            tokens = (tokens - kernel) // stride + 1
        self.width, self.grid = sizes.width, (tokens,)
        self.convolutions = nn.ModuleList(_convolutions(sizes))
        last = sizes.convolutions[-1][0]
        self.project_norm = nn.LayerNorm(last, eps=sizes.epsilon) if sizes.project_norm else nn.Identity()
        self.project = Dense(last, sizes.width, precision=precision)
        self.place = nn.Conv1d(sizes.width, sizes.width, sizes.reach, groups=sizes.groups)
        self.layers = stack(PreNorm if self.norm_first else PostNorm, sizes, precision)
        self.norm = nn.LayerNorm(sizes.width, eps=sizes.epsilon)

    @classmethod
    def read_sizes(cls, sizes: Mapping[str, Any]) -> Wav2Vec2Sizes:
        """Check plain values.  Raises ModelError."""
        return make(Wav2Vec2Sizes, sizes, convolutions=lambda given: tuple(tuple(one) for one in given))

    @classmethod
    def read(cls, folder: Folder, image: tuple[int, int] | None) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Sizes and tensors without what pretraining and tasks add; the weights of places are made of their norms."""
        cls.no_image(image)
        sizes = _plain(folder)
        cls.read_sizes(sizes)
        sources = layer_names(sizes["depth"], "encoder.layers.{}.", _LAYER)
        pairs = [("project", "feature_projection.projection"), ("norm", "encoder.layer_norm")]
        pairs += [("project_norm", "feature_projection.layer_norm")] if sizes["project_norm"] else []
        for number in range(len(sizes["convolutions"])):
            ours, theirs = f"convolutions.{number}", f"feature_extractor.conv_layers.{number}"
            pairs += [(f"{ours}.weigh", f"{theirs}.conv")]
            normed = sizes["convolution_norm"] == "frame" or not number
            pairs += [(f"{ours}.norm", f"{theirs}.layer_norm")] if normed else []
        for ours, theirs in pairs:
            bare = ours.endswith(".weigh") and not sizes["convolution_bias"]
            sources |= {f"{ours}.{end}": (f"{theirs}.{end}",) for end in (("weight",) if bare else ("weight", "bias"))}
        prefix = f"{folder.config['model_type']}."
        new = any(name.endswith("parametrizations.weight.original0") for name in folder.tensors)
        ends = ("parametrizations.weight.original0", "parametrizations.weight.original1")
        length, way = ends if new else ("weight_g", "weight_v")
        sources |= {"place.bias": (f"{_PLACE}bias",), "length": (_PLACE + length,), "way": (_PLACE + way,)}
        tensors = folder.renamed(sources, prefix=prefix, spare=_SPARE)
        tensors["place.weight"] = _of_length(tensors.pop("length"), tensors.pop("way"))
        return sizes, tensors

    def forward(self, raw: Tensor) -> Tokens:
        """raw: (batch, samples) float32 → tokens.x: (batch, tokens, width)"""
        wave, mask = fitted(raw, self.samples)
        x = (_standard(wave, mask, 1e-7) if self.scaled else wave).unsqueeze(1)
        for convolution in self.convolutions:
            x, mask = convolution(x, mask)
        x = self.project(self.project_norm(x.transpose(1, 2)))
        x = x.masked_fill(~mask.unsqueeze(-1), 0.0)
        reach = self.place.kernel_size[0]
        near = functional.pad(x.transpose(1, 2), (reach // 2, (reach - 1) // 2))
        x = x + functional.gelu(self.place(near)).transpose(1, 2)
        bias = padding_bias(mask, x)
        if not self.norm_first:
            x = self.norm(x)
        for layer in self.layers:
            x = layer(x, bias)
        return Tokens(self.norm(x) if self.norm_first else x, mask)


@final
class Convolution(nn.Module):
    """Fewer, wider frames; the norm, if any, is over the real ones of a clip, or of each frame.

    A frame is real where all that it is made of is.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, *, bias: bool, norm: Within | None) -> None:
        super().__init__()
        self.weigh = nn.Conv1d(inputs, outputs, kernel, stride=stride, bias=bias)
        self.norm = nn.LayerNorm(outputs) if norm else None
        self.over_clip = norm == "clip"

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """x: (batch, inputs, frames), mask: (batch, frames) bool → both of fewer frames"""
        x = self.weigh(x)
        mask = mask[:, self.weigh.kernel_size[0] - 1 :: self.weigh.stride[0]]
        if self.norm is None:
            return functional.gelu(x), mask
        if self.over_clip:
            x = _standard(x, mask.unsqueeze(1), self.norm.eps)
            x = x * self.norm.weight.unsqueeze(-1) + self.norm.bias.unsqueeze(-1)
        else:
            x = self.norm(x.transpose(1, 2)).transpose(1, 2)
        return functional.gelu(x), mask


def _convolutions(sizes: Wav2Vec2Sizes) -> list[Convolution]:
    found, inputs = list[Convolution](), 1
    for number, (outputs, kernel, stride) in enumerate(sizes.convolutions):
        norm = sizes.convolution_norm if sizes.convolution_norm == "frame" or not number else None
        found.append(Convolution(inputs, outputs, kernel, stride, bias=sizes.convolution_bias, norm=norm))
        inputs = outputs
    return found


def _standard(x: Tensor, mask: Tensor, epsilon: float) -> Tensor:
    """Mean 0 and variance 1 over what is real of the last axis; zero elsewhere.  mask: bool, broadcast to x"""
    real = mask.to(x.dtype)
    count = real.sum(dim=-1, keepdim=True).clamp(min=1)
    apart = (x - (x * real).sum(dim=-1, keepdim=True) / count) * real
    return apart / (apart.square().sum(dim=-1, keepdim=True) / count + epsilon).sqrt()


def _of_length(length: Tensor, way: Tensor) -> Tensor:
    """Weights with a norm of its own at each place of the kernel (Salimans & Kingma 2016).

    length: (1, 1, kernel);  way: (outputs, inputs, kernel) → the same
    """
    if way.ndim != 3 or length.numel() != way.shape[2]:
        raise ModelError(f"places have weights of {tuple(way.shape)} and norms of {tuple(length.shape)}")
    return way / way.square().sum(dim=(0, 1), keepdim=True).sqrt().clamp(min=1e-12) * length.reshape(1, 1, -1)


def _plain(folder: Folder) -> dict[str, Any]:
    """`Wav2Vec2Sizes` of a folder as plain values.  Raises ModelError on variants that are not read."""
    config = folder.config
    for name in ("add_adapter", "adapter_attn_dim", "conv_pos_batch_norm"):
        if config.get(name):
            raise ModelError(f"{folder.path}: {name!r} is set, and such a network is not read; give one without")
    if activation_of(config.get("feat_extract_activation", "gelu")) != "gelu":
        raise ModelError(f"{folder.path}: only 'gelu' is read as feat_extract_activation")
    lists = [config.get(name, ()) for name in ("conv_dim", "conv_kernel", "conv_stride")]
    if not all(isinstance(one, list | tuple) and len(one) == len(lists[0]) for one in lists):
        raise ModelError(f"{folder.path}: conv_dim, conv_kernel and conv_stride must be lists of one length")
    within = {"group": "clip", "layer": "frame"}.get(str(config.get("feat_extract_norm", "group")))
    if within is None:
        raise ModelError(f"{folder.path}: feat_extract_norm must be 'group' or 'layer'")
    return {
        "convolutions": [list(one) for one in zip(*lists, strict=True)],
        "convolution_bias": bool(config.get("conv_bias", False)),
        "convolution_norm": within,
        "project_norm": bool(config.get("feat_proj_layer_norm", True)),
        "width": folder.number("hidden_size"),
        "depth": folder.number("num_hidden_layers"),
        "heads": folder.number("num_attention_heads"),
        "hidden": folder.number("intermediate_size"),
        "activation": activation_of(config.get("hidden_act", "gelu")),
        "epsilon": folder.number("layer_norm_eps", 1e-5),
        "reach": folder.number("num_conv_pos_embeddings"),
        "groups": folder.number("num_conv_pos_embedding_groups"),
        "norm": "first" if config.get("do_stable_layer_norm") else "last",
        "scaled": bool(folder.record("preprocessor_config.json").get("do_normalize", True)),
    }
