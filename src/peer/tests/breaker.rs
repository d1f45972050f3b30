//! Peers that fail, and come back.

use super::*;
use crate::testkit::network::Cut;

#[tokio::test(start_paused = true)]
async fn what_was_sent_on_a_broken_stream_waits_for_its_deadline() {
    let (network, owner, caller) = connected(Options::default()).await;
    *owner.thinks.lock() = MS * 100;
    let sent = caller.send("sent", 1);
    sleep(MS).await;
    network.cut("a", "b", Cut::Broken);
    sleep(MS).await;
    network.heal("a", "b");
    *owner.thinks.lock() = Duration::ZERO;
    sleep(MS * 20).await;
    let waits = caller.send("waits", 1);
    let deadline = sent.deadline;
    assert!(waits.await_outcome().await.is_ok(), "sent on the next stream");
    assert!(Instant::now() >= deadline, "but not while the first one may still be executed");
    assert_eq!(owner.keys(), ["first", "sent", "waits"]);
    assert_eq!(sent.await_outcome().await, Err(Unavailable::Unanswered));
    assert_eq!(owner.keys().iter().filter(|key| *key == "sent").count(), 1, "it is not sent twice");
    assert_eq!(caller.link().stats().streams.load(Ordering::Relaxed), 2);
}

#[tokio::test(start_paused = true)]
async fn a_dead_peer_is_not_asked_and_a_living_one_found_again() {
    let (network, owner, caller) = connected(Options::default()).await;
    let stats = caller.link().stats().clone();
    let is_open = || stats.open.load(Ordering::Relaxed);
    network.kill("b");
    sleep(MS).await;
    let waits = caller.send("waits", 1);
    sleep(MS * 100).await;
    assert!(is_open());
    assert_eq!(waits.await_outcome().await, Err(Unavailable::Unreachable));
    let before = Instant::now();
    assert_eq!(caller.send("refused", 1).await_outcome().await, Err(Unavailable::Unreachable));
    assert_eq!(Instant::now(), before, "at once");
    assert_eq!(stats.opened.load(Ordering::Relaxed), 1);

    sleep(Duration::from_secs(60)).await;
    assert!(is_open());
    network.start(identity("b"), owner.clone());
    sleep(Duration::from_secs(3) + LATE).await;
    assert!(!is_open(), "tried every three seconds at least");
    assert!(caller.send("again", 1).await_outcome().await.is_ok());
    assert_eq!(owner.keys(), ["first", "again"]);
}

#[tokio::test(start_paused = true)]
async fn timeouts_open_the_breaker() {
    let (network, _owner, caller) = connected(Options::default()).await;
    let stats = caller.link().stats().clone();
    network.cut("b", "a", Cut::Lost);
    for number in 1..=3 {
        assert!(!stats.open.load(Ordering::Relaxed), "after {number}");
        assert_eq!(caller.send("k", 1).await_outcome().await, Err(Unavailable::Unanswered));
    }
    assert!(stats.open.load(Ordering::Relaxed));
    assert_eq!(caller.send("k", 1).await_outcome().await, Err(Unavailable::Unreachable));
    network.heal("b", "a");
    sleep(Duration::from_secs(1)).await;
    assert!(caller.send("k", 1).await_outcome().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_is_there_but_slow_is_asked_on() {
    let (_network, owner, caller) = connected(Options::default()).await;
    *owner.thinks.lock() = TIMEOUT * 2;
    for _ in 0..10 {
        assert_eq!(caller.send("k", 1).await_outcome().await, Err(Unavailable::Unanswered));
        sleep(TIMEOUT * 2).await;
    }
    // It has said all the while that it is there.
    assert_eq!(caller.link().stats().opened.load(Ordering::Relaxed), 0);
    assert_eq!(owner.keys(), ["first"], "it was always too late");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_takes_calls_but_says_nothing_is_given_up() {
    let network = Network::new(1);
    network.start(identity("b"), Owner::new());
    network.cut("b", "a", Cut::Held);
    let caller = Caller::new(network.transport("a"), Options::default(), member("b", ""));
    sleep(Duration::from_secs(2)).await;
    assert_eq!(caller.link().stats().opened.load(Ordering::Relaxed), 1);
    network.heal("b", "a");
    sleep(Duration::from_secs(4)).await;
    assert!(caller.send("k", 1).await_outcome().await.is_ok());
}
