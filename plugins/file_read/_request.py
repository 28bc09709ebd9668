"""Reading the request and handing it to the function of its command."""

import json
import sys

from _response import emit, error


def serve(commands):
    """Answers the one request on stdin. `commands` maps a command name to a function from request to response."""
    try:
        request = read()
    except ValueError as fault:
        emit(error("malformed request: %s" % fault))
        sys.exit(1)
    command = request.get("command")
    handler = commands.get(command) if isinstance(command, str) else None
    if handler is None:
        known = ", ".join(sorted(commands))
        emit(error("unknown command %s (known: %s)" % (json.dumps(command), known)))
    else:
        emit(handler(request))


def read():
    """The request on stdin. Raises ValueError when that is not one JSON object."""
    # UnicodeDecodeError and JSONDecodeError both are ValueErrors; too deep nesting is a RecursionError.
    try:
        request = json.loads(sys.stdin.buffer.read().decode("utf-8"))
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(request, dict):
        raise ValueError("not a JSON object")
    return request


def mapping(request, key):
    """An object of the request; absent, null or anything else counts as empty."""
    value = request.get(key)
    return value if isinstance(value, dict) else {}


def input_payload(request):
    """What the caller sent: the event's payload for `handle`, else the payload itself."""
    event = request.get("event")
    return mapping(event, "payload") if isinstance(event, dict) else mapping(request, "payload")
