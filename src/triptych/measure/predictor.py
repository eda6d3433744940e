"""What a worker drives: a bundle through the runtime (no torch), or a saved model through torch."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Inputs = Mapping[str, NDArray[Any]]
Spent = dict[str, Any]  # of one row: 'shares' of tokens by modality, and 'flops' if they are known
_WATCHED = 32  # predictions that tell what routers do


class Predictor(Protocol):
    """One loaded candidate.  Inputs are raw and have a batch axis."""

    names: tuple[str, ...]
    batch: int

    def run(self, inputs: Inputs) -> NDArray[Any]:
        """Predict.  Returns (batch, outputs)."""
        ...

    def answer(self, inputs: Inputs) -> tuple[NDArray[Any], list[Spent]]:
        """Predict, and what each row spent; nothing where all rows spend alike."""
        ...

    def parts(self, inputs: Inputs, repeat: int) -> dict[str, list[float]]:
        """Seconds of each stage, `repeat` times."""
        ...

    def describe(self) -> dict[str, Any]:
        """Parameter count, operations and bytes of weights per part, library versions, and what routers do if any."""
        ...


class BundlePredictor:
    """A bundle folder, one example at a time, with what a device without torch would load."""

    batch = 1

    def __init__(self, folder: Path, threads: int) -> None:
        from triptych.system.runtime import Bundle

        self._bundle = Bundle.load(folder, threads=threads)
        self.names = tuple(self._bundle.schema.names)

    def run(self, inputs: Inputs) -> NDArray[Any]:
        """Predict.  Returns (batch, outputs)."""
        return np.asarray(self._bundle.run(inputs))

    def answer(self, inputs: Inputs) -> tuple[NDArray[Any], list[Spent]]:
        """Predict, and what each row spent where a gate decides that."""
        found = self._bundle.answer(inputs)
        spent = [
            {
                "shares": {name: shares[name] for name in inputs},
                "flops": self._bundle.operations(shares) if len(inputs) == len(self.names) else None,
            }
            for shares in found.shares
        ]
        return np.asarray(found.output), spent

    def parts(self, inputs: Inputs, repeat: int) -> dict[str, list[float]]:
        """Seconds of each stage, `repeat` times."""
        return dict(self._bundle.profile(inputs, repeat))

    def describe(self) -> dict[str, Any]:
        """Parameter count, operations and bytes of weights per part, and library versions."""
        from importlib.metadata import version

        facts = {name: stage.facts for name, stage in self._bundle.manifest.stages.items()}
        run = [name for name in facts if name == "decide" or name.endswith(".encode")]
        params = [facts[name]["params"] for name in run if "params" in facts[name]]
        return {
            "params": sum(params) if params else None,
            "flops": {name: facts[name]["flops"] for name in run if "flops" in facts[name]},
            "weight_bytes": {n: facts[n]["weight_bytes"] for n in run if "weight_bytes" in facts[n]},
            "versions": {"onnxruntime": version("onnxruntime")},
            "routers": facts.get("fused", {}).get("routers"),
        }


class ModelPredictor:
    """A saved model folder, in torch."""

    batch = 32

    def __init__(self, folder: Path, threads: int) -> None:
        import torch

        from triptych.model import load_model
        from triptych.model.experts import Router

        torch.set_num_threads(threads)
        torch.set_num_interop_threads(1)
        self._model = load_model(folder).eval()
        self.names = tuple(self._model.schema.names)
        experts = any(isinstance(part, Router) for part in self._model.modules())
        self._recent: deque[Inputs] = deque(maxlen=_WATCHED if experts else 0)

    def run(self, inputs: Inputs) -> NDArray[Any]:
        """Predict.  Returns (batch, outputs)."""
        import torch

        from triptych.tokens import Batch

        self._recent.append(inputs)
        with torch.inference_mode():
            output = self._model(Batch({name: torch.from_numpy(value) for name, value in inputs.items()}))
        return np.asarray(output.float().numpy())

    def answer(self, inputs: Inputs) -> tuple[NDArray[Any], list[Spent]]:
        """Predict; in torch every row of a batch goes through the same operations."""
        return self.run(inputs), []

    def parts(self, inputs: Inputs, repeat: int) -> dict[str, list[float]]:
        """Seconds of each modality's encoder and of everything behind them, `repeat` times."""
        import torch

        model, raw = self._model, {name: torch.from_numpy(value) for name, value in inputs.items()}
        with torch.inference_mode():
            streams = {name: model.encode(name, value) for name, value in raw.items()}
            steps: dict[str, Callable[[], object]] = {
                f"{name}.encode": lambda name=name, value=value: model.encode(name, value)  # type: ignore[misc]
                for name, value in raw.items()
            }
            steps["decide"] = lambda: model.decide(streams)
            return {stage: _seconds(step, repeat) for stage, step in steps.items()}

    def describe(self) -> dict[str, Any]:
        """Parameter count, operations and bytes of weights per part, and library versions."""
        from importlib.metadata import version

        found = self._model.parameters_by_part()
        shared = found.pop("shared", 0)
        flops = dict(self._model.flops())
        weights = {name: 4 * (found[name] + shared * name.endswith(".encode")) for name in flops}
        return {
            "params": sum(p.numel() for p in self._model.parameters()),
            "flops": flops,
            "weight_bytes": weights,
            "versions": {"torch": version("torch")},
            "routers": self._routers(),
        }

    def _routers(self) -> dict[str, Any] | None:
        """What routers did with the inputs of the last predictions."""
        import torch

        from triptych.model.experts import observed_routers
        from triptych.tokens import Batch

        batches = (Batch({name: torch.from_numpy(raw) for name, raw in inputs.items()}) for inputs in self._recent)
        return observed_routers(self._model, batches)


def _seconds(step: Callable[[], object], repeat: int) -> list[float]:
    step()
    taken = []
    for _ in range(repeat):
        start = time.perf_counter()
        step()
        taken.append(time.perf_counter() - start)
    return taken
