//! What a bounded root may not do, and the user of `-u` may.
//!
//! Under systemd a server is often started as root without the right to pass over the owners of
//! files (`CapabilityBoundingSet=` without `CAP_DAC_OVERRIDE`, as in Debian's memcached.service).
//! Such a root can neither write to the user's directory nor read the user's own files. memcached
//! does all of that as the user, so that it starts; here it is done as whichever of the two may.

use std::fmt::Display;

use nix::unistd::{self, Gid, Uid, User};
use tracing::{debug, warn};

/// Linux capability.h, `CAP_DAC_OVERRIDE`.
const PASS_OVER_OWNERS: u32 = 1;

/// The user for reading and writing files before the process becomes the user of `-u`.
#[derive(Debug, Clone, Default)]
pub struct Rights {
    /// The user that helps where this process may not act; `None` for a root that may do everything.
    user: Option<(Uid, Gid)>,
}

impl Rights {
    /// The rights of a process that will become this user. A name that nobody has counts as none:
    /// [`prepare`](crate::process::prepare) refuses it.
    pub fn of(user: Option<&str>) -> Self {
        let bounded = is_root() && !passes_over_owners();
        let user = user.filter(|_| bounded).and_then(|name| User::from_name(name).ok().flatten());
        Self { user: user.map(|user| (user.uid, user.gid)) }
    }

    /// Tries something as this process, and where that fails and root is bounded as the user. The
    /// attempt must be one that can be made twice.
    ///
    /// # Errors
    /// The error of the last attempt; the error of the first is a warning where it differs.
    pub fn root_first<T, E: Display>(&self, mut attempt: impl FnMut() -> Result<T, E>) -> Result<T, E> {
        let result = attempt();
        let (Err(first), Some(user)) = (&result, self.user) else { return result };
        match as_user(user, attempt) {
            Some(Err(second)) => {
                if first.to_string() != second.to_string() {
                    warn!("{first} (as root; then tried as the user of -u)");
                }
                Err(second)
            }
            Some(Ok(done)) => Ok(done),
            None => result,
        }
    }

    /// The other way round, for what is to belong to the user.
    ///
    /// # Errors
    /// The error of the user's attempt, where there was one.
    pub fn user_first<T, E>(&self, mut attempt: impl FnMut() -> Result<T, E>) -> Result<T, E> {
        match self.user.and_then(|user| as_user(user, &mut attempt)) {
            Some(Ok(done)) => Ok(done),
            Some(Err(error)) => attempt().map_err(|_| error),
            None => attempt(),
        }
    }
}

/// Does something as another user, and comes back; `None` when the system does not let it.
fn as_user<T, E>(user: (Uid, Gid), attempt: impl FnOnce() -> Result<T, E>) -> Option<Result<T, E>> {
    let own = (Uid::effective(), Gid::effective());
    // The group first, while it is root: only root may change it.
    let result = unistd::setegid(user.1).and_then(|()| unistd::seteuid(user.0)).map(|()| attempt());
    if let Err(error) = unistd::seteuid(own.0).and_then(|()| unistd::setegid(own.1)) {
        warn!("cannot come back from the user of -u: {error}");
    }
    result.inspect_err(|error| debug!("cannot try as the user of -u: {error}")).ok()
}

/// Whether this process may open other users' files, as root usually may. Where there is no /proc
/// there are no such bounds.
fn passes_over_owners() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    effective.is_none_or(|bits| bits >> PASS_OVER_OWNERS & 1 == 1)
}

pub(super) fn is_root() -> bool {
    Uid::current().is_root() || Uid::effective().is_root()
}
