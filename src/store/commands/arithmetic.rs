//! `ma`, `incr`, `decr`: numbers in values.

use std::cell::OnceCell;

use crate::command::{Arithmetic, Made};
use crate::stats::Counter;
use crate::store::commands::decision::{Answer, Decision, Effect, NewItem, Plain, Shown};
use crate::store::commands::number::{self, Decimal};
use crate::store::context::Request;
use crate::store::facts::{Facts, LOADED, NewValue};

/// What becomes of an item that is there. The result goes to `digits`.
pub(super) fn on_item<'v>(
    rq: &Request<'_>,
    sum: &Arithmetic,
    facts: &Facts,
    value: &[u8],
    digits: &'v OnceCell<Decimal>,
) -> Decision<'v> {
    let compared = sum.compare.is_none_or(|compare| compare == 0 || compare == facts.cas);
    // An empty value is no number to any token.
    if !compared && !value.is_empty() {
        return Decision::refuse(Plain::Exists);
    }
    let Some(number) = number::parse(value) else {
        return Decision::refuse(Plain::NonNumeric);
    };
    let result =
        if sum.decrement { number.saturating_sub(sum.delta) } else { number.wrapping_add(sum.delta) };
    let digits = digits.get_or_init(|| Decimal::new(result)).as_bytes();
    let written = Facts {
        cas: rq.cx.shared.new_cas(sum.new_cas),
        exptime: sum.touch.map_or(facts.exptime, |touch| rq.ends(touch)),
        accessed: rq.cx.now,
        stamp: facts.stamp & !LOADED,
        ..*facts
    };
    rq.cx.count(if sum.decrement { Counter::DecrHits } else { Counter::IncrHits });
    // A shorter result keeps the old length, filled up with spaces, as memcached's does.
    let effect = Effect::Rewrite(written, NewValue::Padded(digits));
    let shown = Shown::plain(written, facts.ttl(rq.cx.now));
    Decision { effect, answer: Answer::Number(shown, digits) }
}

/// The item that a miss makes with `N`, and as its maker sees it.
pub(super) fn on_miss<'v>(
    rq: &Request<'_>,
    sum: &Arithmetic,
    made: Made,
    value: &'v [u8],
) -> (Shown, NewItem<'v>) {
    let cas = rq.cx.shared.new_cas(sum.new_cas);
    let facts = Facts { cas, flags: 0, exptime: rq.ends(made.ends), accessed: rq.cx.now, stamp: rq.stamp() };
    (Shown::made(rq, facts, made), NewItem { facts, value, received: None })
}
