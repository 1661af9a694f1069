//! Memory in pages of 2 MiB. A store is read and written all over its memory, and with pages of
//! 4 KiB the processor looks up most of them anew; on a virtual machine that can take longer than
//! the access: there, under a load that lasted, a replicated put cost 0.5 to 0.7 of what it cost.
//! In the bench's slices of a second, with pauses between them, nothing was gained.
//!
//! Linux gives huge pages where a program asks for them (`madvise`, what most distributions set),
//! and glibc's allocator asks if its tunables say so, which it reads once, when a program begins.
//! So with `--huge-pages` raftd begins twice: it names them in its environment and executes itself,
//! as the same process. Whoever sets `glibc.malloc.hugetlb` in GLIBC_TUNABLES decides themselves.
//!
//! Why not by itself: a page of 2 MiB is filled with zeros when it is first written to, which on
//! a virtual machine whose host has not given it that memory yet takes milliseconds, within a turn.
//!
//! Why not by `madvise` on maps of our own: what is random about a store is its index, its keys and
//! its versions, and they are ordinary values, with an owner and a type. Why not an allocator of
//! ours: that is a thousand lines of `unsafe`.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::process::CommandExt;
use std::process::Command;

const VARIABLE: &str = "GLIBC_TUNABLES";
const TUNABLE: &str = "glibc.malloc.hugetlb";

/// Huge pages; and what is small enough to lie side by side comes from one heap, of which 64 MiB
/// may be free before it is given back.
const TUNABLES: &str = concat!(
    "glibc.malloc.hugetlb=1",
    ":glibc.malloc.mmap_threshold=8388608",
    ":glibc.malloc.trim_threshold=67108864",
);

/// Where Linux says who gets huge pages; what is in force stands in brackets.
const ENABLED: &str = "/sys/kernel/mm/transparent_hugepage/enabled";

/// Executes this program again, as the same process and with the same arguments, if its memory is
/// not in huge pages and could be. Returns otherwise, or if that does not succeed. To be called
/// before anything is open.
pub fn take() {
    let set = env::var_os(VARIABLE);
    if !cfg!(target_env = "gnu") || is_decided(set.as_deref()) || !must_ask() {
        return;
    }
    let mut all = env::args_os();
    let (Ok(program), Some(name)) = (env::current_exe(), all.next()) else { return };
    let _why = Command::new(program).arg0(name).args(all).env(VARIABLE, with_ours(set)).exec();
    // Without them it is slower and nothing else.
}

/// Whether this process's memory is in huge pages, as far as the system has any.
pub fn taken() -> bool {
    let asked = env::var(VARIABLE).is_ok_and(|set| set.contains(&format!("{TUNABLE}=1")));
    in_force().is_some_and(|mode| mode == "always" || (asked && mode == "madvise"))
}

fn is_decided(set: Option<&OsStr>) -> bool {
    set.is_some_and(|set| set.to_string_lossy().contains(TUNABLE))
}

fn must_ask() -> bool {
    in_force().is_some_and(|mode| mode == "madvise")
}

fn in_force() -> Option<String> {
    bracketed(&fs::read_to_string(ENABLED).ok()?)
}

fn bracketed(modes: &str) -> Option<String> {
    let (_, from) = modes.split_once('[')?;
    from.split_once(']').map(|(mode, _)| mode.to_owned())
}

/// What was set stays in force: the last of two that contradict each other counts.
fn with_ours(set: Option<OsString>) -> OsString {
    let mut all = OsString::from(TUNABLES);
    if let Some(set) = set.filter(|set| !set.is_empty()) {
        all.push(":");
        all.push(set);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mode_in_force_stands_in_brackets() {
        assert_eq!(bracketed("always [madvise] never\n").as_deref(), Some("madvise"));
        assert_eq!(bracketed("[always] madvise never").as_deref(), Some("always"));
        assert_eq!(bracketed("always madvise").as_deref(), None);
        assert_eq!(bracketed("").as_deref(), None);
    }

    #[test]
    fn whoever_set_the_tunable_decides_and_other_tunables_stay() {
        let set = |text: &str| Some(OsString::from(text));
        assert!(!is_decided(None));
        assert!(!is_decided(set("glibc.malloc.arena_max=1").as_deref()));
        assert!(is_decided(set("glibc.malloc.hugetlb=0").as_deref()));
        assert!(is_decided(Some(&with_ours(None))), "it begins twice and not for ever");
        assert_eq!(with_ours(set("")), TUNABLES);
        let both = with_ours(set("glibc.malloc.arena_max=1"));
        assert!(is_decided(Some(&both)));
        assert!(both.to_string_lossy().ends_with(":glibc.malloc.arena_max=1"));
    }
}
