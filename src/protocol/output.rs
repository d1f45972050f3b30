//! Replies for a client, in their order: bytes, and large values that are sent from where they lie.

use std::io::IoSlice;

use bytes::Bytes;

use crate::item::ItemView;

/// From so many bytes on, to copy a value costs more than to name it.
const SHARED_MIN: usize = 8 << 10;

/// Slices that are sent at once.
pub const SLICES: usize = 16;

/// Replies for a client.
#[derive(Debug, Default)]
pub struct Output {
    bytes: Vec<u8>,
    /// Values that lie elsewhere, each with the number of bytes that stand in front of it.
    values: Vec<(usize, Bytes)>,
    /// Bytes of these values.
    values_len: usize,
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
        self.bytes.capacity() + self.values_len
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
            Some(value) if is_shared(item) => self.share(value.clone()),
            _ => self.bytes.extend_from_slice(item.value),
        }
    }

    #[cold]
    fn share(&mut self, value: Bytes) {
        self.values_len += value.len();
        self.values.push((self.bytes.len(), value));
    }

    /// Moves everything that is in `other` behind what is here.
    pub fn append(&mut self, other: &mut Self) {
        let before = self.bytes.len();
        self.values.extend(other.values.drain(..).map(|(at, value)| (before + at, value)));
        self.bytes.append(&mut other.bytes);
        self.values_len += std::mem::take(&mut other.values_len);
    }

    /// Forgets everything, and keeps the memory.
    #[inline]
    pub fn clear(&mut self) {
        self.bytes.clear();
        if self.values_len > 0 {
            self.values.clear();
            self.values_len = 0;
        }
    }

    /// Keeps what is behind the first `sent` bytes, in no more memory than it needs.
    pub fn drop_sent(&mut self, sent: usize) {
        let mut left = Self::default();
        for (slice, value) in self.parts(sent) {
            match value {
                Some(value) => left.share(value.slice_ref(slice)),
                None => left.bytes.extend_from_slice(slice),
            }
        }
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
    fn parts(&self, mut sent: usize) -> impl Iterator<Item = (&[u8], Option<&Bytes>)> {
        let starts = std::iter::once(0).chain(self.values.iter().map(|(at, _)| *at));
        let ends = self.values.iter().map(|(at, value)| (*at, Some(value)));
        let ends = ends.chain(std::iter::once((self.bytes.len(), None)));
        let parts = starts.zip(ends).flat_map(|(start, (end, value))| {
            let bytes = (&self.bytes[start..end], None);
            [Some(bytes), value.map(|value| (&value[..], Some(value)))].into_iter().flatten()
        });
        parts.filter_map(move |(bytes, value)| {
            let skipped = sent.min(bytes.len());
            sent -= skipped;
            (skipped < bytes.len()).then(|| (&bytes[skipped..], value))
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
            output.drop_sent(at);
            prop_assert_eq!(sent(&output, 0), &all[at..]);
            prop_assert_eq!((output.len(), output.is_empty()), (all.len() - at, at == all.len()));
            prop_assert!(output.held_bytes() >= output.len());
            prop_assert!(output.held_bytes() <= 2 * (all.len() - at) + 64);
            prop_assert_eq!(output.into_bytes(), &all[at..]);
        }
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
