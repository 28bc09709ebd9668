"""For tests: runs a plugin as the gateway does, one process with one request on stdin and one answer on stdout."""

import json
import os
import subprocess

TIMEOUT = 30


class Run:
    """What came of one run."""

    def __init__(self, code, stdout, stderr):
        self.code, self.stdout, self.stderr = code, stdout, stderr

    @property
    def response(self):
        """The answer; a test that reads it fails when there is not exactly one JSON object."""
        answer = json.loads(self.stdout.decode("utf-8"))
        if not isinstance(answer, dict):
            raise AssertionError("not an object: %r" % self.stdout)
        return answer

    def logged(self, level):
        """Messages of one level."""
        return [entry["message"] for entry in self.response["logs"] if entry["level"] == level]


def run_raw(entrypoint, stdin):
    """One run with the given bytes, in an environment that holds PATH only."""
    done = subprocess.run(
        [entrypoint], input=stdin, capture_output=True, timeout=TIMEOUT, check=False, env={"PATH": os.environ["PATH"]}
    )
    return Run(done.returncode, done.stdout, done.stderr)


def request(command, **parts):
    """A request with the fields that are always there."""
    base = {"protocol": 2, "job_id": "019b7ca9", "command": command, "instance": "test", "config": {}, "state": {}}
    base.update(context={"ductile_plugin": "test"}, deadline_at="2030-01-01T00:00:00Z", **parts)
    return (json.dumps(base) + "\n").encode("utf-8")


def run(entrypoint, command, **parts):
    """One run of a command; `parts` are further fields such as `config`, `state`, `payload` or `event`."""
    return run_raw(entrypoint, request(command, **parts))


def check_common_behaviour(case, entrypoint):
    """What every bundled plugin does with a request it can not use."""
    for stdin in (b"", b"not json", b"[1]", b'{"command":', b"\xff\xfe", b"[" * 100000):
        done = run_raw(entrypoint, stdin)
        case.assertEqual(done.code, 1, stdin[:20])
        case.assertEqual(done.response["status"], "error")
        case.assertIs(done.response["retry"], False)
        case.assertEqual(done.logged("error"), [done.response["error"]])
    for stdin in (request("nope"), b"{}", b'{"command":null}', b'{"command":["poll"]}'):
        done = run_raw(entrypoint, stdin)
        case.assertEqual(done.code, 0, stdin)
        case.assertEqual(done.response["status"], "error")
        case.assertIs(done.response["retry"], False)
        case.assertIn("unknown command", done.response["error"])
        case.assertEqual(done.logged("error"), [done.response["error"]])
