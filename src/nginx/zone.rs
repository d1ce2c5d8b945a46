//! The shared memory zone: registered, made, reused over a reload. The one place that casts its
//! memory.

use core::ffi::c_void;
use core::marker::PhantomData;
use core::mem::size_of;
use core::ptr::{self, NonNull};
use core::slice;
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};
use std::cell::Cell;
use std::io;

use linux::mutex::RobustMutex;
use memoffset::offset_of;
use ngx::ffi::{
    ngx_int_t, ngx_pagesize, ngx_pagesize_shift, ngx_shm_zone_t, ngx_slab_alloc, ngx_slab_page_t,
    ngx_slab_pool_t, ngx_slab_stat_t, NGX_ERROR, NGX_OK,
};
use roster::held::{HeldArea, HeldAreas};
use roster::{Geometry, Roster, LAYOUT_VERSION};

use crate::nginx::clock;
use crate::nginx::log::Log;
use crate::nginx::main_thread::MainThreadCell;
use crate::nginx::process;

mod label;

pub use label::Label;

/// What the module keeps at the start of its memory in the zone; the roster follows.
#[repr(C)]
struct ZoneHead {
    lock: RobustMutex,
    /// Size of the memory, this head included.
    bytes: AtomicU64,
    /// The process that runs exit callbacks of Lua code, see [`Zone::take_turn`].
    turn: AtomicU64,
    /// The obstacle that was warned about last, and how far that has come; see `is_first_to_warn`.
    warned: AtomicU64,
    label: Label,
    spare: [u64; 6],
}

// The roster begins right after and needs its alignment; other builds read the same layout: a change here
// needs a new `roster::LAYOUT_VERSION`, too.
const _: () = {
    assert!(offset_of!(ZoneHead, lock) == 0);
    assert!(offset_of!(ZoneHead, bytes) == 80);
    assert!(offset_of!(ZoneHead, turn) == 88);
    assert!(offset_of!(ZoneHead, warned) == 96);
    assert!(offset_of!(ZoneHead, label) == 104);
    assert!(LAYOUT_VERSION == 6);
    assert!(size_of::<ZoneHead>() == 256);
};

/// The module's memory in a zone that is mapped within `'a`: for a zone of a cycle's that is until the cycle
/// is over, see [`super::cycle`]. Valid in every process that inherited the mapping.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Zone<'a>(NonNull<ZoneHead>, PhantomData<&'a ZoneHead>);

/// The generation this process committed last, so that a new zone goes on numbering.
static LAST_GENERATION: MainThreadCell<Cell<u64>> = MainThreadCell::new(Cell::new(0));

/// Remembers the newest generation, for a zone that may follow this one.
pub fn remember_generation(generation: u64) {
    LAST_GENERATION.set(generation);
}

/// The newest generation that was committed, 0 before the first.
pub fn last_generation() -> u64 {
    LAST_GENERATION.get_or(0)
}

impl<'a> Zone<'a> {
    /// The memory that a zone's `init` left in `data`.
    ///
    /// # Safety
    /// `shm_zone` is a zone of [`init`]'s, and mapped within `'a` if it was initialized.
    pub unsafe fn of(shm_zone: *const ngx_shm_zone_t) -> Option<Zone<'a>> {
        // SAFETY: the caller vouches for the zone.
        let head = NonNull::new(unsafe { (*shm_zone).data }.cast())?;
        Some(Zone(head, PhantomData))
    }

    /// The same, to be kept.
    ///
    /// # Safety
    /// The process gives it up before the zone's cycle is over.
    pub unsafe fn keep(self) -> Zone<'static> {
        Zone(self.0, PhantomData)
    }

    /// The same memory where its mapping that begins at `from` is mapped a second time, at `to`.
    ///
    /// # Safety
    /// The zone lies in the first mapping, and the second is there within `'b`.
    pub unsafe fn moved<'b>(self, from: *const u8, to: NonNull<u8>) -> Zone<'b> {
        // SAFETY: the caller vouches that both places are within the mappings.
        let head = unsafe { to.offset(self.0.as_ptr().cast::<u8>().offset_from(from)) };
        Zone(head.cast(), PhantomData)
    }

    fn head(&self) -> &ZoneHead {
        // SAFETY: an initialized head, by construction; everything in it may be shared.
        unsafe { self.0.as_ref() }
    }

    /// The node's lock.
    pub fn lock(&self) -> &RobustMutex {
        &self.head().lock
    }

    /// Takes the turn for `token`, which is not 0, if nobody has it, or its owner is gone or took
    /// longer than it might; returns that owner, or 0. None if it is another's. `now` and `limit` are
    /// in milliseconds of the monotonic clock.
    pub fn take_turn(
        &self,
        token: u32,
        now: u64,
        limit: u64,
        is_gone: impl FnOnce(u32) -> bool,
    ) -> Option<u32> {
        // Low half whose it is, high half until when, in tenths of a second.
        const UNIT: u64 = 100;
        let word = self.head().turn.load(Acquire);
        let owner = word as u32;
        if owner != 0 && word >> 32 > now / UNIT && !is_gone(owner) {
            return None;
        }
        let own = u64::from(token) | ((now.saturating_add(limit) / UNIT) << 32);
        self.head().turn.compare_exchange(word, own, AcqRel, Relaxed).ok().map(|_| owner)
    }

    /// Ends the turn of `token`, if it still has it.
    pub fn end_turn(&self, token: u32) {
        let turn = &self.head().turn;
        let word = turn.load(Acquire);
        if word as u32 == token {
            // If another has it now, that is right too.
            let _ = turn.compare_exchange(word, 0, AcqRel, Relaxed);
        }
    }

    /// What is said of the callback that runs.
    pub fn label(&self) -> &Label {
        &self.head().label
    }

    /// Whether nobody has warned of this yet. The low byte of `warning` says how far it has come, the
    /// rest about what it is; the last one counts.
    pub fn is_first_to_warn(&self, warning: u64) -> bool {
        let is_news = |last: u64| last >> 8 != warning >> 8 || last & 0xff < warning & 0xff;
        let news = |last| is_news(last).then_some(warning);
        self.head().warned.fetch_update(Relaxed, Relaxed, news).is_ok()
    }

    /// The roster.
    pub fn roster(&self) -> Roster<'_> {
        let bytes =
            (self.head().bytes.load(Relaxed) as usize).saturating_sub(size_of::<ZoneHead>());
        let geometry = Geometry::for_bytes(bytes).unwrap_or(Geometry {
            generations: 0,
            workers: 0,
            events: 0,
            messages: 0,
        });
        // SAFETY: the roster begins right behind the head. `geometry.total()` is at most the bytes there,
        // which `init` allocated and zeroed.
        let base = unsafe { self.0.add(1) }.cast::<u8>();
        // SAFETY: as above, for the four of them; all records are atomics, for which any bit pattern is valid.
        unsafe {
            Roster {
                head: base.cast().as_ref(),
                generations: records(base, geometry.generations_offset(), geometry.generations),
                workers: records(base, geometry.workers_offset(), geometry.workers),
                events: records(base, geometry.events_offset(), geometry.events),
                messages: records(base, geometry.messages_offset(), geometry.messages),
            }
        }
    }

    /// What holds workers that drain: the end of the memory, behind the roster.
    pub fn held(&self) -> HeldAreas<'_> {
        let bytes = self.head().bytes.load(Relaxed) as usize;
        let room = bytes.saturating_sub(size_of::<ZoneHead>());
        if Geometry::for_bytes(room).is_none() {
            return HeldAreas(&[]);
        }
        // SAFETY: the memory is `bytes` long, which `init` allocated and zeroed, and begins and ends with a
        // page; the roster leaves these bytes of its room free. All words are atomics, for which any bit
        // pattern is valid.
        unsafe {
            let first =
                self.0.as_ptr().cast::<u8>().add(bytes.saturating_sub(HeldAreas::bytes(room)));
            HeldAreas(slice::from_raw_parts(first.cast::<HeldArea>(), HeldAreas::number(room)))
        }
    }
}

/// So many records in a row, `offset` bytes behind an address.
///
/// # Safety
/// They are there within `'a`, and may be shared.
unsafe fn records<'a, T>(base: NonNull<u8>, offset: usize, count: usize) -> &'a [T] {
    // SAFETY: the caller vouches for it.
    unsafe { slice::from_raw_parts(base.add(offset).cast::<T>().as_ptr(), count) }
}

/// Generations whose workers a zone has to hold at a time: those of a reload.
const GENERATIONS: usize = 2;

/// How much the roster in a zone of so many bytes holds, none if the zone is too small for any.
fn room(size: usize) -> Option<Geometry> {
    Geometry::for_bytes(usable(size)?.checked_sub(size_of::<ZoneHead>())?)
}

/// How many bytes of a zone `create` gets: those of the pages that ngx_slab_init() leaves free.
fn usable(size: usize) -> Option<usize> {
    // SAFETY: plain globals, set when nginx starts.
    let (page, shift) = unsafe { (ngx_pagesize, ngx_pagesize_shift) };
    // ngx_init_zone_pool() sets min_shift to 3.
    let per_slot = const { size_of::<ngx_slab_page_t>() + size_of::<ngx_slab_stat_t>() };
    let slots = shift.checked_sub(3)?.checked_mul(per_slot)?;
    let head = size_of::<ngx_slab_pool_t>().checked_add(slots)?;
    let per_page = page.checked_add(size_of::<ngx_slab_page_t>())?;
    let pages = size.checked_sub(head)?.checked_div(per_page)?;
    let used = head.checked_add(pages.checked_mul(size_of::<ngx_slab_page_t>())?)?;
    let start = used.checked_next_multiple_of(page)?;
    pages.min(size.checked_sub(start)?.checked_div(page)?).checked_mul(page)
}

/// Why a zone of so many bytes is too small for a number of workers; none if it is not.
pub fn shortage(size: usize, workers: usize) -> Option<String> {
    let slots = |size| room(size).map_or(0, |room| room.workers);
    let holds = slots(size);
    let needed = workers.saturating_mul(GENERATIONS);
    if holds >= needed {
        return None;
    }
    // SAFETY: a plain global, set when nginx starts.
    let page = unsafe { ngx_pagesize };
    let mut enough = size.checked_next_multiple_of(page)?;
    while slots(enough) < needed {
        enough = enough.checked_add(page)?;
    }
    Some(format!(
        "{}k holds {holds}, at least {}k is needed for {GENERATIONS} generations",
        size / 1024,
        enough / 1024
    ))
}

/// nginx's zone callback. On a reload that keeps the zone it runs on live memory before the reload
/// is sure to succeed, so it changes nothing there.
///
/// # Safety
/// Called by nginx with the zone the module registered and the data of the zone it replaces.
pub unsafe extern "C" fn init(shm_zone: *mut ngx_shm_zone_t, data: *mut c_void) -> ngx_int_t {
    // SAFETY: nginx passes its own live zone, mapped, with its log and a slab pool at its head.
    let (shm_zone, log) = unsafe { (&mut *shm_zone, Log::from_ptr((*shm_zone).shm.log)) };
    if !data.is_null() {
        shm_zone.data = data;
        // SAFETY: the data is that of the zone before, whose memory this one has.
        let zone = unsafe { Zone::of(shm_zone) };
        if zone.is_some_and(|zone| zone.roster().is_compatible()) {
            return NGX_OK as ngx_int_t;
        }
        log!(
            log,
            Emerg,
            "the zone was laid out by another version of the module, \
             give it another name or size"
        );
        return NGX_ERROR as ngx_int_t;
    }
    // SAFETY: a slab pool that nobody has taken memory of.
    let zone = match unsafe { create(shm_zone.shm.addr.cast(), last_generation()) } {
        Ok(zone) => zone,
        Err(error) => {
            log!(log, Emerg, error = error, "could not set up the zone");
            return NGX_ERROR as ngx_int_t;
        }
    };
    if !zone.lock().is_repairable() {
        log!(
            log,
            Warn,
            "could not find out how libc lays out a robust mutex, a process that \
             dies holding the lock may keep it if its memory is reaped before it exits"
        );
    }
    shm_zone.data = zone.0.as_ptr().cast();
    NGX_OK as ngx_int_t
}

/// Takes all memory the slab pool has, in one piece, and sets it up.
///
/// # Safety
/// `pool` is a fresh slab pool, mapped within `'a`.
unsafe fn create<'a>(pool: *mut ngx_slab_pool_t, last_generation: u64) -> io::Result<Zone<'a>> {
    // SAFETY: a fresh pool is one run of free pages, `pfree` of them.
    let (bytes, memory) = unsafe {
        let bytes = (*pool).pfree.saturating_mul(ngx_pagesize);
        (bytes, ngx_slab_alloc(pool, bytes).cast::<u8>())
    };
    let no_memory = || io::Error::from_raw_os_error(libc::ENOMEM);
    let head = NonNull::new(memory.cast::<ZoneHead>()).ok_or_else(no_memory)?;
    // Fresh shared memory is zeros, and each page that is not touched saves a page fault. Only an
    // nginx built with NGX_DEBUG_MALLOC fills what it hands out with something else.
    // SAFETY: so many bytes are this function's.
    unsafe {
        if *memory != 0 {
            ptr::write_bytes(memory, 0, bytes);
        }
    }
    let zone = Zone(head, PhantomData);
    zone.head().bytes.store(bytes as u64, Relaxed);
    zone.lock().create()?;
    let started = clock::now().wall;
    // Names of histories sort by time, and two nodes that start at the same moment differ.
    let history = (started as u64) << 16 | u64::from(process::pid() as u16);
    zone.roster().create(last_generation, history);
    zone.roster().set_started(started);
    // SAFETY: the pool is the caller's.
    unsafe { (*pool).data = memory.cast() };
    Ok(zone)
}
