//! Tables that something has written to, and texts of any kind: nothing panics, nothing loops, and
//! what was torn is mended or left out. FUZZ_SEED and FUZZ_SECONDS choose another or a longer run.
#![cfg(not(loom))]

mod common;

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{env, process, thread};

use common::{Memory, NOW};
use roster::{Event, Field, Geometry, Kind, Reason, Roster, Template, Transition};

const GEOMETRY: Geometry = Geometry { generations: 4, workers: 6, events: 8, messages: 2 };

/// Random numbers: xorshift, so that a seed says everything.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Random {
        // Seeds that are near each other begin far from each other.
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        random.next();
        random
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, n: usize) -> usize {
        ((self.next() >> 16) % n as u64) as usize
    }

    /// A word that a table may hold, or one that it should not.
    fn word(&mut self, old: u64) -> u64 {
        let small = |random: &mut Random| match random.below(8) {
            0 => 0,
            1 => u64::from(u32::MAX),
            2 => u64::from(u32::MAX - 1),
            3 => 1 << 31,
            _ => random.below(10) as u64,
        };
        match self.below(8) {
            0 => self.next(),
            1 => old ^ 1 << self.below(64),
            2 => u64::MAX,
            3 => u64::MAX - self.below(3) as u64,
            4 => old.wrapping_add(1),
            _ => small(self) | small(self) << 32,
        }
    }
}

/// Runs cases for the time given, each from a seed of its own.
fn fuzz(seconds: u64, mut case: impl FnMut(&mut Random)) {
    let number = |name, default| match env::var(name) {
        Ok(value) => value.parse().unwrap_or_else(|_| panic!("{name} is not a number")),
        Err(_) => default,
    };
    let seed: u64 = number("FUZZ_SEED", 1);
    let time = Duration::from_secs(number("FUZZ_SECONDS", seconds));
    let count = Arc::new(AtomicU64::new(0));
    let watched = count.clone();
    thread::spawn(move || {
        let mut last = u64::MAX;
        loop {
            thread::sleep(Duration::from_secs(30));
            let cases = watched.load(Relaxed);
            if cases == last {
                eprintln!("a case does not end: FUZZ_SEED={}", seed.wrapping_add(cases));
                process::abort();
            }
            last = cases;
            if Arc::strong_count(&watched) == 1 {
                return;
            }
        }
    });
    let start = Instant::now();
    let mut cases = 0;
    while start.elapsed() < time {
        let seed = seed.wrapping_add(cases);
        count.store(cases, Relaxed);
        let named = Named(seed);
        case(&mut Random::new(seed));
        std::mem::forget(named);
        cases += 1;
    }
    println!("{cases} cases from seed {seed} in {:?}", start.elapsed());
}

/// Says which case it was if that panics.
struct Named(u64);

impl Drop for Named {
    fn drop(&mut self) {
        eprintln!("again with FUZZ_SEED={}", self.0);
    }
}

fn transition(random: &mut Random) -> Transition {
    let slot = random.below(GEOMETRY.workers + 2) as u32;
    let generation = random.below(5) as u64;
    let pid = random.below(20) as i32;
    let began = random.next() >> random.below(64);
    let connections = random.next() as u32;
    let reason = Reason::from_wait_status(random.next() as i32);
    match random.below(12) {
        0 => Transition::MasterStart { pid, workers: 2, began, reload: pid % 2 == 0 },
        1 => Transition::MasterReady { generation, pid },
        2 => Transition::MasterExit { generation, pid },
        3 => Transition::ReloadFailed { pid, began },
        4 => Transition::MasterLost { pid },
        5 => Transition::WorkerDraining { slot, connections, stopping: slot % 2 == 0 },
        6 => Transition::WorkerStuck { slot, connections },
        7 => Transition::WorkerExit { slot, stopping: slot % 2 == 0 },
        8 => Transition::WorkerLost { slot, reason },
        9 => Transition::WorkerHung { slot },
        10 => Transition::WorkerRecovered { slot },
        _ => Transition::WorkerStart {
            generation,
            pid,
            index: slot,
            process_slot: slot,
            heartbeat_timeout: connections,
            respawn_of: None,
        },
    }
}

/// A table with a history.
fn lived(memory: &Memory, random: &mut Random) {
    let roster = memory.roster();
    roster.create(0, 77);
    for _ in 0..random.below(40) {
        let _ = roster.record(transition(random), NOW, &mut |_| ());
        if random.below(4) > 0 {
            tell(roster);
        }
    }
}

/// Tells what is to be told, as a holder of the lock does. However much the table says that is, it
/// may not take long.
fn tell(roster: Roster<'_>) {
    for _ in 0..100 {
        if roster.skip_unreadable() {
            continue;
        }
        let Some(pending) = roster.pending() else { return };
        roster.begin_callback(pending.event.seq, pending.generation, pending.begun);
        roster.delivered(pending.event.seq, 1);
    }
    panic!("there is no end of events to tell");
}

/// Everything that only reads.
fn read(roster: Roster<'_>) {
    let _ = roster.is_compatible();
    assert!(roster.generations().count() <= GEOMETRY.generations);
    assert!(roster.workers().count() <= GEOMETRY.workers);
    assert!(roster.history().count() <= GEOMETRY.events);
    for g in roster.generations() {
        let _ = (roster.counts(g.number), roster.generation(g.number), roster.running(g.slot));
    }
    for w in roster.workers() {
        let _ =
            (roster.registered(w.slot, w.registration), w.is_overdue(u64::MAX), w.is_overdue(0));
    }
    for slot in [GEOMETRY.workers as u32, u32::MAX] {
        let _ = (roster.worker(slot), roster.running(slot));
        roster.beat(slot, 1, 1);
        roster.set_connections(slot, 1, 1, 1);
    }
    for seq in [0, 1, roster.seq(), u64::MAX] {
        let _ = (roster.event(seq), roster.counts(seq), roster.log_mark(seq));
    }
    let _ = (roster.finished(), roster.ready(), roster.pending(), roster.current_generation());
    let _ = (roster.reloads(), roster.reloads_succeeded(), roster.lost_master(), roster.holder());
    let _ = (
        roster.oom_kills(1),
        roster.reservation(),
        roster.logged(),
        roster.log_is_torn(),
        roster.next_program(),
    );
    let _ = (roster.oldest(), roster.epoch(), roster.last_delivered(), roster.loading_since());
    let _ = (roster.started(), roster.callback_since(), roster.log_failures());
    let _ = (roster.has_room(), roster.uncounted().count());
    for seen in [0, 3, usize::MAX].map(|events| roster.snapshot(events)).iter().flatten() {
        assert!(seen.generations.len() <= 1 + GEOMETRY.generations);
        assert!(seen.workers.len() <= 1 + GEOMETRY.workers);
        assert!(seen.events.len() <= 1 + GEOMETRY.events);
    }
    for (event, _) in roster.history() {
        let _ = (roster.callbacks(event.kind), roster.told(event.seq));
        let mut text = String::new();
        for field in Field::ALL {
            field.write(&event, None, &mut text).expect("a string takes all");
        }
    }
}

/// Everything that can happen to it. Some of it is refused.
fn use_it(roster: Roster<'_>, random: &mut Random) {
    read(roster);
    if random.below(2) == 0 {
        roster.recover();
        assert_eq!(roster.recover().corrected, 0, "mended is mended");
        read(roster);
    }
    for _ in 0..random.below(12) {
        let _ = roster.record(transition(random), NOW, &mut |_| ());
        tell(roster);
        let ready = roster.ready().map(|generation| Transition::MasterReady { generation, pid: 1 });
        let over =
            roster.finished().map(|generation| Transition::MasterExit { generation, pid: 1 });
        for next in ready.into_iter().chain(over) {
            let _ = roster.record(next, NOW, &mut |_| ());
        }
        read(roster);
        if random.below(8) == 0 {
            roster.retire_all();
        }
    }
    for kind in Kind::ALL {
        roster.callback_begins(kind, random.next());
        roster.callback_over(kind, random.next());
        roster.callback_failed(kind);
    }
    roster.set_oom_kills(random.next(), random.next());
    roster.log_failed(random.next(), random.below(2) == 0);
    roster.log_written(random.next());
    read(roster);
}

#[test]
fn a_table_of_arbitrary_words() {
    let memory = Memory::new(GEOMETRY);
    let header = memory.save();
    fuzz(5, |random| {
        // Magic, version and geometry stay: nginx's zone is refused without.
        memory.restore(&header);
        memory.roster().create(0, 77);
        let zeros = random.below(4);
        for word in &memory.words()[3..] {
            let new = if random.below(4) < zeros { 0 } else { random.word(0) };
            word.store(new, Relaxed);
        }
        assert!(memory.roster().is_compatible());
        use_it(memory.roster(), random);
    });
}

#[test]
fn a_table_with_a_few_wrong_words() {
    let memory = Memory::new(GEOMETRY);
    let header = memory.save();
    fuzz(5, |random| {
        memory.restore(&header);
        lived(&memory, random);
        for _ in 0..1 + random.below(4) {
            let words = memory.words();
            let word = &words[3 + random.below(words.len() - 3)];
            word.store(random.word(word.load(Relaxed)), Relaxed);
        }
        use_it(memory.roster(), random);
    });
}

/// A table of which some words are of a later moment than the rest, as after a loss of power in a
/// part of the memory: everything that is left is told of and can end.
#[test]
fn a_table_torn_between_two_moments() {
    let memory = Memory::new(GEOMETRY);
    let header = memory.save();
    fuzz(3, |random| {
        memory.restore(&header);
        lived(&memory, random);
        let before = memory.save();
        for _ in 0..1 + random.below(3) {
            let _ = memory.roster().record(transition(random), NOW, &mut |_| ());
        }
        for (word, before) in memory.words().iter().zip(&before).skip(3) {
            if random.below(3) == 0 {
                word.store(*before, Relaxed);
            }
        }
        let roster = memory.roster();
        roster.recover();
        tell(roster);
        roster.retire_all();
        for w in roster.workers().collect::<Vec<_>>() {
            let lost = Transition::WorkerLost { slot: w.slot, reason: Reason::Unknown };
            roster.record(lost, NOW, &mut |_| ()).expect("it is there");
            tell(roster);
        }
        while let Some(generation) = roster.finished() {
            let exit = Transition::MasterExit { generation, pid: 1 };
            roster.record(exit, NOW, &mut |_| ()).expect("it is there");
            tell(roster);
        }
        assert_eq!((roster.workers().count(), roster.generations().count()), (0, 0));
    });
}

#[test]
fn texts_with_fields() {
    let words: Vec<&str> = Field::ALL
        .into_iter()
        .map(Field::name)
        .chain(["$", "${", "}", "{", "", " ", "é", "\u{10ffff}", "$$", "_", "5", "\"", "nope"])
        .collect();
    let event = Event {
        seq: u64::MAX,
        time: i64::MIN,
        kind: Kind::WorkerLost,
        generation: u64::MAX,
        pid: i32::MIN,
        worker: None,
        n_prev: Some(u32::MAX),
        n_mine: 0,
        n_next: None,
        n_older: u32::MAX,
        n_left: u32::MAX,
        stopping: true,
        respawn_of: Some(i32::MIN),
        history: u64::MAX,
        reason: Some(Reason::Exit(255)),
        connections: Some(0),
        duration: Some(u32::MAX - 1),
    };
    fuzz(2, |random| {
        let mut text = String::new();
        for _ in 0..random.below(12) {
            match random.below(4) {
                0 => text.push('$'),
                1 => text.extend(char::from_u32(random.next() as u32 % 0x11_0000)),
                _ => text.push_str(words[random.below(words.len())]),
            }
        }
        match Template::parse(&text) {
            Ok(template) => {
                let filled = template.fill(&event, Some("why")).to_string();
                if !text.contains('$') {
                    assert_eq!(filled, text);
                }
                // Another event, which differs in everything.
                let other = Event { seq: 1, time: 2, generation: 3, pid: 4, n_mine: 5, ..event };
                let other = Event { kind: Kind::MasterExit, reason: None, n_older: 6, ..other };
                let other = Event { worker: Some(7), n_prev: None, n_next: Some(8), ..other };
                let other = Event { connections: None, duration: None, ..other };
                let other = Event { n_left: 9, stopping: false, history: 10, ..other };
                let other = Event { respawn_of: Some(11), ..other };
                let differs = template.fill(&other, None).to_string() != filled;
                assert_eq!(template.has_fields(), differs, "{text:?}");
            }
            Err(unknown) => {
                assert!(text.contains(&unknown.0), "{unknown:?} is not in {text:?}");
                assert!(Field::ALL.iter().all(|field| field.name() != unknown.0));
            }
        }
        let mut out = String::new();
        write!(out, "{}", event.id()).expect("a string takes all");
    });
}
