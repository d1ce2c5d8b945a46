//! Every order in which the processes of a small node can act and be killed, before any store that
//! they make in the zone, with the laws as properties.
#![cfg(not(loom))]

mod common;
mod node;

use std::time::Instant;

use common::Law;
use node::{Action, Dying, In, Node, State};
use stateright::{Checker, HasDiscoveries, Model, Property};

impl Model for Node {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State::first(self)]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        Node::actions(self, state, actions);
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        Some(self.next(last, action))
    }

    fn properties(&self) -> Vec<Property<Self>> {
        fn holds(state: &State, law: Law) -> bool {
            state.broken.as_ref().is_none_or(|broken| broken.0 != law)
        }
        vec![
            Property::always("seq has no gaps", |_, s| holds(s, Law::Gapless)),
            Property::always("each start has one end at most", |_, s| holds(s, Law::OneEnd)),
            Property::always("counts move by one, with an event", |_, s| holds(s, Law::Counts)),
            Property::always("the table is what was told", |_, s| holds(s, Law::Table)),
            Property::always("ready once, and when it is", |_, s| holds(s, Law::Ready)),
            Property::always("callbacks run once at most", |_, s| holds(s, Law::Callbacks)),
            Property::always("a snapshot is of one moment", |_, s| holds(s, Law::Snapshot)),
            Property::always("events are told in order", |_, s| holds(s, Law::Order)),
            Property::always("in the end each start has its end", |_, s: &State| {
                !s.is_finished_in_order() || s.all_is_told()
            }),
            Property::always("it always goes on until it is over", |node: &Node, s: &State| {
                let mut actions = Vec::new();
                Node::actions(node, s, &mut actions);
                let goes_on = |action: &Action| !matches!(action, Action::Kill(_) | Action::Knock);
                s.is_finished() || s.broken.is_some() || actions.iter().any(goes_on)
            }),
            Property::sometimes("it ends in order", |_, s: &State| s.is_finished_in_order()),
            Property::sometimes("a holder dies in a transition", |node, s: &State| {
                node.deaths == 0 || s.died_in() == Some(In::Transition)
            }),
            Property::sometimes("a holder dies in a callback", |node, s: &State| {
                node.deaths == 0 || s.died_in() == Some(In::Telling)
            }),
            Property::sometimes("a holder dies mending", |node, s: &State| {
                node.deaths < 2 || s.died_in() == Some(In::Mending)
            }),
        ]
    }
}

/// Goes through all states of a node.
fn check(node: Node) {
    let start = Instant::now();
    let checker = node.clone().checker().threads(2);
    let checker = checker.finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let states = checker.unique_state_count();
    println!("{node:?}: {states} states, depth {}, {:?}", checker.max_depth(), start.elapsed());
    checker.assert_properties();
}

const NODE: Node = Node {
    generations: 2,
    workers: 2,
    deaths: 1,
    hangs: 1,
    suspensions: 0,
    failures: 0,
    drains: false,
    pidfds: true,
    dying: Dying::AtStores,
    relinks: false,
    reads: false,
};

#[test]
fn a_worker_hangs_and_a_process_is_killed_before_any_store() {
    check(NODE);
}

#[test]
fn two_processes_of_two_generations_of_one_are_killed_before_any_store() {
    check(Node { workers: 1, deaths: 2, reads: true, ..NODE });
}

#[test]
fn a_worker_suspends_its_transaction_and_a_process_is_killed_before_any_store() {
    check(Node { workers: 1, suspensions: 2, reads: true, ..NODE });
}

#[test]
fn one_of_two_workers_suspends_its_transaction_and_a_process_is_killed_at_any_step() {
    check(Node { suspensions: 1, hangs: 0, dying: Dying::AtSteps, relinks: true, ..NODE });
}

#[test]
fn two_processes_are_killed_at_any_step() {
    check(Node { deaths: 2, hangs: 0, dying: Dying::AtSteps, ..NODE });
}

#[test]
fn one_of_three_workers_or_their_master_is_killed_at_any_step() {
    check(Node { workers: 3, hangs: 0, dying: Dying::AtSteps, relinks: true, ..NODE });
}

#[test]
fn a_reload_fails_and_workers_drain_and_a_process_is_killed_before_any_store() {
    check(Node { workers: 1, deaths: 1, failures: 1, drains: true, reads: true, ..NODE });
}

#[test]
fn workers_that_drain_suspend_and_two_processes_are_killed_at_any_step() {
    let dying = Dying::AtSteps;
    check(Node { workers: 1, suspensions: 2, deaths: 2, failures: 1, drains: true, dying, ..NODE });
}

#[test]
fn two_workers_drain_and_one_process_is_killed_at_any_step() {
    check(Node {
        hangs: 0,
        failures: 1,
        drains: true,
        dying: Dying::AtSteps,
        relinks: true,
        ..NODE
    });
}

#[test]
fn deaths_are_known_by_heartbeats_alone() {
    check(Node { hangs: 1, pidfds: false, dying: Dying::AtSteps, relinks: true, ..NODE });
}
