//! Whether the kernel has Landlock, a wall that may one day stand behind the name spaces.

use std::io;

/// Returns the version of the kernel's Landlock interface, 1 or more.
#[expect(unsafe_code, reason = "no safe form in the given crates")]
pub fn landlock_version() -> io::Result<u32> {
    /// From the kernel's `landlock.h`: asks for the version and makes nothing.
    const CREATE_RULESET_VERSION: u32 = 1;
    let (no_attributes, size) = (std::ptr::null::<libc::c_void>(), 0usize);
    // SAFETY: with this flag the call takes a null pointer of length 0, and returns a number.
    let version = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            no_attributes,
            size,
            CREATE_RULESET_VERSION,
        )
    };
    u32::try_from(version).map_err(|_| io::Error::last_os_error())
}
