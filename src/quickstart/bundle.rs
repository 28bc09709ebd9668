//! The plugins that travel inside the binary.

/// One file of a bundled plugin.
pub(super) struct BundledFile {
    /// Name in the plugin's directory.
    pub(super) name: &'static str,
    pub(super) content: &'static str,
    pub(super) executable: bool,
}

/// A bundled plugin.
pub(super) struct BundledPlugin {
    /// Name of its directory.
    pub(super) name: &'static str,
    pub(super) files: &'static [BundledFile],
}

macro_rules! file {
    ($plugin:literal, $name:literal, $executable:literal) => {
        BundledFile {
            name: $name,
            content: include_str!(concat!("../../plugins/", $plugin, "/", $name)),
            executable: $executable,
        }
    };
}

/// What the quickstart uses.
pub(super) const PLUGINS: [BundledPlugin; 4] = [
    BundledPlugin {
        name: "echo",
        files: &[
            file!("echo", "manifest.yaml", false),
            file!("echo", "run.py", true),
            file!("echo", "_request.py", false),
            file!("echo", "_response.py", false),
            file!("echo", "README.md", false),
        ],
    },
    BundledPlugin {
        name: "file_read",
        files: &[
            file!("file_read", "manifest.yaml", false),
            file!("file_read", "run.py", true),
            file!("file_read", "_request.py", false),
            file!("file_read", "_response.py", false),
            file!("file_read", "README.md", false),
        ],
    },
    BundledPlugin {
        name: "file_watch",
        files: &[
            file!("file_watch", "manifest.yaml", false),
            file!("file_watch", "run.py", true),
            file!("file_watch", "_coerce.py", false),
            file!("file_watch", "_request.py", false),
            file!("file_watch", "_response.py", false),
            file!("file_watch", "_stopwatch.py", false),
            file!("file_watch", "README.md", false),
        ],
    },
    BundledPlugin {
        name: "word_count",
        files: &[
            file!("word_count", "manifest.yaml", false),
            file!("word_count", "run.sh", true),
            file!("word_count", "README.md", false),
        ],
    },
];
