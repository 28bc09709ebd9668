//! A terminal for commands that behave differently on one.

use std::fs::File;
use std::io::Read;
use std::process::{Command, Stdio};

use rustix::termios::{LocalModes, tcgetattr};

use crate::site::eventually;

/// Both ends of a terminal.
pub(crate) struct Terminal {
    pub(crate) ours: File,
    theirs: File,
}

impl Terminal {
    pub(crate) fn open() -> Self {
        use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let ours = openpt(flags).expect("a terminal");
        grantpt(&ours).expect("a terminal");
        unlockpt(&ours).expect("a terminal");
        let name = ptsname(&ours, Vec::new()).expect("its name");
        let theirs = rustix::fs::open(
            name.as_c_str(),
            rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY | rustix::fs::OFlags::CLOEXEC,
            rustix::fs::Mode::empty(),
        );
        Self { ours: ours.into(), theirs: theirs.expect("its other end").into() }
    }

    pub(crate) fn echoes(&self) -> bool {
        tcgetattr(&self.theirs).expect("its settings").local_modes.contains(LocalModes::ECHO)
    }

    pub(crate) fn wait_until_quiet(&self) {
        let quiet = eventually(|| if self.echoes() { Err(()) } else { Ok(()) });
        quiet.expect("a terminal that does not show what is typed");
    }

    /// The end that a program gets, as any of its streams.
    pub(crate) fn stream(&self) -> Stdio {
        self.theirs.try_clone().expect("its other end").into()
    }

    /// Runs a command whose stdout is this terminal, and gives what a person would see. The lines of a terminal end in
    /// CR LF.
    pub(crate) fn show(mut self, command: &mut Command) -> String {
        let mut child = command.stdout(self.stream()).stderr(Stdio::inherit()).spawn().expect("the binary");
        // The command itself holds an end too, as long as it is there.
        command.stdout(Stdio::null());
        drop(self.theirs);
        let mut seen = Vec::new();
        // A terminal whose other end is closed by all tells so by an error.
        drop(self.ours.read_to_end(&mut seen));
        let status = child.wait().expect("its end");
        let seen = String::from_utf8(seen).expect("UTF-8").replace("\r\n", "\n");
        assert!(status.success(), "{status}: {seen}");
        seen
    }
}
