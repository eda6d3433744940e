"""A worker process that answers JSON lines, and that is stopped while it has nothing to answer."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from triptych.errors import MeasureError

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_LONGEST_LINE = 256 * 1024 * 1024
_TAIL = 2000
_PATIENCE_S = 2.0
_PR_SET_PDEATHSIG = 1
_PRCTL = ctypes.CDLL(None).prctl if sys.platform == "linux" else None


def _end_with_parent() -> None:
    """Have the kernel kill this process when its parent dies, also while it is stopped; where Linux offers that."""
    if _PRCTL is not None:
        _PRCTL(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Worker:
    """One child process that is sent a JSON object per line and answers with one each.

    Between questions its process group is stopped, so that a spinning thread pool of one candidate
    cannot take processor time from the next.
    """

    def __init__(self, name: str, command: Sequence[str], *, threads: int = 1, timeout_s: float = 600.0) -> None:
        self.name = name
        self.timeout_s = timeout_s
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (closed in `close`)
        self._buffer = b""
        environment = {**os.environ, **dict.fromkeys(_THREAD_VARIABLES, str(threads))}
        try:
            self._child = subprocess.Popen(
                list(command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                env=environment,
                bufsize=0,
                process_group=0,
                preexec_fn=_end_with_parent,  # noqa: PLW1509 (one call that takes no lock, between fork and exec)
            )
        except OSError as error:
            self._log.close()
            raise MeasureError(f"cannot start the worker of {name!r} with {list(command)}: {error}") from error
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._pipe("stdout"), selectors.EVENT_READ)

    @property
    def pid(self) -> int:
        """Process number of the child."""
        return self._child.pid

    def ask(self, op: str, **request: Any) -> dict[str, Any]:
        """Send one request and wait for its answer.  Raises MeasureError on a crash, an error, garbage or a timeout."""
        self._signal(signal.SIGCONT)
        line = json.dumps({"op": op, **request}).encode() + b"\n"
        try:
            self._pipe("stdin").write(line)
        except OSError as error:
            raise self._failure(f"went away before {op!r}") from error
        answer = self._parse(op, self._read_line(op))
        self._signal(signal.SIGSTOP)
        return answer

    def close(self) -> None:
        """End the child: by closing its input, by force after two seconds."""
        if self._log.closed:
            return
        self._signal(signal.SIGCONT)
        with contextlib.suppress(OSError):
            self._pipe("stdin").close()
        self._status()
        self._signal(signal.SIGKILL)  # the child if it did not end, and whatever it left behind in its group
        self._child.wait()
        self._selector.close()
        self._pipe("stdout").close()
        self._log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._signal(signal.SIGKILL)
        self.close()

    def _pipe(self, name: str) -> Any:
        return getattr(self._child, name)

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._child.pid, number)

    def _read_line(self, op: str) -> bytes:
        deadline = time.monotonic() + self.timeout_s
        while b"\n" not in self._buffer:
            if not self._selector.select(max(0.0, deadline - time.monotonic())):
                self._signal(signal.SIGKILL)
                raise self._failure(f"did not answer {op!r} within {self.timeout_s:g} s")
            chunk = os.read(self._pipe("stdout").fileno(), 1 << 16)
            if not chunk:
                raise self._failure(f"ended during {op!r} with exit status {self._status()}")
            self._buffer += chunk
            if len(self._buffer) > _LONGEST_LINE:
                raise self._failure(f"answered {op!r} with over {_LONGEST_LINE} bytes")
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def _parse(self, op: str, line: bytes) -> dict[str, Any]:
        try:
            answer = json.loads(line)
        except ValueError as error:
            raise self._failure(f"answered {op!r} with something that is not JSON: {line[:200]!r}") from error
        if not isinstance(answer, dict):
            raise self._failure(f"answered {op!r} with {line[:200]!r}, expected a JSON object")
        if "error" in answer:
            raise self._failure(f"could not {op}: {answer['error']}")
        return answer

    def _status(self) -> int | None:
        """Exit status within two seconds, or None.  Leaves the child unreaped, so that its number stays its own."""
        deadline = time.monotonic() + _PATIENCE_S
        while time.monotonic() < deadline:
            if ended := os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status
            time.sleep(0.002)
        return None

    def _failure(self, what: str) -> MeasureError:
        self._log.seek(max(0, self._log.seek(0, os.SEEK_END) - _TAIL))
        tail = self._log.read().decode(errors="replace").strip()
        return MeasureError(
            f"the worker of {self.name!r} {what}; " + (f"its stderr ends:\n{tail}" if tail else "no stderr")
        )
