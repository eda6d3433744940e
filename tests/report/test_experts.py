"""The page says what experts do, and nothing where there are none."""

from triptych.measure.report import Report
from triptych.report import RunRecord
from triptych.report.experts_view import experts, layer_name

ROUTERS = {
    "encoders.image.blocks.layers.0.channel": {"load": [0.5, 0.25, 0.25], "entropy": 0.2, "collapse": 0.08, "pairs": 1},
    "fusion.trunk.layers.1.channel": {"load": [1.0, 0.0], "entropy": 0.0, "collapse": 1.0, "pairs": 0.5},
}


def run(**report: object) -> RunRecord:
    return RunRecord("clips", {"modalities": []}, reports={"chosen": Report(**report).to_dict()})


def test_every_layer_of_experts_has_its_row() -> None:
    shown = experts(run(routers=ROUTERS))
    assert shown is not None
    assert shown.count("<rect") == 5
    assert "image, block 1" in shown
    assert "expert 0: 50.0" in shown
    assert shown.count("collapsed") == 1


def test_without_experts_there_is_nothing_to_say() -> None:
    assert experts(run()) is None
    assert "routers" not in Report().to_dict()


def test_layers_are_named_in_words() -> None:
    assert layer_name("encoders.image.blocks.layers.0.channel") == "image, block 1"
    assert layer_name("shared.layers.2.channel.text") == "shared, block 3"
    assert layer_name("fusion.trunk.layers.1.channel") == "fusion, block 2"
    assert layer_name("<b>") == "<b>"
