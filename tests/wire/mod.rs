//! The wire: every message there and back, and whatever bytes may come instead; the client against
//! servers that behave as scripted.
mod client;
mod hostile;
mod messages;
pub(crate) mod samples;
