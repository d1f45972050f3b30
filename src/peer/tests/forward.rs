//! Operations on their way there and back.

use tokio::time::timeout;

use super::*;
use crate::testkit::network::{Cut, Delay};

#[tokio::test(start_paused = true)]
async fn everything_that_waits_leaves_in_one_message_in_order() {
    let (network, owner, caller) = connected(Options::default()).await;
    network.delay("a", "b", Delay::Between(MS, MS * 20));
    let mut expected = vec![Bytes::from("first")];
    for round in 0..10 {
        let keys = (0..1_000).map(|number| Bytes::from(format!("{round}:{number}")));
        let awaited: Vec<_> = keys.clone().map(|key| caller.send(key, 1)).collect();
        expected.extend(keys);
        if round % 2 == 0 {
            sleep(MS).await;
        }
        if round == 9 {
            for each in awaited {
                assert_eq!(each.await_outcome().await, Ok(Kind::Deleted));
            }
        }
    }
    assert_eq!(owner.keys(), expected);
    // The first, and one whenever somebody waited.
    assert_eq!(owner.batches.load(Ordering::Relaxed), 1 + 6);
    let stats = caller.link().stats();
    assert_eq!(stats.sent.load(Ordering::Relaxed), 10_001);
    assert_eq!(stats.answered.load(Ordering::Relaxed), 10_001);
    assert_eq!((stats.queued.load(Ordering::Relaxed), stats.in_flight.load(Ordering::Relaxed)), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_message_is_of_one_epoch() {
    let (_network, owner, caller) = connected(Options::default()).await;
    let awaited: Vec<_> =
        [1, 1, 2, 2, 1].into_iter().map(|epoch| caller.send(epoch.to_string(), epoch)).collect();
    for each in awaited {
        assert!(each.await_outcome().await.is_ok());
    }
    let executed: Vec<_> = owner.executed.lock().iter().map(|each| (each.batch, each.epoch)).collect();
    assert_eq!(executed, [(0, 1), (1, 1), (1, 1), (2, 2), (2, 2), (3, 1)]);
}

#[tokio::test(start_paused = true)]
async fn deadlines_far_apart_do_not_travel_together() {
    let (_network, owner, caller) = connected(Options::default()).await;
    let now = Instant::now();
    let all = [250, 240, 30, 250].map(|left| {
        let (op, awaited) = op("k", 1, now + MS * left);
        caller.link().send(op);
        awaited
    });
    for each in all {
        assert!(each.await_outcome().await.is_ok());
    }
    let batches: Vec<_> = owner.executed.lock().iter().map(|each| each.batch).collect();
    assert_eq!(batches, [0, 1, 1, 2, 3]);
}

#[tokio::test(start_paused = true)]
async fn operations_end_at_their_deadline_when_the_peer_is_silent() {
    let options = Options { queue_len: 1_000, ..Options::default() };
    let (network, _owner, caller) = connected(options).await;
    network.cut("b", "a", Cut::Lost);
    let mut awaited = Vec::new();
    for number in 0..50_u32 {
        // Now and then one that comes from elsewhere has less time left.
        let left = if number % 7 == 3 { TIMEOUT / 3 } else { TIMEOUT };
        let (op, each) = op("k", 1, Instant::now() + left);
        caller.link().send(op);
        awaited.push(each);
        sleep(MS).await;
    }
    awaited.sort_by_key(|each| each.deadline);
    let mut early = 0;
    for each in awaited {
        let deadline = each.deadline;
        assert_eq!(each.await_outcome().await, Err(Unavailable::Unanswered));
        early += usize::from(Instant::now() < deadline);
    }
    assert_eq!(early, 0, "what was sent may happen until its deadline");
}

#[tokio::test(start_paused = true)]
async fn what_was_never_sent_is_told_apart() {
    let network = Network::new(1);
    network.start(identity("b"), Owner::new());
    network.cut("a", "b", Cut::Held);
    let caller = Caller::new(network.transport("a"), Options::default(), member("b", ""));
    let awaited = caller.send("k", 1);
    let deadline = awaited.deadline;
    assert_eq!(awaited.await_outcome().await, Err(Unavailable::Unreachable));
    assert!(Instant::now() >= deadline);
}

#[tokio::test(start_paused = true)]
async fn answers_that_come_too_late_are_ignored() {
    let (network, owner, caller) = connected(Options::default()).await;
    network.delay("b", "a", Delay::Fixed(TIMEOUT + MS * 20));
    let late = caller.send("late", 1);
    assert_eq!(late.await_outcome().await, Err(Unavailable::Unanswered));
    network.delay("b", "a", Delay::Fixed(MS));
    // The late answer comes before this one's.
    assert_eq!(caller.send("next", 1).await_outcome().await, Ok(Kind::Deleted));
    assert_eq!(owner.keys(), ["first", "late", "next"]);
}

#[tokio::test(start_paused = true)]
async fn an_operation_for_another_owner_comes_back_once() {
    let (_network, owner, mut caller) = connected(Options::default()).await;
    *owner.kind.lock() = Kind::WrongOwner;
    owner.epoch.store(7, Ordering::Relaxed);
    let mut awaited = caller.send("k", 1);
    let Redirected { op, epoch, .. } = caller.redirected.recv().await.expect("returned");
    assert_eq!((epoch, op.rerouted, awaited.is_answered()), (7, true, false));
    assert_eq!(op.deadline, awaited.deadline);
    caller.link().send(op);
    assert_eq!(awaited.await_outcome().await, Err(Unavailable::Moved));

    // Nobody takes them, and there is room for two.
    let awaited: Vec<_> = (0..3).map(|_| caller.send("k", 1)).collect();
    let mut answered = Vec::new();
    for each in awaited {
        answered.push(timeout(MS, each.await_outcome()).await);
    }
    assert!(answered[..2].iter().all(Result::is_err));
    assert_eq!(answered[2], Ok(Err(Unavailable::Moved)));
}

#[tokio::test(start_paused = true)]
async fn a_peer_may_refuse() {
    let (_network, owner, caller) = connected(Options::default()).await;
    *owner.kind.lock() = Kind::Unavailable;
    assert_eq!(caller.send("k", 1).await_outcome().await, Err(Unavailable::Refused));
}

#[tokio::test(start_paused = true)]
async fn too_many_operations_are_refused() {
    let options = Options { queue_len: 4, ..Options::default() };
    let (_network, owner, caller) = connected(options).await;
    *owner.thinks.lock() = MS * 10;
    let awaited: Vec<_> = (0..6).map(|_| caller.send("k", 1)).collect();
    let mut results = Vec::new();
    for each in awaited {
        results.push(each.await_outcome().await.is_ok());
    }
    assert_eq!(results, [true, true, true, true, false, false]);
    assert_eq!(caller.link().stats().overloaded.load(Ordering::Relaxed), 2);

    let options = Options { queue_bytes: 300, ..Options::default() };
    let (_network, _owner, caller) = connected(options).await;
    let key = Bytes::from(vec![b'k'; 200]);
    let awaited: Vec<_> = (0..3).map(|_| caller.send(key.clone(), 1)).collect();
    let mut results = Vec::new();
    for each in awaited {
        results.push(each.await_outcome().await);
    }
    assert_eq!(results, [Ok(Kind::Deleted), Ok(Kind::Deleted), Err(Unavailable::Overloaded)]);
    assert!(caller.send("k", 1).await_outcome().await.is_ok(), "there is room again");
}

#[tokio::test(start_paused = true)]
async fn a_dropped_link_answers_what_it_has_and_leaves_nothing() {
    let (network, owner, mut caller) = connected(Options::default()).await;
    *owner.thinks.lock() = MS * 100;
    let awaited: Vec<_> = (0..3).map(|_| caller.send("k", 1)).collect();
    caller.link = None;
    for each in awaited {
        assert!(each.await_outcome().await.is_ok(), "sent although the link was dropped");
    }
    caller.tasks.close();
    timeout(LATE, caller.tasks.wait()).await.expect("the link's tasks end");
    sleep(LATE).await;
    assert_eq!(network.tasks(), 0);

    // To a peer that says nothing, the last deadline ends it.
    let (network, _owner, mut caller) = connected(Options::default()).await;
    network.cut("a", "b", Cut::Lost);
    let awaited = caller.send("k", 1);
    caller.link = None;
    assert_eq!(awaited.await_outcome().await, Err(Unavailable::Unanswered));
    caller.tasks.close();
    timeout(LATE, caller.tasks.wait()).await.expect("the link's tasks end");
}

#[tokio::test(start_paused = true)]
async fn a_stop_closes_links() {
    let (_network, owner, caller) = connected(Options::default()).await;
    *owner.thinks.lock() = MS * 100;
    let before = caller.send("k", 1);
    caller.stop.cancel();
    sleep(MS).await;
    assert_eq!(caller.send("k", 1).await_outcome().await, Err(Unavailable::Unreachable));
    assert!(before.await_outcome().await.is_ok());
    caller.tasks.close();
    timeout(LATE, caller.tasks.wait()).await.expect("the link's tasks end");
}

#[tokio::test(start_paused = true)]
async fn a_quiet_stream_lives_on() {
    let (_network, owner, caller) = connected(Options::default()).await;
    sleep(Duration::from_secs(3_600)).await;
    assert!(caller.send("k", 1).await_outcome().await.is_ok());
    assert_eq!(owner.keys().len(), 2);
    assert_eq!(caller.link().stats().streams.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn a_call_for_somebody_else_is_refused() {
    let network = Network::new(1);
    let other = Identity { cluster: "another".to_owned(), id: "b".to_owned() };
    let owner = Owner::new();
    network.start(other, owner.clone());
    let caller = Caller::new(network.transport("a"), Options::default(), member("b", ""));
    assert_eq!(caller.send("k", 1).await_outcome().await, Err(Unavailable::Unreachable));
    assert!(owner.keys().is_empty());
}
