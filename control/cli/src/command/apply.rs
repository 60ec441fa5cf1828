//! `culvert policy apply`: sends a policy, and waits until the host carries it out.

use std::fmt::Write;
use std::io::{BufRead as _, Write as _};
use std::time::{Duration, Instant};

use culvert_api::ApplyReply;
use culvert_api::view::{HealthView, ProgressView};

use crate::client::Client;
use crate::error::Error;
use crate::output::show;
use crate::text::{line, warnings};

/// Interval between two looks at the host.
const LOOK: Duration = Duration::from_millis(200);

/// How a policy is applied.
#[derive(Clone, Copy)]
pub(super) struct Options {
    pub(super) merge: bool,
    pub(super) dry_run: bool,
    /// Leave out what is not known, instead of refusing it.
    pub(super) lenient: bool,
    /// Also if it deletes more than half of the network interfaces.
    pub(super) force: bool,
    pub(super) no_wait: bool,
    /// The user is at a terminal, and can be asked.
    pub(super) asks: bool,
}

/// Applies a policy. `client` limits each request, and the whole command.
///
/// # Errors
/// The daemon refuses it or does not answer, or it is not carried out in time: [`Error::Shown`].
pub(super) fn run(body: &[u8], options: Options, client: &Client, json: bool) -> Result<String, Error> {
    let reply = match send(body, options, client) {
        Err(Error::Refused(why)) if why.code == "ManyDeleted" && options.asks && confirmed(&why.message) => {
            send(body, Options { force: true, ..options }, client)
        }
        reply => reply,
    }?;
    let deadline = Instant::now() + client.timeout();
    if options.dry_run || options.no_wait || is_done(&reply) {
        return Ok(render(&reply, options, json));
    }
    let reply = wait(reply, deadline, client, json);
    let text = render(&reply, options, json);
    if is_done(&reply) { Ok(text) } else { Err(Error::Shown { text }) }
}

fn send(body: &[u8], options: Options, client: &Client) -> Result<ApplyReply, Error> {
    let Options { merge, dry_run, lenient, force, .. } = options;
    let mode = if merge { "merge" } else { "replace" };
    let path = format!("/culvert/v1/bundle?mode={mode}&dryRun={dry_run}&lenient={lenient}&force={force}");
    match client.post(&path, body.to_vec()) {
        Err(Error::NoReply { socket, detail }) if !dry_run => Err(Error::OutcomeUnknown { socket, detail }),
        reply => reply,
    }
}

/// Asks on the terminal whether to do what the daemon does not do unasked.
fn confirmed(why: &str) -> bool {
    let mut answer = String::new();
    // Without an answer it is not done.
    let _ = write!(std::io::stderr(), "{why}. Apply it? [y/N] ");
    let _ = std::io::stderr().flush();
    let _ = std::io::stdin().lock().read_line(&mut answer);
    matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes")
}

fn is_done(reply: &ApplyReply) -> bool {
    reply.applied && reply.progress.is_done()
}

/// Waits until the policy is carried out, or the deadline passes. Says on standard error what it waits for.
fn wait(mut reply: ApplyReply, deadline: Instant, client: &Client, json: bool) -> ApplyReply {
    let mut told = String::new();
    while !is_done(&reply) {
        let said = waiting_for(&reply);
        if !json && said != told {
            // Whoever has closed standard error does not want it.
            let _ = writeln!(std::io::stderr(), "{said}");
            told = said;
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        std::thread::sleep(LOOK.min(left));
        // A daemon that does not answer now may answer the next time.
        if let Ok(health) = client.health() {
            update(&mut reply, health);
        }
    }
    reply
}

fn update(reply: &mut ApplyReply, health: HealthView) {
    reply.applied = health.applied_version >= reply.version;
    if reply.applied {
        reply.problem.clear();
    }
    reply.progress = health.progress;
}

fn waiting_for(reply: &ApplyReply) -> String {
    let progress = &reply.progress;
    let mut said = format!("waiting: {}", count(progress));
    if !reply.problem.is_empty() {
        let _ = write!(said, "; {}", reply.problem);
    } else if let Some(first) = progress.pending.first() {
        let _ = write!(said, "; {}: {}", first.port, first.reason);
    }
    said
}

fn count(progress: &ProgressView) -> String {
    let ProgressView { vports, vports_done, uplinks, uplinks_done, .. } = progress;
    format!("{vports_done} of {vports} vports and {uplinks_done} of {uplinks} uplinks are done")
}

fn render(reply: &ApplyReply, options: Options, json: bool) -> String {
    show(reply, json, |reply| {
        let mut out = String::new();
        for (sign, paths) in [("+", &reply.created), ("~", &reply.updated), ("-", &reply.deleted)] {
            paths.iter().for_each(|path| line(&mut out, &format!("{sign} {path}")));
        }
        let (new, changed, gone) = (reply.created.len(), reply.updated.len(), reply.deleted.len());
        let counts = format!("{new} new, {changed} changed, {gone} deleted, {} unchanged", reply.unchanged);
        line(&mut out, &if options.dry_run { format!("would be {counts}") } else { counts });
        warnings(&mut out, &reply.warnings, reply.more_warnings);
        if !options.dry_run {
            outcome(&mut out, reply);
        }
        out
    })
}

fn outcome(out: &mut String, reply: &ApplyReply) {
    let version = reply.version;
    if is_done(reply) {
        line(out, &format!("version {version} is applied"));
        return;
    }
    if reply.applied {
        line(
            out,
            &format!(
                "version {version} is applied, but not all of it is carried out: {}",
                count(&reply.progress)
            ),
        );
    } else {
        line(out, &format!("stored as version {version}, but not applied yet: {}", reply.problem));
    }
    for pending in &reply.progress.pending {
        let name = if pending.name.is_empty() { String::new() } else { format!(" ({})", pending.name) };
        line(out, &format!("  * {}{name} is {}: {}", pending.port, pending.state, pending.reason));
    }
    line(out, "culvertd goes on trying; see culvert health");
}

#[cfg(test)]
mod tests {
    use super::*;
    use culvert_api::view::PendingView;

    #[test]
    fn what_is_not_carried_out_is_named_with_the_reason() {
        let pending = PendingView {
            port: "uplink 0".into(),
            name: "eth0".into(),
            state: "down".into(),
            reason: "the interface eth0 is down: ip link set eth0 up".into(),
        };
        let progress =
            ProgressView { vports: 2, vports_done: 2, uplinks: 1, uplinks_done: 0, pending: vec![pending] };
        let mut reply = ApplyReply { version: 3, applied: true, progress, ..ApplyReply::default() };
        let options = Options {
            merge: false,
            dry_run: false,
            lenient: false,
            force: false,
            no_wait: false,
            asks: false,
        };
        let text = render(&reply, options, false);
        assert!(text.contains("not all of it is carried out: 2 of 2 vports and 0 of 1 uplinks"), "{text}");
        assert!(text.contains("uplink 0 (eth0) is down: the interface eth0 is down: ip link set"), "{text}");
        let health = HealthView { applied_version: 3, ..HealthView::default() };
        update(&mut reply, health);
        assert!(render(&reply, options, false).ends_with("version 3 is applied\n"));
    }
}
