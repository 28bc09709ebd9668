-- A database as an older program left it: times with a T, blobs for JSON, facts without numbers, references between
-- tables, the narrow unique index, columns in the order in which they were once added, and no table that came later.

CREATE TABLE job_queue (
    id TEXT PRIMARY KEY, plugin TEXT NOT NULL, command TEXT NOT NULL, payload JSON, status TEXT NOT NULL,
    attempt INTEGER NOT NULL DEFAULT 1, max_attempts INTEGER NOT NULL DEFAULT 4, submitted_by TEXT NOT NULL,
    dedupe_key TEXT, created_at TEXT NOT NULL, started_at TEXT, completed_at TEXT, next_retry_at TEXT,
    last_error TEXT, parent_job_id TEXT REFERENCES job_queue (id), source_event_id TEXT);
CREATE INDEX job_queue_status_created_at_idx ON job_queue(status,created_at);
CREATE UNIQUE INDEX job_queue_event_source_idx ON job_queue (parent_job_id, source_event_id)
    WHERE source_event_id IS NOT NULL;
CREATE TABLE job_transitions (
    id INTEGER PRIMARY KEY AUTOINCREMENT, job_id TEXT NOT NULL, from_status TEXT, to_status TEXT NOT NULL,
    reason TEXT, created_at TEXT NOT NULL, FOREIGN KEY(job_id) REFERENCES job_queue(id) ON DELETE CASCADE);
CREATE TABLE job_attempts (
    id INTEGER PRIMARY KEY AUTOINCREMENT, job_id TEXT NOT NULL REFERENCES job_queue (id), attempt INTEGER NOT NULL,
    created_at TEXT NOT NULL, UNIQUE(job_id, attempt));
CREATE TABLE job_log (
    id TEXT PRIMARY KEY, plugin TEXT NOT NULL, command TEXT NOT NULL, status TEXT NOT NULL,
    attempt INTEGER NOT NULL, submitted_by TEXT NOT NULL, created_at TEXT NOT NULL, completed_at TEXT NOT NULL,
    last_error TEXT, parent_job_id TEXT, source_event_id TEXT);
ALTER TABLE job_log ADD COLUMN stderr TEXT;
CREATE TABLE plugin_facts (
    id TEXT PRIMARY KEY, plugin_name TEXT NOT NULL, fact_type TEXT NOT NULL,
    job_id TEXT NOT NULL REFERENCES job_queue (id), command TEXT NOT NULL, fact_json JSON NOT NULL,
    created_at TEXT NOT NULL);
CREATE TABLE plugin_state (plugin_name TEXT PRIMARY KEY, state JSON NOT NULL DEFAULT '{}', updated_at TEXT);
CREATE TABLE schedule_entries (
    plugin TEXT NOT NULL, schedule_id TEXT NOT NULL, command TEXT NOT NULL, status TEXT NOT NULL DEFAULT 'active',
    reason TEXT, updated_at TEXT NOT NULL, PRIMARY KEY (plugin, schedule_id));
INSERT INTO job_queue (id, plugin, command, payload, status, submitted_by, created_at, completed_at)
    VALUES ('a', 'echo', 'poll', CAST('{"x":"ü"}' AS BLOB), 'succeeded', 'api', '2026-01-02T03:04:05.12Z',
            '2026-01-02T03:04:06Z'),
           ('b', 'echo', 'poll', '{"x":2}', 'queued', 'api', '2026-01-02T03:04:05+01:00', NULL),
           ('c', 'echo', 'poll', X'FF00', 'queued', 'api', 'some day', '');
INSERT INTO job_transitions (id, job_id, to_status, created_at)
    VALUES (5, 'a', 'queued', '2026-01-02T03:04:05Z'), (3, 'a', 'running', '2026-01-02T03:04:05.5Z'),
           (9, 'gone', 'dead', '2026-01-02 03:04:07');
DELETE FROM job_transitions WHERE id = 9;
INSERT INTO job_attempts (job_id, attempt, created_at) VALUES ('a', 1, '2026-01-02 03:04:05.500+00:00');
INSERT INTO job_log (id, plugin, command, status, attempt, submitted_by, created_at, completed_at, stderr)
    VALUES ('a-1', 'echo', 'poll', 'succeeded', 1, 'api', '2026-01-02T03:04:05.12Z', '2026-01-02T03:04:06Z', 'warned'),
           ('b-c-12', 'echo', 'poll', 'failed', 12, 'api', '2026-01-02T03:04:05Z', '2026-01-02T03:04:06Z', NULL),
           ('whole', 'echo', 'poll', 'failed', 1, 'api', '2026-01-02T03:04:05Z', '2026-01-02T03:04:06Z', NULL);
INSERT INTO plugin_facts VALUES
    ('f1', 'echo', 'seen', 'a', 'poll', CAST('{"n":1}' AS BLOB), '2026-01-02T03:04:06Z'),
    ('f2', 'echo', 'seen', 'a', 'poll', '{"n":2}', '2026-01-02T03:04:07Z');
INSERT INTO plugin_state VALUES ('echo', CAST('{"k":1}' AS BLOB), '2026-01-02T03:04:07Z');
INSERT INTO schedule_entries VALUES ('echo', 's', 'poll', 'active', NULL, '2026-01-02T03:04:07Z');
