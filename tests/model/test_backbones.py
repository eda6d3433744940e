"""Pretrained backbones answer what the networks answer that they were read from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from triptych.model import Multimodal, build
from triptych.model.config import ModelConfig
from triptych.model.pretrained import Pretrained, load_backbone, read_backbone
from triptych.model.stems.pretrained import PretrainedStem
from triptych.schema import Modality, Schema
from triptych.tokens import Tokens

SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
HALF = (0.5, 0.5, 0.5)


def saved(network: transformers.PreTrainedModel, folder: Path, *, seed: int = 0) -> transformers.PreTrainedModel:
    """Write a network whose every parameter is random and of sensible size."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    network.save_pretrained(folder)
    return network.eval()


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
    config = transformers.BertConfig(vocab_size=40, max_position_embeddings=12, **SMALL)
    theirs = saved(transformers.BertModel(config), tmp_path)
    raw = words(4, 9, 40)
    wanted = theirs(raw, attention_mask=(raw != 0).long()).last_hidden_state
    modality = Modality("text", "text", max_tokens=12, vocabulary=40)
    tokens = tokens_of(read_backbone(tmp_path), modality, raw)
    assert tokens.mask is not None
    assert torch.equal(tokens.mask, raw != 0)
    torch.testing.assert_close(tokens.x[tokens.mask], wanted[tokens.mask], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("image", [None, (24, 16)])
@torch.no_grad()
def test_vit_answers_the_same_also_at_another_size(image: tuple[int, int] | None, tmp_path: Path) -> None:
    theirs = saved(transformers.ViTModel(transformers.ViTConfig(image_size=16, patch_size=4, **SMALL)), tmp_path)
    found = read_backbone(tmp_path, image=image)
    height, width = image or (16, 16)
    raw = pictures(2, height, width)
    wanted = theirs(normal(raw), interpolate_pos_encoding=image is not None).last_hidden_state
    modality = Modality("picture", "image", height=height, width=width, channels=3)
    torch.testing.assert_close(tokens_of(found, modality, raw).x, wanted, atol=1e-5, rtol=1e-5)


def test_a_network_with_a_backbone_is_plain_json(tmp_path: Path) -> None:
    saved(transformers.ViTModel(transformers.ViTConfig(image_size=16, patch_size=4, **SMALL)), tmp_path)
    model = network_of(read_backbone(tmp_path), Modality("picture", "image", height=9, width=8, channels=1))
    assert ModelConfig.from_dict(json.loads(json.dumps(model.config.to_dict()))) == model.config
