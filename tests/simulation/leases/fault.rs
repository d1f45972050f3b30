//! Safety rules that are broken on purpose, to see that this is found. Their labels are those of
//! docs/design/membership.md.

/// What a history breaks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    /// S6: etcd writes which view a node has acknowledged without a look at what the view is by now.
    BlindAcks,
    /// S8: a grant counts from when it came, not from when its ping was sent.
    GrantsCountFromAnswers,
    /// S8: the answer to a renewal is taken for the answer to the next one.
    RenewalsCountLater,
    /// S8: a node executes commands while it believes that it serves, without a look at the clock.
    BatchesWithoutClock,
    /// S9: a node acknowledges a view before it has done what the view asks of it.
    AcksBeforeHooks,
}

impl Fault {
    pub const ALL: [Self; 5] = [
        Self::BlindAcks,
        Self::GrantsCountFromAnswers,
        Self::RenewalsCountLater,
        Self::BatchesWithoutClock,
        Self::AcksBeforeHooks,
    ];
}
