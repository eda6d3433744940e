"""Integers on backbones that were trained elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.model import pretrained
from triptych.algorithm import Int8, Int8Weights, compress
from triptych.model import Multimodal, build
from triptych.model.dense import Dense
from triptych.model.pretrained import load_backbone, read_backbone
from triptych.schema import Modality, Schema
from triptych.system.bundle.graphs import frozen
from triptych.tokens import Batch

ROWS = 12
MODALITIES = {
    "bert": Modality("words", "text", max_tokens=8, vocabulary=13),
    "vit": Modality("picture", "image", height=16, width=16, channels=3),
}


def network(family: str, folder: Path) -> Multimodal:
    """The backbone with random weights, and a block after it."""
    modality = MODALITIES[family]
    schema = Schema("tiny", (modality,), "y", "classification", "accuracy", classes=("a", "b", "c"))
    getattr(pretrained, family)(folder)
    found = read_backbone(folder)
    schema = found.tokenized(schema, "words", max_tokens=8) if family == "bert" else schema
    sizes: dict[str, Any] = {"dim": 16, "depth": 1, "heads": 2, "head_hidden": 16, "expansion": 2.0}
    torch.manual_seed(0)
    model = build("late_fusion", schema, modalities={modality.name: found.stem}, **sizes)
    load_backbone(model, modality.name, found)
    return model.eval()


def batch(family: str) -> Batch:
    generator = torch.Generator().manual_seed(0)
    made: Tensor
    if family == "bert":
        lengths = (torch.linspace(1.0, 0.5, ROWS).unsqueeze(1) * 8).round()
        made = torch.randint(2, 13, (ROWS, 8), generator=generator).masked_fill(torch.arange(8) >= lengths, 0)
    else:
        made = torch.randint(0, 256, (ROWS, 16, 16, 3), generator=generator, dtype=torch.uint8)
    return Batch({MODALITIES[family].name: made}, target=torch.arange(ROWS) % 3)


@pytest.mark.parametrize("technique", [Int8Weights(), Int8()], ids=lambda t: type(t).__name__)
@pytest.mark.parametrize("family", MODALITIES)
@torch.no_grad()
def test_integers_stay_close_on_a_backbone(family: str, technique: Any, tmp_path: Path) -> None:
    model, rows = network(family, tmp_path), batch(family)
    small = compress(model, [technique], [rows])
    one, two = model(rows), small(rows)
    noise = (one - two).square().sum()
    assert float(10 * torch.log10((one - one.mean(dim=0)).square().sum() / noise)) > 16
    assert torch.allclose(frozen(small)(rows), two, atol=1e-4)
    stem: Any = small.encoders[MODALITIES[family].name].stem
    inside = {m.precision for m in stem.backbone.modules() if isinstance(m, Dense)}
    assert inside
    assert inside <= {small.config.precision, "int8_weights"}
