"""Where a run keeps its checkpoint, its history and its TensorBoard events."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from triptych.errors import TrainingError
from triptych.train.checkpoint import FILE, read_checkpoint, write_atomically, write_checkpoint
from triptych.train.state import Record, RunState

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

_SCALARS = ("lr", "loss", "quality", "validation_loss")


class RunFolder:
    """A folder on disk, or nothing at all when `path` is None.

    writes: False in all but one of several processes
    """

    def __init__(self, path: str | Path | None, *, writes: bool) -> None:
        self.path = None if path is None else Path(path)
        self.writes = writes and self.path is not None
        self._writer: SummaryWriter | None = None

    @property
    def holds_run(self) -> bool:
        """True if there is a checkpoint."""
        return self.path is not None and (self.path / FILE).exists()

    def take_over(self, state: RunState, identity: Mapping[str, Any], *, resume: bool) -> None:
        """Continue the run that was saved here if `resume` is set.

        Raises TrainingError on a damaged or foreign checkpoint, and rather than overwrite an unfinished run.
        """
        file = self._home / FILE
        checkpoint = read_checkpoint(file)
        if resume:
            state.unpack_(checkpoint, identity)
        elif not checkpoint.record["counters"]["finished"]:
            raise TrainingError(
                f"{file} holds an unfinished run; pass resume=True to go on, or delete it to start over"
            )

    def save(self, state: RunState, identity: Mapping[str, Any]) -> None:
        """Write the checkpoint and history.json."""
        self._home.mkdir(parents=True, exist_ok=True)
        write_checkpoint(self._home / FILE, state.pack(identity))
        write_atomically(self._home / "history.json", json.dumps(state.counters.history, indent=1).encode())

    def show(self, record: Record) -> None:
        """Add one validation to the TensorBoard events."""
        if not self.writes:
            return
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self._home / "tensorboard"), purge_step=record["step"])
        for key in _SCALARS:
            if record[key] is not None:
                self._writer.add_scalar(key, record[key], record["step"])

    def close(self) -> None:
        """Flush the events."""
        if self._writer is not None:
            self._writer.close()

    @property
    def _home(self) -> Path:
        if self.path is None:
            raise TrainingError("this run keeps nothing; pass folder=… to keep checkpoints")
        return self.path

    def how_to_go_on(self) -> str:
        """What to tell someone who stopped the run."""
        if self.path is None:
            return "nothing was saved; pass folder=… next time to be able to go on"
        return f"everything is saved; run again with folder={str(self.path)!r} and resume=True to go on"
