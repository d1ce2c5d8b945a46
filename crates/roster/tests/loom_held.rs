//! What holds a worker is read whole while the worker notes it anew, in the orders that the memory model
//! allows with at most two preemptions. Empty unless built with `--cfg loom`, see `make loom`.
#![cfg(loom)]

use std::time::Duration;

use loom::sync::Arc;
use loom::thread;
use roster::held::{Held, HeldArea, HeldAreas, Holders};

/// What a worker notes at its n-th look; each number is of that look.
fn look(registration: u64, n: u64) -> Holders {
    let held = Held {
        since: n,
        request_since: n,
        idle_since: n,
        sent: n,
        requests: n as u32,
        ..Held::default()
    };
    Holders { registration, looked_at: n, total: n as u32, connections: vec![held] }
}

fn check(read: impl Fn(HeldAreas<'_>) + Send + Sync + Copy + 'static, writer: u64) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(2);
    model.max_branches = 10_000;
    model.max_duration = Some(Duration::from_secs(4));
    model.check(move || {
        let memory = Arc::new([HeldArea::default()]);
        assert!(HeldAreas(&memory[..]).note(&look(2, 2), |_| true));
        let reader = {
            let memory = memory.clone();
            thread::spawn(move || read(HeldAreas(&memory[..])))
        };
        assert!(HeldAreas(&memory[..]).note(&look(writer, 3), |other| other == writer));
        reader.join().expect("the reader is content");
    });
}

#[test]
fn a_look_is_seen_whole() {
    check(
        |areas| {
            for seen in areas.read() {
                assert!([2, 3].contains(&seen.looked_at), "{seen:?}");
                assert_eq!(seen, look(2, seen.looked_at));
            }
        },
        2,
    );
}

#[test]
fn an_area_that_another_takes_is_not_taken_for_its_own() {
    check(
        |areas| {
            for seen in areas.read() {
                assert!([2, 3].contains(&seen.registration), "{seen:?}");
                assert_eq!(seen, look(seen.registration, seen.registration));
            }
        },
        3,
    );
}
