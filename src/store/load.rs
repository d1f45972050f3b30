//! A value that is loaded from elsewhere, from its beginning under a key to its end.

use crate::command::Failure;
use crate::store::facts::{Facts, LOADED};
use crate::store::generation::Generation;

/// A load that has begun under a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// Its number, of all loads of this store.
    pub number: u64,
    /// The newest generation when it began: its value is as old as that.
    pub generation: Generation,
    /// The CAS token of the item that it is to replace; `None` where there is none.
    pub replaces: Option<u64>,
}

/// What becomes of a load that is to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoadStart {
    /// It has begun.
    Begun(Load),
    /// The one of this number runs already, and nothing was written since it began.
    Running(u64),
    /// There is an item by now, or another one than was to be replaced.
    Present,
}

/// What became of a value that was loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoadEnd {
    /// It lies here now, with this CAS token.
    Stored {
        /// 0 in a store without tokens.
        cas: u64,
    },
    /// Something was written under its key since the load began, or what was here then counts no more.
    Overwritten,
    /// It is too large here, or there is no room and none may be made.
    Refused(Failure),
}

/// Whether a load may replace what is there: nothing, or what it set out to replace, if no client has changed it. Without
/// CAS all tokens are 0: then the mark decides.
pub(super) fn may_replace(there: Option<&Facts>, replaces: Option<u64>) -> bool {
    match (there, replaces) {
        (None, None) => true,
        (Some(facts), Some(cas)) => facts.is(LOADED) && facts.cas == cas,
        _ => false,
    }
}
