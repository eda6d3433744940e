"""How much of each modality is read, row by row.  A gate is its own file plus one line here."""

from triptych.model.gates.adaptive import AdaptiveGate
from triptych.model.gates.gate import Gate, Look

GATES: dict[str, type[Gate]] = {
    "adaptive": AdaptiveGate,
}

__all__ = [
    "GATES",
    "AdaptiveGate",
    "Gate",
    "Look",
]
