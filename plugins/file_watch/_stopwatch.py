"""Telling the gateway how long the parts of a run took."""

import time

_LIMIT = 32


class Spans:
    """Collects spans in the order in which they end."""

    def __init__(self):
        self._spans = []

    def time(self, name, **extra):
        """A context manager that measures its block; an exception is noted as `status: err` and goes on its way."""
        return _Span(self, name, extra)

    def add(self, name, dur_ns, **extra):
        """A span that was measured elsewhere."""
        self._spans.append(dict(extra, name=name, dur_ns=int(dur_ns)))

    def to_response_key(self):
        """The value of `ductile_stopwatch_subs`, cut to what the gateway keeps."""
        return self._spans[:_LIMIT]


class _Span:
    def __init__(self, spans, name, extra):
        self._spans, self._name, self._extra = spans, name, extra
        self._started = 0
        self.dur_ns = 0

    def annotate(self, **extra):
        """Adds facts that are known only inside the block."""
        self._extra.update(extra)

    def __enter__(self):
        self._started = time.monotonic_ns()
        return self

    def __exit__(self, kind, value, traceback):
        self.dur_ns = time.monotonic_ns() - self._started
        if kind is not None:
            self._extra["status"] = "err"
        self._spans.add(self._name, self.dur_ns, **self._extra)
        return False
