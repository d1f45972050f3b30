//! How items are moved.

use std::time::Duration;

/// How items are moved to where their slots are.
#[derive(Debug, Clone)]
pub struct Options {
    /// How many bytes are taken over in a second, of what no command waits for; 0 is without a limit.
    pub bytes_per_second: u64,
    /// How long a node that leaves waits until others have taken over what it holds.
    pub drain_timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { bytes_per_second: 32 << 20, drain_timeout: Duration::from_secs(30) }
    }
}
