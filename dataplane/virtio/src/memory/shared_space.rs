//! An address space that one thread changes while others use it, and for which those others never wait.
//!
//! A view sees an address space that does not change. Whoever changes it works on a copy and puts that in its place: whatever
//! holds up the change, such as a file of a client's, holds up no view. What was removed stays mapped until no view is left
//! that could reach it, and it is the changing thread that unmaps it: unmapping takes long.

use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Guard};

use super::address_space::{AddressSpace, RegionError};
use super::region_table::Region;

/// How long a change waits until no view uses what was before, only to save the next change a copy.
const REUSE_LIMIT: Duration = Duration::from_millis(1);
/// Interval in which a wait looks, after a first look at once.
const POLL: Duration = Duration::from_micros(50);

/// A change of an address space.
#[derive(Clone)]
pub enum SpaceChange {
    /// Adds a region at an address.
    Insert(u64, Region),
    /// Removes the regions inside a range: address and size.
    Remove(u64, u64),
    /// Removes all regions.
    RemoveAll,
}

impl SpaceChange {
    /// Makes the change, and returns how many bytes it has removed.
    fn apply(&self, space: &mut AddressSpace) -> Result<u64, RegionError> {
        match self {
            SpaceChange::Insert(address, region) => space.insert(*address, region.clone()).map(|()| 0),
            SpaceChange::Remove(address, size) => space.remove(*address, *size),
            SpaceChange::RemoveAll => Ok(space.clear()),
        }
    }
}

/// The address space.
#[derive(Default)]
pub struct SharedSpace {
    /// What views see.
    current: ArcSwap<AddressSpace>,
    /// Taken by threads that change it only.
    writer: Mutex<Writer>,
}

#[derive(Default)]
struct Writer {
    /// A space equal to the current one, in which the next change is made.
    spare: Option<AddressSpace>,
    /// Spaces that a view used for too long. Kept, so that no view is the last to use a mapping.
    retired: Vec<Arc<AddressSpace>>,
}

impl Writer {
    /// Drops the spaces that no view uses any more. `true`: that is all of them.
    fn forget_retired(&mut self) -> bool {
        // The count of a space that is no longer current only falls.
        self.retired.retain(|space| Arc::strong_count(space) > 1);
        self.retired.is_empty()
    }
}

impl SharedSpace {
    /// Nothing mapped.
    pub fn new() -> Self {
        Self::default()
    }

    /// The space as it is now. Never waits. Keep it for a burst, not longer: see [`wait_unused`](Self::wait_unused).
    pub fn view(&self) -> SpaceView<'_> {
        SpaceView(self.current.load(), PhantomData)
    }

    /// Makes a change, and returns how many bytes it has removed. Views may still see what was before.
    ///
    /// # Errors
    /// As [`AddressSpace::insert`] and [`AddressSpace::remove`]: nothing is changed.
    pub fn change(&self, change: &SpaceChange) -> Result<u64, RegionError> {
        let mut writer = self.writer();
        let mut next = writer.spare.take().unwrap_or_else(|| AddressSpace::clone(&self.current.load()));
        let result = change.apply(&mut next);
        if result.is_err() {
            writer.spare = Some(next);
            return result;
        }
        let old = self.current.swap(Arc::new(next));
        wait_until(REUSE_LIMIT, || Arc::strong_count(&old) == 1);
        match Arc::try_unwrap(old) {
            // Both were equal: what succeeds in one does in the other.
            Ok(mut old) => writer.spare = change.apply(&mut old).is_ok().then_some(old),
            Err(old) => writer.retired.push(old),
        }
        writer.forget_retired();
        result
    }

    /// Waits until no view sees what earlier changes have removed, and unmaps it. `false`: one does, after all that time.
    pub fn wait_unused(&self, limit: Duration) -> bool {
        let mut writer = self.writer();
        wait_until(limit, || writer.forget_retired())
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits until something holds, for a limited time. `false`: it does not.
fn wait_until(limit: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let mut end = None;
    while !holds() {
        if Instant::now() >= *end.get_or_insert_with(|| Instant::now() + limit) {
            return false;
        }
        std::thread::sleep(POLL);
    }
    true
}

/// A space that does not change.
pub struct SpaceView<'a>(Guard<Arc<AddressSpace>>, PhantomData<&'a SharedSpace>);

impl Deref for SpaceView<'_> {
    type Target = AddressSpace;

    fn deref(&self) -> &AddressSpace {
        &self.0
    }
}
