"""Numbers as the results page writes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def ms(seconds: float) -> str:
    value = 1e3 * seconds
    return f"{value:.2f}" if value >= 1 else f"{value:.3f}"


def mb(count: float) -> str:
    value = count / 1e6
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def share(value: float) -> str:
    return f"{100 * value:.1f} %"


def signed(value: float) -> str:
    text = f"{value:+.3f}"
    return "0.000" if float(text) == 0 else text.replace("-", "−")


def span(interval: Sequence[float], show: Callable[[float], str]) -> str:
    return f"[{show(interval[0])}, {show(interval[1])}]"


def plus_minus(mean: float, half: float | None, sign: str = "") -> str:
    """A mean and half of its interval, where there is one.  sign: '+' to show it of positive means too"""
    text = f"{mean:{sign}.3f}".replace("-", "−")
    return text if half is None else f"{text} ± {half:.3f}"
