//! Errors of the tool, and how they are printed.

use std::fmt::Write;
use std::path::PathBuf;

use culvert_api::{ErrorBody, ErrorReply};
use thiserror::Error;

use crate::capture::Broken;

/// Why a command did not do what was asked.
#[derive(Debug, Error)]
pub(crate) enum Error {
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A file is no capture, or a broken one.
    #[error("{path} is not a capture that can be replayed: {problem}")]
    Capture {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: Broken,
    },
    /// The daemon does not answer.
    #[error("culvertd does not answer on {socket}: {detail}")]
    NoDaemon {
        /// Its socket.
        socket: PathBuf,
        /// What happened.
        detail: String,
    },
    /// The daemon answers something else than this tool understands.
    #[error("culvertd's answer to {path} is not understood: {detail}")]
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
            Error::NoDaemon { socket, .. } => ErrorBody::new(
                "NoDaemon",
                self.to_string(),
                &socket.display().to_string(),
                "start culvertd, or name its socket with --host-socket",
            ),
            Error::Answer { path, .. } => ErrorBody::new(
                "Answer",
                self.to_string(),
                path,
                "use culvert and culvertd of the same version",
            ),
            Error::Refused(body) => body.as_ref().clone(),
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
    let _ = writeln!(out, "{lead}{}", body.message);
    if !body.remedy.is_empty() {
        let _ = writeln!(out, "{:width$}-> {}", "", body.remedy, width = lead.len());
    }
    for detail in &body.details {
        render(out, "  * ", detail);
    }
}
