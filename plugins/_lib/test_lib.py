"""The helpers themselves."""

import os
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.dont_write_bytecode = True

from _coerce import as_bool, as_float, as_int, parse_duration_seconds  # noqa: E402
from _response import error, log, ok  # noqa: E402
from _stopwatch import Spans  # noqa: E402


class Response(unittest.TestCase):
    def test_empty_optional_parts_are_left_out_but_logs_stay(self):
        self.assertEqual(ok("done", events=[], state_updates={}, subs=[]), {"status": "ok", "result": "done", "logs": []})

    def test_an_error_always_has_an_error_level_log(self):
        self.assertEqual(error("bad")["logs"], [log("error", "bad")])
        self.assertEqual(error("bad", logs=[log("info", "x")])["logs"], [log("info", "x"), log("error", "bad")])
        self.assertEqual(error("bad", logs=[log("error", "x")])["logs"], [log("error", "x")])
        self.assertIs(error("bad")["retry"], False)
        self.assertIs(error("bad", retry=True)["retry"], True)


class Coerce(unittest.TestCase):
    def test_booleans(self):
        for value in (True, 1, 2.5, "1", "true", " YES ", "on"):
            self.assertIs(as_bool(value, None), True, value)
        for value in (False, 0, 0.0, "0", "False", "no", "off"):
            self.assertIs(as_bool(value, None), False, value)
        for value in ("maybe", "", None, [], {}):
            self.assertIsNone(as_bool(value, None), value)

    def test_numbers_with_a_minimum(self):
        self.assertEqual([as_int(v, 7, minimum=1) for v in ("3", 0, "x", None, True, [])], [3, 1, 7, 7, 7, 7])
        self.assertEqual([as_float(v, 7.0, minimum=1) for v in ("2.5", 0, "x", None, True, "nan", "inf")],
                         [2.5, 1, 7.0, 7.0, 7.0, 7.0, 7.0])

    def test_durations(self):
        for value, seconds in ((3, 3), (0.5, 0.5), ("250ms", 0.25), ("10s", 10), ("5m", 300), ("1h", 3600), (" 2 ", 2)):
            self.assertEqual(parse_duration_seconds(value, None), seconds, value)
        for value in ("", "s", "fast", -1, "-1s", None, True, [], "1d"):
            self.assertIsNone(parse_duration_seconds(value, None), value)


class Stopwatch(unittest.TestCase):
    def test_a_block_is_measured_and_annotated(self):
        spans = Spans()
        with spans.time("work", kind="a") as span:
            span.annotate(count=3)
        (entry,) = spans.to_response_key()
        self.assertGreaterEqual(entry.pop("dur_ns"), 0)
        self.assertEqual(entry, {"name": "work", "kind": "a", "count": 3})

    def test_an_exception_is_noted_and_goes_on(self):
        spans = Spans()
        with self.assertRaises(KeyError):
            with spans.time("work"):
                raise KeyError("x")
        self.assertEqual(spans.to_response_key()[0]["status"], "err")

    def test_the_list_is_cut_to_what_is_kept(self):
        spans = Spans()
        for index in range(40):
            spans.add("s%d" % index, index)
        self.assertEqual(len(spans.to_response_key()), 32)


if __name__ == "__main__":
    unittest.main()
