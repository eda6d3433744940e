import numpy as np
import pytest
import torch

from triptych.data.collate import collate
from triptych.measure import measure
from triptych.measure.candidate import launch
from triptych.model import build, save_model
from triptych.tokens import Batch


@pytest.fixture
def model(data):
    torch.manual_seed(0)
    return build("late_fusion", data.schema, dim=8, depth=1, heads=2, head_hidden=4, hidden=4).eval()


def outputs(model, split):
    rows = []
    for row in range(len(split)):
        present = {k: v for k, v in split.example(row).items() if v is not None}
        inputs = {k: torch.from_numpy(v) for k, v in collate([present], model.schema)[0].items()}
        rows.append(model(Batch(inputs))[0])
    return torch.stack(rows).detach().numpy()


def test_a_network_and_its_saved_folder_are_measured_alike(data, model, tmp_path):
    saved = save_model(model, tmp_path / "model")
    found = measure({"network": model, "folder": saved}, data, repeat=4, rounds=2, warmup=1, folder=tmp_path)
    network, folder = found["network"], found["folder"]
    assert (folder.loyalty, folder.drop) == (1.0, 0.0)
    assert network.flops == sum(model.flops().values())
    assert network.params == sum(p.numel() for p in model.parameters())
    assert network.size_bytes == sum(path.stat().st_size for path in saved.iterdir())
    assert network.parts.keys() == {"left.encode", "right.encode", "decide", "left", "right"}
    assert network.parts["left"].worth is not None
    assert len(network.parts["decide"].samples_s) == 20
    assert "torch" in network.environment["worker"]
    with np.load(tmp_path / network.predictions) as kept:
        assert kept["outputs"] == pytest.approx(outputs(model, data.splits["test"]), abs=1e-6)


def test_a_network_of_fewer_modalities_reads_its_own(data, tmp_path):
    part = build("late_fusion", data.schema.only("left"), dim=8, depth=1, heads=2, head_hidden=4, hidden=4)
    found = measure({"part": part}, data, repeat=1, rounds=1)["part"]
    assert found.rows == 5
    assert found.parts["left"].worth is None
    assert launch("part", save_model(part, tmp_path), tmp_path).schema == part.schema
