//! `stats`.

use crate::protocol::error::ProtocolError;
use crate::protocol::reply::write_line;
use crate::protocol::token::{Tokens, number_u32};
use crate::server::memcached::commands::cluster;
use crate::server::memcached::commands::scope::{Done, Scope};
use crate::server::memcached::commands::task::Task;
use crate::server::statistics::{self, Sink as _, write};

/// Bytes after which `stats cachedump` ends, like memcached's (items.c, `item_cachedump`).
const CACHEDUMP_MAX: usize = 2 << 20;

/// Classes of memcached's slabs (slabs.h, `MAX_NUMBER_OF_SLAB_CLASSES`); here all is in 1.
const CLASSES: u32 = 64;

pub(super) fn run(scope: &mut Scope<'_, '_>, mut arguments: Tokens<'_>) -> Done {
    let (context, now) = (scope.context, scope.now());
    match arguments.next() {
        None => write(scope.out, |lines| statistics::general(context, now, lines)),
        Some(b"settings") => write(scope.out, |lines| statistics::settings(context, lines)),
        Some(b"items") => write(scope.out, |lines| statistics::items(context, now, lines)),
        Some(b"slabs") => write(scope.out, |lines| statistics::slabs(context, lines)),
        // As memcached answers without `-o track_sizes`: a histogram would have to look at every item.
        Some(b"sizes") => write(scope.out, |lines| lines.stat("sizes_status", "disabled")),
        Some(b"conns") => {
            let asking = scope.turn.caller().connection;
            write(scope.out, |lines| statistics::connections(context, asking, now, lines));
        }
        Some(b"ring") if cluster::ring(scope) => {}
        Some(b"groups") => {
            write(scope.out, |lines| statistics::groups(&context.loads, &context.store, lines))
        }
        Some(b"cluster") if scope.turn.cluster().is_some() => return Done::Later(Task::Stats),
        Some(b"reset") => {
            context.registry.reset();
            context.prefixes.clear();
            return scope.answer("RESET");
        }
        Some(b"detail") => return detail(scope, arguments),
        Some(b"cachedump") => return cachedump(scope, arguments),
        Some(_) => return scope.answer(ProtocolError::Unknown.as_str()),
    }
    Done::Now
}

fn detail(scope: &mut Scope<'_, '_>, mut arguments: Tokens<'_>) -> Done {
    if !scope.context.options.dump_allowed {
        return scope.answer("CLIENT_ERROR stats detail not allowed");
    }
    let prefixes = &scope.context.prefixes;
    match arguments.next() {
        Some(b"on") => prefixes.enable(true),
        Some(b"off") => prefixes.enable(false),
        Some(b"dump") => {
            scope.out.extend_from_slice(&prefixes.dump());
            return Done::Now;
        }
        _ => return scope.answer(ProtocolError::DetailUsage.as_str()),
    }
    scope.answer("OK")
}

/// `stats cachedump <class> <limit>`: keys with size and expiry time; a limit of 0 is none.
fn cachedump(scope: &mut Scope<'_, '_>, mut arguments: Tokens<'_>) -> Done {
    if !scope.context.options.dump_allowed {
        return scope.answer("CLIENT_ERROR stats cachedump not allowed");
    }
    let (Some(class), Some(limit)) = (arguments.next(), arguments.next()) else {
        return scope.answer(ProtocolError::BadLine.as_str());
    };
    let (Some(class), Some(limit)) = (number_u32(class), number_u32(limit)) else {
        return scope.answer(ProtocolError::BadFormat.as_str());
    };
    if class >= CLASSES {
        return scope.answer("CLIENT_ERROR Illegal slab id");
    }
    let limit = if limit == 0 { u64::MAX } else { u64::from(limit) };
    let (store, caller) = (&scope.context.store, scope.turn.caller());
    let mut dump = Vec::new();
    let mut shown = 0;
    let parts = if class == 1 { store.part_count() } else { 0 };
    for part in 0..parts {
        if shown >= limit || dump.len() >= CACHEDUMP_MAX {
            break;
        }
        store.walk(&caller, part, |item| {
            // A key that came base64-encoded may hold a line end.
            if shown < limit && dump.len() < CACHEDUMP_MAX && !item.key_binary {
                shown += 1;
                let exptime = item.ttl_seconds.map_or(0, |ttl| store.clock().unix(caller.now + ttl));
                dump.extend_from_slice(b"ITEM ");
                dump.extend_from_slice(item.key);
                write_line(&mut dump, &format!(" [{} b; {exptime} s]", item.value.len()));
            }
        });
    }
    scope.out.extend_from_slice(&dump);
    scope.answer("END")
}
