"""Post-training quantization of one ONNX graph to int8 with NNCF, in several ways, for OpenVINO.

Runs in the peer's own environment (`requirements.txt`), which has neither torch nor triptych:

    python quantize.py GRAPH.onnx CALIBRATION OUT '{"text": 40}'

The last argument gives the longest length of every input with an open axis. CALIBRATION is a folder of
`<row>.<modality>.npy` as `triptych.measure.worker` describes.  Writes one folder per way with model.xml and model.bin
(an open axis also padded to its longest), and `float32` to check the conversion with; the caller picks a way on
validation.  The last line is JSON: ways, versions, seconds.
"""

from __future__ import annotations

import json
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import nncf
import numpy as np
import openvino as ov
from worker import filler, read_example

ENDS = ("IsNaN", "Log")


def main(graph: Path, calibration: Path, out: Path, longest: dict[str, int]) -> None:
    start = time.perf_counter()
    model = ov.convert_model(str(graph))
    rows = calibration_rows(calibration, model)
    save(model, out / "float32")
    made: dict[str, Any] = {}
    for way, options in ways(model).items():
        begun = time.perf_counter()
        quantized = nncf.quantize(ov.convert_model(str(graph)), nncf.Dataset(rows), subset_size=len(rows), **options)
        save(quantized, out / way)
        quantizers = sum(op.get_type_name() == "FakeQuantize" for op in quantized.get_ops())
        made[way] = {"seconds": time.perf_counter() - begun, "quantizers": quantizers}
        if longest:
            quantized.reshape({name: ov.PartialShape([1, length]) for name, length in longest.items()})
            save(quantized, out / f"{way}-padded")
            made[f"{way}-padded"] = made[way]
    versions = {name: version(name) for name in ("openvino", "nncf", "numpy")}
    print(json.dumps({"ways": made, "rows": len(rows), "versions": versions, "seconds": time.perf_counter() - start}))


def save(model: ov.Model, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    ov.save_model(model, str(folder / "model.xml"), compress_to_fp16=False)


def ways(model: ov.Model) -> dict[str, dict[str, Any]]:
    """Options of `nncf.quantize`: its default, and its preset for transformers, which keeps softmax and norms exact."""
    exact = {"ignored_scope": nncf.IgnoredScope(names=exact_part(model), validate=False)}
    return {"default": exact, "transformer": {"model_type": nncf.ModelType.TRANSFORMER, **exact}}


def exact_part(model: ov.Model) -> list[str]:
    """What lies between an input and a test for NaN or a logarithm: the part that must stay in float32.

    NaN marks what is missing or beyond a clip's end, and int8 has none: calibrated on it, NNCF writes ranges of NaN or
    zero and the modality is lost. The power spectrum spans more orders of magnitude than int8 can hold.
    """
    ordered = model.get_ordered_ops()
    after: set[str] = set()
    before: set[str] = set()
    for op in ordered:
        sources = [value.get_source_output().get_node() for value in op.inputs()]
        if op.get_type_name() == "Parameter" or any(s.get_friendly_name() in after for s in sources):
            after.add(op.get_friendly_name())
    for op in reversed(ordered):
        users = [target.get_node() for output in op.outputs() for target in output.get_target_inputs()]
        if op.get_type_name() in ENDS or any(user.get_friendly_name() in before for user in users):
            before.add(op.get_friendly_name())
    plain = {"Parameter", "Constant", "Result"}
    return [n for op in ordered if (n := op.get_friendly_name()) in after & before and op.get_type_name() not in plain]


def calibration_rows(folder: Path, model: ov.Model) -> list[dict[str, np.ndarray]]:
    inputs = {value.get_any_name(): filler(value) for value in model.inputs}
    count = 1 + max(int(path.name.split(".")[0]) for path in folder.glob("*.npy"))
    return [{**inputs, **read_example(folder, row, inputs)} for row in range(count)]


if __name__ == "__main__":
    main(*(Path(argument) for argument in sys.argv[1:4]), json.loads(sys.argv[4]))
