"""The example plugins of docs/plugins.md do what the guide says."""

import json
import os
import re
import subprocess
import sys
import tempfile
import unittest

LIB = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, LIB)
sys.dont_write_bytecode = True

from _harness import Run, run  # noqa: E402

GUIDE = os.path.join(LIB, "..", "..", "docs", "plugins.md")


class Guide(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = directory.name

    def example(self, name):
        """Writes the code block after the first mention of `name` to a file."""
        with open(GUIDE, encoding="utf-8") as file:
            after = file.read().split("`%s`" % name, 1)[1]
        code = re.search(r"^```\w+\n(.*?)^```$", after, re.MULTILINE | re.DOTALL).group(1)
        path = os.path.join(self.directory, name)
        os.makedirs(os.path.dirname(path))
        with open(path, "w", encoding="utf-8") as file:
            file.write(code)
        os.chmod(path, 0o755)
        return path

    def test_the_python_plugin_counts_and_greets(self):
        counter = self.example("counter/run.py")
        first = run(counter, "poll", config={"greeting": "Hello"}).response
        self.assertEqual(first["result"], "Hello, world! (call 1)")
        second = run(
            counter, "poll", config={"greeting": "Hello"}, state=first["state_updates"], payload={"name": "Ada"}
        ).response
        self.assertEqual(second["result"], "Hello, Ada! (call 2)")
        self.assertEqual(second["state_updates"], {"count": 2})
        self.assertEqual(second["events"], [{"type": "counter.greeted", "payload": {"name": "Ada", "count": 2}}])
        self.assertIs(run(counter, "nope").response["retry"], False)

    def test_the_shell_plugin_tells_the_free_space(self):
        disk_free = self.example("disk_free/run.sh")

        def shell(command, **more):
            env = dict({"PATH": os.environ["PATH"], "DUCTILE_COMMAND": command}, **more)
            done = subprocess.run([disk_free], input=b"{}\n", capture_output=True, timeout=30, check=False, env=env)
            return Run(done.returncode, done.stdout, done.stderr)

        polled = shell("poll").response
        (event,) = polled["events"]
        self.assertEqual(event["type"], "disk.checked")
        self.assertEqual(polled["result"], "%d KiB free" % event["payload"]["free_kib"])
        self.assertEqual(shell("health").response, {"status": "ok", "result": "healthy"})
        self.assertEqual(shell("poll", DUCTILE_PAYLOAD_PATH="/no/such/path").response["retry"], True)
        self.assertEqual(shell("nope").response["retry"], False)

    def test_the_commands_to_try_by_hand_work_as_printed(self):
        self.example("counter/run.py")
        self.example("disk_free/run.sh")
        with open(GUIDE, encoding="utf-8") as file:
            block = re.search(r"as the gateway does it:\n\n```\n(.*?)^```$", file.read(), re.MULTILINE | re.DOTALL)
        for line in block.group(1).splitlines():
            done = subprocess.run(["sh", "-c", line], cwd=self.directory, capture_output=True, timeout=30, check=False)
            self.assertEqual(json.loads(done.stdout)["status"], "ok", line)


if __name__ == "__main__":
    unittest.main()
