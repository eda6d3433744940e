"""Pretrained backbones answer what the networks answer that they were read from."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor
from torch.nn import functional

from tests.model.pretrained import SMALL, bert, saved, vit
from triptych.data.resize import resize
from triptych.model import Multimodal, build
from triptych.model.backbones import clip, dinov2
from triptych.model.backbones.pixels import Pixels
from triptych.model.config import ModelConfig
from triptych.model.pretrained import Pretrained, load_backbone, read_backbone
from triptych.model.stems.pretrained import PretrainedStem, taken
from triptych.schema import Modality, Schema
from triptych.tokens import Tokens

HALF = (0.5, 0.5, 0.5)


def schema_of(modality: Modality) -> Schema:
    return Schema("one", (modality,), "y", "classification", "accuracy", classes=("a", "b"))


def network_of(found: Pretrained, modality: Modality, *, dim: int = 16) -> Multimodal:
    sizes: dict[str, Any] = {"dim": dim, "depth": 0, "head_hidden": 8, **found.stem}
    model = build("late_fusion", schema_of(modality), **sizes)
    load_backbone(model, modality.name, found)
    return model.eval()


@torch.no_grad()
def tokens_of(found: Pretrained, modality: Modality, raw: Tensor) -> Tokens:
    """What the backbone itself answers in a network."""
    stem = network_of(found, modality).encoders[modality.name].stem
    assert isinstance(stem, PretrainedStem)
    tokens: Tokens = stem.backbone(raw)
    return tokens


@torch.no_grad()
def features_of(found: Pretrained, modality: Modality, raw: Tensor) -> Tokens:
    """What the stem takes of it."""
    stem = network_of(found, modality).encoders[modality.name].stem
    assert isinstance(stem, PretrainedStem)
    return stem.features(raw)


def words(rows: int, length: int, vocabulary: int) -> Tensor:
    """Ids from 1 on with ever more padding."""
    ids = torch.randint(1, vocabulary, (rows, length), generator=torch.Generator().manual_seed(1))
    lengths = torch.linspace(length, 2, rows).round().unsqueeze(1)
    return ids.masked_fill(torch.arange(length) >= lengths, 0)


def pictures(rows: int, height: int, width: int) -> Tensor:
    return torch.randint(
        0, 256, (rows, height, width, 3), generator=torch.Generator().manual_seed(2), dtype=torch.uint8
    )


def normal(raw: Tensor, mean: tuple[float, ...] = HALF, std: tuple[float, ...] = HALF) -> Tensor:
    """Pixels as `transformers` wants them: (batch, 3, height, width)."""
    return ((raw / 255 - torch.tensor(mean)) / torch.tensor(std)).permute(0, 3, 1, 2)


@torch.no_grad()
def test_bert_answers_the_same_with_padding(tmp_path: Path) -> None:
    theirs = bert(tmp_path)
    raw = words(4, 9, 13)
    wanted = theirs(raw, attention_mask=(raw != 0).long()).last_hidden_state
    modality = Modality("text", "text", max_tokens=12, vocabulary=13)
    tokens = tokens_of(read_backbone(tmp_path), modality, raw)
    assert tokens.mask is not None
    assert torch.equal(tokens.mask, raw != 0)
    torch.testing.assert_close(tokens.x[tokens.mask], wanted[tokens.mask], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("image", [None, (24, 16)])
@torch.no_grad()
def test_vit_answers_the_same_also_at_another_size(image: tuple[int, int] | None, tmp_path: Path) -> None:
    theirs = vit(tmp_path)
    found = read_backbone(tmp_path, image=image)
    height, width = image or (16, 16)
    raw = pictures(2, height, width)
    wanted = theirs(normal(raw), interpolate_pos_encoding=image is not None).last_hidden_state
    modality = Modality("picture", "image", height=height, width=width, channels=3)
    torch.testing.assert_close(tokens_of(found, modality, raw).x, wanted, atol=1e-5, rtol=1e-5)


CLIP_VISION = {"image_size": 16, "patch_size": 4, **SMALL}
CLIP_TEXT = {"vocab_size": 30, "max_position_embeddings": 8, "eos_token_id": 29, "bos_token_id": 28, **SMALL}
PICTURE = Modality("picture", "image", height=16, width=16, channels=3)
WORDS = Modality("text", "text", max_tokens=8, vocabulary=31)


@pytest.mark.parametrize(("registers", "image"), [(0, None), (0, (8, 24)), (3, None), (3, (8, 24))])
@torch.no_grad()
def test_dinov2_answers_the_same_also_at_another_size(registers: int, image: Any, tmp_path: Path) -> None:
    sizes: dict[str, Any] = {key: value for key, value in SMALL.items() if key != "intermediate_size"}
    sizes.update(image_size=16, patch_size=4, mlp_ratio=2, layerscale_value=0.3)
    if registers:
        config = transformers.Dinov2WithRegistersConfig(num_register_tokens=registers, **sizes)
        theirs = saved(transformers.Dinov2WithRegistersModel(config), tmp_path)
    else:
        theirs = saved(transformers.Dinov2Model(transformers.Dinov2Config(**sizes)), tmp_path)
    height, width = image or (16, 16)
    raw = pictures(2, height, width)
    wanted = theirs(normal(raw, dinov2.MEAN, dinov2.STD)).last_hidden_state
    found = read_backbone(tmp_path, image=image)
    modality = dataclasses.replace(PICTURE, height=height, width=width)
    torch.testing.assert_close(tokens_of(found, modality, raw).x, wanted, atol=1e-5, rtol=1e-5)
    assert wanted.shape[1] == 1 + registers + height * width // 16


@torch.no_grad()
def test_both_halves_of_clip_answer_the_same(tmp_path: Path) -> None:
    config = transformers.CLIPConfig(text_config=CLIP_TEXT, vision_config=CLIP_VISION, projection_dim=6)
    theirs = saved(transformers.CLIPModel(config), tmp_path)
    raw = pictures(2, 16, 16)
    found = read_backbone(tmp_path, kind="image", take="first")
    wanted = theirs.get_image_features(normal(raw, clip.MEAN, clip.STD)).pooler_output
    torch.testing.assert_close(features_of(found, PICTURE, raw).x[:, 0], wanted, atol=1e-5, rtol=1e-5)

    ids = words(3, 7, 28)
    ends = (ids != 0).sum(dim=1) - 1
    ids[torch.arange(3), ends] = 30
    mask = (ids != 0).long()
    wanted = theirs.get_text_features((ids - 1).clamp(min=0), attention_mask=mask).pooler_output
    last = features_of(read_backbone(tmp_path, kind="text", take="last"), WORDS, ids)
    torch.testing.assert_close(last.x[:, 0], wanted, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_half_of_clip_alone_answers_the_same(tmp_path: Path) -> None:
    theirs = saved(transformers.CLIPVisionModel(transformers.CLIPVisionConfig(**CLIP_VISION)), tmp_path / "image")
    raw = pictures(2, 16, 16)
    hidden = theirs(normal(raw, clip.MEAN, clip.STD)).last_hidden_state
    tokens = tokens_of(read_backbone(tmp_path / "image"), PICTURE, raw)
    wanted = dict(theirs.named_modules())[norm_of(theirs, "post_layernorm")](hidden)
    torch.testing.assert_close(tokens.x, wanted, atol=1e-5, rtol=1e-5)

    theirs = saved(transformers.CLIPTextModel(transformers.CLIPTextConfig(**CLIP_TEXT)), tmp_path / "text")
    ids = words(3, 7, 31)
    mask = ids != 0
    wanted = theirs((ids - 1).clamp(min=0), attention_mask=mask.long()).last_hidden_state
    tokens = tokens_of(read_backbone(tmp_path / "text"), WORDS, ids)
    torch.testing.assert_close(tokens.x[mask], wanted[mask], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_both_halves_of_siglip_answer_the_same(tmp_path: Path) -> None:
    theirs = saved(
        transformers.SiglipModel(transformers.SiglipConfig(text_config=CLIP_TEXT, vision_config=CLIP_VISION)), tmp_path
    )
    raw = pictures(2, 16, 16)
    wanted = theirs.vision_model(normal(raw))
    tokens = tokens_of(read_backbone(tmp_path, kind="image"), PICTURE, raw)
    torch.testing.assert_close(tokens.x[:, 1:], wanted.last_hidden_state, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(tokens.x[:, 0], wanted.pooler_output, atol=1e-5, rtol=1e-5)

    ids = words(3, 8, 31).clamp(min=2)  # padded with a token that is attended to
    wanted = theirs.text_model(ids - 1).pooler_output
    last = features_of(read_backbone(tmp_path, kind="text", take="last"), WORDS, ids)
    torch.testing.assert_close(last.x[:, 0], wanted, atol=1e-5, rtol=1e-5)


def norm_of(network: Any, end: str) -> str:
    return next(name for name, _ in network.named_modules() if name.endswith(end))


@pytest.mark.parametrize("family", ["bert", "clip_text"])
@torch.no_grad()
def test_padding_and_neighbours_in_the_batch_do_not_matter(family: str, tmp_path: Path) -> None:
    if family == "bert":
        bert(tmp_path)
    else:
        saved(transformers.CLIPTextModel(transformers.CLIPTextConfig(**CLIP_TEXT)), tmp_path)
    found = read_backbone(tmp_path)
    modality = dataclasses.replace(WORDS, vocabulary=13)
    ids = words(1, 5, 13)
    alone = tokens_of(found, modality, ids)
    padded = torch.cat([functional.pad(ids, (0, 3)), words(1, 8, 13)])
    torch.testing.assert_close(tokens_of(found, modality, padded).x[:1, :5], alone.x, atol=1e-6, rtol=1e-6)
    nothing = tokens_of(found, modality, torch.zeros_like(ids))
    assert nothing.x.isfinite().all()
    assert not nothing.real().any()


@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_are_stretched_and_normalised_as_by_hand(channels: int) -> None:
    modality = Modality("picture", "image", height=5, width=9, channels=channels)
    raw = pictures(2, 5, 9)[..., :channels]
    found = Pixels(modality, 8, 4, (0.1, 0.2, 0.3), (0.5, 0.6, 0.7))(raw)
    wide = raw.expand(-1, -1, -1, 3)
    whole = torch.stack([torch.from_numpy(resize(image.numpy(), 8, 4)) for image in wide])
    wanted = (whole / 255 - torch.tensor([0.1, 0.2, 0.3])) / torch.tensor([0.5, 0.6, 0.7])
    half_a_level = 0.51 / 255 / 0.5
    assert (found - wanted).abs().max() <= half_a_level
    same = Pixels(modality, 5, 9, (0.0,) * 3, (1.0,) * 3)(raw)
    torch.testing.assert_close(same, wide / 255)


def test_what_is_taken_of_the_tokens() -> None:
    x = torch.arange(12.0).reshape(2, 3, 2)
    mask = torch.tensor([[True, True, False], [False, False, False]])
    tokens = Tokens(x, mask)
    assert taken(tokens, "all") is tokens
    assert taken(tokens, "grid", leading=1).x.equal(x[:, 1:])
    assert taken(tokens, "first").x.equal(x[:, :1])
    assert taken(tokens, "last").x[0].equal(x[0, 1:2])
    torch.testing.assert_close(taken(tokens, "mean").x[0], x[0, :2].mean(dim=0, keepdim=True))
    for take in ("first", "last", "mean"):
        mask_after = taken(tokens, take).mask
        assert mask_after is not None
        assert mask_after.tolist() == [[True], [False]]
    assert taken(Tokens(x), "last").x.equal(x[:, 2:])


@torch.no_grad()
def test_where_widths_agree_the_projection_changes_nothing(tmp_path: Path) -> None:
    vit(tmp_path)
    found, raw = read_backbone(tmp_path), pictures(2, 16, 16)
    stem = network_of(found, PICTURE, dim=16).encoders["picture"].stem
    torch.testing.assert_close(stem(raw).x, stem.features(raw).x)


@pytest.mark.parametrize(("take", "grid", "tokens"), [("all", (17,), 17), ("grid", (4, 4), 16), ("mean", (1,), 1)])
def test_a_stem_knows_how_its_tokens_lie(take: Any, grid: tuple[int, ...], tokens: int, tmp_path: Path) -> None:
    vit(tmp_path)
    stem = network_of(read_backbone(tmp_path, take=take), PICTURE).encoders["picture"].stem
    assert (stem.grid, stem.tokens) == (grid, tokens)
    assert stem(pictures(1, 16, 16)).x.shape == (1, tokens, 16)


def test_a_network_with_a_backbone_is_plain_json(tmp_path: Path) -> None:
    vit(tmp_path)
    model = network_of(read_backbone(tmp_path), Modality("picture", "image", height=9, width=8, channels=1))
    assert ModelConfig.from_dict(json.loads(json.dumps(model.config.to_dict()))) == model.config
