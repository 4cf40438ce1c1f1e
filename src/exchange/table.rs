//! Runs on: any thread.
//!
//! The names of exchanges, and what a thread keeps by them.

/// Names an exchange of one worker. An index is used again; its generation then differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct ExchangeId {
    index: u32,
    generation: u32,
}

/// What one thread keeps of its exchanges, by id.
#[derive(Debug)]
pub(crate) struct Table<T> {
    slots: Vec<Slot<T>>,
    /// Indices of empty slots.
    free: Vec<u32>,
    /// Indices of filled slots, oldest first as long as none is removed.
    live: Vec<u32>,
}

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    /// The value with its place in `live`.
    value: Option<(T, u32)>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            live: Vec::new(),
        }
    }
}

impl<T> Table<T> {
    /// Keeps what `value` makes of its new id.
    pub(crate) fn insert_with(&mut self, value: impl FnOnce(ExchangeId) -> T) -> ExchangeId {
        let index = self.free.pop().unwrap_or_else(|| {
            let index = u32::try_from(self.slots.len()).expect("fewer streams than 2^32");
            self.slots.push(Slot {
                generation: 0,
                value: None,
            });
            index
        });
        let place = u32::try_from(self.live.len()).expect("fewer streams than 2^32");
        let slot = &mut self.slots[index as usize];
        let id = ExchangeId {
            index,
            generation: slot.generation,
        };
        slot.value = Some((value(id), place));
        self.live.push(index);
        id
    }

    /// The value of `id`, if it has not been removed.
    pub(crate) fn get(&self, id: ExchangeId) -> Option<&T> {
        let slot = self.slots.get(id.index as usize)?;
        let (value, _) = slot.value.as_ref()?;
        (slot.generation == id.generation).then_some(value)
    }

    /// Removes and returns the value of `id`.
    pub(crate) fn remove(&mut self, id: ExchangeId) -> Option<T> {
        let slot = self.slots.get_mut(id.index as usize)?;
        if slot.generation != id.generation {
            return None;
        }
        let (value, place) = slot.value.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(id.index);
        self.live.swap_remove(place as usize);
        if let Some(&moved) = self.live.get(place as usize) {
            let moved = self.slots[moved as usize]
                .value
                .as_mut()
                .expect("`live` names filled slots");
            moved.1 = place;
        }
        Some(value)
    }

    /// All values that have not been removed.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.live.iter().filter_map(|&index| {
            let slot = &self.slots[index as usize];
            slot.value.as_ref().map(|(value, _)| value)
        })
    }

    /// Some value that has not been removed; one that is likely to stay.
    pub(crate) fn any(&self) -> Option<&T> {
        let slot = &self.slots[*self.live.first()? as usize];
        slot.value.as_ref().map(|(value, _)| value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_id_does_not_find_the_new_exchange_in_its_slot() {
        let mut table = Table::default();
        let old = table.insert_with(|_| "old");
        assert_eq!(table.remove(old), Some("old"));
        let new = table.insert_with(|_| "new");
        assert_eq!(old.index, new.index);
        assert_eq!(table.get(old), None);
        assert_eq!(table.remove(old), None);
        assert_eq!(table.get(new), Some(&"new"));
    }

    #[test]
    fn any_finds_a_live_value_whatever_was_removed() {
        let mut table = Table::default();
        let ids: Vec<_> = (0..5).map(|n| table.insert_with(|_| n)).collect();
        for (gone, id) in ids.iter().enumerate() {
            assert!(table.any().is_some_and(|left| *left >= gone));
            assert_eq!(table.remove(*id), Some(gone));
        }
        assert_eq!(table.any(), None);
    }
}
