//! As many connections as the system allows.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Takes as many descriptors as the system allows this process: a connection is one, and the limit
/// that a shell begins with is often 1024.
pub fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    // Without it, connections beyond the limit fail and say so.
    let _as_before = setrlimit(Resource::Nofile, raised);
}
