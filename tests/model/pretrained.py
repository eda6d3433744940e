"""Tiny pretrained networks in folders, written by `transformers`, for the tests of several packages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

SMALL: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
}
WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "calm", "quiet", "plain", "usual", "loud", "bright", "the", "a", "thing")


def saved(network: Any, folder: Path, *, seed: int = 0) -> Any:
    """Write a network whose every parameter is random and of sensible size; returns it in evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    network.save_pretrained(folder)
    return network.eval()


def bert(folder: Path) -> Any:
    """A BERT of thirteen words with the tokenizer that belongs to it."""
    config = transformers.BertConfig(vocab_size=len(WORDS), max_position_embeddings=12, **SMALL)
    network = saved(transformers.BertModel(config), folder)
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.enable_padding(length=9)  # as folders of sentence encoders have it
    tokenizer.save(str(folder / "tokenizer.json"))
    return network


def vit(folder: Path) -> Any:
    """A ViT of sixteen patches."""
    return saved(transformers.ViTModel(transformers.ViTConfig(image_size=16, patch_size=4, **SMALL)), folder)
