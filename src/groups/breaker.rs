//! When an origin is not asked for a while: after failures in a row, so that clients do not wait for each of them.

use std::time::Duration;

use tokio::time::Instant;

/// Failures in a row after which it is not asked.
const FAILURES_MAX: u32 = 5;

/// How long it is left alone at first; doubled after each attempt that fails.
const REST_MIN: Duration = Duration::from_millis(500);

/// How long it is left alone at most.
const REST_MAX: Duration = Duration::from_secs(10);

/// Counts failures in a row.
#[derive(Debug, Default)]
pub struct Breaker {
    failures: u32,
    /// While it is open.
    rest: Option<Rest>,
}

#[derive(Debug)]
struct Rest {
    /// For how long nothing is tried, and since when.
    length: Duration,
    since: Instant,
    /// Whether somebody tries, whose failure makes the next rest longer.
    is_tried: bool,
}

impl Breaker {
    /// Whether it is left alone at this moment.
    pub fn is_open(&self) -> bool {
        self.rest.as_ref().is_some_and(|rest| rest.since.elapsed() < rest.length)
    }

    /// Whether somebody may try. While it is open, one may after each rest.
    pub fn may_try(&mut self) -> bool {
        if self.is_open() {
            return false;
        }
        if let Some(rest) = &mut self.rest {
            (rest.since, rest.is_tried) = (Instant::now(), true);
        }
        true
    }

    /// Whoever might try has not: somebody else may at once.
    pub fn give_back(&mut self) {
        if let Some(rest) = &mut self.rest
            && std::mem::take(&mut rest.is_tried)
        {
            rest.since = Instant::now().checked_sub(rest.length).unwrap_or(rest.since);
        }
    }

    /// It has answered. Returns whether it is asked again from now on.
    pub fn succeed(&mut self) -> bool {
        self.failures = 0;
        self.rest.take().is_some()
    }

    /// It has failed. Returns whether it is left alone from now on.
    pub fn fail(&mut self) -> bool {
        self.failures = self.failures.saturating_add(1);
        match &mut self.rest {
            Some(rest) => {
                // Those that were under way when it opened say nothing new.
                if std::mem::take(&mut rest.is_tried) {
                    rest.length = (rest.length * 2).min(REST_MAX);
                }
                rest.since = Instant::now();
                false
            }
            None if self.failures >= FAILURES_MAX => {
                self.rest = Some(Rest { length: REST_MIN, since: Instant::now(), is_tried: false });
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_opens_after_failures_in_a_row_and_closes_at_an_answer() {
        let mut breaker = Breaker::default();
        for _ in 1..FAILURES_MAX {
            assert!(!breaker.fail() && breaker.may_try());
        }
        assert!(!breaker.succeed(), "it was not open");
        for _ in 1..FAILURES_MAX {
            assert!(!breaker.fail());
        }
        assert!(breaker.fail(), "it opens");
        assert!(breaker.is_open() && !breaker.may_try());
        assert!(breaker.succeed(), "it closes");
        assert!(!breaker.is_open() && breaker.may_try());
    }

    #[test]
    fn one_may_try_after_each_rest() {
        let past = Instant::now().checked_sub(REST_MIN).expect("the machine has run for longer");
        let rest = Rest { length: REST_MIN, since: past, is_tried: false };
        let mut breaker = Breaker { failures: FAILURES_MAX, rest: Some(rest) };
        let length = |breaker: &Breaker| breaker.rest.as_ref().expect("open").length;
        breaker.fail();
        assert_eq!(length(&breaker), REST_MIN, "that one was under way before");
        breaker.rest.as_mut().expect("open").since = past;
        assert!(breaker.may_try(), "the rest is over");
        assert!(!breaker.may_try(), "and another one begins");
        breaker.fail();
        assert_eq!(length(&breaker), REST_MIN * 2);
    }

    #[test]
    fn whoever_has_not_tried_holds_up_nobody() {
        let mut breaker = Breaker::default();
        (0..FAILURES_MAX).for_each(|_| _ = breaker.fail());
        breaker.give_back();
        assert!(!breaker.may_try(), "nobody was trying");
        let rest = breaker.rest.as_mut().expect("open");
        rest.since = Instant::now().checked_sub(rest.length).expect("after the boot");
        assert!(breaker.may_try() && !breaker.may_try());
        breaker.give_back();
        assert!(breaker.may_try(), "another one may at once");
        assert_eq!(breaker.rest.as_ref().expect("open").length, REST_MIN, "nothing has failed");
    }
}
