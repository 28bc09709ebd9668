#!/usr/bin/env python3
"""echo: answers with a message and the time."""

import sys

sys.dont_write_bytecode = True  # A plugin directory stays as it was attested.

import time  # noqa: E402

from _request import input_payload, mapping, serve  # noqa: E402
from _response import error, log, ok  # noqa: E402

DEFAULT_MESSAGE = "echo plugin ran"


def answer(request):
    """The same for every command."""
    mode = mapping(request, "config").get("mode")
    if mode is None:
        return echo(request)
    # Asked first: a list can not even be looked up.
    if not isinstance(mode, str) or mode not in MODES:
        return error("config mode %r is unknown (known: %s)" % (mode, ", ".join(sorted(MODES))))
    return MODES[mode](request)


def echo(request):
    """The normal answer."""
    text = "%s at %s" % (message(request), time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))
    return ok(text, logs=[log("info", text)])


def message(request):
    """From the payload, else from the configuration, else a fixed one."""
    for source in (input_payload(request), mapping(request, "config")):
        value = source.get("message")
        if value is not None:
            return value if isinstance(value, str) else str(value)
    return DEFAULT_MESSAGE


def fail(request):
    """Mode `error`: a failure that is not worth a second try."""
    return error("echo is configured to fail: %s" % message(request))


def hang(_request):
    """Mode `hang`: never answers."""
    while True:
        time.sleep(3600)


def break_protocol(_request):
    """Mode `protocol_error`: prints something that is no answer."""
    print("this is not JSON", flush=True)
    sys.exit(0)


MODES = {"error": fail, "hang": hang, "protocol_error": break_protocol}

if __name__ == "__main__":
    serve({"poll": answer, "handle": answer, "health": answer})
