//! Processes as `/proc` describes them. A pid identifies nothing by itself: the kernel gives it to another
//! process once the one that had it is reaped. So a process is named by its pid and a moment at which
//! it lived: one that has the pid and began later is another.

use std::fs;
use std::io;

/// A process, by `/proc/PID/stat`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Whether it has died and is not reaped yet.
    pub dead: bool,
    /// Whether it is about to die: `PF_EXITING`.
    pub dies: bool,
    /// The wait status of one that has died; 0 also if the kernel does not show it to this process.
    pub status: i32,
    /// The process that is its parent now.
    pub parent: i32,
    /// When it began at the earliest, milliseconds since boot, sleep included (`CLOCK_BOOTTIME`).
    pub began: u64,
}

/// `PF_EXITING` of the kernel's include/linux/sched.h.
const PF_EXITING: u32 = 4;

impl Stat {
    /// Reads what the kernel has of a process now; none if there is no such process, or if `/proc`
    /// hides it (`hidepid`) or is not mounted.
    pub fn of(pid: i32) -> Option<Stat> {
        // SAFETY: sysconf has no preconditions.
        let ticks_per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
        let text = fs::read(format!("/proc/{pid}/stat"));
        Stat::by(text, u64::try_from(ticks_per_second).unwrap_or(100))
    }

    /// By what came of reading the file. An error says nothing of the process: with `hidepid=2` one of
    /// another user looks as if it did not exist.
    fn by(text: io::Result<Vec<u8>>, ticks_per_second: u64) -> Option<Stat> {
        Stat::parse(&text.ok()?, ticks_per_second)
    }

    /// The fields are those of proc_pid_stat(5): 3 is the state, 4 the parent, 9 the flags, 22 the start, 52 the wait
    /// status. The name before them may hold anything, also `)` and spaces.
    fn parse(text: &[u8], ticks_per_second: u64) -> Option<Stat> {
        let name_ends = text.iter().rposition(|byte| *byte == b')')?;
        let fields = core::str::from_utf8(text.get(name_ends.checked_add(1)?..)?).ok()?;
        let mut fields = fields.split_ascii_whitespace();
        let state = fields.next()?;
        let parent = fields.next()?.parse().ok()?;
        let flags: u32 = fields.nth(4)?.parse().ok()?;
        let ticks: u64 = fields.nth(12)?.parse().ok()?;
        let status = fields.nth(29).and_then(|status| status.parse().ok()).unwrap_or(0);
        Some(Stat {
            dead: state == "Z" || state == "X",
            dies: flags & PF_EXITING != 0,
            status,
            parent,
            // The kernel rounds the start down to ticks; one more is the room for its rounding.
            began: ticks
                .saturating_sub(1)
                .saturating_mul(1000)
                .checked_div(ticks_per_second.max(1))?,
        })
    }

    /// Whether this may be the process that lived at a moment, milliseconds since boot.
    pub fn lived_at(&self, since_boot: u64) -> bool {
        self.began <= since_boot
    }
}

/// Whether the process that had this pid at a moment, milliseconds since boot, is gone: no process has
/// the pid, another one has it, or it is dead and not reaped.
pub fn is_gone(pid: i32, since_boot: u64) -> bool {
    is_gone_by(signal_errno(pid), || Stat::of(pid), since_boot)
}

/// `errno` is that of kill() with signal 0, 0 if it succeeded. Any other than ESRCH, such as EPERM,
/// says that a process has that pid, of whatever user, or had a moment ago. If /proc does not show which
/// one, it is taken to be the one: better a dead one that is found late than a live one taken for dead.
fn is_gone_by(errno: i32, stat: impl FnOnce() -> Option<Stat>, since_boot: u64) -> bool {
    errno == libc::ESRCH || stat().is_some_and(|stat| stat.dead || !stat.lived_at(since_boot))
}

/// Whether the process with this pid is another one than that which had it at a moment, milliseconds
/// since boot.
pub fn is_replaced(pid: i32, since_boot: u64) -> bool {
    is_replaced_by(Stat::of(pid), since_boot)
}

/// One that `/proc` does not show is taken to be the same.
fn is_replaced_by(stat: Option<Stat>, since_boot: u64) -> bool {
    stat.is_some_and(|stat| !stat.lived_at(since_boot))
}

/// How the process that had this pid at a moment, milliseconds since boot, ended, as a wait status, if
/// its parent has not reaped it yet. Processes of the same user may read that of each other: a dead
/// process has no memory to be protected.
pub fn zombie_status(pid: i32, since_boot: u64) -> Option<i32> {
    zombie_status_by(Stat::of(pid)?, since_boot)
}

/// A status that may not be read reads 0, as does that of a process that ended well: neither is returned.
fn zombie_status_by(stat: Stat, since_boot: u64) -> Option<i32> {
    (stat.dead && stat.lived_at(since_boot) && stat.status != 0).then_some(stat.status)
}

/// The errno of kill() with signal 0, which only asks whether the process exists; 0 if it succeeded.
fn signal_errno(pid: i32) -> i32 {
    // SAFETY: kill has no preconditions, and signal 0 is not sent.
    if unsafe { libc::kill(pid, 0) } == 0 {
        return 0;
    }
    io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CStr;
    use std::os::unix::process::CommandExt;
    use std::process::{Child, Command, Stdio};
    use std::ptr;
    use std::thread;
    use std::time::{Duration, Instant};

    const NEVER: u64 = u64::MAX;

    fn sleeper() -> Child {
        Command::new("sleep").arg("60").stdin(Stdio::null()).spawn().expect("sleep starts")
    }

    fn pid(child: &Child) -> i32 {
        child.id() as i32
    }

    /// Waits for what another process does.
    fn until(condition: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !condition() {
            assert!(Instant::now() < deadline, "in vain");
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn since_boot() -> u64 {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the structure is valid and the clock exists.
        unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &mut time) };
        time.tv_sec as u64 * 1000 + time.tv_nsec as u64 / 1_000_000
    }

    /// A line of `/proc/PID/stat`, with what matters.
    fn line(name: &str, state: &str, flags: u32, start: u64, status: i32) -> Vec<u8> {
        let mut fields = vec![state.to_string()];
        fields.extend((4..=52).map(|field| match field {
            4 => "3".to_string(),
            9 => flags.to_string(),
            22 => start.to_string(),
            52 => status.to_string(),
            // No other field looks like any of them.
            _ => (1_000_000 + field).to_string(),
        }));
        format!("7 ({name}) {}\n", fields.join(" ")).into_bytes()
    }

    #[test]
    fn names_may_hold_anything() {
        for name in ["nginx", "", ") Z 1 (", "a b", "nginx: worker)", ") R 4 4 4 4 4 4 4"] {
            let stat = Stat::parse(&line(name, "S", 0x40_0040, 12_345, 0), 100);
            let expected = Stat { dead: false, dies: false, status: 0, parent: 3, began: 123_440 };
            assert_eq!(stat, Some(expected), "{name}");
        }
        // prctl() takes bytes that are not UTF-8.
        let mut text = line("?", "S", 0, 100, 0);
        let at = text.iter().position(|byte| *byte == b'?').expect("it is there");
        text[at] = 0xff;
        assert_eq!(Stat::parse(&text, 100).map(|stat| stat.began), Some(990));
    }

    #[test]
    fn the_dead_and_the_dying() {
        let dead = Stat::parse(&line("nginx", "Z", 0x40_000c, 100, 9), 100).expect("it is whole");
        assert!(dead.dead && dead.dies);
        assert_eq!(dead.status, 9);
        assert!(Stat::parse(&line("nginx", "X", 4, 100, 0), 100).is_some_and(|stat| stat.dead));
        let dying = Stat::parse(&line("nginx", "D", 4, 100, 0), 100).expect("it is whole");
        assert!(!dying.dead && dying.dies);
        // Kernels before 3.5 end before the wait status.
        let old = line("nginx", "S", 0, 100, 9);
        let end = old.iter().rposition(|byte| *byte == b' ').expect("there are fields");
        assert_eq!(Stat::parse(&old[..end], 100).map(|stat| stat.status), Some(0));
    }

    #[test]
    fn what_is_not_a_line_of_it() {
        for text in
            ["", "7 (nginx", "7 (nginx)", "7 (nginx) S 1 2 3", ")", "7 (nginx) S x x x x x x x"]
        {
            assert_eq!(Stat::parse(text.as_bytes(), 100), None, "{text}");
        }
    }

    #[test]
    fn the_answers_of_the_kernel() {
        let at =
            |began| move || Some(Stat { dead: false, dies: false, status: 0, parent: 3, began });
        let dead = || Some(Stat { dead: true, dies: true, status: 9, parent: 3, began: 100 });
        // No such process; /proc is not even asked.
        assert!(is_gone_by(libc::ESRCH, || panic!("nobody asks"), 100));
        // One of this user, and one of another: with EPERM, the process is there.
        for errno in [0, libc::EPERM] {
            assert!(!is_gone_by(errno, at(100), 100), "it may have begun in this very tick");
            assert!(!is_gone_by(errno, at(0), 100));
            assert!(is_gone_by(errno, at(101), 100), "one that began later is another one");
            assert!(is_gone_by(errno, dead, 100));
            // hidepid hides /proc/PID of other users' processes, and kill() says EPERM.
            assert!(!is_gone_by(errno, || None, 100));
        }
    }

    #[test]
    fn what_proc_does_not_show_is_not_known() {
        // No such process, or hidepid=2; hidepid=1; /proc is not mounted, and a stray file lies there; the
        // process was reaped while its file was read.
        for errno in [libc::ENOENT, libc::EPERM, libc::EACCES, libc::ENOTDIR, libc::ESRCH] {
            assert_eq!(Stat::by(Err(io::Error::from_raw_os_error(errno)), 100), None);
        }
        assert_eq!(Stat::by(Ok(Vec::new()), 100), None);
        assert!(Stat::by(Ok(line("nginx", "S", 0, 100, 0)), 100).is_some());
        // So no process is taken for dead or replaced by it.
        assert!(!is_replaced_by(None, 0));
        assert!(!is_gone_by(0, || None, 0) && !is_gone_by(libc::EPERM, || None, 0));
    }

    #[test]
    fn a_status_is_told_of_the_dead_that_it_is_of() {
        let stat = Stat { dead: true, dies: true, status: 9, parent: 3, began: 100 };
        assert_eq!(zombie_status_by(stat, 100), Some(9));
        assert_eq!(zombie_status_by(stat, 99), None, "another one's");
        assert_eq!(zombie_status_by(Stat { dead: false, ..stat }, 100), None);
        assert_eq!(zombie_status_by(Stat { status: 0, ..stat }, 100), None, "not to be read");
        assert!(is_replaced_by(Some(stat), 99) && !is_replaced_by(Some(stat), 100));
    }

    /// In this process: a `/proc` of its own with that option, and another user. False if that can't be
    /// had, without root or in a container.
    fn hide(option: &CStr) -> bool {
        let (proc, root) = (c"/proc".as_ptr(), c"/".as_ptr());
        // SAFETY: plain system calls with valid arguments.
        unsafe {
            libc::unshare(libc::CLONE_NEWNS) == 0
                && libc::mount(ptr::null(), root, ptr::null(), PRIVATE, ptr::null()) == 0
                && libc::mount(c"proc".as_ptr(), proc, c"proc".as_ptr(), 0, option.as_ptr().cast())
                    == 0
                && libc::setgid(65534) == 0
                && libc::setgroups(0, ptr::null()) == 0
                && libc::setuid(65534) == 0
        }
    }

    const PRIVATE: libc::c_ulong = libc::MS_REC | libc::MS_PRIVATE;

    #[test]
    fn a_process_that_proc_hides() {
        for option in [c"hidepid=1", c"hidepid=2"] {
            let mut child = Command::new("true");
            // SAFETY: between fork and exec only system calls, and what this crate does itself.
            let ask = unsafe {
                child.pre_exec(move || {
                    let seen = !hide(option) || Stat::of(1).is_some();
                    // Before Linux 5.8 all mounts of /proc have the same options.
                    if seen || !is_gone(1, NEVER) && !is_replaced(1, 0) {
                        return Ok(());
                    }
                    Err(io::Error::from_raw_os_error(libc::ESRCH))
                })
            };
            let status = ask.status().expect("a hidden process is neither gone nor replaced");
            assert!(status.success());
        }
    }

    #[test]
    fn a_process_of_ones_own() {
        let before = since_boot();
        let mut child = sleeper();
        let after = since_boot();
        let pid = pid(&child);
        let stat = Stat::of(pid).expect("it lives");
        // Two ticks of rounding, and up to 10 ms each.
        assert!(stat.began + 40 >= before && stat.began <= after, "{before} {stat:?} {after}");
        assert_eq!(stat.parent, std::process::id() as i32);
        assert!(!is_gone(pid, after) && !is_replaced(pid, after));
        assert!(is_gone(pid, before.saturating_sub(100)), "another one had the pid then");
        assert!(is_replaced(pid, before.saturating_sub(100)));
        assert_eq!(zombie_status(pid, after), None);

        child.kill().expect("it lives");
        until(|| Stat::of(pid).is_some_and(|stat| stat.dead));
        assert!(is_gone(pid, after), "a zombie is gone");
        assert_eq!(zombie_status(pid, after), Some(9));
        assert_eq!(zombie_status(pid, before.saturating_sub(100)), None, "another one's death");
        child.wait().expect("it is a child");
        assert!(is_gone(pid, NEVER) && !is_replaced(pid, 0));
        assert_eq!(Stat::of(pid), None);
    }

    #[test]
    fn a_process_of_another_user() {
        // Only root can become another user. Every other user sees init as one of another user.
        // SAFETY: geteuid can't fail.
        if unsafe { libc::geteuid() } != 0 {
            assert_eq!(signal_errno(1), libc::EPERM);
            assert!(!is_gone(1, NEVER));
            return;
        }
        // SAFETY: between fork and exec only a system call.
        let ask = unsafe {
            Command::new("true")
                .uid(65534)
                .pre_exec(|| match signal_errno(1) {
                    libc::EPERM if !is_gone_by(libc::EPERM, || None, 100) => Ok(()),
                    errno => Err(io::Error::from_raw_os_error(errno)),
                })
                .status()
        };
        assert!(ask.expect("EPERM, which does not mean that it is gone").success());
    }
}
