//! Shared memory that is mapped a second time.

use std::io;
use std::ptr::NonNull;

/// A second mapping of memory. It stays when the first is unmapped, over a fork as well.
#[derive(Debug)]
pub struct Mapping {
    address: NonNull<u8>,
    length: usize,
}

impl Mapping {
    /// Maps the `length` bytes at `address` once more.
    ///
    /// # Safety
    /// They are whole pages of one mapping that is shared (`MAP_SHARED`).
    pub unsafe fn duplicate(address: *mut u8, length: usize) -> io::Result<Mapping> {
        // With an old size of 0 mremap() leaves the mapping as it is and makes another of the same
        // pages (mremap(2)).
        // SAFETY: the caller vouches for the pages; the new mapping overlaps nothing.
        let copy = unsafe { libc::mremap(address.cast(), 0, length, libc::MREMAP_MAYMOVE) };
        if copy == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let address = NonNull::new(copy.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Mapping { address, length })
    }

    /// Where it is. Everything that lies in it is there for as long as the mapping.
    pub fn address(&self) -> NonNull<u8> {
        self.address
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is this one's own, and a user of what is in it keeps it.
        unsafe { libc::munmap(self.address.as_ptr().cast(), self.length) };
    }
}

/// Fresh shared memory, for a test.
#[cfg(test)]
fn shared(length: usize) -> *mut u8 {
    let (access, flags) =
        (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
    // SAFETY: the kernel chooses the place.
    let memory = unsafe { libc::mmap(std::ptr::null_mut(), length, access, flags, -1, 0) };
    assert_ne!(memory, libc::MAP_FAILED);
    memory.cast()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_mapping_has_the_same_memory_and_outlives_the_first() {
        let length = 8 * 4096;
        let first = shared(length);
        // SAFETY: the memory is mapped as long as it is used here.
        unsafe {
            let second = Mapping::duplicate(first, length).expect("a second mapping");
            let there = second.address().as_ptr();
            first.add(length - 1).write_volatile(7);
            assert_eq!(there.add(length - 1).read_volatile(), 7);
            there.write_volatile(9);
            assert_eq!(first.read_volatile(), 9);
            assert_eq!(libc::munmap(first.cast(), length), 0);
            assert_eq!(there.read_volatile(), 9);
        }
    }

    #[test]
    fn what_is_not_mapped_is_an_error() {
        let length = 4096;
        let gone = shared(length);
        // SAFETY: the kernel finds no mapping there.
        unsafe {
            assert_eq!(libc::munmap(gone.cast(), length), 0);
            assert!(Mapping::duplicate(gone, length).is_err());
        }
    }
}
