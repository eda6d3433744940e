"""Quality without a budget: what is published stays until a set is run again."""

import json
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "bench"))

import quality  # noqa: E402


def test_sets_that_were_not_run_again_stay_as_published(tmp_path: Path) -> None:
    published = tmp_path / "quality.json"
    published.write_text(json.dumps({"sets": {"mosi": {"mean": 0.5}, "icu": {"mean": 0.1}}}))
    for seed, found in enumerate((0.8, 0.9)):
        (tmp_path / f"icu-{seed}.json").write_text(json.dumps({"test": {"quality": found}, "seconds": 5.0 + seed}))
    sets = quality.gather(tmp_path, published)["sets"]
    assert list(sets) == ["icu", "mosi"]
    assert sets["mosi"] == {"mean": 0.5}
    assert sets["icu"]["mean"] == (0.8 + 0.9) / 2
    assert (sets["icu"]["met"], sets["icu"]["seconds"]) == (False, 6.0)
    assert quality.gather(tmp_path, tmp_path / "none.json")["sets"].keys() == {"icu"}
