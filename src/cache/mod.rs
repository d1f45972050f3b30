//! The decisions: whose key is it, and may this node answer for it now?
//!
//! [`routing`] is what a thread looks a key up in, [`ownership`] makes a new one whenever the
//! cluster changes and sees to it that nobody acts on an older one.

pub mod ownership;
pub mod routing;
