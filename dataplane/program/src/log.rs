//! The log of a program: lines on standard error, and which are written.

use std::fmt::{self, Write as _};
use std::io::IsTerminal as _;
use std::sync::{Mutex, OnceLock, PoisonError};

use thiserror::Error;
use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::{DefaultFields, Writer};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Registry, reload};

use crate::escaped;

/// Filter of a program that is told nothing else, and level of what a filter does not name.
pub const DEFAULT: &str = "info";
/// Longest filter, in bytes.
const LONGEST: usize = 1024;

/// The program's filter.
struct Filter {
    handle: reload::Handle<EnvFilter, Registry>,
    text: Mutex<String>,
}

static FILTER: OnceLock<Filter> = OnceLock::new();

/// Why a filter cannot be set.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FilterError {
    /// It is not a list of levels.
    #[error("\"{}\" is no log level", escaped(.0))]
    Invalid(String),
    /// It is longer than any that is needed.
    #[error("the filter has {0} bytes")]
    TooLong(usize),
    /// The program writes no log.
    #[error("this process has no log")]
    NoLog,
}

impl FilterError {
    /// What to do about it.
    pub fn remedy(&self) -> &'static str {
        match self {
            FilterError::Invalid(_) => {
                "use off, error, warn, info, debug or trace; for one module MODULE=LEVEL, such as \
                 info,culvert_switch=debug"
            }
            FilterError::TooLong(_) => "use at most 1024 bytes",
            FilterError::NoLog => "restart the program",
        }
    }
}

/// Starts the log. `variable` is the environment's for the filter. Control characters of what is logged are escaped.
pub fn init(variable: &str, json: bool) {
    let asked = std::env::var(variable).ok();
    let parsed = asked.and_then(|text| EnvFilter::try_new(&text).ok().map(|filter| (filter, text)));
    let (filter, text) = parsed.unwrap_or_else(|| (EnvFilter::new(DEFAULT), DEFAULT.to_owned()));
    let (filter, handle) = reload::Layer::new(filter);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let registry = tracing_subscriber::registry().with(filter);
    let started = if json {
        registry.with(lines.json()).try_init()
    } else {
        let lines = lines.with_ansi(std::io::stderr().is_terminal()).fmt_fields(EscapedFields::default());
        registry.with(lines).try_init()
    };
    if started.is_ok() {
        let _ = FILTER.set(Filter { handle, text: Mutex::new(text) });
    }
}

/// The filter in force; `None`: there is no log.
pub fn filter() -> Option<String> {
    FILTER.get().map(|filter| filter.text.lock().unwrap_or_else(PoisonError::into_inner).clone())
}

/// Replaces the filter until the program ends: a level, and levels of modules with those below them, separated by commas.
/// Returns it as it is in force.
///
/// # Errors
/// The text is no filter, or there is no log.
pub fn set_filter(text: &str) -> Result<String, FilterError> {
    let wanted = checked(text)?;
    let filter = FILTER.get().ok_or(FilterError::NoLog)?;
    let parsed = EnvFilter::try_new(&wanted).map_err(|_| FilterError::Invalid(wanted.clone()))?;
    let mut now = filter.text.lock().unwrap_or_else(PoisonError::into_inner);
    filter.handle.reload(parsed).map_err(|_| FilterError::NoLog)?;
    now.clone_from(&wanted);
    Ok(wanted)
}

/// A filter with the level of everything else in front. Takes no names of spans and fields: they hold patterns, which cost
/// time with each line. A single word must be a level: the library takes it for a module otherwise.
fn checked(text: &str) -> Result<String, FilterError> {
    if text.len() > LONGEST {
        return Err(FilterError::TooLong(text.len()));
    }
    let (mut general, mut modules) = (None, String::new());
    for part in text.split(',').map(str::trim) {
        let invalid = || FilterError::Invalid(part.to_owned());
        let (module, level) =
            part.split_once('=').map_or((None, part), |(module, level)| (Some(module), level));
        // It also takes numbers.
        let known = level.chars().all(char::is_alphabetic) && level.parse::<LevelFilter>().is_ok();
        if !known || level.is_empty() {
            return Err(invalid());
        }
        let level = level.to_ascii_lowercase();
        match module {
            None if general.is_none() => general = Some(level),
            Some(name) if is_module(name) => {
                let _ = write!(modules, ",{name}={level}");
            }
            _ => return Err(invalid()),
        }
    }
    Ok(general.unwrap_or_else(|| DEFAULT.to_owned()) + &modules)
}

fn is_module(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b':')
}

/// Fields of a log line without control characters; the colours of the rest of the line stay.
#[derive(Default)]
struct EscapedFields(DefaultFields);

impl<'w> FormatFields<'w> for EscapedFields {
    fn format_fields<R: RecordFields>(&self, mut writer: Writer<'w>, fields: R) -> fmt::Result {
        let mut text = String::new();
        self.0.format_fields(Writer::new(&mut text), fields)?;
        write!(writer, "{}", escaped(&text))
    }
}

/// A subscriber as [`init`] starts it, which writes to `writer`.
#[doc(hidden)]
pub fn plain<W>(writer: W) -> impl Subscriber
where
    W: for<'w> tracing_subscriber::fmt::MakeWriter<'w> + Send + Sync + 'static,
{
    let lines = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(false);
    tracing_subscriber::registry().with(lines.fmt_fields(EscapedFields::default()))
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_name_forges_no_line_of_the_log() {
        let written = Written::default();
        let to = written.clone();
        let name = "vm1\n2026-01-01T00:00:00Z ERROR culvertd: lost\u{1b}[1A\r";
        tracing::subscriber::with_default(plain(move || to.clone()), || {
            tracing::warn!(%name, "port {name} has failed");
            tracing::info_span!("vm", %name).in_scope(|| tracing::warn!(other = name, "in a span"));
        });
        let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.lines().count(), 2, "{text}");
        assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
        assert!(text.contains(r"port vm1\n2026") && text.contains(r"\r"), "{text}");
    }

    #[test]
    fn a_filter_is_a_level_and_levels_of_modules() {
        assert_eq!(checked("debug").unwrap(), "debug");
        assert_eq!(checked("WARN, culvert_switch=Trace").unwrap(), "warn,culvert_switch=trace");
        assert_eq!(checked("culvert_pf::queue=debug").unwrap(), "info,culvert_pf::queue=debug");
        for wrong in
            ["", "dbug", "4", "debug,info", "culvert_pf=", "a=5", "x[span]=debug", "=info", "a=b=info"]
        {
            assert!(matches!(checked(wrong), Err(FilterError::Invalid(_))), "{wrong:?}");
        }
        assert_eq!(checked(&"a=info,".repeat(200)), Err(FilterError::TooLong(1400)));
    }
}
