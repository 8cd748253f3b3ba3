//! Inputs that the agent has named: one handle per distinct (path, kind), each with a small dense number.
//!
//! Thousands of jobs share most of their inputs. With a handle per input, telling a worker which ones a job needs is a
//! table look-up per input instead of hashing a path. A number is used again once nobody holds its handle, with
//! another serial. Invariant: while a handle lives, (slot, serial) names its input and no other.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::job::Input;

/// All inputs that some part of the agent holds a handle of. Cloning it gives another handle on the same table.
#[derive(Debug, Clone, Default)]
pub struct InputTable {
    shared: Arc<Mutex<Table>>,
}

#[derive(Debug, Default)]
struct Table {
    by_input: HashMap<Arc<Input>, Weak<Held>>,
    /// Serial of each slot's present or latest holder.
    serials: Vec<u32>,
    free: Vec<u32>,
}

#[derive(Debug)]
struct Held {
    input: Arc<Input>,
    slot: u32,
    table: Weak<Mutex<Table>>,
}

/// A handle on one input. Cheap to clone; the slot frees itself with the last clone.
#[derive(Debug, Clone)]
pub struct InputRef {
    // Beside the pointer rather than behind it: numbering a job's inputs then reads memory in order.
    slot: u32,
    serial: u32,
    held: Arc<Held>,
}

impl InputTable {
    /// Returns the handle of `input`, the same for equal inputs.
    pub fn intern(&self, input: Input) -> InputRef {
        let mut table = lock(&self.shared);
        if let Some(held) = table.by_input.get(&input).and_then(Weak::upgrade) {
            let serial = table.serials[held.slot as usize];
            return InputRef {
                slot: held.slot,
                serial,
                held,
            };
        }
        let slot = match table.free.pop() {
            Some(slot) => slot,
            None => {
                table.serials.push(0);
                (table.serials.len() - 1) as u32
            }
        };
        let serial = table.serials[slot as usize].wrapping_add(1);
        table.serials[slot as usize] = serial;
        let input = Arc::new(input);
        let held = Arc::new(Held {
            input: input.clone(),
            slot,
            table: Arc::downgrade(&self.shared),
        });
        table.by_input.insert(input, Arc::downgrade(&held));
        InputRef { slot, serial, held }
    }

    /// Returns how many inputs are held.
    pub fn len(&self) -> usize {
        lock(&self.shared).by_input.len()
    }

    /// True when no input is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl InputRef {
    /// Returns the dense number of the input: small, and another's once this input is held by nobody.
    pub(super) fn slot(&self) -> u32 {
        self.slot
    }

    /// Returns what tells this holder of the slot from earlier ones. Never 0 before four thousand million holders.
    pub(super) fn serial(&self) -> u32 {
        self.serial
    }
}

impl Deref for InputRef {
    type Target = Input;

    fn deref(&self) -> &Input {
        &self.held.input
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let Some(shared) = self.table.upgrade() else { return };
        let mut table = lock(&shared);
        // An equal input may have been interned again between the last handle's end and this lock.
        if let Some(entry) = table.by_input.get(&self.input)
            && entry.strong_count() == 0
        {
            table.by_input.remove(&self.input);
        }
        table.free.push(self.slot);
    }
}

fn lock(shared: &Mutex<Table>) -> MutexGuard<'_, Table> {
    // The table is consistent between any two statements that could panic.
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::InputKind;

    fn directory(path: &str) -> Input {
        Input {
            path: path.into(),
            kind: InputKind::Directory,
        }
    }

    #[test]
    fn equal_inputs_share_a_slot_and_others_do_not() {
        let table = InputTable::default();
        let (first, again) = (table.intern(directory("/a")), table.intern(directory("/a")));
        let other = table.intern(directory("/b"));
        assert_eq!((first.slot(), first.serial()), (again.slot(), again.serial()));
        assert_ne!(first.slot(), other.slot());
        assert_eq!(table.len(), 2);
    }

    #[test]
    fn slot_of_a_dropped_input_returns_with_another_serial() {
        let table = InputTable::default();
        let first = table.intern(directory("/a"));
        let before = (first.slot(), first.serial());
        drop(first);
        assert!(table.is_empty());
        let second = table.intern(directory("/b"));
        assert_eq!(second.slot(), before.0);
        assert_ne!(second.serial(), before.1);
    }
}
