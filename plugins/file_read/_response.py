"""Building and printing the one JSON object that answers a request."""

import json
import sys


def log(level, message):
    """One entry of the response's logs."""
    return {"level": level, "message": message}


def ok(result, events=None, logs=None, state_updates=None, subs=None):
    """A success. `result` must not be blank; empty optional parts are left out."""
    response = {"status": "ok", "result": result, "logs": logs or []}
    if events:
        response["events"] = events
    if state_updates:
        response["state_updates"] = state_updates
    if subs:
        response["ductile_stopwatch_subs"] = subs
    return response


def error(message, retry=False, logs=None, subs=None):
    """A failure. Somebody who reads only the log must see it too, so an error-level entry is always there."""
    logs = list(logs or [])
    if not any(entry.get("level") == "error" for entry in logs):
        logs.append(log("error", message))
    response = {"status": "error", "error": message, "retry": retry, "logs": logs}
    if subs:
        response["ductile_stopwatch_subs"] = subs
    return response


def emit(response):
    """Prints a response as compact JSON on one line.

    Written as bytes: the locale of an almost empty environment must not decide the encoding. What is no Unicode text,
    such as a file name in another encoding, becomes a question mark instead of an answer that can not be decoded.
    """
    text = json.dumps(response, ensure_ascii=False, separators=(",", ":"))
    sys.stdout.buffer.write(text.encode("utf-8", "replace") + b"\n")
    sys.stdout.buffer.flush()
