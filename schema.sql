-- The database of the gateway: one file, one writer.
--
-- This file is the whole schema. It is embedded in the binary, executed once in an empty database, and is what an
-- existing database is compared with at every start. Rules that hold throughout:
--
--   * Times are UTC text, 'YYYY-MM-DD HH:MM:SS.nnnnnnnnnZ', always 30 characters, so that text order is time order.
--   * JSON columns hold text, never blobs, so that SQLite's JSON functions work on them.
--   * Fact tables only grow and are pruned by age. Facts outlive the rows they speak of, hence no foreign keys.
--   * Readers of a live database may rely on the names here. New columns are only ever appended.

-- Counters that hand out numbers without gaps. Row 'plugin_facts' holds the last fact number given out.
CREATE TABLE storage_sequences (
    name  TEXT PRIMARY KEY,
    value INTEGER NOT NULL DEFAULT 0
);

-- Current and recent jobs. The only table of the queue whose rows change.
CREATE TABLE job_queue (
    id                          TEXT PRIMARY KEY,
    plugin                      TEXT NOT NULL,
    command                     TEXT NOT NULL,
    payload                     JSON,
    status                      TEXT NOT NULL,
    attempt                     INTEGER NOT NULL DEFAULT 1,
    max_attempts                INTEGER NOT NULL DEFAULT 4,
    submitted_by                TEXT NOT NULL,
    dedupe_key                  TEXT,
    created_at                  TEXT NOT NULL,
    started_at                  TEXT,
    completed_at                TEXT,
    next_retry_at               TEXT,
    last_error                  TEXT,
    parent_job_id               TEXT,
    source_event_id             TEXT,
    event_context_id            TEXT,
    enqueued_config_snapshot_id TEXT,
    started_config_snapshot_id  TEXT
);
CREATE INDEX job_queue_status_created_at_idx ON job_queue (status, created_at);
CREATE INDEX job_queue_plugin_command_status_idx ON job_queue (plugin, command, status);
CREATE INDEX job_queue_dedupe_status_completed_idx ON job_queue (dedupe_key, status, completed_at);
-- One event makes at most one job per target: a redelivery is recognised here.
CREATE UNIQUE INDEX job_queue_event_source_idx ON job_queue (parent_job_id, source_event_id, plugin, command)
    WHERE source_event_id IS NOT NULL;
CREATE INDEX job_queue_parent_idx ON job_queue (parent_job_id) WHERE parent_job_id IS NOT NULL;
CREATE INDEX job_queue_event_context_idx ON job_queue (event_context_id);

-- Facts: every change of a job's state. The newest row of a job equals job_queue.status.
CREATE TABLE job_transitions (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    job_id      TEXT NOT NULL,
    from_status TEXT,
    to_status   TEXT NOT NULL,
    reason      TEXT,
    created_at  TEXT NOT NULL
);
CREATE INDEX job_transitions_job_created_at_idx ON job_transitions (job_id, created_at);
CREATE INDEX job_transitions_created_at_idx ON job_transitions (created_at);

-- Facts: every claim.
CREATE TABLE job_attempts (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    job_id     TEXT NOT NULL,
    attempt    INTEGER NOT NULL,
    created_at TEXT NOT NULL,
    UNIQUE (job_id, attempt)
);
CREATE INDEX job_attempts_job_created_at_idx ON job_attempts (job_id, created_at);
CREATE INDEX job_attempts_created_at_idx ON job_attempts (created_at);

-- Facts: one row per configuration that served. Never a secret value, only one-way fingerprints.
CREATE TABLE config_snapshots (
    id                  TEXT PRIMARY KEY,
    config_hash         TEXT NOT NULL,
    source_hash         TEXT,
    source_path         TEXT,
    source              TEXT,
    reason              TEXT NOT NULL,
    loaded_at           TEXT NOT NULL,
    ductile_version     TEXT,
    binary_path         TEXT,
    snapshot_format     INTEGER NOT NULL DEFAULT 1,
    semantics           JSON,
    plugin_fingerprints JSON,
    sanitized_config    JSON,
    secret_fingerprints JSON
);

-- The memory of each plugin: one JSON object per configured name.
CREATE TABLE plugin_state (
    plugin_name TEXT PRIMARY KEY,
    state       JSON NOT NULL DEFAULT '{}',
    updated_at  TEXT
);

-- Facts: what plugins observed. Rows of older databases may have no number.
CREATE TABLE plugin_facts (
    id          TEXT PRIMARY KEY,
    seq         INTEGER,
    plugin_name TEXT NOT NULL,
    fact_type   TEXT NOT NULL,
    job_id      TEXT NOT NULL,
    command     TEXT NOT NULL,
    fact_json   JSON NOT NULL,
    created_at  TEXT NOT NULL
);
CREATE INDEX plugin_facts_plugin_created_at_idx ON plugin_facts (plugin_name, created_at);
CREATE INDEX plugin_facts_plugin_type_created_at_idx ON plugin_facts (plugin_name, fact_type, created_at);
CREATE INDEX plugin_facts_plugin_seq_idx ON plugin_facts (plugin_name, seq);
CREATE INDEX plugin_facts_plugin_type_seq_idx ON plugin_facts (plugin_name, fact_type, seq);

-- Facts: the baggage that travels with the jobs of a pipeline.
CREATE TABLE event_context (
    id               TEXT PRIMARY KEY,
    parent_id        TEXT,
    pipeline_name    TEXT,
    step_id          TEXT,
    accumulated_json JSON NOT NULL,
    created_at       TEXT NOT NULL
);
CREATE INDEX event_context_created_at_idx ON event_context (created_at);
CREATE INDEX event_context_parent_idx ON event_context (parent_id) WHERE parent_id IS NOT NULL;

-- Facts: one row per finished attempt, its id being '<job_id>-<attempt>'.
CREATE TABLE job_log (
    id                          TEXT PRIMARY KEY,
    job_id                      TEXT,
    plugin                      TEXT NOT NULL,
    command                     TEXT NOT NULL,
    status                      TEXT NOT NULL,
    result                      TEXT,
    attempt                     INTEGER NOT NULL,
    submitted_by                TEXT NOT NULL,
    created_at                  TEXT NOT NULL,
    completed_at                TEXT NOT NULL,
    last_error                  TEXT,
    stderr                      TEXT,
    parent_job_id               TEXT,
    source_event_id             TEXT,
    event_context_id            TEXT,
    enqueued_config_snapshot_id TEXT,
    started_config_snapshot_id  TEXT,
    started_at                  TEXT
);
CREATE INDEX job_log_job_id_attempt_idx ON job_log (job_id, attempt);
CREATE INDEX job_log_completed_at_idx ON job_log (completed_at);
CREATE INDEX job_log_event_context_idx ON job_log (event_context_id) WHERE event_context_id IS NOT NULL;

-- Circuit breakers of scheduled commands, and the facts of their changes.
CREATE TABLE circuit_breakers (
    plugin          TEXT NOT NULL,
    command         TEXT NOT NULL,
    state           TEXT NOT NULL DEFAULT 'closed',
    failure_count   INTEGER NOT NULL DEFAULT 0,
    opened_at       TEXT,
    last_failure_at TEXT,
    last_job_id     TEXT,
    updated_at      TEXT NOT NULL,
    PRIMARY KEY (plugin, command)
);
CREATE TABLE circuit_breaker_transitions (
    id            TEXT PRIMARY KEY,
    plugin        TEXT NOT NULL,
    command       TEXT NOT NULL,
    from_state    TEXT,
    to_state      TEXT NOT NULL,
    failure_count INTEGER NOT NULL DEFAULT 0,
    reason        TEXT NOT NULL,
    job_id        TEXT,
    created_at    TEXT NOT NULL
);
CREATE INDEX circuit_breaker_transitions_plugin_command_created_idx
    ON circuit_breaker_transitions (plugin, command, created_at);
CREATE INDEX circuit_breaker_transitions_created_at_idx ON circuit_breaker_transitions (created_at);

-- What the scheduler remembers of each schedule.
CREATE TABLE schedule_entries (
    plugin              TEXT NOT NULL,
    schedule_id         TEXT NOT NULL,
    command             TEXT NOT NULL,
    status              TEXT NOT NULL DEFAULT 'active',
    reason              TEXT,
    last_fired_at       TEXT,
    last_success_job_id TEXT,
    last_success_at     TEXT,
    next_run_at         TEXT,
    updated_at          TEXT NOT NULL,
    definition          TEXT,
    PRIMARY KEY (plugin, schedule_id)
);

-- The tables from here on are additive: an older database works without them, with less to tell.

-- Facts: operations on the vault. Names and outcomes only.
CREATE TABLE vault_audit (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    op          TEXT NOT NULL,
    principal   TEXT,
    secret_name TEXT,
    actor       TEXT,
    outcome     TEXT NOT NULL,
    detail      TEXT,
    created_at  TEXT NOT NULL
);
CREATE INDEX vault_audit_created_at_idx ON vault_audit (created_at);
CREATE INDEX vault_audit_principal_created_idx ON vault_audit (principal, created_at);

-- Facts: how long each plugin process ran, and the daily summary of that.
CREATE TABLE job_stopwatch (
    id                   INTEGER PRIMARY KEY AUTOINCREMENT,
    job_id               TEXT NOT NULL,
    plugin               TEXT NOT NULL,
    pipeline             TEXT,
    step_id              TEXT,
    pipeline_instance_id TEXT,
    attempt              INTEGER NOT NULL,
    enter_wall_ns        INTEGER NOT NULL,
    exit_wall_ns         INTEGER NOT NULL,
    dur_ns               INTEGER NOT NULL,
    runtime_pre_ns       INTEGER NOT NULL,
    runtime_post_ns      INTEGER NOT NULL,
    status               TEXT NOT NULL,
    subs_json            TEXT NOT NULL DEFAULT '[]',
    recorded_at          TEXT NOT NULL
);
CREATE INDEX job_stopwatch_job_attempt_idx ON job_stopwatch (job_id, attempt);
CREATE INDEX job_stopwatch_pipeline_idx ON job_stopwatch (pipeline, pipeline_instance_id);
CREATE INDEX job_stopwatch_plugin_recorded_idx ON job_stopwatch (plugin, recorded_at);
CREATE TABLE job_stopwatch_rollup_daily (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    plugin       TEXT NOT NULL,
    pipeline     TEXT NOT NULL DEFAULT '',
    step_id      TEXT NOT NULL DEFAULT '',
    status       TEXT NOT NULL,
    day_utc      TEXT NOT NULL,
    sample_count INTEGER NOT NULL,
    sum_dur_ns   INTEGER NOT NULL,
    min_dur_ns   INTEGER NOT NULL,
    max_dur_ns   INTEGER NOT NULL,
    p50_dur_ns   INTEGER NOT NULL,
    p90_dur_ns   INTEGER NOT NULL,
    p99_dur_ns   INTEGER NOT NULL,
    created_at   TEXT NOT NULL,
    UNIQUE (plugin, pipeline, step_id, status, day_utc)
);
CREATE INDEX job_stopwatch_rollup_pipeline_day_idx ON job_stopwatch_rollup_daily (pipeline, step_id, day_utc);
CREATE INDEX job_stopwatch_rollup_plugin_day_idx ON job_stopwatch_rollup_daily (plugin, day_utc);

-- When the housekeeping last ran, and how that went.
CREATE TABLE janitor_heartbeat (
    name           TEXT PRIMARY KEY,
    last_run_at    TEXT NOT NULL,
    last_status    TEXT NOT NULL,
    last_error     TEXT NOT NULL DEFAULT '',
    rows_rolled_up INTEGER NOT NULL DEFAULT 0,
    rows_deleted   INTEGER NOT NULL DEFAULT 0
);

-- Signatures of events that were admitted, so that a replay is refused.
CREATE TABLE ingress_seen (
    source     TEXT NOT NULL,
    sig_hash   TEXT NOT NULL,
    job_id     TEXT,
    event_id   TEXT,
    seen_at    TEXT NOT NULL,
    expires_at TEXT NOT NULL,
    PRIMARY KEY (source, sig_hash)
);
CREATE INDEX ingress_seen_expires_idx ON ingress_seen (expires_at);

-- Every reload that was asked for, the refused ones included.
CREATE TABLE reload_history (
    id              INTEGER PRIMARY KEY AUTOINCREMENT,
    requested_at    TEXT NOT NULL,
    finished_at     TEXT,
    trigger         TEXT NOT NULL,
    actor           TEXT,
    outcome         TEXT,
    stage           TEXT,
    error           TEXT,
    old_snapshot_id TEXT,
    new_snapshot_id TEXT,
    old_posture     TEXT,
    new_posture     TEXT,
    duration_ms     INTEGER
);
CREATE INDEX reload_history_requested_idx ON reload_history (requested_at);
