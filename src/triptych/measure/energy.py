"""Energy of a prediction from the processor's own counters (RAPL), with its provenance."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

POWERCAP = Path("/sys/class/powercap")
_SECONDS = 1.0
_MOST_PREDICTIONS = 100_000


@dataclass(frozen=True, slots=True)
class Rapl:
    """Energy counters of the processor packages and their memory, by zone folder."""

    zones: Mapping[Path, str]

    @property
    def source(self) -> str:
        """What the joules cover."""
        return f"measured: RAPL {' + '.join(sorted(self.zones.values()))}, the whole machine's use while predicting"

    def read(self) -> dict[Path, int]:
        """Counter values in microjoules.  Raises OSError or ValueError if one has gone."""
        return {zone: int((zone / "energy_uj").read_text()) for zone in self.zones}

    def joules(self, before: Mapping[Path, int], after: Mapping[Path, int]) -> float:
        """Energy between two readings, across at most one wrap of each counter."""
        return sum(_used(zone, before[zone], after[zone]) for zone in self.zones) / 1e6


def find_rapl(root: Path = POWERCAP) -> Rapl | str:
    """The readable counters, or the reason why there are none.

    Only `intel-rapl:*` is looked at (AMD uses the name too): its `package` zones and, beside them, `dram`.
    The `core` and `uncore` zones are inside a package, `psys` and `intel-rapl-mmio` count a package again.
    """
    folders = sorted(root.glob("intel-rapl:*"))
    if not folders:
        return f"unavailable: no RAPL counters under {root}"
    zones: dict[Path, str] = {}
    for folder in folders:
        try:
            name = (folder / "name").read_text().strip()
            if name.startswith("package") or name == "dram":
                int((folder / "energy_uj").read_text())
                zones[folder] = name
        except PermissionError:
            return f"unavailable: {folder / 'energy_uj'} may only be read by the administrator"
        except (OSError, ValueError):
            continue  # a zone without a working counter
    if not any(name.startswith("package") for name in zones.values()):
        return f"unavailable: no RAPL package counter under {root} can be read"
    return Rapl(zones)


def energy_of(meter: Rapl | str, predict: Callable[[int], object], prediction_s: float) -> tuple[float | None, str]:
    """Joules per prediction and their source.

    predict: runs that many predictions; prediction_s: seconds that one takes.  Runs about a second's worth, because
    the counters tick in milliseconds.
    """
    if isinstance(meter, str):
        return None, meter
    number = min(_MOST_PREDICTIONS, max(1, math.ceil(_SECONDS / max(prediction_s, 1e-9))))
    try:
        before = meter.read()
        predict(number)
        return meter.joules(before, meter.read()) / number, meter.source
    except (OSError, ValueError) as error:
        return None, f"unavailable: a RAPL counter failed while measuring ({error})"


def _used(zone: Path, before: int, after: int) -> int:
    if after >= before:
        return after - before
    return after - before + int((zone / "max_energy_range_uj").read_text())
