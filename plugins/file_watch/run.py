#!/usr/bin/env python3
"""file_watch: tells when single files are created, modified or deleted."""

import sys

sys.dont_write_bytecode = True  # A plugin directory stays as it was attested.

import os  # noqa: E402
import stat  # noqa: E402
import time  # noqa: E402

from _coerce import as_bool, parse_duration_seconds  # noqa: E402
from _request import mapping, serve  # noqa: E402
from _response import error, log, ok  # noqa: E402
from _stopwatch import Spans  # noqa: E402

STRATEGIES = ("sha256", "mtime_size")
SLOW_NS = 50_000_000
BLOCK = 1 << 20


class Watch:
    """One checked entry of the configuration."""

    def __init__(self, entry):
        self.id = entry["id"].strip()
        self.path = os.path.abspath(os.path.expanduser(entry["path"].strip()))
        self.event_type = entry["event_type"].strip()
        self.strategy = entry.get("strategy") or "sha256"
        self.emit_initial = as_bool(entry.get("emit_initial"), False)
        self.emit_deleted = as_bool(entry.get("emit_deleted"), True)
        self.min_stable_age = parse_duration_seconds(entry.get("min_stable_age"), 0.0)


class CanNotTell(Exception):
    """The file is there, but what it holds can not be said now; the last known state stays."""


def read_watches(config):
    """The watches, and every fault of the configuration in words."""
    entries = config.get("watches")
    if not isinstance(entries, list) or not entries:
        return [], ["config watches must be a list with at least one entry"]
    faults, watches, ids = [], [], set()
    for index, entry in enumerate(entries):
        found = entry_faults("watches[%d]" % index, entry)
        faults.extend(found)
        if found:
            continue
        watch = Watch(entry)
        if watch.id in ids:
            faults.append("watches[%d].id %r is used twice" % (index, watch.id))
        ids.add(watch.id)
        watches.append(watch)
    return watches, faults


def entry_faults(where, entry):
    """What is wrong with one entry."""
    if not isinstance(entry, dict):
        return ["%s must be a mapping" % where]
    faults = []
    for key in ("id", "path", "event_type"):
        value = entry.get(key)
        if not isinstance(value, str) or not value.strip():
            faults.append("%s.%s is required and must be text" % (where, key))
    if entry.get("strategy") not in (None,) + STRATEGIES:
        faults.append("%s.strategy %r is unknown (known: %s)" % (where, entry["strategy"], ", ".join(STRATEGIES)))
    for key in ("emit_initial", "emit_deleted"):
        if entry.get(key) is not None and as_bool(entry[key], None) is None:
            faults.append("%s.%s %r is neither true nor false" % (where, key, entry[key]))
    age = entry.get("min_stable_age")
    if age is not None and parse_duration_seconds(age, None) is None:
        faults.append("%s.min_stable_age %r is no duration, such as 2 or 500ms" % (where, age))
    return faults


def bad_config(faults):
    """The answer to a configuration that can not be used, with one log per fault."""
    return error("bad config: %s" % "; ".join(faults), logs=[log("error", fault) for fault in faults])


def poll(request):
    """Compares every file with what the last poll saw."""
    watches, faults = read_watches(mapping(request, "config"))
    if faults:
        return bad_config(faults)
    known = mapping(mapping(request, "state"), "watches")
    now = utc_now()
    spans, logs, events, entries = Spans(), [], [], {}
    with spans.time("file_watch.fingerprint_total", watches=len(watches)):
        for watch in watches:
            previous = previous_entry(known, watch)
            try:
                current = observe(watch, previous, now, spans)
            except CanNotTell as reason:
                logs.append(log("warn", "watch %s: %s; keeping what was known" % (watch.id, reason)))
                # As it was stored, whatever it is: this poll has learned nothing about it.
                if watch.id in known:
                    entries[watch.id] = known[watch.id]
                continue
            entries[watch.id] = current
            event = change(watch, previous, current, now)
            if event:
                events.append(event)
                logs.append(log("info", "watch %s: %s %s" % (watch.id, watch.path, event["payload"]["change_type"])))
    result = "%d file(s) checked, %d event(s)" % (len(watches), len(events))
    state = {"watches": entries, "last_poll_at": now}
    return ok(result, events=events, logs=logs, state_updates=state, subs=spans.to_response_key())


def previous_entry(known, watch):
    """What was stored about this very file; an entry about another path says nothing about this one."""
    entry = known.get(watch.id)
    if isinstance(entry, dict) and entry.get("path", watch.path) == watch.path:
        return entry
    return None


def observe(watch, previous, now, spans):
    """The state entry of a file as it is now. Raises CanNotTell."""
    try:
        found = os.stat(watch.path)
    except (FileNotFoundError, NotADirectoryError):
        return absent(watch, previous, now)
    except (OSError, ValueError) as reason:
        raise CanNotTell("can not be read: %s" % reason) from None
    if not stat.S_ISREG(found.st_mode):
        raise CanNotTell("%s is not a regular file" % watch.path)
    if 0 <= time.time() - found.st_mtime < watch.min_stable_age:
        raise CanNotTell("%s changed less than %gs ago" % (watch.path, watch.min_stable_age))
    started = time.monotonic_ns()
    try:
        found, fingerprint = fingerprint_of(watch, found)
    except (FileNotFoundError, NotADirectoryError):
        return absent(watch, previous, now)
    except OSError as reason:
        raise CanNotTell("can not be read: %s" % reason) from None
    took = time.monotonic_ns() - started
    if took > SLOW_NS:
        spans.add("file_watch.fingerprint_slow.%s" % watch.id, took, size=found.st_size)
    entry = {
        "exists": True,
        "fingerprint": fingerprint,
        "size": found.st_size,
        "mtime_ns": found.st_mtime_ns,
        "path": watch.path,
        "strategy": watch.strategy,
    }
    return dated(entry, previous, now)


def absent(watch, previous, now):
    """The state entry of a file that is not there."""
    return dated({"exists": False, "path": watch.path}, previous, now)


def dated(entry, previous, now):
    """`updated_at` is when the entry last became another one."""
    before = dict(previous or {})
    since = before.pop("updated_at", None)
    entry["updated_at"] = since if since and before == entry else now
    return entry


def fingerprint_of(watch, found):
    """The stat record and the fingerprint that belong together."""
    if watch.strategy == "mtime_size":
        return found, "%d:%d" % (found.st_mtime_ns, found.st_size)
    import hashlib  # Here, because only this strategy pays for it.

    digest = hashlib.sha256()
    # Not blocking: should a pipe have taken the file's place meanwhile, opening it must not hang.
    with open(os.open(watch.path, os.O_RDONLY | os.O_NONBLOCK), "rb", buffering=0) as file:
        before = os.fstat(file.fileno())
        if not stat.S_ISREG(before.st_mode):
            raise CanNotTell("%s is not a regular file" % watch.path)
        while True:
            block = file.read(BLOCK)
            if not block:
                break
            digest.update(block)
        after = os.fstat(file.fileno())
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise CanNotTell("%s changes while it is read" % watch.path)
    return after, digest.hexdigest()


def change(watch, previous, current, now):
    """The event for what happened between two entries, if anything did."""
    existed = bool(previous and previous.get("exists"))
    payload = {"watch_id": watch.id, "path": watch.path}
    if not current["exists"]:
        if not existed or not watch.emit_deleted:
            return None
        fingerprint = previous.get("fingerprint")
        payload.update(change_type="deleted", changed_at=now, previous_fingerprint=fingerprint)
        return event(watch, payload, "deleted:%s" % fingerprint)
    if previous is None and not watch.emit_initial:
        return None
    if existed and not differs(previous, current):
        return None
    payload.update(change_type="modified" if existed else "created", changed_at=now)
    for key in ("fingerprint", "size", "mtime_ns"):
        payload[key] = current[key]
    return event(watch, payload, current["fingerprint"])


def differs(previous, current):
    """Whether the file changed. Fingerprints of two strategies can not be compared, size and time can."""
    keys = ("fingerprint",) if previous.get("strategy") == current["strategy"] else ("size", "mtime_ns")
    return any(previous.get(key) != current[key] for key in keys)


def event(watch, payload, key):
    """An event of the configured type; the key makes a repeated report of one change recognisable."""
    return {"type": watch.event_type, "payload": payload, "dedupe_key": "file_watch:%s:%s" % (watch.id, key)}


def health(request):
    """Whether every file could be looked at. A file that is not there is fine: it may be created."""
    watches, faults = read_watches(mapping(request, "config"))
    if faults:
        return bad_config(faults)
    problems = [problem for problem in map(health_problem, watches) if problem]
    if problems:
        return error("; ".join(problems), logs=[log("error", problem) for problem in problems])
    return ok("healthy: %d watch(es)" % len(watches), logs=[log("info", "healthy")])


def health_problem(watch):
    """What keeps a watch from working."""
    parent = os.path.dirname(watch.path)
    if not os.path.isdir(parent):
        return "watch %s: parent directory %s does not exist" % (watch.id, parent)
    if os.path.isdir(watch.path):
        return "watch %s: %s is a directory" % (watch.id, watch.path)
    if os.path.exists(watch.path) and not os.access(watch.path, os.R_OK):
        return "watch %s: %s is not readable" % (watch.id, watch.path)
    return None


def utc_now():
    """The time as text."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


if __name__ == "__main__":
    serve({"poll": poll, "health": health})
