//! The three pipes of a plugin.

use std::os::fd::{AsFd, OwnedFd};

use rustix::io::{Errno, ioctl_fionbio};
use zeroize::Zeroizing;

/// Reads per turn: a plugin that floods its output must not keep the loop from its timers.
const READS_PER_TURN: usize = 32;
const CHUNK: usize = 16 * 1024;

/// Whether a pipe is still of interest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pipe {
    /// More may come or go.
    Open,
    /// Nothing more.
    Closed,
}

/// What a plugin wrote to one pipe, up to a cap. The rest is read and thrown away, so that it never blocks on a full
/// pipe.
#[derive(Debug)]
pub(crate) struct Captured {
    pub(crate) bytes: Vec<u8>,
    pub(crate) overflow: bool,
}

/// The reading end of an output pipe.
pub(crate) struct Output {
    fd: Option<OwnedFd>,
    cap: usize,
    captured: Captured,
}

impl Output {
    /// Takes the pipe over.
    pub(crate) fn new(fd: Option<OwnedFd>, cap: usize) -> Self {
        let fd = fd.filter(|fd| ioctl_fionbio(fd, true).is_ok());
        Self { fd, cap, captured: Captured { bytes: Vec::new(), overflow: false } }
    }

    /// The pipe, while it is open.
    pub(crate) fn fd(&self) -> Option<&OwnedFd> {
        self.fd.as_ref()
    }

    /// Whether its end was reached.
    pub(crate) fn is_closed(&self) -> bool {
        self.fd.is_none()
    }

    /// Reads what is there.
    pub(crate) fn pump(&mut self) {
        let Some(fd) = &self.fd else { return };
        let mut chunk = [0u8; CHUNK];
        for _ in 0..READS_PER_TURN {
            match rustix::io::read(fd, &mut chunk[..]) {
                Ok(0) => {
                    self.fd = None;
                    return;
                }
                Ok(n) => self.captured.take(&chunk[..n], self.cap),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(_) => {
                    self.fd = None;
                    return;
                }
            }
        }
    }

    /// Closes the pipe and gives what was read.
    pub(crate) fn finish(self) -> Captured {
        self.captured
    }
}

impl Captured {
    fn take(&mut self, chunk: &[u8], cap: usize) {
        let room = cap - self.bytes.len();
        let kept = chunk.len().min(room);
        self.bytes.extend_from_slice(&chunk[..kept]);
        self.overflow |= kept < chunk.len();
    }
}

/// The writing end of the input pipe and what is still to be written. The request is wiped when it has been written
/// or is given up.
pub(crate) struct Input {
    open: Option<(OwnedFd, Zeroizing<Vec<u8>>)>,
    written: usize,
}

impl Input {
    /// Takes the pipe and the request over.
    pub(crate) fn new(fd: Option<OwnedFd>, request: Zeroizing<Vec<u8>>) -> Self {
        let fd = fd.filter(|fd| ioctl_fionbio(fd, true).is_ok());
        Self { open: fd.map(|fd| (fd, request)), written: 0 }
    }

    /// The pipe, while there is something to write.
    pub(crate) fn fd(&self) -> Option<impl AsFd + '_> {
        self.open.as_ref().map(|(fd, _)| fd)
    }

    /// Writes what the pipe takes. A plugin that does not read its input is not at fault.
    pub(crate) fn pump(&mut self) -> Pipe {
        while let Some((fd, request)) = &self.open {
            match rustix::io::write(fd, &request[self.written..]) {
                Ok(n) => self.written += n,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Pipe::Open,
                Err(_) => self.open = None,
            }
            if self.open.as_ref().is_some_and(|(_, request)| self.written == request.len()) {
                self.open = None;
            }
        }
        Pipe::Closed
    }

    /// Gives up what is not written.
    pub(crate) fn close(&mut self) {
        self.open = None;
    }
}
