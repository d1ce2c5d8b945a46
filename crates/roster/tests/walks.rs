//! Random histories of a node that is too large for every order: its processes act, hang, are killed
//! before any store and start again, as in the model and by the same code.
#![cfg(not(loom))]

mod common;
mod node;

use node::{Action, Dying, Node, State};

const NODE: Node = Node {
    generations: 3,
    workers: 3,
    deaths: 6,
    hangs: 3,
    suspensions: 4,
    failures: 2,
    drains: true,
    pidfds: true,
    dying: Dying::AtStores,
    relinks: false,
    reads: true,
};

/// Numbers that look random, the same for the same seed (xorshift64*).
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % n
    }
}

fn is_death(action: &Action) -> bool {
    matches!(
        action,
        Action::Kill(_) | Action::Die(..) | Action::DieMending(..) | Action::LoseMaster(_)
    )
}

/// Lets one node live until it is over. Returns whether it ended in order.
fn walk(node: &Node, seed: u64) -> bool {
    let mut dice = Dice(seed.wrapping_mul(2) + 1);
    let mut state = State::first(node);
    let mut past = Vec::new();
    while !state.is_finished() {
        let mut actions = Vec::new();
        node.actions(&state, &mut actions);
        // Most of what can happen is a death, and a stop comes when there is little else.
        let (deaths, mut others): (Vec<_>, Vec<_>) = actions.into_iter().partition(is_death);
        if others.len() > 1 && dice.below(20) != 0 {
            others.retain(|action| *action != Action::Quit);
        }
        let kills = !deaths.is_empty() && (others.is_empty() || dice.below(8) == 0);
        let among = if kills { &deaths } else { &others };
        assert!(!among.is_empty(), "seed {seed}: nothing can happen after {past:?}");
        let action = among[dice.below(among.len())];
        past.push(action);
        state = node.next(&state, action);
        assert!(state.broken.is_none(), "seed {seed}: {:?} after {past:?}", state.broken);
    }
    let in_order = state.is_finished_in_order();
    assert!(!in_order || state.all_is_told(), "seed {seed}: something is not told after {past:?}");
    in_order
}

fn walks(node: &Node, seeds: std::ops::Range<u64>) {
    let all = seeds.clone().count();
    let in_order = seeds.filter(|seed| walk(node, *seed)).count();
    assert!(in_order > all / 4, "{in_order} of {all} end in order");
}

#[test]
fn laws_hold_in_a_node_of_three_generations() {
    walks(&NODE, 0..10_000);
}

#[test]
fn laws_hold_without_pidfds() {
    walks(&Node { pidfds: false, dying: Dying::AtSteps, ..NODE }, 0..5000);
}
