"""Known encoders as points of the grid of stems, mixers and channel blocks: sizes for `build`, by name.

`build("late_fusion", schema, preset="vit_tiny")` takes all of them, and any size given beside it stands; in a recipe,
`[build] preset = "vit_tiny"`.  For one modality: `modalities={"image": {"preset": "swin_like"}}`.

A preset shares a paper's way of mixing and its usual sizes at a small scale, not its weights, and none of them changes
its resolution with depth: stages that halve the image have no place in the grid.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

PRESETS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        # --- images
        # attention × mlp on 16-pixel patches, the sizes of DeiT-Ti (Dosovitskiy et al. 2021, ViT; Touvron et al. 2021)
        "vit_tiny": {"mixer": "attention", "dim": 192, "depth": 12, "heads": 3, "patch": 16},
        # window × mlp on 4-pixel patches (Liu et al. 2021, Swin); the window slides with each token and is not shifted
        "swin_like": {"mixer": "window", "kernel": 7, "dim": 96, "depth": 6, "heads": 3, "patch": 4},
        # pooling × mlp (Yu et al. 2022, PoolFormer)
        "poolformer_like": {"mixer": "pooling", "kernel": 3, "dim": 128, "depth": 6, "patch": 8},
        # token_mixing × mlp (Tolstikhin et al. 2021, MLP-Mixer), with one matrix in place of its token perceptron
        "mlp_mixer_like": {"mixer": "token_mixing", "dim": 128, "depth": 8, "patch": 16},
        # depthwise × inverted_bottleneck, expansion 6 (Howard et al. 2017; Sandler et al. 2018, MobileNetV2): the mixer
        # convolves rows and columns, the bottleneck along the rows once more
        "mobilenet_like": {
            "mixer": "depthwise",
            "kernel": 3,
            "channel": "inverted_bottleneck",
            "expansion": 6.0,
            "dim": 64,
            "depth": 6,
            "patch": 8,
        },
        # depthwise, then attention × mlp (Dai et al. 2021, CoAtNet's C-C-T-T)
        "coatnet_like": {"mixer": ("depthwise", "attention"), "kernel": 3, "dim": 128, "depth": 4, "patch": 8},
        # attention × kan (Liu et al. 2024, KAN), splines in place of the perceptron
        "kan_like": {"mixer": "attention", "channel": "kan", "expansion": 1.0, "dim": 64, "depth": 4},
        # --- video, points
        # attention × mlp on tubelets of 2 × 16 × 16 (Arnab et al. 2021, ViViT, joint space and time)
        "vivit_like": {"mixer": "attention", "dim": 192, "depth": 8, "heads": 3, "patch": 16, "tubelet": 2},
        # depthwise × mlp on a bird's-eye grid (Lang et al. 2019, PointPillars)
        "pointpillars_like": {"mixer": "depthwise", "kernel": 3, "dim": 64, "depth": 4, "cells": 32, "hidden": 64},
        # --- audio
        # attention × mlp on 128 mel bands at 10 ms (Gong et al. 2021, AST); a token is a run of whole frames
        "ast_tiny": {"mixer": "attention", "dim": 192, "depth": 12, "heads": 3, "mels": 128, "hop_s": 0.010},
        # --- long sequences: text, series, codes
        # state_space × gated_mlp (Gu and Dao 2023, Mamba), where the paper's block is gated and has no second half
        "mamba_like": {"mixer": "state_space", "state": 16, "channel": "gated_mlp", "expansion": 2.0, "depth": 4},
        # prob_sparse × mlp, factor 5 (Zhou et al. 2021, Informer), without its distilling between layers
        "informer_like": {"mixer": "prob_sparse", "factor": 5.0, "heads": 8, "depth": 3},
        # hashed × mlp (Kitaev et al. 2020, Reformer), without its reversible layers
        "reformer_like": {"mixer": "hashed", "chunk": 16, "depth": 4},
        # low_rank × mlp (Wang et al. 2020, Linformer)
        "linformer_like": {"mixer": "low_rank", "rank": 32, "depth": 4},
        # linear × mlp (Katharopoulos et al. 2020, linear attention)
        "linear_transformer_like": {"mixer": "linear", "depth": 4},
        # window × mlp along the sequence (Beltagy et al. 2020, Longformer), without global tokens
        "longformer_like": {"mixer": "window", "kernel": 33, "depth": 4},
        # recurrent × mlp (Cho et al. 2014, GRU), with a residual stream around it
        "gru_like": {"mixer": "recurrent", "expansion": 2.0, "depth": 2},
        # --- 'unified': shared attention, a perceptron per modality (Bao et al. 2022, VLMo)
        "vlmo_like": {"mixer": "attention", "channel_per": "modality", "dim": 192, "heads": 3, "depth": 6},
        # --- 'perceiver': one reading by 64 latents and 6 blocks among them (Jaegle et al. 2021, Perceiver IO)
        "perceiver_io_like": {"latents": 64, "fusion_depth": 1, "depth": 6, "dim": 128},
    }
)
