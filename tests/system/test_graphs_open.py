"""Token counts that are only known when a graph runs."""

from __future__ import annotations

import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

from triptych.select import kept_count, pool, stride
from triptych.system.bundle import trace
from triptych.system.bundle.graphs import _export
from triptych.tokens import Tokens


class Half(nn.Module):
    def __init__(self, select) -> None:
        super().__init__()
        self.select = select

    def forward(self, x: Tensor) -> Tensor:
        return self.select(Tokens(x), kept_count(x.shape[1], 0.5)).x


@pytest.mark.parametrize("select", [pool, stride])
def test_as_many_tokens_stay_in_a_graph_as_in_torch(select) -> None:
    half = Half(select)
    graph = _export(half, [torch.zeros(1, 8, 2)], ["x"], ["y"], [{1: Dim("tokens", min=2, max=64)}])
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    for count in (8, 11, 13):
        x = torch.randn(1, count, 2)
        (found,) = session.run(None, {"x": x.numpy()})
        assert found.shape[1] == -(-count // 2) == half(x).shape[1]
        assert torch.allclose(torch.from_numpy(found), half(x), atol=1e-6)


def test_translations_that_are_kept_give_the_graphs_of_those_gathered_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    gathered, gather = [], trace.ONNXRegistry.from_torchlib

    def counted(opset_version: int) -> object:
        gathered.append(opset_version)
        return gather(opset_version=opset_version)

    monkeypatch.setattr(trace.ONNXRegistry, "from_torchlib", staticmethod(counted))

    def graph() -> bytes:
        return _export(Half(pool), [torch.zeros(1, 8, 2)], ["x"], ["y"], [{1: Dim("tokens", min=2, max=64)}])

    kept = [graph(), graph()]
    assert gathered == [trace.OPSET]
    assert trace.ONNXRegistry.from_torchlib is counted, "the exporter is left as it was"
    monkeypatch.setattr(trace, "ONNXRegistry", None)
    assert [graph()] * 2 == kept
    assert len(gathered) == 2
