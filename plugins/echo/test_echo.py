"""Runs echo as the gateway does."""

import os
import re
import signal
import subprocess
import sys
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "_lib"))
sys.dont_write_bytecode = True

from _harness import check_common_behaviour, request, run  # noqa: E402

ECHO = os.path.join(HERE, "run.py")
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"


class Echo(unittest.TestCase):
    def assert_says(self, done, message):
        self.assertEqual(done.code, 0, done.stderr)
        response = done.response
        self.assertEqual(response["status"], "ok")
        self.assertRegex(response["result"], "^" + re.escape(message) + " at " + TIME + "$")
        self.assertEqual(done.logged("info"), [response["result"]])
        self.assertEqual(sorted(response), ["logs", "result", "status"])

    def test_every_command_has_a_default_message(self):
        for command in ("poll", "handle", "health"):
            self.assert_says(run(ECHO, command), "echo plugin ran")

    def test_the_payload_comes_before_the_configuration(self):
        config = {"message": "from config"}
        self.assert_says(run(ECHO, "poll", config=config), "from config")
        self.assert_says(run(ECHO, "poll", config=config, payload={"message": "from payload"}), "from payload")
        self.assert_says(run(ECHO, "poll", config=config, payload={"message": None}), "from config")

    def test_handle_reads_the_payload_of_the_event(self):
        event = {"type": "note.created", "payload": {"message": "from event"}, "timestamp": "2026-01-02T03:04:05Z"}
        self.assert_says(run(ECHO, "handle", event=event, payload=event), "from event")

    def test_any_text_survives(self):
        for message in ('quotes " and \\ and \'', "two\nlines\tand tab", "grüße 🌍", "", "\u2028", "'; rm -rf /"):
            done = run(ECHO, "poll", payload={"message": message})
            self.assertEqual(done.response["result"].rsplit(" at ", 1)[0], message)

    def test_mode_error_is_not_worth_a_second_try(self):
        done = run(ECHO, "poll", config={"mode": "error"})
        self.assertEqual(done.code, 0)
        self.assertEqual(done.response["status"], "error")
        self.assertIs(done.response["retry"], False)
        self.assertEqual(done.logged("error"), [done.response["error"]])

    def test_mode_protocol_error_prints_no_json(self):
        done = run(ECHO, "poll", config={"mode": "protocol_error"})
        with self.assertRaises(ValueError):
            done.response  # noqa: B018  (reading it is the test)
        self.assertNotEqual(done.stdout.strip(), b"")

    def test_mode_hang_says_nothing_until_it_is_killed(self):
        process = subprocess.Popen([ECHO], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            with self.assertRaises(subprocess.TimeoutExpired):
                process.communicate(request("poll", config={"mode": "hang"}), timeout=0.5)
        finally:
            process.send_signal(signal.SIGTERM)
            stdout, _ = process.communicate(timeout=30)
        self.assertEqual(stdout, b"")
        self.assertEqual(process.returncode, -signal.SIGTERM)

    def test_an_unknown_mode_is_told(self):
        self.assertIn("mode 'loud' is unknown", run(ECHO, "poll", config={"mode": "loud"}).response["error"])

    def test_a_mode_that_is_no_text_is_told_and_not_worth_a_second_try(self):
        for mode in (["error"], {"error": 1}, 5, True):
            done = run(ECHO, "poll", config={"mode": mode})
            self.assertEqual(done.code, 0, done.stderr)
            self.assertIn("is unknown", done.response["error"])
            self.assertIs(done.response["retry"], False)

    def test_unusable_requests(self):
        check_common_behaviour(self, ECHO)


if __name__ == "__main__":
    unittest.main()
