//! Processes that hold the mutex and die, in every way there is.

use super::*;
use core::sync::atomic::AtomicU32;
use std::time::{Duration, Instant};

/// Memory that children share.
fn shared<T>() -> &'static T {
    // SAFETY: a fresh mapping of zeros that is never unmapped, aligned to a page. What the tests put
    // there is atomics, and a mutex that may be zeros.
    unsafe {
        let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let memory = libc::mmap(ptr::null_mut(), size_of::<T>(), protection, flags, -1, 0);
        assert_ne!(memory, libc::MAP_FAILED);
        &*memory.cast()
    }
}

fn mutex() -> &'static RobustMutex {
    let mutex: &RobustMutex = shared();
    mutex.create().expect("a mutex");
    mutex
}

/// A child, killed and reaped when it is dropped.
struct Child(i32);

impl Child {
    /// Runs in a child, which then exits with what is returned. Other threads of this process may have
    /// held any lock at the fork: what runs uses system calls, and libc's allocator, which is made for it.
    fn run(run: impl FnOnce() -> i32) -> Child {
        // SAFETY: see above; the child leaves by _exit.
        match unsafe { libc::fork() } {
            0 => {
                let code = run();
                // SAFETY: ends this process.
                unsafe { libc::_exit(code) }
            }
            pid => {
                assert!(pid > 0);
                Child(pid)
            }
        }
    }

    /// One that takes the mutex, then does something, then sleeps.
    fn holding(mutex: &'static RobustMutex, then: impl FnOnce()) -> Child {
        let held: &AtomicU32 = shared();
        let child = Child::run(|| {
            if mutex.try_take().is_err() {
                return 1;
            }
            then();
            held.store(1, SeqCst);
            loop {
                std::thread::sleep(Duration::from_secs(1));
            }
        });
        until(|| held.load(SeqCst) != 0);
        child
    }

    fn kill(&self) {
        // SAFETY: a child that was not reaped, so the pid is its.
        unsafe { libc::kill(self.0, libc::SIGKILL) };
    }

    /// Waits until it is dead, and leaves it a zombie.
    fn await_death(&self) {
        until(|| process::is_gone(self.0, u64::MAX));
    }

    fn reap(self) -> i32 {
        let mut status = 0;
        // SAFETY: a child that was not reaped.
        assert_eq!(unsafe { libc::waitpid(self.0, &mut status, 0) }, self.0);
        core::mem::forget(self);
        status
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill();
        // SAFETY: a child that was not reaped.
        unsafe { libc::waitpid(self.0, ptr::null_mut(), 0) };
    }
}

fn until(condition: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < end, "timed out");
        std::thread::sleep(Duration::from_micros(100));
    }
}

/// As if the memory of this process were reaped before it dies: the kernel finds an empty list.
fn lose_robust_list() {
    static mut NONE: RobustListHead =
        RobustListHead { next: ptr::null(), futex_offset: 0, pending: ptr::null() };
    let none = &raw mut NONE;
    // SAFETY: a static that this process writes to once; the list is empty, it leads back to its head.
    unsafe {
        (*none).next = none.cast();
        libc::syscall(libc::SYS_set_robust_list, none, size_of::<RobustListHead>());
    }
}

/// Takes the mutex of a holder that is gone, and says how often it had to wait.
fn take_of_dead(mutex: &RobustMutex) -> u32 {
    let mut waits = 0;
    let taken = mutex.take(&mut || {
        waits += 1;
        waits < 100
    });
    assert!(matches!(taken, Ok(Taken::HolderDied)), "{taken:?}");
    mutex.mended();
    mutex.release();
    assert!(matches!(mutex.try_take(), Ok(Taken::Clean)));
    mutex.release();
    waits
}

#[test]
fn the_word_that_the_kernel_knows_is_found() {
    let mutex = mutex();
    assert!(mutex.is_repairable());
    assert_eq!(mutex.holder(), None);
    mutex.try_take().expect("it is free");
    let me = mutex.holder().expect("it is held");
    assert_eq!(me.tid, tid());
    assert!(me.since_boot <= now());
    mutex.release();
}

#[test]
fn who_takes_it_twice_gets_an_error() {
    let mutex = mutex();
    mutex.try_take().expect("it is free");
    let error = mutex.try_take().expect_err("it is held");
    assert!(matches!(error, MutexError::Os(error) if error.raw_os_error() == Some(libc::EDEADLK)));
    mutex.release();
}

#[test]
fn who_waits_can_be_told_to_stop() {
    let mutex = mutex();
    let _holder = Child::holding(mutex, || ());
    let mut asked = 0;
    let taken = mutex.take(&mut || {
        asked += 1;
        asked < 3
    });
    assert!(matches!(taken, Err(MutexError::Cancelled)) && asked == 3, "{taken:?} {asked}");
}

#[test]
fn a_holder_dies() {
    let mutex = mutex();
    let child = Child::holding(mutex, || ());
    child.kill();
    child.await_death();
    assert_eq!(take_of_dead(mutex), 0);
}

#[test]
fn a_holder_dies_with_its_robust_list_lost() {
    let mutex = mutex();
    let child = Child::holding(mutex, lose_robust_list);
    assert!(matches!(mutex.try_take(), Err(MutexError::Busy)));
    child.kill();
    child.await_death();
    assert_eq!(take_of_dead(mutex), 0, "a zombie has no time left");
    let child = Child::holding(mutex, lose_robust_list);
    child.kill();
    child.reap();
    assert_eq!(take_of_dead(mutex), 0, "nor has who was reaped");
}

#[test]
fn who_waits_meanwhile_goes_on() {
    let mutex = mutex();
    let child = Child::holding(mutex, lose_robust_list);
    let waits: &AtomicU32 = shared();
    let waiter = Child::run(|| {
        let taken = mutex.take(&mut || {
            waits.fetch_add(1, SeqCst);
            true
        });
        i32::from(!matches!(taken, Ok(Taken::HolderDied)))
    });
    until(|| waits.load(SeqCst) > 0);
    child.kill();
    child.await_death();
    let before = waits.load(SeqCst);
    assert_eq!(waiter.reap(), 0);
    assert!(waits.load(SeqCst) - before <= 2, "at the first look after the death");
}

#[test]
fn without_the_word_nothing_is_repaired() {
    let mutex = mutex();
    mutex.word.store(0, SeqCst);
    let child = Child::holding(mutex, lose_robust_list);
    child.kill();
    child.await_death();
    assert!(matches!(mutex.try_take(), Err(MutexError::Busy)));
}

#[test]
fn the_memory_of_a_holder_is_reaped_before_it_exits() {
    let mutex = mutex();
    for _ in 0..30 {
        let child = Child::holding(mutex, || {
            // Something to reap, so that the exit takes its time.
            std::hint::black_box(vec![1u8; 32 << 20]);
        });
        // SAFETY: no pointers are passed; the child was not reaped, so the pid is its.
        unsafe {
            let pidfd = libc::syscall(libc::SYS_pidfd_open, child.0, 0);
            child.kill();
            // Before Linux 5.15 there is no such call, and nothing that reaps but the OOM killer.
            libc::syscall(libc::SYS_process_mrelease, pidfd, 0);
            if pidfd >= 0 {
                libc::close(pidfd as i32);
            }
        }
        child.await_death();
        take_of_dead(mutex);
    }
}

#[test]
fn the_id_of_a_dead_holder_is_used_again() {
    let mutex = mutex();
    let other = Child::run(|| loop {
        std::thread::sleep(Duration::from_secs(1));
    });
    let began = process::Stat::of(other.0).expect("/proc").began;
    let word = mutex.word().expect("the word");
    let held_by_other = |since_boot| {
        word.store(other.0 as u32, SeqCst);
        mutex.holder.store(Holder { tid: other.0, since_boot }.pack(), SeqCst);
    };
    held_by_other(began + 1000);
    assert!(
        matches!(mutex.try_take(), Err(MutexError::Busy)),
        "it has lived since before it took the mutex"
    );
    held_by_other(began - 1000);
    take_of_dead(mutex);

    // It has not written that down yet, and the holder before it was another process.
    held_by_other(0);
    mutex.holder.store(Holder { tid: tid(), since_boot: now() }.pack(), SeqCst);
    assert!(matches!(mutex.try_take(), Err(MutexError::Busy)));
}

#[test]
fn the_id_of_a_dead_holder_is_this_threads() {
    let mutex = mutex();
    let word = mutex.word().expect("the word");
    let began = process::Stat::of(std::process::id() as i32).expect("/proc").began;
    word.store(tid() as u32, SeqCst);
    mutex.holder.store(Holder { tid: tid(), since_boot: began - 1000 }.pack(), SeqCst);
    take_of_dead(mutex);
}

#[test]
fn the_kernel_frees_it_at_the_same_time() {
    let mutex = mutex();
    let mut here = 0;
    for _ in 0..200 {
        let child = Child::holding(mutex, || ());
        child.kill();
        // The quicker of the two frees it.
        while !process::Stat::of(child.0).is_none_or(|stat| stat.dies) {}
        here += u32::from(mutex.free(child.0));
        child.await_death();
        assert!(!mutex.free(child.0), "one of the two has freed it");
        take_of_dead(mutex);
    }
    eprintln!("{here} of 200 freed here, the others by the kernel");
}

/// What the processes of a random history share.
struct History {
    mutex: RobustMutex,
    inside: AtomicU32,
    taken: AtomicU32,
    wrong: AtomicU32,
}

/// A process of it: takes the mutex again and again, until it dies in one of three ways or has had
/// enough.
fn live(history: &History, seed: u64) -> i32 {
    let mut state = seed | 1;
    let mut random = |below: u64| {
        // xorshift64.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    for _ in 0..100 {
        let found = if random(3) == 0 {
            history.mutex.try_take()
        } else {
            let mut looks = 1 + random(20);
            history.mutex.take(&mut || {
                looks -= 1;
                looks > 0
            })
        };
        match found {
            Err(MutexError::Busy | MutexError::Cancelled) => continue,
            Err(_) => return 1,
            Ok(found) => {
                let before = history.inside.swap(tid() as u32, SeqCst);
                if found == Taken::Clean && before != 0 {
                    history.wrong.fetch_add(1, SeqCst);
                }
                if found == Taken::HolderDied && random(4) > 0 {
                    history.mutex.mended();
                } else if found == Taken::HolderDied {
                    // Dies at the mending.
                    // SAFETY: ends this process.
                    unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
                }
            }
        }
        history.taken.fetch_add(1, SeqCst);
        std::thread::sleep(Duration::from_micros(random(300)));
        match random(40) {
            0 => lose_robust_list(),
            1 => {}
            _ => {
                if history.inside.swap(0, SeqCst) != tid() as u32 {
                    history.wrong.fetch_add(1, SeqCst);
                }
                history.mutex.release();
                continue;
            }
        }
        // SAFETY: ends this process.
        unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
    }
    0
}

#[test]
fn random_histories() {
    let history: &'static History = shared();
    history.mutex.create().expect("a mutex");
    let mut seed = u64::from(std::process::id()) << 32;
    eprintln!("seed {seed}");
    let mut children: Vec<Child> = Vec::new();
    let end = Instant::now() + Duration::from_secs(4);
    while Instant::now() < end {
        while children.len() < 8 {
            seed += 0x9e37_79b9;
            children.push(Child::run(|| live(history, seed)));
        }
        let (over, living) = children.into_iter().partition(|c| process::is_gone(c.0, u64::MAX));
        children = living;
        for child in over {
            let status = child.reap();
            assert!(status == 0 || status == libc::SIGKILL, "{status}");
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    // The last ones end, whichever of them holds it.
    for child in children {
        child.reap();
    }
    assert_eq!(history.wrong.load(SeqCst), 0, "two at a time");
    assert!(history.taken.load(SeqCst) > 100);
    let mut looks = 10;
    let taken = history.mutex.take(&mut || {
        looks -= 1;
        looks > 0
    });
    assert!(taken.is_ok(), "{taken:?}");
}
