//! Replies for a client, in their order: bytes, and large values that are sent from where they lie.

use std::io::IoSlice;

use bytes::Bytes;

use crate::item::ItemView;
use crate::spare;

/// From so many bytes on, to copy a value costs more than to name it.
const SHARED_MIN: usize = 8 << 10;

/// Slices that are sent at once.
pub const SLICES: usize = 16;

/// Replies for a client.
#[derive(Debug, Default)]
pub struct Output {
    bytes: Vec<u8>,
    /// Values that lie elsewhere.
    values: Vec<Named>,
    /// Bytes of these values.
    values_len: usize,
    /// Bytes of the memory that they keep in use.
    pinned: usize,
}

/// A value that lies elsewhere.
#[derive(Debug)]
struct Named {
    /// How many bytes of the output stand in front of it.
    at: usize,
    /// What is to be sent of it.
    value: Bytes,
    /// Bytes of all of it, which stay in use.
    pinned: usize,
}

impl Output {
    /// To write behind everything that is there. Nothing that is there may be changed.
    #[inline]
    pub fn writer(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Bytes to be sent.
    #[inline]
    pub fn len(&self) -> usize {
        self.bytes.len() + self.values_len
    }

    /// Whether nothing is to be sent.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of memory that it keeps in use, what others may share included.
    pub fn held_bytes(&self) -> usize {
        self.bytes.capacity() + self.pinned
    }

    /// Room for a reply with this item's value and so many bytes more.
    #[inline]
    pub fn reserve_for(&mut self, item: &ItemView<'_>, bytes: usize) {
        let copied = if is_shared(item) { 0 } else { item.value.len() };
        self.bytes.reserve(copied + bytes);
    }

    /// Adds the value of an item: copied, or where it is large and may be shared, only named.
    #[inline]
    pub fn push_value(&mut self, item: &ItemView<'_>) {
        match item.shared {
            Some(value) if is_shared(item) => self.share(value.clone(), value.len()),
            _ => self.bytes.extend_from_slice(item.value),
        }
    }

    #[cold]
    fn share(&mut self, value: Bytes, pinned: usize) {
        self.values_len += value.len();
        self.pinned += pinned;
        self.values.push(Named { at: self.bytes.len(), value, pinned });
    }

    /// Moves everything that is in `other` behind what is here.
    pub fn append(&mut self, other: &mut Self) {
        let before = self.bytes.len();
        self.values.extend(other.values.drain(..).map(|named| Named { at: before + named.at, ..named }));
        self.bytes.append(&mut other.bytes);
        self.values_len += std::mem::take(&mut other.values_len);
        self.pinned += std::mem::take(&mut other.pinned);
    }

    /// Forgets everything, and keeps the memory.
    #[inline]
    pub fn clear(&mut self) {
        self.bytes.clear();
        if self.values_len > 0 {
            for named in self.values.drain(..) {
                // Has perhaps been overwritten while it was sent.
                spare::give(named.value);
            }
            (self.values_len, self.pinned) = (0, 0);
        }
    }

    /// Bytes of memory that what is behind the first `sent` bytes needs: of a value all that it lies in.
    pub fn needed_bytes(&self, sent: usize) -> usize {
        self.parts(sent).map(|(slice, named)| named.map_or(slice.len(), |named| named.pinned)).sum()
    }

    /// Keeps what is behind the first `sent` bytes, in no more memory than it needs.
    pub fn drop_sent(&mut self, sent: usize) {
        let mut left = Self::default();
        for (slice, named) in self.parts(sent) {
            match named {
                Some(named) => left.share(named.value.slice_ref(slice), named.pinned),
                None => left.bytes.extend_from_slice(slice),
            }
        }
        left.bytes.shrink_to_fit();
        *self = left;
    }

    /// The bytes behind the first `sent`, where no value lies elsewhere.
    #[inline]
    pub fn contiguous(&self, sent: usize) -> Option<&[u8]> {
        if self.values_len == 0 { self.bytes.get(sent..) } else { None }
    }

    /// What is sent next behind the first `sent` bytes, for one `writev`; returns how many slices there are.
    pub fn slices<'a>(&'a self, sent: usize, slices: &mut [IoSlice<'a>; SLICES]) -> usize {
        let filled = slices.iter_mut().zip(self.parts(sent)).map(|(slice, (bytes, _))| {
            *slice = IoSlice::new(bytes);
        });
        filled.count()
    }

    /// Everything behind the first `sent` bytes in order, with the values that it lies in.
    fn parts(&self, mut sent: usize) -> impl Iterator<Item = (&[u8], Option<&Named>)> {
        let starts = std::iter::once(0).chain(self.values.iter().map(|named| named.at));
        let ends = self.values.iter().map(|named| (named.at, Some(named)));
        let ends = ends.chain(std::iter::once((self.bytes.len(), None)));
        let parts = starts.zip(ends).flat_map(|(start, (end, named))| {
            let bytes = (&self.bytes[start..end], None);
            [Some(bytes), named.map(|named| (&named.value[..], Some(named)))].into_iter().flatten()
        });
        parts.filter_map(move |(bytes, named)| {
            let skipped = sent.min(bytes.len());
            sent -= skipped;
            (skipped < bytes.len()).then(|| (&bytes[skipped..], named))
        })
    }

    /// All bytes in one piece.
    pub fn into_bytes(mut self) -> Vec<u8> {
        if self.values_len == 0 {
            return std::mem::take(&mut self.bytes);
        }
        self.parts(0).flat_map(|(bytes, _)| bytes).copied().collect()
    }
}

#[inline]
fn is_shared(item: &ItemView<'_>) -> bool {
    item.shared.is_some() && item.value.len() >= SHARED_MIN
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn push(output: &mut Output, value: &Bytes) {
        output.push_value(&ItemView { value, shared: Some(value), ..ItemView::default() });
    }

    fn sent(output: &Output, sent: usize) -> Vec<u8> {
        let mut slices = [IoSlice::new(&[]); SLICES];
        let filled = output.slices(sent, &mut slices);
        slices[..filled].iter().flat_map(|slice| slice.iter().copied()).collect()
    }

    proptest! {
        #[test]
        fn everything_is_sent_in_order(
            lens in proptest::collection::vec((0..40_usize, prop_oneof![Just(10), SHARED_MIN..SHARED_MIN + 100]), 0..6),
            at: prop::sample::Index, split: prop::sample::Index,
        ) {
            let (mut output, mut all) = (Output::default(), Vec::new());
            let split = split.index(lens.len() + 1);
            let mut second = Output::default();
            for (number, (before, len)) in lens.into_iter().enumerate() {
                let into = if number < split { &mut output } else { &mut second };
                into.writer().extend_from_slice(&vec![b'a' + number as u8; before]);
                let value = Bytes::from(vec![b'A' + number as u8; len]);
                push(into, &value);
                all.extend_from_slice(&vec![b'a' + number as u8; before]);
                all.extend_from_slice(&value);
            }
            output.append(&mut second);
            prop_assert!(second.is_empty() && output.len() == all.len());
            let at = at.index(all.len() + 1);
            prop_assert_eq!(&sent(&output, at), &all[at..]);
            if let Some(bytes) = output.contiguous(at) {
                prop_assert_eq!(bytes, &all[at..]);
            }
            let needed = output.needed_bytes(at);
            output.drop_sent(at);
            prop_assert_eq!(sent(&output, 0), &all[at..]);
            prop_assert_eq!((output.len(), output.is_empty()), (all.len() - at, at == all.len()));
            prop_assert!(output.held_bytes() >= output.len());
            let pinned: usize = output.values.iter().map(|named| named.pinned).sum();
            prop_assert_eq!(output.held_bytes(), output.bytes.capacity() + pinned);
            prop_assert_eq!(output.held_bytes(), needed);
            prop_assert_eq!(output.into_bytes(), &all[at..]);
        }
    }

    #[test]
    fn the_rest_of_a_value_counts_as_all_of_it() {
        let value = Bytes::from(vec![b'v'; SHARED_MIN]);
        let mut output = Output::default();
        push(&mut output, &value);
        output.drop_sent(SHARED_MIN - 1);
        assert_eq!((output.len(), output.held_bytes()), (1, SHARED_MIN));
        output.drop_sent(1);
        assert!(value.is_unique() && output.held_bytes() == 0);
    }

    #[test]
    fn a_large_value_is_named_and_a_small_one_copied() {
        let (large, small) = (Bytes::from(vec![b'l'; SHARED_MIN]), Bytes::from_static(b"small"));
        let mut output = Output::default();
        push(&mut output, &small);
        push(&mut output, &large);
        assert_eq!((output.len(), output.bytes.len()), (SHARED_MIN + 5, 5));
        assert!(!large.is_unique());
        output.clear();
        assert!(large.is_unique() && output.is_empty());
    }
}
