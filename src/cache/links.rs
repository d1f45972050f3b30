//! One thread's links to the other members.

use crate::cache::routing::Routing;
use crate::cluster::view::Member;
use crate::peer::link::{Dialer, Link};

/// The links of one thread, by a member's place under one routing.
#[derive(Default)]
pub(super) struct Links {
    version: u64,
    by_place: Vec<(Member, Option<Link>)>,
}

impl Links {
    /// The link to a member by its place under a routing; `None` when that is an older one, and
    /// the member has gone since. There is never more than one to a member: on two, commands
    /// could overtake each other.
    pub(super) fn at(&mut self, place: u16, routing: &Routing, dialer: &Dialer) -> Option<&Link> {
        if self.version < routing.version {
            self.follow(routing);
        }
        let (member, link) = if self.version == routing.version {
            &mut self.by_place[usize::from(place)]
        } else {
            let member = &routing.members()[usize::from(place)];
            self.by_place.iter_mut().find(|(other, _)| other == member)?
        };
        Some(link.get_or_insert_with(|| Link::open(dialer, member.clone())))
    }

    /// Keeps the links to members that are still there, at their new places.
    fn follow(&mut self, routing: &Routing) {
        let mut known = std::mem::take(&mut self.by_place);
        self.version = routing.version;
        self.by_place = routing
            .members()
            .iter()
            .map(|member| {
                let link =
                    known.iter_mut().find(|(other, _)| other == member).and_then(|(_, link)| link.take());
                (member.clone(), link)
            })
            .collect();
    }
}
