//! Errors of the command line tool, and their output.

use std::fmt::Write;
use std::path::PathBuf;

use culvert_api::{ErrorBody, ErrorReply};
use culvert_capture::CaptureError;
use culvert_program::escaped;
use thiserror::Error;

/// Why a command failed.
#[derive(Debug, Error)]
pub(crate) enum Error {
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// A file is not a capture, or is damaged.
    #[error("{path} is not a capture that can be replayed: {problem}")]
    Capture {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: CaptureError,
    },
    /// The daemon does not answer.
    #[error("culvertd does not answer on {socket}: {detail}")]
    NoDaemon {
        /// Its socket.
        socket: PathBuf,
        /// What happened.
        detail: String,
    },
    /// The daemon took the request, but its reply did not come.
    #[error("culvertd on {socket} took the request, but did not answer: {detail}")]
    NoReply {
        /// Its socket.
        socket: PathBuf,
        /// What happened.
        detail: String,
    },
    /// The same, of a change.
    #[error("culvertd on {socket} did not answer: {detail}; the change may be in force all the same")]
    OutcomeUnknown {
        /// Its socket.
        socket: PathBuf,
        /// What happened.
        detail: String,
    },
    /// The command has its output, but did not reach what it is for.
    #[error("{text}")]
    Shown {
        /// The output.
        text: String,
    },
    /// The daemon's reply cannot be read.
    #[error("cannot read culvertd's reply to {path}: {detail}")]
    Answer {
        /// The request.
        path: String,
        /// What is wrong with it.
        detail: String,
    },
    /// A problem of the request or the policy.
    #[error("{}", .0.message)]
    Refused(Box<ErrorBody>),
}

impl Error {
    fn body(&self) -> ErrorBody {
        match self {
            Error::File { path, source } => {
                let remedy = match source.kind() {
                    std::io::ErrorKind::InvalidData => "write the file in UTF-8",
                    _ => "check the path and its permissions",
                };
                ErrorBody::new("File", self.to_string(), &path.display().to_string(), remedy)
            }
            Error::Capture { path, problem } => {
                ErrorBody::new("Capture", self.to_string(), &path.display().to_string(), problem.remedy())
            }
            Error::NoDaemon { socket, detail } => {
                let remedy = if detail.contains("Permission denied") {
                    "become a member of the socket's group, which is culvert where the package is installed"
                } else {
                    "start culvertd, or name its socket with --host-socket or CULVERT_SOCKET"
                };
                ErrorBody::new("NoDaemon", self.to_string(), &socket.display().to_string(), remedy)
            }
            Error::NoReply { socket, .. } => ErrorBody::new(
                "NoReply",
                self.to_string(),
                &socket.display().to_string(),
                "try again with a longer --timeout; see culvertd's log",
            ),
            Error::OutcomeUnknown { socket, .. } => ErrorBody::new(
                "OutcomeUnknown",
                self.to_string(),
                &socket.display().to_string(),
                "see culvert health and culvert policy show, and apply again with a longer --timeout: applying twice does \
                 no harm",
            ),
            Error::Shown { text } => ErrorBody::new("NotOk", text.clone(), "", ""),
            Error::Answer { path, .. } => ErrorBody::new(
                "Answer",
                self.to_string(),
                path,
                "use culvert and culvertd of the same version",
            ),
            Error::Refused(body) => body.as_ref().clone(),
        }
    }

    /// The process's exit code, as `--help` lists them.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Error::NoDaemon { .. } | Error::NoReply { .. } | Error::OutcomeUnknown { .. } => 3,
            Error::File { .. }
            | Error::Capture { .. }
            | Error::Answer { .. }
            | Error::Shown { .. }
            | Error::Refused(_) => 1,
        }
    }

    /// For `--json`.
    pub(crate) fn json(&self) -> String {
        let mut text = serde_json::to_string_pretty(&ErrorReply { error: self.body() }).unwrap_or_default();
        text.push('\n');
        text
    }

    /// For people.
    pub(crate) fn text(&self) -> String {
        let mut out = String::new();
        render(&mut out, "error: ", &self.body());
        out
    }
}

/// Writing to a string cannot fail; its results are dropped for that reason.
fn render(out: &mut String, lead: &str, body: &ErrorBody) {
    let _ = writeln!(out, "{lead}{}", escaped(&body.message));
    if !body.remedy.is_empty() {
        let _ = writeln!(out, "{:width$}-> {}", "", escaped(&body.remedy), width = lead.len());
    }
    for detail in &body.details {
        render(out, "  * ", detail);
    }
    if body.more > 0 {
        let _ = writeln!(out, "  * and {} more", body.more);
    }
    for warning in &body.warnings {
        let _ = writeln!(out, "warning: {}: {}", warning.target, warning.message);
    }
    if body.more_warnings > 0 {
        let _ = writeln!(out, "warning: and {} more", body.more_warnings);
    }
}
