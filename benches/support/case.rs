//! One cell of a comparison's matrix.

use crate::support::load::{Dialect, Mix};

/// What is asked for, and how many requests are in flight on each connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Case {
    pub mix: Mix,
    pub dialect: Dialect,
    pub pipeline: usize,
}

impl Case {
    pub const fn classic(mix: Mix, pipeline: usize) -> Self {
        Self { mix, dialect: Dialect::Classic, pipeline }
    }

    pub fn name(self) -> String {
        let (set, get) = match self.dialect {
            Dialect::Classic => ("set", "get"),
            Dialect::Meta => ("ms", "mg"),
            Dialect::Binary => ("binary set", "binary get"),
        };
        let mix = match self.mix {
            Mix { sets: 0, .. } => get.to_owned(),
            Mix { gets: 0, .. } => set.to_owned(),
            Mix { sets, gets } => format!("{set}:{get} {sets}:{gets}"),
        };
        format!("{mix}, pipeline {}", self.pipeline)
    }
}
