//! A timer as a descriptor, finer than the milliseconds that a poll counts in.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::Duration;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

/// Becomes readable again and again.
#[derive(Debug)]
pub struct Ticker {
    descriptor: OwnedFd,
}

impl Ticker {
    /// Ticks every `interval` from now on.
    pub fn every(interval: Duration) -> io::Result<Ticker> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let descriptor = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        let interval = Timespec {
            tv_sec: i64::try_from(interval.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: interval.subsec_nanos().into(),
        };
        let times = Itimerspec { it_interval: interval, it_value: interval };
        timerfd_settime(&descriptor, TimerfdTimerFlags::empty(), &times)?;
        Ok(Ticker { descriptor })
    }

    /// Takes the ticks so far, so that only a new one makes it readable again.
    pub fn take(&self) -> io::Result<()> {
        match rustix::io::read(&self.descriptor, &mut [0; 8]) {
            Ok(_) | Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsRawFd for Ticker {
    fn as_raw_fd(&self) -> RawFd {
        self.descriptor.as_raw_fd()
    }
}
