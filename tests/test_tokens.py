"""What sequences are like as a whole, by hand."""

import pytest
import torch

from triptych.tokens import Tokens

X = torch.tensor([[[1.0, 2.0], [3.0, -6.0]], [[5.0, 6.0], [7.0, 8.0]]])


def test_the_mean_is_that_of_real_tokens_by_their_weights() -> None:
    mask = torch.tensor([[True, True], [False, True]])
    tokens = Tokens(X, mask, torch.tensor([[3.0, 1.0], [9.0, 2.0]]))
    assert tokens.mean().tolist() == [[1.5, 0.0], [7.0, 8.0]]
    assert tokens.most().tolist() == [[3.0, 2.0], [7.0, 8.0]]


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("weight", [None, 2.5])
def test_a_row_without_a_real_token_is_told_and_zero_in_all(count: int, weight: float | None) -> None:
    mask = torch.tensor([[False] * count, [True] * count])
    weights = None if weight is None else mask * weight
    tokens = Tokens(X[:, :count], mask, weights)
    assert tokens.some().tolist() == [[False], [True]]
    assert tokens.mean().tolist() == [[0.0, 0.0], X[1, :count].mean(dim=0).tolist()]
    assert tokens.most()[0].tolist() == [0.0, 0.0]


def test_without_a_mask_every_row_has_tokens() -> None:
    assert Tokens(X).some().tolist() == [[True], [True]]
    assert Tokens(X[:, :1], None, torch.full((2, 1), 4.0)).mean().equal(X[:, 0])
