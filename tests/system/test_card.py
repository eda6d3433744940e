"""The model card states what was measured, and says so where nothing was."""

import dataclasses

from tests.system import tiny
from triptych.measure.report import Report
from triptych.schema import Modality
from triptych.system.bundle.card import model_card
from triptych.system.runtime import Point


def test_a_card_states_purpose_figures_points_and_limits():
    card = model_card(
        tiny.SCHEMA,
        reports={
            "reference": Report(metric="accuracy", quality=0.91, p50_s=0.002, size_bytes=2_500_000),
            "lean": Report(metric="accuracy", quality=0.9, quality_interval=(0.88, 0.92), environment={"cpu": "A1"}),
        },
        points=[Point("full", ("image", "text"), "fused", p50_s=0.0005, quality=0.9)],
        recipe=[{"technique": "Int8", "bits": 8}],
        provenance={"seed": 3},
        data="a public set",
        licence="CC0",
        limits=["only daylight"],
    )
    assert card.startswith("# colours\n")
    assert "| reference | 0.91 | not measured | 2 ms | not measured | not measured | 2.5 MB |" in card
    assert "0.9 (0.88 to 0.92)" in card
    assert "`lean`: cpu A1" in card
    assert "| full | image, text | fused | 0.5 ms | 0.9 |" in card
    for text in ("1. Int8(bits=8)", "- seed: 3", "a public set", "CC0", "- only daylight", "up to 6 tokens"):
        assert text in card


def test_a_card_never_hides_what_is_unknown():
    card = model_card(tiny.SCHEMA)
    assert card.count("Not stated by whoever exported this bundle") == 2
    assert "Nothing was measured" in card
    assert "Trained; not compressed." in card


def test_a_card_describes_every_kind_of_input():
    schema = dataclasses.replace(
        tiny.SCHEMA,
        task="regression",
        metric="mae",
        classes=(),
        range=(-3.0, 3.0),
        modalities=(
            Modality("audio", "audio", sample_rate=16000, max_samples=32000),
            Modality("series", "series", frames=50, fields=("x", "y")),
            Modality("table", "table", fields=("age",)),
        ),
    )
    card = model_card(schema)
    for text in ("16000 Hz, up to 2 s", "up to 50 frames of 2 channels", "the fields `age`", "from -3 to 3"):
        assert text in card


def test_a_card_holds_the_ledger_of_the_last_candidate_and_its_advice():
    worth = {"shapley": 0.002, "shapley_interval": (-0.004, 0.008), "worth": 0.0, "worth_interval": (-0.01, 0.01)}
    parts = {"image": Report(p50_s=0.0031, flops=2_000_000, **worth), "text": Report(p50_s=0.005)}
    lean = Report(
        metric="accuracy", parts={**parts, "decide": Report(p50_s=0.0019)}, energy_source="unavailable: no counter"
    )
    card = model_card(tiny.SCHEMA, reports={"reference": Report(metric="accuracy"), "lean": lean})
    assert "## What each modality costs and is worth" in card
    row = "| image | 3.1 ms | 2 M | not measured | 31 % of the time | 31 % | 0.2 ± 0.6 points | 0.0 ± 1.0 points |"
    assert row in card
    assert "- image costs 31 % of the time and earns 0.2 ± 0.6 points; without it 0.0 ± 1.0 points are lost" in card
    assert "joules unavailable: no counter" in card
    assert "What single modalities cost and are worth was not measured." in model_card(tiny.SCHEMA)
