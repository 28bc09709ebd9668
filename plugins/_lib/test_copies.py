"""Every helper beside a plugin is the one that is kept here."""

import os
import re
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.dont_write_bytecode = True

import copies  # noqa: E402  (the path has to be set first)


class Copies(unittest.TestCase):
    def test_all_copies_are_identical(self):
        self.assertEqual(copies.differing(), [])

    def test_every_imported_helper_is_there(self):
        missing = []
        for directory in {os.path.dirname(copy) for _, copy in copies.copies()}:
            for name in os.listdir(directory):
                if not name.endswith(".py") or name.startswith("test_"):
                    continue
                source = copies.read(os.path.join(directory, name)).decode("utf-8")
                for helper in re.findall(r"^from (_\w+) import", source, re.MULTILINE):
                    if not os.path.exists(os.path.join(directory, helper + ".py")):
                        missing.append("%s imports %s" % (os.path.join(directory, name), helper))
        self.assertEqual(missing, [])

    def test_there_are_copies_to_compare(self):
        self.assertGreaterEqual(len(list(copies.copies())), 6)


if __name__ == "__main__":
    unittest.main()
