//! The keys of a load.

use crate::support::load::LoadError;

/// memcached.h, KEY_MAX_LENGTH.
const LONGEST_KEY_BYTES: usize = 250;

/// Different keys of one length: numbers, with zeros in front.
#[derive(Debug)]
pub struct Keys {
    /// All keys, one after the other: `key_bytes` each.
    bytes: Vec<u8>,
    key_bytes: usize,
    count: u32,
}

impl Keys {
    /// The first `count` numbers whose keys are `wanted`.
    ///
    /// # Errors
    /// [`LoadError::Impossible`] when there are not as many.
    pub fn choose(count: u32, key_bytes: usize, wanted: impl Fn(&[u8]) -> bool) -> Result<Self, LoadError> {
        let impossible = || LoadError::Impossible(format!("{count} different keys of {key_bytes} bytes"));
        if count == 0 || key_bytes == 0 || key_bytes > LONGEST_KEY_BYTES {
            return Err(impossible());
        }
        let mut bytes = Vec::with_capacity(count as usize * key_bytes);
        let mut chosen = 0;
        for number in 0_u64.. {
            let key = format!("{number:0>key_bytes$}");
            if key.len() > key_bytes {
                return Err(impossible());
            }
            if wanted(key.as_bytes()) {
                bytes.extend_from_slice(key.as_bytes());
                chosen += 1;
            }
            if chosen == count {
                break;
            }
        }
        Ok(Self { bytes, key_bytes, count })
    }

    pub fn count(&self) -> u32 {
        self.count
    }

    /// Length of each.
    pub fn key_bytes(&self) -> usize {
        self.key_bytes
    }

    pub fn key(&self, index: u32) -> &[u8] {
        let start = index as usize * self.key_bytes;
        &self.bytes[start..start + self.key_bytes]
    }
}
