//! What the helper reports to nginx, on a pipe that closes with the helper's end: first its protocol, then,
//! once the program has ended or is given up, whether it succeeded. If the second is missing, the
//! helper was killed.

/// The version of the arguments and of the status. The first two arguments, `protocol` and `status`, and
/// the first byte of the answer stay as they are in every version.
pub const PROTOCOL: u8 = 2;

/// The program ended with status 0.
pub const SUCCEEDED: u8 = b'+';

/// It did not, or was not started.
pub const FAILED: u8 = b'-';
