"""Runs word_count as the gateway does; a shell plugin reads the environment and not the request."""

import os
import subprocess
import sys
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "_lib"))
sys.dont_write_bytecode = True

from _harness import TIMEOUT, Run, request  # noqa: E402

WORD_COUNT = os.path.join(HERE, "run.sh")


def run(command, **environment):
    """One run, with the variables of the gateway."""
    environment = dict({"PATH": os.environ["PATH"], "DUCTILE_COMMAND": command}, **environment)
    stdin = request(command)
    done = subprocess.run(
        [WORD_COUNT], input=stdin, capture_output=True, timeout=TIMEOUT, check=False, env=environment
    )
    return Run(done.returncode, done.stdout, done.stderr)


class WordCount(unittest.TestCase):
    def count(self, text, **environment):
        done = run("handle", DUCTILE_PAYLOAD_TEXT=text, **environment)
        self.assertEqual((done.code, done.stderr), (0, b""))
        (event,) = done.response["events"]
        self.assertEqual(event["type"], "text.counted")
        counted = event["payload"]
        told = "%d word(s) in %d line(s)" % (counted["words"], counted["lines"])
        self.assertEqual((done.response["status"], done.response["result"]), ("ok", told))
        self.assertEqual(done.logged("info"), [told])
        return counted["words"], counted["lines"]

    def assert_refused(self, done, reason):
        self.assertEqual(done.code, 0)
        self.assertEqual(done.response["status"], "error")
        self.assertIs(done.response["retry"], False)
        self.assertIn(reason, done.response["error"])
        self.assertEqual(done.logged("error"), [done.response["error"]])

    def test_words_and_lines(self):
        for text, words, lines in (
            ("", 0, 0),
            ("\n", 0, 1),
            ("one", 1, 1),
            ("one two\n", 2, 1),
            ("one\n\n  two\tthree ", 3, 3),
            ("x\n" * 1000, 1000, 1000),
        ):
            self.assertEqual(self.count(text), (words, lines), text)

    def test_any_text_is_data(self):
        for text in ("grüße 日本", "%s %d", "$(exit 1) `exit 1`", "-n -e", "\\n \\", "\"'; rm", "* ?"):
            for locale in ("C", "C.UTF-8"):
                self.assertEqual(self.count(text, LANG=locale), (len(text.split()), 1), text)

    def test_a_text_that_is_not_there_is_told(self):
        self.assert_refused(run("handle"), "payload.text is missing")

    def test_health(self):
        self.assertEqual(run("health").response, {"status": "ok", "result": "healthy"})

    def test_other_commands_are_refused(self):
        for command in ("poll", "", "handle health"):
            self.assert_refused(run(command), "unknown command")

    def test_a_missing_awk_is_told(self):
        tools = os.path.join(HERE, "no-such-directory")
        self.assert_refused(run("health", PATH=tools), "awk is not on the PATH")


if __name__ == "__main__":
    unittest.main()
