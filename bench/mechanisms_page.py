"""docs/mechanisms.md from bench/mechanisms.toml and docs/results/*.json: what each mechanism stands for and does.

    python bench/mechanisms_page.py

A family is one line in `FAMILIES`; a mechanism is one [[row]] of the table.  A family with a measurement of its own
names the function that reads it; other rows may name two figures of a result file (`effect`).
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import adaptive_page
import fusion_page
import missing_page
import parts_page
import s3_page
from words import table

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "bench" / "mechanisms.toml"
NOT_MEASURED = "not measured yet"
KEYS = {"member", "mechanism", "file", "test", "systems"}
MORE_KEYS = {"effect", "unmeasured"}

ABOUT = """Written by `python bench/mechanisms_page.py` from [mechanisms.toml](../bench/mechanisms.toml) and the files
in [results/](results/). Do not edit. Every row is an implementation from the formula of its paper, which its file
names, with the test of a promise. *Stands for* names the systems whose contribution it is, not that a system as a
whole is reproduced."""

Row = Mapping[str, Any]
Results = Mapping[str, Any]  # by the name of the file, without its ending


def mixer_effect(name: str, results: Results) -> str | None:
    """From how many tokens on an exported mixer is faster than full attention."""
    found = results.get("mixers", {}).get("mixers", {})
    if name not in found:
        return None
    growth = found[name]["onnxruntime_growth"]
    seconds = "" if growth["seconds"] is None else f"; seconds grow as tokens^{growth['seconds']:.2f}"
    if name == "attention":
        return f"the control{seconds}"
    start = growth["overtakes"]
    return (
        "never faster than attention" if start is None else f"faster than attention from {start:,} tokens"
    ) + seconds


def fusion_effect(name: str, results: Results) -> str | None:
    """On how many sets a fusion keeps up with the best one, and its seconds against late fusion's."""
    record = results.get("fusion")
    sets = [one for one in record["sets"].values() if name in one["fusions"]] if record else []
    if not sets:
        return None
    kept = sum(fusion_page.keeps_up(one, name) for one in sets)
    told = f"keeps up on {kept} of {len(sets)} sets"
    against = [one for one in sets if "late" in one["fusions"]]
    if name == "late" or not against:
        return told
    better = sum(gap_to_late(one, name) > 0 for one in against)
    times = fusion_page.statistics.geometric_mean(
        [one["fusions"][name]["p50_s"] / one["fusions"]["late"]["p50_s"] for one in against]
    )
    return f"{told}; mean above late fusion's on {better} of {len(against)}, at {times:.2f} times its seconds"


def stage_effect(name: str, results: Results) -> str | None:
    """What a stage of S3 adds to the probe on test, over the one before it: mean of all sets and mixtures."""
    record = results.get("s3")
    return s3_page.added(record, name) if record and record["sets"] else None


def way_effect(name: str, results: Results) -> str | None:
    """What is lost as routes are left out this way."""
    record = results.get("s3")
    return s3_page.left_out(record, name) if record and record["sets"] else None


def adapter_effect(name: str, results: Results) -> str | None:
    """An adapter's quality and trained share against training everything, and against the head alone."""
    sets = results.get("adapters", {"sets": {}})["sets"].items()
    return ". ".join(text for title, one in sets if (text := adapter_told(name, title, one["rows"]))) or None


def adapter_told(name: str, title: str, rows: Mapping[str, Mapping[str, Any]]) -> str | None:
    found = {row: one for row, one in rows.items() if "error" not in one}
    if name not in found:
        return None
    own = found[name]
    told = f"{title}: {mean(own):.3f} with {own['share']:.1%} of the numbers trained"
    against = {"full": "all of them", "frozen": "the head alone"}
    others = [f"{mean(found[row]):.3f} with {words}" for row, words in against.items() if row in found]
    return f"{told}; against {', '.join(others)}" if others else told


def mean(row: Mapping[str, Any]) -> float:
    return sum(row["quality"]) / len(row["quality"])


def backbone_effect(name: str, results: Results) -> str | None:
    """Test quality on a pretrained backbone, way by way, against the same network from fresh weights."""
    told = []
    for title, one in results.get("backbones", {}).get("sets", {}).items():
        values = {way: sum(run["test"] for run in runs.values()) / len(runs) for way, runs in one["ways"].items()}
        control = values.pop("fresh", None)
        if name in one["families"].values() and values and control is not None:
            ways = ", ".join(f"{way} {value:.3f}" for way, value in values.items())
            told.append(f"{title}: {ways}; against {control:.3f} from fresh weights")
    return ". ".join(told) or None


def gap_to_late(one: Mapping[str, Any], name: str) -> float:
    own, late = (fusion_page.goodness(one["fusions"][n], one["metric"]) for n in (name, "late"))
    return fusion_page.distance(own, late)[0]


def fill_effect(name: str, results: Results) -> str | None:
    """How often a fill does better and worse than zeros where modalities are missing."""
    sets = {n: one for n, one in results.get("missing", {"sets": {}})["sets"].items() if name in one["fills"]}
    if not sets:
        return None
    if name == missing_page.CONTROL:
        return "the control"
    found = missing_page.tally(sets, name, missing_page.some_missing)
    return f"with some missing better than zeros {found[1]} times, worse {found[-1]}, not told apart {found[0]}"


def balance_effect(name: str, results: Results) -> str | None:
    """What a balance does to quality, set by set."""
    told = []
    for of, one in results.get("missing", {"sets": {}})["sets"].items():
        if name in one["balance"] and missing_page.NONE in one["balance"]:
            runs, control = one["balance"][name], one["balance"][missing_page.NONE]
            gap = missing_page.paired(runs, control, lambda run, one=one: missing_page.with_all(run, one))
            told.append(f"{of} {missing_page.change(*gap)}")
    return f"{', '.join(told)} against none" if told else None


def gate_effect(name: str, results: Results) -> str | None:
    """On how many sets the learnt gate meets what is asked of it, and what is left of compute and latency."""
    record = results.get("adaptive")
    if name != "adaptive" or not record or not record["sets"]:
        return None
    sets = record["sets"].values()
    found = [adaptive_page.changes(one) for one in sets]
    compute, latency = (
        100 * adaptive_page.statistics.mean(v for one in found for v in one[key]) for key in ("compute", "latency")
    )
    met = sum(map(adaptive_page.meets, sets))
    return (
        f"half the compute and a third off the latency within 0.5 points on {met} of {len(found)} sets; mean compute"
        f" {compute:.0f} %, latency {latency:.0f} % of the network without it"
    )


def router_effect(name: str, results: Results) -> str | None:
    """What a layer of experts with this router costs against the dense block of one expert's size."""
    layers = results.get("experts", {"sections": {}})["sections"].get("by router", [])
    found = next((layer for layer in layers if layer["router"] == name), None)
    if found is None:
        return None
    exported, eager = (found[engine]["ratio"] for engine in ("onnxruntime", "pytorch"))
    return (
        f"{found['experts']} experts, top-{found['active']}: {exported:.2f} times the seconds of a dense block of one"
        f" expert's size in the exported graph, {eager:.2f} in PyTorch"
    )


def part_effect(family: str) -> Callable[[str, Results], str | None]:
    """Quality and latency of networks in which one part was swapped, against their control."""
    return lambda name, results: parts_page.effect(results.get("parts", {"trials": {}}), family, name)


def channel_effect(name: str, results: Results) -> str | None:
    """A swapped part; of the mixture of experts also its cost with the usual router."""
    cost = router_effect("top_k", results) if name == "experts" else None
    return "; ".join(filter(None, [part_effect("CHANNELS")(name, results), cost])) or None


def codes_effect(name: str, results: Results) -> str | None:
    """What codes lose of vectors that they never saw, against a plain codebook of equally many words."""
    record = results.get("codes", {"codes": {}})
    found = record["codes"]
    if name not in found:
        return None
    told = {
        kind: f"{one['lost']:.1%} of the variance of {record['set']} sound lost with {record['words']} words, at"
        f" {one['bits']} bits a frame"
        for kind, one in found.items()
    }
    control = found["codebook"]
    if name == "codebook":
        return f"the control: {told[name]}"
    return f"{told[name]}; against {control['lost']:.1%} at {control['bits']} bits"


@dataclass(frozen=True)
class Family:
    """A registry: its title, the module that holds it, and what reads its measurement, where it has one."""

    title: str
    module: str
    effect: Callable[[str, Results], str | None] | None = None


FAMILIES: Mapping[str, Family] = {
    "STEMS": Family("Stems: raw values to tokens", "triptych.model.stems", part_effect("STEMS")),
    "MIXERS": Family("Mixers: how tokens talk to each other", "triptych.model.mixers", mixer_effect),
    "CHANNELS": Family("Channel blocks: what each token does", "triptych.model.channels", channel_effect),
    "ROUTERS": Family("Routers: which experts work on which tokens", "triptych.model.experts.routers", router_effect),
    "GATES": Family("Gates: how much of each modality a row reads", "triptych.model.gates", gate_effect),
    "FUSIONS": Family("Fusions: from tokens per modality to one vector", "triptych.model.fusion", fusion_effect),
    "CONNECTORS": Family(
        "Connectors: from an encoder's tokens to the fusion's", "triptych.model.connectors", part_effect("CONNECTORS")
    ),
    "FILLS": Family("Fills: what stands for a missing modality", "triptych.model.missing", fill_effect),
    "BALANCES": Family("Balances: no modality silences the others", "triptych.train.balance", balance_effect),
    "WAYS": Family("Routes of experts that are left out", "triptych.model.experts.sparsify", way_effect),
    "STAGES": Family("S3: from specialised experts to few routes", "triptych.train.s3", stage_effect),
    "CODES": Family("Codes: vectors as words of a codebook", "triptych.model.codes", codes_effect),
    "CONTRASTS": Family("Contrastive alignment: the loss of pairs", "triptych.train.contrastive"),
    "ADAPTERS": Family("Adapters: trained beside a network that rests", "triptych.model.adapters", adapter_effect),
    "BACKBONES": Family("Backbones: encoders that were trained elsewhere", "triptych.model.backbones", backbone_effect),
}


def rows() -> list[Row]:
    """The table.  Raises ValueError where a row is incomplete or names no family."""
    found: list[Row] = tomllib.loads(TABLE.read_text())["row"]
    for row in found:
        if not KEYS <= row.keys() <= KEYS | MORE_KEYS or row["member"].partition(".")[0] not in FAMILIES:
            held = f"{sorted(KEYS)}, maybe one of {sorted(MORE_KEYS)}, and a member of {sorted(FAMILIES)}"
            raise ValueError(f"{TABLE.name}: a row holds {held}: {row}")
    return found


def load(folder: Path) -> dict[str, Any]:
    """Every result by the name of its file."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}


def page(table_rows: Sequence[Row], results: Results) -> str:
    """The whole page as Markdown."""
    parts = ["# Mechanisms of the model panel", ABOUT]
    for registry, family in FAMILIES.items():
        own = [row for row in table_rows if row["member"].startswith(f"{registry}.")]
        lines = [line(row, family, results) for row in own]
        head = ("mechanism", "name", "stands for", "measured against its control", "test")
        parts += [f"## {family.title}", table(head, lines)]
    return "\n\n".join(parts) + "\n"


def line(row: Row, family: Family, results: Results) -> tuple[str, ...]:
    name = row["member"].partition(".")[2]
    test, _, promise = row["test"].partition("::")
    told = promise.removeprefix("test_").replace("_", " ")
    measured = effect(row, family, results)
    return (row["mechanism"], f"[`{name}`](../{row['file']})", row["systems"], measured, f"[{told}](../{test})")


def effect(row: Row, family: Family, results: Results) -> str:
    """What was measured, in words; that nothing was and, where known, why, where nothing was."""
    name = row["member"].partition(".")[2]
    if "effect" in row:
        told = compared(row["effect"], results)
    else:
        told = family.effect(name, results) if family.effect else None
    return told or row.get("unmeasured", NOT_MEASURED)


def compared(asked: Mapping[str, str], results: Results) -> str | None:
    """Two figures of a result file, the second that of the control."""
    record = results.get(asked["file"].removesuffix(".json"))
    if record is None:
        return None
    value, control = (reduce(lambda part, key: part[key], asked[k].split("."), record) for k in ("value", "control"))
    return f"{asked['what']}: {value:.3g} {asked['unit']} against {control:.3g}"


def write_page(docs: Path) -> None:
    """Write the page."""
    (docs / "mechanisms.md").write_text(page(rows(), load(docs / "results")))


if __name__ == "__main__":
    write_page(ROOT / "docs")
    print(json.dumps({"page": "docs/mechanisms.md", "rows": len(rows())}))
