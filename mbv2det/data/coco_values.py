"""Values of COCO's JSON that are written in another type, where their meaning is certain.

Ids may be text ("36", from spreadsheets and databases) or fractions (36.0, from pandas, where a
column with a gap is one of floats).
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from mbv2det.data.coco_records import Scalar

_WHOLE = re.compile(r"\s*([+-]?\d{1,40})(?:\.0*)?\s*", re.ASCII)
# True and 1.0 are found as 1, False and 0.0 as 0.
_FLAGS: dict[Scalar, bool] = {
    None: False, 0: False, 1: True, "": False, "0": False, "1": True, "false": False, "true": True,
}  # fmt: skip


class UncertainValueError(ValueError):
    """A value whose meaning is not certain; the message names the value and its type."""


def describe(value: Scalar) -> str:
    """Returns a value with its type, for messages."""
    names = {int: "number", float: "number", str: "text", bool: "flag"}
    return "null" if value is None else f"the {names[type(value)]} {value!r:.60}"


def whole_number(value: Scalar) -> int:
    """Returns a value as a whole number: 36, 36.0 or "36".

    Raises:
        UncertainValueError: If it is none.
    """
    if type(value) is int:
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    match = _WHOLE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise UncertainValueError(describe(value))
    return int(match[1])


def number(value: Scalar) -> float | None:
    """Returns a value as a finite number; None for null.

    Raises:
        UncertainValueError: If it is no number.
    """
    if value is None:
        return None
    try:
        result = math.nan if isinstance(value, bool) else float(value)
    except (ValueError, OverflowError):
        result = math.nan
    if not math.isfinite(result):
        raise UncertainValueError(describe(value))
    return result


def flag(value: Scalar) -> bool:
    """Returns a value as a flag: 0, 1, true, false or their text; null is false.

    Raises:
        UncertainValueError: If it is no flag; text is not true for being some text.
    """
    result = _FLAGS.get(value)
    if result is None and isinstance(value, str):
        text = value.strip().lower()
        result = _FLAGS.get(text)
        if result is None and _WHOLE.fullmatch(text):
            result = _FLAGS.get(whole_number(text))
    if result is None:
        raise UncertainValueError(describe(value))
    return result


def plain_ids(values: Sequence[Scalar]) -> list[int] | list[str]:
    """Returns ids as whole numbers, or as text where every one of them is text.

    Raises:
        UncertainValueError: If one is neither.
    """
    texts = [value for value in values if isinstance(value, str)]
    if texts and len(texts) == len(values):
        return texts
    return [whole_number(value) for value in values]


def find_id(value: Scalar, known: Mapping[Any, int]) -> int | None:
    """Returns the position of an id that is written in another type than the known ones.

    Args:
        value: The id.
        known: Positions of the known ids, which are all whole numbers or all text.
    """
    try:
        as_number = whole_number(value)
    except UncertainValueError:
        return None
    position = known.get(as_number)
    return known.get(str(as_number)) if position is None else position
