"""Folders are read as untrusted input, and tokenizers as a schema wants them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from tests.model import pretrained, tiny
from triptych.data.decode import decode
from triptych.errors import ModelError
from triptych.model import build
from triptych.model.backbones import folder as folder_module
from triptych.model.backbones.tokenizer import fitted
from triptych.model.config import BackboneConfig
from triptych.model.pretrained import load_backbone, read_backbone


def changed_config(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        record = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**record, **changes}))

    return change


def changed_weights(change: Callable[[dict[str, torch.Tensor]], None]) -> Callable[[Path], None]:
    def rewrite(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors")

    return rewrite


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "model.safetensors").unlink(), "pickled weights are not read"),
        (lambda f: (f / "model.safetensors").write_bytes(b"\xff" * 64), "cannot be read"),
        (lambda f: (f / "config.json").write_text("{"), "is not JSON"),
        (lambda f: (f / "config.json").write_text("[1]"), "must hold a JSON object, got list"),
        (lambda f: (f / "config.json").write_text(" " * (1 << 20) + "{}"), "the limit is 1048576"),
        (changed_config(model_type="made_up"), r"model_type 'made_up'; known are \["),
        (changed_config(model_type="bert"), "'vocab_size' must be a number, got None"),
        (changed_config(hidden_size="16"), "'hidden_size' must be a number"),
        (changed_config(hidden_size=18, num_attention_heads=3), r"project.weight is \(16, 48\), expected \(18, 48\)"),
        (changed_config(num_attention_heads=3), "a multiple of its heads, got 16 and 3"),
        (changed_config(num_hidden_layers=3), r"lacks \['encoder.layer.2"),
        (changed_config(num_hidden_layers=1), r"holds \['encoder.layer.1.*and \d+ more, which this network has no"),
        (changed_config(hidden_act="swish"), "unknown activation 'swish'"),
        (changed_config(patch_size=5), "multiples of the patch of 5"),
        (changed_config(image_size=32), "expected 64 of them"),
        (changed_config(image_size="large"), "image size must be one or two whole numbers"),
        (changed_weights(lambda t: t.pop("layernorm.bias")), r"lacks \['layernorm.bias'\]"),
        (changed_weights(lambda t: t.update(spy=torch.ones(1))), r"holds \['spy'\]"),
    ],
)
def test_damage_is_named(damage: Callable[[Path], None], message: str, tmp_path: Path) -> None:
    pretrained.vit(tmp_path)
    damage(tmp_path)
    with pytest.raises(ModelError, match=message):
        read_backbone(tmp_path)


def test_weights_over_the_limit_are_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretrained.vit(tmp_path)
    monkeypatch.setitem(folder_module._MAX_BYTES, "model.safetensors", 100)
    with pytest.raises(ModelError, match="the limit is 100; use a smaller network"):
        read_backbone(tmp_path)


def test_a_prefix_and_the_parts_for_other_tasks_are_no_obstacle(tmp_path: Path) -> None:
    pretrained.bert(tmp_path)
    before = read_backbone(tmp_path).tensors
    tensors = load_file(tmp_path / "model.safetensors")
    renamed = {f"bert.{name}": tensor for name, tensor in tensors.items()}
    save_file({**renamed, "cls.predictions.bias": torch.ones(2)}, tmp_path / "model.safetensors")
    after = read_backbone(tmp_path).tensors
    assert all(tensor.equal(after[name]) for name, tensor in before.items())


def test_half_precision_is_read_as_float32(tmp_path: Path) -> None:
    pretrained.vit(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    save_file({name: tensor.half() for name, tensor in tensors.items()}, tmp_path / "model.safetensors")
    assert {tensor.dtype for tensor in read_backbone(tmp_path).tensors.values()} == {torch.float32}


def test_a_stem_takes_no_other_backbone(tmp_path: Path) -> None:
    pretrained.vit(tmp_path)
    found, other = read_backbone(tmp_path), read_backbone(tmp_path, take="first")
    model = build("late_fusion", tiny.schema("picture"), **{**tiny.SIZES, "depth": 0, **found.stem})
    with pytest.raises(ModelError, match=r"build the network with modalities=\{'picture'"):
        load_backbone(model, "picture", other)
    with pytest.raises(ModelError, match="the stem of 'sound' is not made"):
        load_backbone(model, "sound", found)


def test_a_stem_needs_a_known_backbone_of_its_kind(tmp_path: Path) -> None:
    pretrained.vit(tmp_path)
    sizes = {**tiny.SIZES, "depth": 0}
    with pytest.raises(ModelError, match=r"needs a backbone out of \[.*got None"):
        build("late_fusion", tiny.schema("picture"), form="pretrained", **sizes)
    made_up = BackboneConfig("made_up")
    with pytest.raises(ModelError, match="got 'made_up'"):
        build("late_fusion", tiny.schema("picture"), form="pretrained", backbone=made_up, **sizes)
    with pytest.raises(ModelError, match="'vit' reads image, but 'words' is text"):
        build("late_fusion", tiny.schema("words"), **read_backbone(tmp_path).stem, **sizes)
    with pytest.raises(ModelError, match="take must be one of"):
        read_backbone(tmp_path, take="some")  # type: ignore[arg-type]


def test_a_text_needs_the_backbones_own_tokenizer(tmp_path: Path) -> None:
    pretrained.bert(tmp_path)
    found = read_backbone(tmp_path)
    with pytest.raises(ModelError, match=r"knows 13 ids and 12 places, 'words' has 30 ids.*Pretrained.tokenized"):
        build("late_fusion", tiny.schema("words"), **{**tiny.SIZES, "depth": 0, **found.stem})
    with pytest.raises(ModelError, match="must be from 3 to 12, got 13"):
        found.tokenized(tiny.schema("words"), "words", max_tokens=13)
    with pytest.raises(ModelError, match="must both be of text"):
        found.tokenized(tiny.schema("picture"), "picture", max_tokens=8)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"without a tokenizer\.json"):
        read_backbone(tmp_path).tokenized(tiny.schema("words"), "words", max_tokens=8)


def test_a_text_is_cropped_between_its_special_tokens(tmp_path: Path) -> None:
    pretrained.bert(tmp_path)
    schema = read_backbone(tmp_path).tokenized(tiny.schema("words"), "words", max_tokens=5)
    assert (schema["words"].vocabulary, schema["words"].max_tokens) == (13, 5)
    assert decode(schema["words"], "Calm thing").tolist() == [2, 4, 12, 3]
    assert decode(schema["words"], "the loud bright plain thing").tolist() == [2, 10, 8, 9, 3]


FRAME = ("<|startoftext|>", "<|endoftext|>")


def pairs_tokenizer() -> str:
    """As CLIP's: byte pairs, id 0 is a word, the frame set by a post-processor."""
    vocabulary = {"!": 0, "a": 1, "b": 2, "ab": 3, FRAME[0]: 4, FRAME[1]: 5}
    tokenizer = Tokenizer(models.BPE(vocabulary, [("a", "b")], unk_token=FRAME[1]))
    tokenizer.add_special_tokens(list(FRAME))
    tokenizer.post_processor = processors.RobertaProcessing((FRAME[1], 5), (FRAME[0], 4), add_prefix_space=False)
    return tokenizer.to_str()


def pieces_tokenizer() -> str:
    """As SigLIP's: pieces with scores, the end set by a template."""
    pieces = [("<unk>", 0.0), ("</s>", 0.0), ("▁a", -1.0), ("b", -2.0), ("▁", -3.0)]
    tokenizer = Tokenizer(models.Unigram(pieces, 0, byte_fallback=False))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    tokenizer.add_special_tokens(["</s>"])
    return tokenizer.to_str()


@pytest.mark.parametrize(
    ("document", "frame", "text"),
    [(pairs_tokenizer(), FRAME, "!ab!"), (pieces_tokenizer(), ("", "</s>"), "a b xab")],
    ids=["pairs", "pieces"],
)
def test_ids_are_raised_by_one_and_nothing_else_changes(document: str, frame: tuple[str, str], text: str) -> None:
    before = Tokenizer.from_str(document).encode(text)
    after = Tokenizer.from_str(fitted(document, max_tokens=30, frame=frame, shift=1)).encode(text)
    assert after.tokens == before.tokens
    assert after.ids == [number + 1 for number in before.ids]


def test_a_text_that_must_fill_all_places_does() -> None:
    filled = Tokenizer.from_str(fitted(pieces_tokenizer(), max_tokens=6, frame=("", "</s>"), shift=1, fill=True))
    assert filled.encode("a").ids == [3, 2, 2, 2, 2, 2]
    assert len(filled.encode("a " * 20).ids) == 6


def test_a_tokenizer_without_its_special_tokens_is_refused() -> None:
    with pytest.raises(ModelError, match="must put a text between"):
        fitted(tiny_tokenizer(), max_tokens=5, frame=("[CLS]", "[SEP]"))
    with pytest.raises(ModelError, match="cannot be read"):
        fitted("{}", max_tokens=5, frame=("[CLS]", "[SEP]"))


def tiny_tokenizer() -> str:
    return Tokenizer(models.WordLevel({"[UNK]": 0, "a": 1}, unk_token="[UNK]")).to_str()
