//! What was reported as failed is not executed afterwards, and nothing overtakes what was sent
//! before it, whatever the network does.

use proptest::prelude::*;

use super::*;
use crate::shown::Cut;
use crate::testkit::network::{self, Delay};

const STEPS: usize = 60;

#[derive(Debug, Clone)]
enum Step {
    /// Operations, with so many milliseconds left.
    Send(u8, u64),
    Wait(u64),
    Delay {
        back: bool,
        least: u64,
        more: u64,
    },
    Cut {
        back: bool,
        cut: network::Cut,
    },
    Heal {
        back: bool,
    },
    Think(u64),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let delay = prop_oneof![4 => 0..5_u64, 1 => 0..200_u64];
    let cut = prop_oneof![Just(network::Cut::Lost), Just(network::Cut::Held), Just(network::Cut::Broken)];
    prop_oneof![
        8 => (1..20_u8, 20..250_u64).prop_map(|(ops, left)| Step::Send(ops, left)),
        6 => (0..150_u64).prop_map(Step::Wait),
        2 => (any::<bool>(), delay.clone(), delay)
            .prop_map(|(back, least, more)| Step::Delay { back, least, more }),
        1 => (any::<bool>(), cut).prop_map(|(back, cut)| Step::Cut { back, cut }),
        3 => any::<bool>().prop_map(|back| Step::Heal { back }),
        1 => (0..300_u64).prop_map(Step::Think),
        1 => Just(Step::Restart),
    ]
}

/// An operation as it went, and when its sender heard what.
struct History {
    key: Bytes,
    deadline: Instant,
    heard: tokio::task::JoinHandle<(Instant, Result<Kind, Unavailable>)>,
}

async fn run(seed: u64, steps: Vec<Step>) -> Result<(), TestCaseError> {
    let (network, owner) = (Network::new(seed), Owner::new());
    network.start(identity("b"), owner.clone());
    let caller = Caller::new(network.transport("a"), Options::default(), member("b", ""));
    let ends = |back: bool| if back { ("b", "a") } else { ("a", "b") };
    let mut histories = Vec::new();
    for step in steps {
        match step {
            Step::Send(ops, left) => {
                for _ in 0..ops {
                    let key = Bytes::from(histories.len().to_string());
                    let deadline = Instant::now() + MS * left as u32;
                    let (op, awaited) = op(key.clone(), 1, deadline);
                    caller.link().send(op);
                    let heard = tokio::spawn(async move {
                        let answer = awaited.receiver.await.expect("every operation is answered");
                        (Instant::now(), answer.result.map(|outcome| outcome.kind()))
                    });
                    histories.push(History { key, deadline, heard });
                }
            }
            Step::Wait(ms) => sleep(MS * ms as u32).await,
            Step::Delay { back, least, more } => {
                let (from, to) = ends(back);
                let least = MS * least as u32;
                network.delay(from, to, Delay::Between(least, least + MS * more as u32));
            }
            Step::Cut { back, cut } => network.cut(ends(back).0, ends(back).1, cut),
            Step::Heal { back } => network.heal(ends(back).0, ends(back).1),
            Step::Think(ms) => *owner.thinks.lock() = MS * ms as u32,
            Step::Restart => network.start(identity("b"), owner.clone()),
        }
    }
    network.heal("a", "b");
    network.heal("b", "a");
    sleep(Duration::from_secs(30)).await;

    let executed = owner.executed.lock().clone();
    let number = |each: &Executed| String::from_utf8_lossy(&each.key).parse::<u64>().expect("a number");
    prop_assert!(
        executed.is_sorted_by_key(number),
        "a later one overtook an earlier one: {:?}",
        Cut(&executed)
    );
    for history in histories {
        let times: Vec<_> =
            executed.iter().filter(|each| each.key == history.key).map(|each| each.at).collect();
        prop_assert!(times.len() <= 1, "executed twice");
        let (at, result) = history.heard.await.expect("no panic");
        prop_assert!(at <= history.deadline + LATE, "answered {:?} late", at - history.deadline);
        match result {
            Ok(kind) => {
                prop_assert_eq!(kind, Kind::Deleted);
                prop_assert!(times.first().is_some_and(|&time| time <= at), "answered but not executed");
            }
            Err(Unavailable::Unanswered) => {
                prop_assert!(times.iter().all(|&time| time <= at), "executed after its failure was told");
            }
            // It was certainly not executed.
            Err(_) => prop_assert!(times.is_empty(), "{result:?}, but executed"),
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn nothing_happens_after_its_failure_was_told(
        seed in any::<u64>(),
        steps in proptest::collection::vec(step(), 1..STEPS).prop_map(Cut),
    ) {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_time().start_paused(true).build().expect("a runtime");
        runtime.block_on(run(seed, steps.0))?;
    }
}
