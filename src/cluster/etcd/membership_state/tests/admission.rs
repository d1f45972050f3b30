//! Who would enter, and what is said of it.

use super::*;
use crate::cluster::etcd::calls::Write;

impl Case {
    /// What `x` would write of whom it reaches, as far as that is news.
    fn news(&self, lease: i64) -> Option<serde_json::Value> {
        let txn = self.state.news_of_reach(self.start, lease)?;
        let Some(Write::Put(key, value, of)) = txn.writes.into_iter().next() else {
            panic!("nothing is deleted");
        };
        assert_eq!((key, of), (self.state.keys().reached("x"), lease));
        Some(serde_json::from_slice(&value).expect("it is JSON"))
    }

    /// `x` writes that.
    fn say(&mut self, lease: i64) {
        if let Some(news) = self.news(lease) {
            self.put(self.state.keys().reached("x"), to_json(&news), lease);
            self.state.load(self.revision, self.records.clone());
        }
    }

    fn reach(&mut self, ids: &str) {
        *self.reach.0.lock() = ids.split_whitespace().map(str::to_owned).collect();
        self.state.tick(self.start);
    }

    fn candidates(&self) -> Vec<(String, usize)> {
        let candidates = &self.state.local.state().candidates;
        candidates.iter().map(|it| (it.member.id.clone(), it.troubles.len())).collect()
    }
}

#[test]
fn a_member_says_whom_it_reaches_of_those_who_would_enter() {
    let mut case = Case::serving();
    case.reach("a b");
    assert_eq!(case.news(3), None, "nobody asks");
    case.register("y", 7, 4);
    case.state.load(case.revision, case.records.clone());
    // Of those, `a` and `b` say nothing either.
    assert_eq!(case.candidates(), [("y".to_owned(), 6)]);
    assert_eq!(case.proposal(0), None);
    case.reach("a b y");
    assert_eq!(case.news(3).expect("it reaches y")["reached"], serde_json::json!({ "y": 1 }));
    case.say(3);
    assert_eq!(case.news(3), None, "it is said");
    assert_eq!(case.candidates(), [("y".to_owned(), 5)]);
    case.reach("a b");
    assert_eq!(case.news(3).expect("it is withdrawn")["reached"], serde_json::json!({}));
    case.reach("a b y");
    case.view(8, "a b x y");
    case.state.load(case.revision, case.records.clone());
    assert_eq!(case.candidates(), []);
    case.reach("a b");
    assert_eq!(case.news(3), None, "it has entered: nobody goes by that any more");
}

#[test]
fn who_would_enter_says_which_members_it_reaches() {
    let mut case = Case::new();
    case.view(7, "a b");
    case.read();
    ["a", "b", "x", "y"].into_iter().zip(1..).for_each(|(id, lease)| case.register(id, 7, lease));
    case.state.load(case.revision, case.records.clone());
    assert_eq!(case.news(3), None, "it reaches nobody");
    case.reach("a x y");
    let me = case.state.local.me().incarnation;
    let news = case.news(3).expect("it reaches a");
    assert_eq!(news, serde_json::json!({ "incarnation": me, "reached": { "a": 1, "x": me } }));
    assert_eq!(case.news(9), None, "it has registered with another lease");
    case.read();
    assert_eq!(case.proposal(0), next(8, "a b x y"));
}

#[test]
fn of_very_many_those_that_started_last_are_asked() {
    let mut case = Case::serving();
    for number in 0..100 {
        let node = Member { id: format!("n{number:02}"), incarnation: 100 - number, ..case.member("x") };
        case.put(case.state.keys().member(&node.id), to_json(&node), 9);
    }
    case.read();
    let candidates = case.candidates();
    assert_eq!(candidates.len(), 64);
    assert!(candidates.iter().map(|(id, _)| id).eq(&(0..64).map(|n| format!("n{n:02}")).collect::<Vec<_>>()));
}

#[test]
fn who_does_not_reach_itself_founds_when_nobody_else_does() {
    let mut case = Case::new();
    case.register("x", 0, 1);
    case.state.load(case.revision, case.records.clone());
    assert_eq!(case.candidates(), [("x".to_owned(), 1)]);
    assert_eq!(case.proposal(0), None);
    assert_eq!(case.proposal(2), next(1, "x"));
    case.reach("x");
    case.say(1);
    assert_eq!(case.proposal(0), next(1, "x"));
    // There is another one that could have founded.
    case.register("a", 0, 2);
    case.state.load(case.revision, case.records.clone());
    assert_eq!(case.proposal(0), next(1, "x"), "who does not reach itself has no say");
    case.read();
    assert_eq!(case.proposal(0), next(1, "a x"));
}
