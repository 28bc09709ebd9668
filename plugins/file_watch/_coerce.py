"""Forgiving readers of configuration values. Each gives its default when it can make nothing of the value."""

_TRUE = ("1", "true", "yes", "on")
_FALSE = ("0", "false", "no", "off")
_UNITS = (("ms", 0.001), ("s", 1.0), ("m", 60.0), ("h", 3600.0))


def as_bool(value, default=False):
    """`1/true/yes/on`, `0/false/no/off` in any case, booleans and numbers."""
    if isinstance(value, (bool, int, float)):
        return bool(value)
    if isinstance(value, str):
        word = value.strip().lower()
        if word in _TRUE:
            return True
        if word in _FALSE:
            return False
    return default


def as_int(value, default=0, minimum=None):
    """A whole number; a smaller one than `minimum` becomes `minimum`."""
    if isinstance(value, bool):
        return default
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        return default
    return number if minimum is None or number >= minimum else minimum


def as_float(value, default=0.0, minimum=None):
    """A finite number; a smaller one than `minimum` becomes `minimum`."""
    if isinstance(value, bool):
        return default
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return default
    if number != number or number in (float("inf"), float("-inf")):
        return default
    return number if minimum is None or number >= minimum else minimum


def parse_duration_seconds(value, default=0.0):
    """A number of seconds, or text such as `250ms`, `10s`, `5m`, `1h`. Never negative."""
    if isinstance(value, str):
        text = value.strip().lower()
        factor = 1.0
        for suffix, seconds in _UNITS:
            if text.endswith(suffix):
                text, factor = text[: -len(suffix)], seconds
                break
        number = as_float(text, None)
    else:
        number, factor = as_float(value, None), 1.0
    if number is None or number < 0:
        return default
    return number * factor
