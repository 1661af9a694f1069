//! The two helper threads: they run jobs, report, and own no state. Design §5.

use crate::net::WakeHandle;
use crate::replica::Node;
use crate::types::Instant;
use crate::wal::{BackgroundDone, BackgroundJob, Job};
use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};

/// What a helper thread has finished.
enum Done {
    Synced(io::Result<()>, Job),
    Background(BackgroundDone),
}

/// The channels to and from the helper threads.
pub(super) struct Threads {
    sync: Sender<Job>,
    background: Sender<BackgroundJob>,
    done: Receiver<Done>,
}

impl Threads {
    /// Starts `sync` and `bg`; they end when the loop drops this.
    pub(super) fn start(wake: &WakeHandle) -> io::Result<Threads> {
        let (report, done) = channel();
        let sync = spawn("sync", wake.clone(), report.clone(), |job: Job| {
            // Strictly in order: hard state, then the log. The first failure ends the node.
            Done::Synced(job.run(), job)
        })?;
        let background =
            spawn("bg", wake.clone(), report, |job: BackgroundJob| Done::Background(job.run()))?;
        Ok(Threads { sync, background, done })
    }

    /// Tells the node what has been finished.
    pub(super) fn collect(&mut self, node: &mut Node, now: Instant) {
        while let Ok(done) = self.done.try_recv() {
            match done {
                Done::Synced(result, job) => node.on_job_done(job, result, now),
                Done::Background(done) => node.on_background_done(done, now),
            }
        }
    }

    /// Hands over what the node wants done.
    pub(super) fn hand_over(&mut self, node: &mut Node) {
        if let Some(job) = node.take_job() {
            self.sync.send(job).expect("the sync thread lives as long as the loop");
        }
        if let Some(job) = node.take_background_job() {
            self.background.send(job).expect("the bg thread lives as long as the loop");
        }
    }
}

fn spawn<J: Send + 'static>(
    name: &str,
    wake: WakeHandle,
    report: Sender<Done>,
    run: impl Fn(J) -> Done + Send + 'static,
) -> io::Result<Sender<J>> {
    let (give, jobs) = channel::<J>();
    std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        for job in jobs {
            if report.send(run(job)).is_err() {
                return;
            }
            wake.wake();
        }
    })?;
    Ok(give)
}
