//! `Activity`: something that the stack does over time, as a state machine that its loop turns.

use std::sync::mpsc::Sender;
use std::time::Instant;

use smoltcp::iface::{Interface, SocketSet};

use crate::Event;

/// What an activity works with in one turn.
pub(super) struct Context<'a> {
    pub(super) now: Instant,
    pub(super) iface: &'a mut Interface,
    pub(super) sockets: &'a mut SocketSet<'static>,
    /// Set by an activity that read or wrote a socket: the stack has to look at it again.
    pub(super) moved: bool,
}

/// What comes after a turn.
pub(super) enum Next {
    /// Nothing: the activity has removed its sockets.
    Over,
    /// Another turn when something arrives, or at the latest at this time.
    At(Option<Instant>),
}

/// See the module.
pub(super) trait Activity: Send {
    /// Takes a turn.
    fn turn(&mut self, cx: &mut Context<'_>) -> Next;
}

/// Tells whoever gave the command. Nobody may be listening any more.
pub(super) fn tell(reply: &Sender<Event>, event: Event) {
    let _ = reply.send(event);
}

/// Tells whoever gave the command that it failed.
pub(super) fn fail(reply: &Sender<Event>, message: impl Into<String>) -> Next {
    tell(reply, Event::Error { message: message.into() });
    Next::Over
}
