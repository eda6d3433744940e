"""What a run tells while it works, and a live view of it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


@dataclass(frozen=True, slots=True)
class TrainProgress:
    """State after one step.

    fraction: share of the run that is over; quality, best: the schema's metric on validation, last and best so far
    """

    step: int
    steps: int
    epoch: int
    fraction: float
    loss: float
    lr: float
    elapsed_s: float
    quality: float | None = None
    best: float | None = None


Watch = Callable[[TrainProgress], None]


@contextmanager
def live(title: str, *, console: Console | None = None) -> Iterator[Watch]:
    """Show a bar with loss and quality while the block runs.

    >>> with live("teacher") as watch:
    ...     model = fit(model, data, progress=watch)  # doctest: +SKIP
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}% {task.fields[state]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, refresh_per_second=4) as bar:
        task = bar.add_task(title, total=1.0, state="")
        yield lambda event: bar.update(task, completed=event.fraction, state=describe(event))


def describe(event: TrainProgress) -> str:
    """One line such as "epoch 3  loss 0.412  quality 0.871 (best 0.880)"."""
    line = f"epoch {event.epoch}  loss {event.loss:.3f}"
    if event.quality is None or event.best is None:
        return line
    return f"{line}  quality {event.quality:.3f} (best {event.best:.3f})"


class Interruption:
    """Turns the first Ctrl-C inside the block into `requested`, so that a step is never cut in half.

    A second Ctrl-C interrupts at once.  Does nothing outside the main thread or where the caller handles SIGINT.
    """

    def __init__(self) -> None:
        self.requested = False
        self._ours = False

    def __enter__(self) -> Interruption:
        in_main = threading.current_thread() is threading.main_thread()
        if in_main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._request)
            self._ours = True
        return self

    def __exit__(self, *_: object) -> None:
        if self._ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _request(self, _number: int, _frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
