#!/usr/bin/env python3
"""file_read: reads the text file that an event names, below one configured directory."""

import sys

sys.dont_write_bytecode = True  # A plugin directory stays as it was attested.

import codecs  # noqa: E402
import os  # noqa: E402
import stat  # noqa: E402

from _request import input_payload, mapping, serve  # noqa: E402
from _response import error, log, ok  # noqa: E402

# What the gateway puts into one environment variable at most, so that a shell plugin can take the text from there.
DEFAULT_MAX_BYTES = 32768
LARGEST_MAX_BYTES = 1 << 20


class Refused(Exception):
    """Why there is no text, in words for people."""


def settings(request):
    """The directory and the largest number of bytes. Raises Refused."""
    config = mapping(request, "config")
    root = config.get("root")
    if not isinstance(root, str) or not root.strip():
        raise Refused("bad config: root is required and must be the path of a directory")
    limit = config.get("max_bytes")
    if limit is None:
        limit = DEFAULT_MAX_BYTES
    if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= LARGEST_MAX_BYTES:
        raise Refused("bad config: max_bytes %r must be a number from 1 to %d" % (limit, LARGEST_MAX_BYTES))
    return os.path.abspath(os.path.expanduser(root.strip())), limit


def handle(request):
    """Reads the file that the payload names."""
    try:
        root, limit = settings(request)
        path, parts = below(root, input_payload(request).get("path"))
        data, size = read(root, path, parts, limit)
    except Refused as reason:
        return error(str(reason))
    if b"\0" in data:
        return error("%s holds zero bytes, so it is no text" % path)
    truncated = size > limit
    # A character that the limit cuts in two is left out.
    text = codecs.getincrementaldecoder("utf-8")("replace").decode(data, final=not truncated)
    payload = {"path": path, "text": text, "size": size, "truncated": truncated}
    name = os.path.join(*parts)
    result = "the first %d of %d bytes of %s" % (limit, size, name) if truncated else "%d bytes of %s" % (size, name)
    logs = [log("warn" if truncated else "info", "read %s" % result)]
    return ok("read %s" % result, events=[{"type": "file.read", "payload": payload}], logs=logs)


def below(root, wanted):
    """The whole path, and its parts below the root. Raises Refused for what lies elsewhere."""
    if not isinstance(wanted, str) or not wanted or "\0" in wanted:
        raise Refused("payload.path must be the path of a file")
    path = os.path.abspath(os.path.join(root, wanted))
    relative = os.path.relpath(path, root)
    parts = relative.split(os.sep)
    if parts[0] in (os.pardir, os.curdir):
        raise Refused("%s is not below %s, the configured root" % (path, root))
    return path, parts


def read(root, path, parts, limit):
    """The beginning of a file, and its size. No part below the root may be a symbolic link: it could lead out of it."""
    directory = None
    try:
        directory = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
        for part in parts[:-1]:
            inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=directory)
            os.close(directory)
            directory = inner
        # Not blocking: opening a pipe must not hang.
        file = os.open(parts[-1], os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW, dir_fd=directory)
        with open(file, "rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise Refused("%s is not a regular file" % path)
            data = file.read(limit + 1)
            # A file that grows meanwhile is as large as what was read, at least.
            return data[:limit], max(found.st_size, len(data))
    except OSError as reason:
        raise Refused("%s can not be read without following links: %s" % (path, reason.strerror)) from None
    finally:
        if directory is not None:
            os.close(directory)


def health(request):
    """Whether the directory is there and open to this user."""
    try:
        root, _ = settings(request)
    except Refused as reason:
        return error(str(reason))
    if not os.path.isdir(root) or not os.access(root, os.R_OK | os.X_OK):
        return error("root %s is not a directory that can be read" % root)
    return ok("healthy", logs=[log("info", "healthy")])


if __name__ == "__main__":
    serve({"handle": handle, "health": health})
