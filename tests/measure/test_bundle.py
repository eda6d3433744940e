import shutil

import pytest
import torch

from triptych.errors import BundleError
from triptych.measure import measure
from triptych.measure.candidate import launch
from triptych.model import build
from triptych.system.bundle.graphs import export_graphs
from triptych.system.bundle.write import write_bundle
from triptych.tokens import Batch

from .conftest import SCHEMA


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return build("late_fusion", SCHEMA, dim=8, depth=1, heads=2, head_hidden=4, hidden=4).eval()


@pytest.fixture(scope="module")
def bundle(model, tmp_path_factory):
    row = {"left": torch.tensor([[1.0, 0.0]]), "right": torch.tensor([[2.0]])}
    params = model.parameters_by_part()
    return write_bundle(
        tmp_path_factory.mktemp("measured") / "bundle",
        schema=model.schema,
        graphs=export_graphs(model),
        golden_inputs=[{name: value.numpy() for name, value in row.items()}],
        golden_outputs=model(Batch(row)).detach().numpy(),
        stages={name: {"flops": flops, "params": params[name]} for name, flops in model.flops().items()},
    )


def test_a_bundle_is_measured_beside_its_network_without_torch(data, model, bundle):
    found = measure({"network": model, "bundle": bundle}, data, repeat=4, rounds=2, warmup=1)
    network, lean = found["network"], found["bundle"]
    assert (lean.loyalty, lean.drop) == (1.0, 0.0)
    assert lean.peak_bytes < network.peak_bytes
    assert (lean.flops, lean.params) == (network.flops, network.params)
    assert lean.parts.keys() == {"left.encode", "right.encode", "decide", "fused", "left", "right"}
    assert {name: lean.parts[name].worth for name in model.schema.names} == pytest.approx(
        {name: network.parts[name].worth for name in model.schema.names}
    )
    assert lean.environment["worker"].keys() == {"onnxruntime"}


def test_the_size_of_a_bundle_is_all_but_its_golden_examples_and_card(bundle, tmp_path):
    found = launch("bundle", bundle, tmp_path)
    sizes = {path.name: path.stat().st_size for path in bundle.rglob("*") if path.is_file()}
    assert found.bundle_bytes == sum(sizes.values())
    assert found.size_bytes == sum(sizes.values()) - sizes["golden.safetensors"] - sizes["MODEL_CARD.md"]


def test_a_damaged_bundle_is_an_error_before_anything_is_started(data, bundle, tmp_path):
    damaged = shutil.copytree(bundle, tmp_path / "damaged")
    (damaged / "manifest.json").write_text("{}")
    with pytest.raises(BundleError):
        measure({"bundle": damaged}, data)
