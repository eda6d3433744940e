"""Fewer tokens: what is kept, what is conserved, and that padding never counts."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from triptych.select import (
    METHODS,
    bipartite_merge,
    keep_best,
    kept_count,
    max_min_diversity,
    pool,
    random_score,
    reduce,
    stride,
)
from triptych.tokens import Tokens


def sequence(rows: int, count: int, dim: int = 3, *, real: int | None = None, seed: int = 0) -> Tokens:
    """Random tokens of which the first `real` are not padding."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, count, dim, generator=generator)
    if real is None:
        return Tokens(x)
    return Tokens(x, (torch.arange(count) < real).expand(rows, -1))


def reduced(tokens: Tokens, method: str, fraction: float) -> Tokens:
    return reduce(tokens, method, fraction, received=lambda: tokens.x.square().sum(dim=-1), keys=lambda: tokens.x)


def column(*values: float) -> Tensor:
    return torch.tensor(values).reshape(1, -1, 1)


@given(st.integers(1, 300), st.floats(0.001, 1))
def test_at_least_one_token_stays_and_never_more_than_there_were(count: int, fraction: float) -> None:
    assert 1 <= kept_count(count, fraction) <= count


def test_the_kept_count_rounds_up() -> None:
    assert [kept_count(10, f) for f in (0.01, 0.5, 0.51, 1.0)] == [1, 5, 6, 10]


@given(st.sampled_from(sorted(METHODS)), st.integers(1, 17), st.integers(0, 17), st.integers(0, 5))
@settings(deadline=None, max_examples=80)
def test_every_method_is_the_identity_at_fraction_one(method: str, count: int, real: int, seed: int) -> None:
    tokens = sequence(2, count, real=min(real, count), seed=seed)
    after = reduced(tokens, method, 1.0)
    assert torch.equal(after.real(), tokens.real())
    assert torch.allclose(after.x[tokens.real()], tokens.x[tokens.real()])


@given(st.sampled_from(sorted(METHODS)), st.integers(2, 17), st.integers(1, 17), st.sampled_from([0.5, 0.6, 0.75]))
@settings(deadline=None, max_examples=120)
def test_no_method_exceeds_the_count_or_invents_tokens(method: str, count: int, real: int, fraction: float) -> None:
    real = min(real, count)
    after = reduced(sequence(2, count, real=real), method, fraction)
    assert after.x.shape[1] <= kept_count(count, fraction)
    assert after.x.isfinite().all()
    assert (after.real().sum(dim=1) <= real).all()
    assert (after.real().sum(dim=1) >= 1).all() or method in {"random", "stride"}


@given(st.sampled_from(["pool", "bipartite"]), st.integers(1, 17), st.integers(0, 17), st.sampled_from([0.5, 0.6, 1.0]))
@settings(deadline=None, max_examples=120)
def test_merging_conserves_the_weights_and_the_mean(method: str, count: int, real: int, fraction: float) -> None:
    tokens = sequence(2, count, real=min(real, count))
    after = reduced(reduced(tokens, method, fraction), method, 1.0)
    assert torch.allclose(after.weights().sum(dim=1), tokens.weights().sum(dim=1))
    assert torch.allclose(after.mean(), tokens.mean(), atol=1e-5)


def test_the_best_stay_in_their_order() -> None:
    tokens = Tokens(column(0, 1, 2, 3, 4))
    kept = keep_best(tokens, torch.tensor([[5.0, 0.0, 9.0, 1.0, 7.0]]), 3)
    assert kept.x.flatten().tolist() == [0, 2, 4]


def test_padding_is_kept_last_whatever_its_score() -> None:
    tokens = Tokens(column(0, 1, 2), torch.tensor([[True, False, True]]))
    assert keep_best(tokens, torch.tensor([[1.0, 9.0, 2.0]]), 2).x.flatten().tolist() == [0, 2]


def test_strides_are_even() -> None:
    assert stride(Tokens(column(*range(10))), 5).x.flatten().tolist() == [0, 2, 4, 6, 8]


def test_random_scores_are_fixed_distinct_and_alike_for_all_rows() -> None:
    score = random_score(sequence(3, 500))
    assert torch.equal(score, random_score(sequence(3, 500, seed=1)))
    assert torch.equal(score[0], score[2])
    assert len(score[0].unique()) > 490
    assert 0.4 < score.mean() < 0.6


def test_diversity_takes_the_outlier_then_the_farthest() -> None:
    angles = torch.tensor([0.0, 0.01, 0.02, 1.5, 3.1])
    tokens = Tokens(torch.stack([angles.cos(), angles.sin()], dim=1).unsqueeze(0))
    kept = max_min_diversity(tokens, tokens.x, 2).x[0]
    assert torch.equal(kept, tokens.x[0, [0, 4]])


def test_diversity_never_takes_a_token_twice() -> None:
    tokens = Tokens(torch.ones(1, 6, 2) * torch.arange(1, 7).reshape(1, 6, 1))
    assert sorted(max_min_diversity(tokens, tokens.x, 4).x[0, :, 0].tolist()) == sorted(
        set(max_min_diversity(tokens, tokens.x, 4).x[0, :, 0].tolist())
    )


def test_pooling_averages_runs_by_weight() -> None:
    tokens = Tokens(
        column(1, 3, 5, 100), torch.tensor([[True, True, True, False]]), torch.tensor([[1.0, 3.0, 1.0, 1.0]])
    )
    pooled = pool(tokens, 2)
    assert pooled.x.flatten().tolist() == pytest.approx([2.5, 5.0])
    assert pooled.weights().flatten().tolist() == [4.0, 1.0]


def test_merging_joins_the_most_alike_pair() -> None:
    x = torch.tensor([[[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]])
    merged = bipartite_merge(Tokens(x), x, 3)
    assert merged.weights().sum() == 4
    double = merged.x[0, merged.weight[0] == 2]
    assert torch.allclose(double, torch.tensor([[1.0, 0.0]]))


def test_a_lone_real_token_survives_merging_into_padding() -> None:
    x = torch.tensor([[[7.0], [0.0], [0.0], [0.0]]])
    merged = bipartite_merge(Tokens(x, torch.tensor([[True, False, False, False]])), x, 2)
    assert merged.real().sum() == 1
    assert merged.mean().item() == pytest.approx(7.0)


def test_scores_of_padding_do_not_leak() -> None:
    tokens = sequence(1, 8, real=5)
    noisy = Tokens(tokens.x.masked_fill(~tokens.real().unsqueeze(-1), 1e3), tokens.mask)
    for method in ("class_attention", "max_min_diversity", "pool", "bipartite"):
        one, other = reduced(tokens, method, 0.5), reduced(noisy, method, 0.5)
        assert torch.allclose(one.mean(), other.mean(), atol=1e-4), method
        assert not math.isnan(one.mean().sum().item())
