"""A folder's tokenizer as a schema wants it: cropping inside, padding outside, id 0 for padding alone."""

from __future__ import annotations

import json
from typing import Any

from triptych.data.decode import tokenizer_of
from triptych.errors import ModelError

_BLANK = "\x00"  # what id 0 stands for after a shift; no text holds it


def fitted(document: str, *, max_tokens: int, frame: tuple[str, str], shift: int = 0, fill: bool = False) -> str:
    """Change a tokenizer.json.

    max_tokens: longer texts are cropped before the last special token is set
    frame:      first and last token of a text; an empty first one means none
    shift:      1 to raise every id by one
    fill:       whether shorter texts are filled up with the last token
    Raises ModelError unless the result frames a text so.
    """
    try:
        record = json.loads(document)
        if shift:
            _raise_ids(record)
        crop = {"direction": "Right", "max_length": max_tokens, "strategy": "LongestFirst", "stride": 0}
        record.update(truncation=crop, padding=None)
        text = json.dumps(record, separators=(",", ":"), ensure_ascii=False)
        last = tokenizer_of(text).token_to_id(frame[1])
        if fill and last is not None:
            record["padding"] = {
                "strategy": {"Fixed": max_tokens},
                "direction": "Right",
                "pad_to_multiple_of": None,
                "pad_id": last,
                "pad_type_id": 0,
                "pad_token": frame[1],
            }
            text = json.dumps(record, separators=(",", ":"), ensure_ascii=False)
        found = tokenizer_of(text).encode("a").tokens
    except Exception as error:
        raise ModelError(f"the folder's tokenizer.json cannot be read: {error}; fetch it again") from error
    if len(found) < 2 or found[-1] != frame[1] or (frame[0] and found[0] != frame[0]):
        raise ModelError(f"the tokenizer must put a text between {frame}, got {found[:8]} for 'a'")
    return text


def _raise_ids(record: dict[str, Any]) -> None:
    """Add one to every id of a tokenizer's record, in place."""
    model = record["model"]
    if isinstance(model["vocab"], list):  # pieces with scores, by id; the new one is as rare as the rarest
        model["vocab"].insert(0, [_BLANK, min(score for _, score in model["vocab"])])
        if model.get("unk_id") is not None:
            model["unk_id"] += 1
    else:
        model["vocab"] = {_BLANK: 0, **{token: number + 1 for token, number in model["vocab"].items()}}
    for token in record.get("added_tokens") or []:
        token["id"] += 1
    _raise_in_post_processor(record.get("post_processor") or {})


def _raise_in_post_processor(step: dict[str, Any]) -> None:
    for inner in step.get("processors", []):
        _raise_in_post_processor(inner)
    for name in ("sep", "cls"):
        if name in step:
            step[name][1] += 1
    for special in (step.get("special_tokens") or {}).values():
        special["ids"] = [number + 1 for number in special["ids"]]
