"""Copies the helpers into the plugins that use them, or tells which copies differ (--check)."""

import os
import shutil
import sys

LIB = os.path.dirname(os.path.abspath(__file__))
SHARED = ("_request.py", "_response.py", "_coerce.py", "_stopwatch.py")


def copies():
    """Pairs of original and copy, for every copy there is."""
    plugins = os.path.dirname(LIB)
    for plugin in sorted(os.listdir(plugins)):
        directory = os.path.join(plugins, plugin)
        if directory == LIB or not os.path.isdir(directory):
            continue
        for name in SHARED:
            copy = os.path.join(directory, name)
            if os.path.exists(copy):
                yield os.path.join(LIB, name), copy


def differing():
    """The copies that are not what they should be."""
    return [copy for original, copy in copies() if read(original) != read(copy)]


def read(path):
    """The bytes of a file."""
    with open(path, "rb") as file:
        return file.read()


def main():
    """Does what the command line asks for."""
    if sys.argv[1:] == ["--check"]:
        for path in differing():
            print("differs from _lib: %s" % path)
        sys.exit(1 if differing() else 0)
    for original, copy in copies():
        shutil.copyfile(original, copy)


if __name__ == "__main__":
    main()
