//! The configuration of a new deployment, commented for a reader.

/// The root file.
pub(super) fn config_yaml(listen: &str, token: &str, as_root: bool) -> String {
    let unconfined = if as_root {
        "\n  # Written because quickstart ran as root: plugins then run as root too, on purpose. For a real deployment\n  \
         # run the gateway as a user of its own and remove this line.\n  unconfined: true"
    } else {
        ""
    };
    format!(
        r#"# A small, complete ductile gateway, made by `ductile quickstart`.
# Relative paths are relative to this directory. After an edit: `ductile config check`, then `ductile system reload`.

# Everything that is not in this file comes in here; a later file wins over an earlier one.
include:
  - plugins.yaml
  - pipelines.yaml

service:
  # Shows in logs and in the API.
  name: quickstart{unconfined}

state:
  # The queue, its history and the audit: one SQLite file.
  path: ../data/ductile.db
  # Every acknowledged job survives a power cut, not only a crash of the gateway. Costs some throughput; `normal`
  # survives a crash only.
  synchronous: full

secrets:
  # The key that opens vault.age. It lies outside of this directory so that no copy of the configuration holds it.
  # Keep a copy of it in a safe place: without it the vault is lost.
  age_key_file: ../secret/age.key

# Where plugins are looked for. A plugin is a directory with a manifest.yaml and an executable.
plugin_roots:
  - ../plugins

api:
  enabled: true
  listen: "{listen}"
  auth:
    tokens:
      # The token itself is a secret in the vault; here stands only its name.
      - name: quickstart
        secret_ref: {token}
        # "*" may do everything except manage the vault. Give real clients less: ["plugin:rw", "jobs:ro"], say.
        scopes: ["*"]
"#
    )
}

/// What may run.
pub(super) const PLUGINS_YAML: &str = r#"# The plugins that may run, and what each is told.
plugins:
  # Looks at files and reports what changed. Its command is `poll`.
  file_watch:
    enabled: true
    config:
      watches:
        - id: hello
          # Relative to the directory in which the gateway runs; quickstart runs it in its own.
          path: watched/hello.txt
          event_type: hello.changed
          # Report the file when it is seen for the first time, too.
          emit_initial: true

  # Reads a file that an event names, below this directory and nowhere else. Written in Python, as is file_watch.
  file_read:
    enabled: true
    config:
      root: watched

  # Counts the words of a text. A shell script: a plugin is any program.
  word_count:
    enabled: true

  # Says what it is told. Handy to try the API.
  echo:
    enabled: true
    config:
      message: hello from ductile
"#;

/// What runs after what.
pub(super) const PIPELINES_YAML: &str = r#"# What runs after an event.
# `ductile pipeline graph hello --format text` draws it, `ductile pipeline validate` checks it.
pipelines:
  - name: hello
    # Starts with each event of this type, which plugins.yaml lets file_watch emit. A file that is gone can not be read.
    on: hello.changed
    if: {path: payload.change_type, op: neq, value: deleted}
    steps:
      # A step runs a plugin on the event. What the plugin answers is the event of the next step.
      - id: read
        uses: file_read
        # A payload lives for one step; what is claimed here is known to all later ones as context.file.…
        baggage:
          file.name: payload.watch_id
          file.change: payload.change_type

      # Only a file of 20 bytes or more gets past here. Put less into it to see the run end at the switch.
      - id: long_enough
        if: {path: payload.size, op: gte, value: 20}
        # Both branches start side by side from the text that `read` found.
        split:
          # The first has two steps …
          - id: summary
            steps:
              - id: count
                uses: word_count
              - id: tell
                uses: echo
                # Puts a text into what the plugin gets.
                with: {message: "{context.file.name} was {context.file.change}, it has {payload.words} words"}
          # … and the second one.
          - id: quote
            uses: echo
            with: {message: "{payload.text}"}
"#;
