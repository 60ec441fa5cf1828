//! `LastKnown`: a view as it was last read, for times in which the datapath does not answer.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use super::interface::DatapathError;

/// A view, and when it was read.
pub(super) struct LastKnown<T>(Mutex<Option<(Instant, T)>>);

impl<T> Default for LastKnown<T> {
    fn default() -> Self {
        LastKnown(Mutex::new(None))
    }
}

impl<T: Clone> LastKnown<T> {
    /// The view that was read now. If the datapath does not answer: the last one, which `mark` marks with its age in
    /// seconds.
    ///
    /// # Errors
    /// Nothing was ever read, or the reading failed for another reason.
    pub(super) fn or_last(
        &self,
        read: Result<T, DatapathError>,
        mark: impl FnOnce(&mut T, u64),
    ) -> Result<T, DatapathError> {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match read {
            Ok(view) => {
                *last = Some((Instant::now(), view.clone()));
                Ok(view)
            }
            Err(error @ DatapathError::Unavailable { .. }) => {
                let (at, mut view) = last.clone().ok_or(error)?;
                mark(&mut view, at.elapsed().as_secs());
                Ok(view)
            }
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_absent_datapath_leaves_what_was_last_read() {
        let last = LastKnown::default();
        let absent = || Err(DatapathError::Unavailable { detail: "unplugged".into() });
        let read = |result| last.or_last(result, |view: &mut (u32, Option<u64>), age| view.1 = Some(age));
        assert_eq!(read(absent()), absent(), "nothing is known yet");
        assert_eq!(read(Ok((7, None))), Ok((7, None)));
        assert_eq!(read(absent()), Ok((7, Some(0))));
        let failed = || Err(DatapathError::Failed { detail: "refused".into() });
        assert_eq!(read(failed()), failed());
    }
}
