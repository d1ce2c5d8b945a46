//! The only reader of nginx's process globals: which process is this, and who are its relatives.

use core::ffi::{c_int, CStr};
use core::slice;

use linux::process::{is_replaced, zombie_status, Stat};
use ngx::ffi::{
    ngx_connection_t, ngx_cycle, ngx_cycle_t, ngx_exiting, ngx_last_process, ngx_parent,
    ngx_process, ngx_process_slot, ngx_process_t, ngx_processes, ngx_quit, ngx_terminate,
    ngx_test_config, ngx_worker, NGX_PROCESS_MASTER, NGX_PROCESS_SIGNALLER, NGX_PROCESS_SINGLE,
    NGX_PROCESS_WORKER,
};
use roster::Reason;

use super::cycle::Cycle;

/// Entries of the master's table, `NGX_MAX_PROCESSES`, which is no constant that bindgen sees.
const PROCESSES: usize = 1024;

/// What a call of `init_module` means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// `nginx -t` or `-T`: nothing starts.
    Test,
    /// The node starts, in the process that may go on to daemonize.
    Cold,
    /// A reload, in the master.
    Reload,
    /// A reload with `master_process off`: the one process goes on with the new configuration, and
    /// nginx calls neither `exit_process` nor `init_process`.
    SingleReload,
}

/// What a call of `init_process` means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A worker, or the one process of `master_process off`.
    Worker,
    /// Cache manager, cache loader, or OpenResty's privileged agent.
    Helper,
}

/// Classifies `init_module`. nginx sets `ngx_process` to MASTER only after the first
/// configuration is loaded, so at a cold start it is still SINGLE.
///
/// # Safety
/// `cycle` is being loaded, or `init_module` is called with it.
pub unsafe fn load(cycle: Cycle<'_>) -> Load {
    // SAFETY: plain globals, set in main() before the configuration is read; the caller vouches for the
    // cycle.
    let (test, process, old) = unsafe { (ngx_test_config, ngx_process, cycle.old()) };
    if test != 0 {
        Load::Test
    } else if process == NGX_PROCESS_MASTER as usize {
        Load::Reload
    } else if old.is_some_and(Cycle::is_configured) {
        Load::SingleReload
    } else {
        // The cycle that main() makes to begin with has no configuration: ngx_is_init_cycle().
        Load::Cold
    }
}

/// How many workers nginx runs with a configuration. `master_process` counts at a cold start only: a
/// master that runs forks all `worker_processes` at a reload, and a single process stays one.
/// The configuration of the cycle is complete.
pub fn worker_processes(cycle: Cycle<'_>, load: Load) -> u32 {
    let Some(core) = cycle.core_conf() else {
        return 0;
    };
    let is_single = match load {
        Load::Test | Load::Cold => core.master == 0,
        Load::Reload => false,
        Load::SingleReload => true,
    };
    if is_single {
        return 1;
    }
    u32::try_from(core.worker_processes).unwrap_or(0)
}

/// `timer_resolution` of the configuration in force, milliseconds; 0 if nginx looks at its timers whenever
/// one is due.
pub fn timer_resolution() -> u64 {
    // SAFETY: nothing of the cycle is kept.
    let core = unsafe { Cycle::current() }.and_then(Cycle::core_conf);
    core.map_or(0, |core| core.timer_resolution as u64)
}

/// User, group and name that nginx gives its workers. None if this process can't, since it is not
/// root's, or if nginx gives none.
///
/// # Safety
/// `cycle` is a live cycle whose configuration is complete.
pub unsafe fn worker_user(cycle: *const ngx_cycle_t) -> Option<(u32, u32, String)> {
    // SAFETY: the caller vouches for the cycle.
    let core = unsafe { Cycle::from_ptr(cycle) }?.core_conf()?;
    let has_user = core.user != u32::MAX && !core.username.is_null();
    // SAFETY: a plain global, set in main(); geteuid can't fail.
    let (process, euid) = unsafe { (ngx_process as u32, libc::geteuid()) };
    // A single process goes on as the user that it was started by.
    if euid != 0 || !has_user || process == NGX_PROCESS_SINGLE {
        return None;
    }
    // SAFETY: a C string, of a token or of nginx's own.
    let name = unsafe { CStr::from_ptr(core.username.cast()) };
    Some((core.user, core.group, name.to_string_lossy().into_owned()))
}

/// Whether this process loads configurations: a master, or the one process of
/// `master_process off`. Not `nginx -t` and `nginx -s`, which read them too.
pub fn is_loading() -> bool {
    // SAFETY: plain globals, set in main() before the configuration is read.
    let (process, test) = unsafe { (ngx_process as u32, ngx_test_config) };
    test == 0 && matches!(process, NGX_PROCESS_MASTER | NGX_PROCESS_SINGLE)
}

/// The connections this worker has open, to clients and upstreams: what nginx itself counts as
/// left open when a worker ends (`ngx_worker_process_exit`), but for QUIC's streams. Those in use, and
/// idle ones.
///
/// Costs as much as the most that were open at a time: nginx takes the connection that was freed last
/// (`ngx_get_connection`), and to begin with the first (`ngx_event_process_init`), so that those in use
/// are among so many first ones, and their number says when all were seen.
pub fn connections() -> (u32, u32) {
    // SAFETY: the global cycle of a worker has connection_n connections, each with its read event; one
    // that is not a worker's has none.
    let (connections, mut unseen) = unsafe {
        let cycle = ngx_cycle;
        if (*cycle).connections.is_null() {
            return (0, 0);
        }
        let n = (*cycle).connection_n;
        let connections = slice::from_raw_parts((*cycle).connections, n);
        (connections, n.saturating_sub((*cycle).free_connection_n))
    };
    let (mut active, mut idle) = (0u32, 0u32);
    for c in connections {
        if unseen == 0 {
            break;
        }
        // SAFETY: as above.
        let Some(read) = (unsafe { c.read.as_ref() }) else {
            continue;
        };
        // Modules use some without a descriptor: -2 to be called when nginx closes idle ones, -1 for
        // timers of Lua's. A free one has -1, too, and its event is closed, or that of a listening socket
        // (`ngx_close_listening_sockets`).
        if c.fd != -1 || (read.closed() == 0 && read.accept() == 0) {
            unseen = unseen.saturating_sub(1);
        }
        if c.fd < 0 || read.accept() != 0 || read.channel() != 0 || read.resolver() != 0 {
            continue;
        }
        if c.shared() != 0 && c.type_ == libc::SOCK_STREAM {
            // A stream of QUIC's, whose connection is counted.
            continue;
        }
        let count = if is_idle(c) { &mut idle } else { &mut active };
        *count = count.saturating_add(1);
    }
    (active, idle)
}

/// Whether nothing is under way on a connection. One of HTTP/2 or QUIC always is what nginx calls idle;
/// it may be closed for another one (`ngx_reusable_connection`) only while it has no request. Those to
/// upstreams that are kept are idle and never closed so.
fn is_idle(c: &ngx_connection_t) -> bool {
    c.idle() != 0 && (c.reusable() != 0 || c.listening.is_null())
}

/// The same as one number.
pub fn all_connections() -> u32 {
    let (active, idle) = connections();
    active.saturating_add(idle)
}

/// Whether this worker quits gracefully.
pub fn is_exiting() -> bool {
    // SAFETY: a plain global of this process.
    unsafe { ngx_exiting != 0 }
}

/// Classifies `init_process`.
pub fn role() -> Role {
    // SAFETY: a plain global, written before init_process is called.
    match unsafe { ngx_process } as u32 {
        NGX_PROCESS_WORKER | NGX_PROCESS_SINGLE => Role::Worker,
        _ => Role::Helper,
    }
}

/// Whether this is `nginx -s SIGNAL`.
pub fn is_signaller() -> bool {
    // SAFETY: a plain global, set in main() before the configuration is read.
    unsafe { ngx_process == NGX_PROCESS_SIGNALLER as usize }
}

/// Whether this process was told to end at once, by SIGTERM or SIGINT. A master that reloads blocks
/// signals, so they are pending then.
pub fn is_terminated() -> bool {
    // SAFETY: a plain global, written by nginx's signal handler, which runs on this thread.
    let flag = unsafe { ngx_terminate };
    flag != 0 || is_pending(libc::SIGTERM) || is_pending(libc::SIGINT)
}

/// Whether this process was told to end gracefully, by SIGQUIT.
pub fn is_told_to_quit() -> bool {
    // SAFETY: as above.
    let flag = unsafe { ngx_quit };
    flag != 0 || is_pending(libc::SIGQUIT)
}

fn is_pending(signal: c_int) -> bool {
    // SAFETY: sigset_t is plain data, which sigpending fills.
    unsafe {
        let mut pending = core::mem::zeroed();
        libc::sigpending(&mut pending) == 0 && libc::sigismember(&pending, signal) == 1
    }
}

/// Whether this is a worker under a master.
pub fn is_worker() -> bool {
    // SAFETY: a plain global, written before init_process is called.
    unsafe { ngx_process == NGX_PROCESS_WORKER as usize }
}

/// This process. nginx's own `ngx_pid` is stale in the launcher that daemonizes.
pub fn pid() -> i32 {
    // SAFETY: getpid can't fail.
    unsafe { libc::getpid() }
}

/// This worker's index, `0..worker_processes - 1`; a respawned worker inherits it.
pub fn worker_index() -> u32 {
    // SAFETY: a plain global, set before init_process is called.
    unsafe { ngx_worker as u32 }
}

/// This process's slot in the master's table.
pub fn slot() -> u32 {
    // SAFETY: a plain global, set by ngx_spawn_process before the fork.
    unsafe { ngx_process_slot as u32 }
}

/// Whether this worker's master is gone.
pub fn is_orphan() -> bool {
    // SAFETY: getppid can't fail; ngx_parent was set by ngx_spawn_process in the child.
    is_worker() && unsafe { libc::getppid() != ngx_parent }
}

/// The same, or about to be: a worker gets another parent as the last of what a death does, after the
/// locks of the dead are free.
pub fn is_orphaned() -> bool {
    is_orphan() || is_worker() && Stat::of(master()).is_some_and(|stat| stat.dies)
}

/// This worker's master, also when it is gone.
pub fn master() -> i32 {
    // SAFETY: a plain global, set by ngx_spawn_process in the child.
    unsafe { ngx_parent }
}

/// The pid of the process that was in this worker's slot before it, and how it ended. By now the pid may
/// be another process's.
pub fn predecessor() -> Option<(i32, Reason)> {
    let process = predecessor_entry()?;
    Some((process.pid, Reason::from_wait_status(process.status)))
}

/// The pid of the process in whose place nginx started this worker. One that nginx had told to quit is
/// started again by nobody; its entry in the table is just free (`ngx_reap_children`).
pub fn replaced() -> Option<i32> {
    predecessor_entry().filter(|process| process.exiting() == 0).map(|process| process.pid)
}

/// This worker's entry in the table as it was before: the child is a copy of the master taken after it
/// had reaped the predecessor and before it wrote the new pid. Of a child that is not started again nginx
/// leaves the pid only if it was the last in the table.
fn predecessor_entry() -> Option<ngx_process_t> {
    if !is_worker() {
        return None;
    }
    let process = entry(slot())?;
    (process.pid > 0 && process.exited() != 0).then_some(process)
}

/// An entry of the master's table, of which every process has its own copy.
fn entry(slot: u32) -> Option<ngx_process_t> {
    let table = (&raw const ngx_processes).cast::<ngx_process_t>();
    let slot = Some(slot as usize).filter(|slot| *slot < PROCESSES)?;
    // SAFETY: the index is below NGX_MAX_PROCESSES, the size of the table; entries are plain data.
    Some(unsafe { *table.add(slot) })
}

/// How the child that was last in a slot of this master's table ended, if nginx knows and has not
/// given the slot to another since. `pid` -1 is what nginx leaves of a child it does not respawn.
pub fn exit_status(slot: u32, pid: i32) -> Option<Reason> {
    let process = entry(slot)?;
    (process.exited() != 0 && (process.pid == pid || process.pid == -1))
        .then(|| Reason::from_wait_status(process.status))
}

/// The live workers in this master's table that were forked after a moment, and when at the earliest,
/// milliseconds since boot.
pub fn workers_forked_since(since_boot: u64) -> Vec<(i32, u64)> {
    // SAFETY: the first ngx_last_process entries of the master's own table are in use; a name is a
    // literal of nginx's, which all workers have in common (`ngx_start_worker_processes`).
    let table = unsafe {
        let used = usize::try_from(ngx_last_process).unwrap_or(0).min(PROCESSES);
        slice::from_raw_parts((&raw const ngx_processes).cast::<ngx_process_t>(), used)
    };
    let is_worker = |process: &&ngx_process_t| {
        process.pid > 0
            && process.exited() == 0
            && !process.name.is_null()
            // SAFETY: as above.
            && unsafe { CStr::from_ptr(process.name) } == c"worker process"
    };
    let young = |process: &ngx_process_t| {
        let stat = Stat::of(process.pid)?;
        (!stat.dead && stat.began >= since_boot).then_some((process.pid, stat.began))
    };
    table.iter().filter(is_worker).filter_map(young).collect()
}

/// How the child of this process that had this pid at a moment, milliseconds since boot, ended, if nginx
/// has not reaped it yet. Leaves it for nginx to reap.
pub fn unreaped(pid: i32, since_boot: u64) -> Option<Reason> {
    // SAFETY: an all-zero siginfo_t is valid, and waitid fills it.
    let mut info: libc::siginfo_t = unsafe { core::mem::zeroed() };
    let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: WNOWAIT leaves the child in place; the pointers are valid.
    let found = unsafe { libc::waitid(libc::P_PID, pid as libc::id_t, &mut info, flags) == 0 };
    // SAFETY: waitid reports a child, so these are the fields it fills; pid 0 means none.
    let (child, status) = unsafe { (info.si_pid(), info.si_status()) };
    // A younger child may have got the pid of one that was reaped, and have died as well.
    if !found || child != pid || is_replaced(pid, since_boot) {
        return None;
    }
    Some(match info.si_code {
        libc::CLD_EXITED => Reason::Exit(status as u8),
        code => Reason::Signal { number: status as u8, core: code == libc::CLD_DUMPED },
    })
}

/// How the process that had this pid at a moment, milliseconds since boot, ended, if its parent has not
/// reaped it yet.
pub fn zombie(pid: i32, since_boot: u64) -> Option<Reason> {
    zombie_status(pid, since_boot).map(Reason::from_wait_status)
}
