"""Runs file_watch as the gateway does, with the state handed from poll to poll."""

import hashlib
import os
import sys
import tempfile
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "_lib"))
sys.dont_write_bytecode = True

from _harness import check_common_behaviour, run  # noqa: E402

FILE_WATCH = os.path.join(HERE, "run.py")


class FileWatch(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = os.path.realpath(directory.name)
        self.path = os.path.join(self.directory, "notes.txt")
        self.state = {}

    def write(self, text):
        with open(self.path, "w", encoding="utf-8") as file:
            file.write(text)

    def watch(self, **more):
        return dict({"id": "notes", "path": self.path, "event_type": "notes.changed"}, **more)

    def poll(self, *watches):
        """One poll; what it reports as state is what the next one gets, as the gateway does for a mirrored fact."""
        done = run(FILE_WATCH, "poll", config={"watches": list(watches) or [self.watch()]}, state=self.state)
        self.assertEqual(done.code, 0, done.stderr)
        self.assertEqual(done.response["status"], "ok", done.response)
        self.state = done.response["state_updates"]
        return done

    def events(self, *watches):
        return self.poll(*watches).response.get("events", [])

    def changes(self, *watches):
        return [event["payload"]["change_type"] for event in self.events(*watches)]

    def test_created_modified_and_deleted_give_exactly_one_event_each(self):
        for strategy in ("sha256", "mtime_size"):
            self.state = {}
            watch = self.watch(strategy=strategy)
            self.assertEqual(self.changes(watch), [])
            self.write("one")
            self.assertEqual(self.changes(watch), ["created"])
            self.assertEqual(self.changes(watch), [])
            self.write("two!")
            self.assertEqual(self.changes(watch), ["modified"])
            self.assertEqual(self.changes(watch), [])
            os.remove(self.path)
            self.assertEqual(self.changes(watch), ["deleted"])
            self.assertEqual(self.changes(watch), [])
            self.write("back")
            self.assertEqual(self.changes(watch), ["created"])
            os.remove(self.path)

    def test_events_and_state_have_their_documented_shape(self):
        self.write("one")
        (event,) = self.events(self.watch(emit_initial=True))
        found = os.stat(self.path)
        fingerprint = hashlib.sha256(b"one").hexdigest()
        changed_at = event["payload"].pop("changed_at")
        self.assertRegex(changed_at, r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")
        facts = {"fingerprint": fingerprint, "size": 3, "mtime_ns": found.st_mtime_ns}
        payload = dict(facts, watch_id="notes", path=self.path, change_type="created")
        self.assertEqual(
            event, {"type": "notes.changed", "payload": payload, "dedupe_key": "file_watch:notes:" + fingerprint}
        )
        entry = dict(facts, exists=True, path=self.path, strategy="sha256", updated_at=changed_at)
        self.assertEqual(self.state, {"watches": {"notes": entry}, "last_poll_at": changed_at})

        os.remove(self.path)
        (event,) = self.events()
        deleted_at = event["payload"].pop("changed_at")
        payload = {
            "watch_id": "notes", "path": self.path, "change_type": "deleted", "previous_fingerprint": fingerprint
        }
        self.assertEqual(event["payload"], payload)
        self.assertEqual(event["dedupe_key"], "file_watch:notes:deleted:" + fingerprint)
        self.assertEqual(
            self.state["watches"]["notes"], {"exists": False, "path": self.path, "updated_at": deleted_at}
        )

    def test_first_sight_is_silent_unless_asked_for(self):
        self.write("one")
        self.assertEqual(self.changes(), [])
        self.state = {}
        self.assertEqual(self.changes(self.watch(emit_initial="yes")), ["created"])
        self.assertEqual(self.changes(self.watch(emit_initial="yes")), [])

    def test_disappearance_can_be_silent(self):
        self.write("one")
        self.poll()
        os.remove(self.path)
        self.assertEqual(self.changes(self.watch(emit_deleted=False)), [])
        self.assertIs(self.state["watches"]["notes"]["exists"], False)

    def test_the_fingerprint_of_time_and_size_keeps_all_digits(self):
        self.write("one")
        os.utime(self.path, ns=(1713740000123456789, 1713740000123456789))
        (event,) = self.events(self.watch(emit_initial=True, strategy="mtime_size"))
        self.assertEqual(event["payload"]["fingerprint"], "1713740000123456789:3")
        self.assertEqual(event["payload"]["mtime_ns"], 1713740000123456789)

    def test_touching_a_file_is_a_change_only_for_time_and_size(self):
        self.write("one")
        for strategy, expected in (("sha256", []), ("mtime_size", ["modified"])):
            self.state = {}
            self.poll(self.watch(strategy=strategy))
            os.utime(self.path, ns=(1, 1 + os.stat(self.path).st_mtime_ns))
            self.assertEqual(self.changes(self.watch(strategy=strategy)), expected, strategy)

    def test_another_strategy_alone_is_no_change(self):
        self.write("one")
        self.poll(self.watch(strategy="sha256"))
        self.assertEqual(self.changes(self.watch(strategy="mtime_size")), [])
        self.write("three")
        self.assertEqual(self.changes(self.watch(strategy="sha256")), ["modified"])

    def test_a_young_file_keeps_its_known_state_until_it_is_stable(self):
        self.write("one")
        self.poll()
        before = self.state["watches"]["notes"]
        self.write("two")
        done = self.poll(self.watch(min_stable_age="1h"))
        self.assertNotIn("events", done.response)
        self.assertEqual(len(done.logged("warn")), 1)
        self.assertEqual(self.state["watches"]["notes"], before)
        self.assertEqual(self.changes(), ["modified"])

    def test_what_can_not_be_read_keeps_its_known_state(self):
        self.write("one")
        self.poll()
        before = self.state["watches"]["notes"]
        os.remove(self.path)
        for make, remove in ((os.mkdir, os.rmdir), (os.mkfifo, os.remove)):
            make(self.path)
            done = self.poll()
            self.assertNotIn("events", done.response)
            self.assertEqual(len(done.logged("warn")), 1)
            self.assertEqual(self.state["watches"]["notes"], before)
            remove(self.path)

    def test_several_watches_report_in_their_order_and_removed_ones_are_forgotten(self):
        other = os.path.join(self.directory, "other")
        watches = [self.watch(id="b"), self.watch(id="a", path=other)]
        self.poll(*watches)
        self.write("one")
        with open(other, "w", encoding="utf-8") as file:
            file.write("two")
        events = self.events(*watches)
        self.assertEqual([event["payload"]["watch_id"] for event in events], ["b", "a"])
        self.poll(watches[1])
        self.assertEqual(list(self.state["watches"]), ["a"])

    def test_an_entry_about_another_path_counts_as_never_seen(self):
        self.write("one")
        self.poll()
        other = os.path.join(self.directory, "other")
        with open(other, "w", encoding="utf-8") as file:
            file.write("something else")
        self.assertEqual(self.changes(self.watch(path=other)), [])
        self.assertEqual(self.state["watches"]["notes"]["path"], other)

    def test_an_unchanged_entry_keeps_its_date(self):
        self.write("one")
        self.poll()
        self.state["watches"]["notes"]["updated_at"] = "2001-01-01T00:00:00Z"
        self.poll()
        self.assertEqual(self.state["watches"]["notes"]["updated_at"], "2001-01-01T00:00:00Z")
        self.write("two")
        self.poll()
        self.assertNotEqual(self.state["watches"]["notes"]["updated_at"], "2001-01-01T00:00:00Z")

    def test_the_time_of_fingerprinting_is_told(self):
        self.write("one")
        spans = self.poll().response["ductile_stopwatch_subs"]
        self.assertEqual(spans[-1]["name"], "file_watch.fingerprint_total")
        self.assertGreaterEqual(spans[-1]["dur_ns"], 0)

    def test_bad_configuration_is_told_with_one_log_per_fault(self):
        watch = self.watch()
        for watches, count in (
            (None, 1),
            ([], 1),
            ("x", 1),
            (["x"], 1),
            ([{}], 3),
            ([dict(watch, path=" ")], 1),
            ([watch, dict(watch, id=" notes ")], 1),
            ([dict(watch, strategy="md5", emit_initial="maybe", min_stable_age="soon")], 3),
        ):
            for command in ("poll", "health"):
                done = run(FILE_WATCH, command, config={"watches": watches})
                self.assertEqual(done.code, 0, done.stderr)
                self.assertEqual(done.response["status"], "error", watches)
                self.assertIs(done.response["retry"], False)
                self.assertEqual(len(done.logged("error")), count, done.response)

    def test_health_is_about_parent_and_kind_not_about_presence(self):
        def health(path):
            return run(FILE_WATCH, "health", config={"watches": [self.watch(path=path)]}).response

        self.assertEqual(health(self.path)["status"], "ok")
        self.write("one")
        self.assertEqual(health(self.path)["status"], "ok")
        self.assertIn("is a directory", health(self.directory)["error"])
        self.assertIn("parent directory", health(os.path.join(self.directory, "no", "file"))["error"])

    def test_odd_state_is_survived(self):
        self.write("one")
        for state in ({"watches": 3}, {"watches": {"notes": "x"}}, {"watches": {"notes": {}}}, {"other": 1}):
            self.state = state
            self.poll()
            self.assertIs(self.state["watches"]["notes"]["exists"], True)

    def test_unusable_requests(self):
        check_common_behaviour(self, FILE_WATCH)


if __name__ == "__main__":
    unittest.main()
