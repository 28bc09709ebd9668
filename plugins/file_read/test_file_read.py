"""Runs file_read as the gateway does."""

import os
import sys
import tempfile
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "_lib"))
sys.dont_write_bytecode = True

from _harness import check_common_behaviour, run  # noqa: E402

FILE_READ = os.path.join(HERE, "run.py")


class FileRead(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.outside = os.path.realpath(directory.name)
        self.root = os.path.join(self.outside, "root")
        os.makedirs(os.path.join(self.root, "inner"))

    def write(self, name, content):
        path = os.path.join(self.root, name)
        with open(path, "wb") as file:
            file.write(content)
        return path

    def handle(self, path, **config):
        event = {"type": "file.changed", "payload": {"path": path}}
        done = run(FILE_READ, "handle", config=dict({"root": self.root}, **config), event=event)
        self.assertEqual(done.code, 0, done.stderr)
        return done

    def read(self, path, **config):
        response = self.handle(path, **config).response
        self.assertEqual(response["status"], "ok", response)
        (event,) = response["events"]
        self.assertEqual(event["type"], "file.read")
        return event["payload"]

    def assert_refused(self, path, reason, **config):
        done = self.handle(path, **config)
        self.assertEqual(done.response["status"], "error", done.response)
        self.assertIs(done.response["retry"], False)
        self.assertNotIn("events", done.response)
        self.assertIn(reason, done.response["error"])
        self.assertEqual(done.logged("error"), [done.response["error"]])

    def test_the_text_of_a_file_is_emitted(self):
        path = self.write("a.txt", "grüße \U0001f30d\n".encode("utf-8"))
        payload = {"path": path, "text": "grüße \U0001f30d\n", "size": 13, "truncated": False}
        self.assertEqual(self.read(path), payload)
        self.assertEqual(self.read("a.txt"), payload)
        self.assertEqual(self.handle(path).response["result"], "read 13 bytes of a.txt")

    def test_an_empty_file_and_one_deeper_down(self):
        self.assertEqual(self.read(self.write("inner/a", b""))["text"], "")

    def test_a_long_file_is_cut_at_a_character(self):
        path = self.write("long", "éé".encode("utf-8"))
        for limit, text in ((1, ""), (2, "é"), (3, "é"), (4, "éé")):
            payload = self.read(path, max_bytes=limit)
            self.assertEqual((payload["text"], payload["size"], payload["truncated"]), (text, 4, limit < 4))
        self.assertEqual(len(self.read(self.write("longer", b"x" * 40000))["text"]), 32768)

    def test_bytes_that_are_no_text(self):
        self.assertEqual(self.read(self.write("latin", b"a\xe9b"))["text"], "a\ufffdb")
        self.assert_refused(self.write("binary", b"a\0b"), "zero bytes")

    def test_nothing_outside_of_the_root_is_read(self):
        secret = os.path.join(self.outside, "secret")
        with open(secret, "w", encoding="utf-8") as file:
            file.write("secret")
        for path in (secret, "../secret", "inner/../../secret", self.root, ".", "/etc/passwd", self.root + "x"):
            self.assert_refused(path, "is not below")
        os.symlink(secret, os.path.join(self.root, "link"))
        os.symlink(self.outside, os.path.join(self.root, "links"))
        for path in ("link", "links/secret"):
            self.assert_refused(path, "without following links")

    def test_what_is_no_file_is_refused_and_nothing_hangs(self):
        os.mkfifo(os.path.join(self.root, "pipe"))
        self.assert_refused("pipe", "not a regular file")
        self.assert_refused("inner", "Is a directory")
        self.assert_refused("gone", "No such file")
        self.assert_refused("a.txt", "No such file", root=os.path.join(self.outside, "gone"))

    def test_a_payload_without_a_path_is_refused(self):
        for path in (None, "", 5, ["a"], "a\0b"):
            self.assert_refused(path, "payload.path must be")

    def test_a_bad_configuration_is_told(self):
        for root in (None, "", " ", 5):
            self.assert_refused("a", "root is required", root=root)
        for limit in (0, -1, True, "9", 1048577):
            self.assert_refused("a", "max_bytes", max_bytes=limit)

    def test_health_looks_at_the_root(self):
        self.assertEqual(run(FILE_READ, "health", config={"root": self.root}).response["result"], "healthy")
        gone = run(FILE_READ, "health", config={"root": os.path.join(self.root, "gone")}).response
        self.assertIn("is not a directory", gone["error"])

    def test_unusable_requests(self):
        check_common_behaviour(self, FILE_READ)


if __name__ == "__main__":
    unittest.main()
