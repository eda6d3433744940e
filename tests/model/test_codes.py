"""Codebooks: the nearest word by hand, running means, words that come back, levels, gradients and export."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor

from triptych.errors import ModelError
from triptych.model.auxiliary import take_auxiliary
from triptych.model.codes import Codebook, ResidualCodebooks, learn_codes
from triptych.system.bundle.graphs import export_codes


def clustered(count: int = 400, dim: int = 6, seed: int = 0) -> Tensor:
    """Vectors around eight centres, with noise that has structure of its own."""
    generator = torch.Generator().manual_seed(seed)
    centres = 4 * torch.randn(8, dim, generator=torch.Generator().manual_seed(9))
    which = torch.randint(0, 8, (count,), generator=generator)
    return centres[which] + torch.randn(count, dim, generator=generator)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("shape", [(5,), (3, 4)])
def test_the_code_is_the_nearest_word(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    book, x = Codebook(16, 6), torch.randn(*shape, 6)
    distance = (x.unsqueeze(-2) - book.words).square().sum(dim=-1)
    assert torch.equal(book.encode(x), distance.argmin(dim=-1))
    assert torch.equal(book.eval()(x), book.words[distance.argmin(dim=-1)])


def test_every_word_is_its_own_code() -> None:
    torch.manual_seed(0)
    book = Codebook(16, 6)
    assert book.encode(book.words).tolist() == list(range(16))


def test_words_move_to_running_means_by_hand() -> None:
    book = Codebook(2, 1, decay=0.5)
    book.words = torch.tensor([[0.0], [10.0]])
    book(torch.tensor([[1.0], [3.0], [9.0]]))
    assert book.uses.tolist() == [1.0, 0.5]
    assert book.words.flatten().tolist() == [2.0, 9.0]
    book(torch.tensor([[4.0]]))  # N = 0.5 · 1 + 0.5 · 1, m = 0.5 · 2 + 0.5 · 4; the other word only loses uses
    assert book.words.flatten().tolist() == [3.0, 9.0]
    assert book.uses.tolist() == [1.0, 0.25]


def test_the_gradient_goes_straight_through_and_the_commitment_is_left_aside() -> None:
    book = Codebook(2, 2, commitment=0.25)
    book.words = torch.tensor([[0.0, 0.0], [10.0, 10.0]])
    x = torch.tensor([[1.0, 2.0]], requires_grad=True)
    out = book(x)
    assert torch.allclose(out, torch.zeros(1, 2), atol=1e-6)
    (out * torch.tensor([3.0, 5.0])).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [[3.0, 5.0]]
    (loss,) = take_auxiliary(book)
    assert loss.item() == pytest.approx(0.25 * (1 + 4) / 2)
    x.grad = None
    loss.backward()
    assert x.grad.tolist() == [[0.25 * 1, 0.25 * 2]]


def test_evaluation_moves_nothing() -> None:
    book = Codebook(4, 2).eval()
    words = book.words.clone()
    book(torch.randn(8, 2))
    assert torch.equal(book.words, words)
    assert take_auxiliary(book) == []


def test_words_without_use_come_back_and_used_ones_stay() -> None:
    x = clustered(64)
    book = Codebook(8, 6)
    assert book.revive(x, generator()) == 8  # as none has been used yet
    assert all((x == word).all(dim=1).any() for word in book.words)
    for _ in range(20):
        book(x)
    book.words[3] = 1e3
    book.uses[3] = 0.0
    before = book.words.clone()
    gone = int((book.uses <= 0.1 * book.uses.mean()).sum())
    assert book.revive(x, generator()) == gone >= 1
    assert (x == book.words[3]).all(dim=1).any()
    stayed = book.uses > 0.1 * book.uses.mean()
    stayed[3] = False
    assert torch.equal(book.words[stayed][:1], before[stayed][:1])


def test_fewer_vectors_than_dead_words_revive_as_many() -> None:
    assert Codebook(8, 6).revive(clustered(3), generator()) == 3


def test_what_is_left_over_falls_with_every_level_on_vectors_never_seen() -> None:
    codes = learn_codes(clustered(), levels=4, entries=16, epochs=6, batch_size=100)
    for vectors in (clustered(), clustered(seed=1)):
        errors = codes.errors(vectors)
        assert errors[0].item() == pytest.approx(vectors.square().sum(dim=1).mean().item())
        assert (errors[1:] < errors[:-1]).all()
    assert errors[-1] < 0.1 * errors[0]
    assert errors[1] < 2 * 6  # one word per cluster leaves its own variance of one per feature, and a little more


def test_decoding_sums_the_words_of_any_number_of_levels() -> None:
    codes = learn_codes(clustered(), levels=3, entries=8, epochs=2)
    x = clustered(5, seed=2)
    ids = codes.encode(x)
    assert ids.shape == (5, 3)
    assert ((ids >= 0) & (ids < 8)).all()
    words = [book.words[ids[:, level]] for level, book in enumerate(codes.books)]
    assert torch.allclose(codes.decode(ids), words[0] + words[1] + words[2])
    assert torch.equal(codes.decode(ids[:, :1]), words[0])
    assert torch.allclose(codes(x), codes.decode(ids))
    assert torch.equal(codes.encode(x[0]), ids[0])
    with pytest.raises(ModelError, match="4 levels, but there are 3"):
        codes.decode(torch.zeros(1, 4, dtype=torch.int64))


def test_a_vector_that_is_a_sum_of_words_comes_back_exactly() -> None:
    codes = ResidualCodebooks(2, 4, 2).eval()
    codes.books[0].words = torch.tensor([[0.0, 0.0], [8.0, 0.0], [0.0, 8.0], [8.0, 8.0]])
    codes.books[1].words = torch.tensor([[1.0, 1.0], [-1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]])
    ids = torch.cartesian_prod(torch.arange(4), torch.arange(4))
    assert torch.equal(codes.encode(codes.decode(ids)), ids)
    assert codes.errors(codes.decode(ids))[-1] == 0


def test_levels_pass_one_gradient_and_a_commitment_each() -> None:
    codes = ResidualCodebooks(3, 4, 2).train()
    x = torch.randn(5, 2, requires_grad=True)
    codes(x).sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, torch.ones(5, 2))
    assert len(take_auxiliary(codes)) == 3


def test_learning_follows_the_seed() -> None:
    one, again, other = (learn_codes(clustered(), levels=1, entries=8, epochs=2, seed=s) for s in (0, 0, 1))
    assert torch.equal(one.books[0].words, again.books[0].words)
    assert not torch.equal(one.books[0].words, other.books[0].words)


@torch.no_grad()
def test_the_exported_encoder_gives_the_same_codes() -> None:
    codes = learn_codes(clustered(), levels=3, entries=8, epochs=2)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = onnxruntime.InferenceSession(export_codes(codes), options, providers=["CPUExecutionProvider"])
    x = clustered(50, seed=3)
    (given,) = session.run(None, {"x": x.numpy()})
    assert given.dtype == np.int64
    assert np.array_equal(given, codes.encode(x))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Codebook(0, 4), "at least one word"),
        (lambda: Codebook(4, 4, decay=1.0), r"decay of a codebook must be in \[0, 1\)"),
        (lambda: ResidualCodebooks(0, 4, 4), "at least one level"),
        (lambda: learn_codes(clustered(8), entries=9), "8 vectors cannot teach 9 words"),
        (lambda: learn_codes(torch.full((8, 2), torch.nan), entries=2), "finite numbers"),
    ],
)
def test_what_cannot_be_is_refused(make: Any, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        make()
