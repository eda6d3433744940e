import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from triptych.errors import TrainingError
from triptych.train.checkpoint import Checkpoint, read_checkpoint, write_atomically, write_checkpoint

STATE = Checkpoint(
    {
        "network.w": torch.arange(6.0).view(2, 3).t(),
        "optimizer.w:step": torch.tensor(3.0),
        "best.h": torch.ones(2, dtype=torch.bfloat16),
    },
    {"counters": {"step": 3, "history": [{"loss": 0.1 + 0.2}]}},
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "checkpoint.safetensors"
    write_checkpoint(path, STATE)
    return path


def test_a_checkpoint_survives_a_round_trip(path: Path) -> None:
    read = read_checkpoint(path)
    assert read.record == STATE.record
    assert read.tensors.keys() == STATE.tensors.keys()
    assert all(
        t.equal(STATE.tensors[name]) and t.dtype == STATE.tensors[name].dtype for name, t in read.tensors.items()
    )
    assert read.part("network.").keys() == {"w"}
    assert [p.name for p in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("position", [0.05, 0.5, 0.999])
def test_damage_anywhere_is_noticed(path: Path, position: float) -> None:
    content = bytearray(path.read_bytes())
    content[int(len(content) * position)] ^= 0x40
    path.write_bytes(content)
    with pytest.raises(TrainingError, match="checkpoint"):
        read_checkpoint(path)


@pytest.mark.parametrize("kept", [0, 4, 100, -1])
def test_a_truncated_file_is_noticed(path: Path, kept: int) -> None:
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(TrainingError, match=r"cannot be read.*delete it to start over"):
        read_checkpoint(path)


def test_a_foreign_safetensors_file_is_refused(path: Path) -> None:
    save_file({"w": torch.zeros(2)}, path)
    with pytest.raises(TrainingError, match=r"cannot be read"):
        read_checkpoint(path)


def test_a_full_disk_leaves_the_old_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(TrainingError, match=r"No space left on device.*choose another folder"):
        write_atomically(path, b"new")
    assert path.read_bytes() == old
    assert [p.name for p in path.parent.iterdir()] == [path.name]
