//! Log lines through a bounded queue to a thread of their own: a terminal that does not read, or a
//! full disk behind stderr, must not stop the loop. Lines that find the queue full are dropped and
//! counted.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::time::Duration;

/// Lines that may wait. At about 100 bytes each, 400 KiB at most.
const LINES_MAX: usize = 4096;

/// Where env_logger writes to.
struct Queue {
    lines: SyncSender<Vec<u8>>,
    dropped: Arc<AtomicU64>,
}

impl Write for Queue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.lines.try_send(line.to_vec()).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The way to the lines that wait, for the end of the process.
#[derive(Debug)]
pub struct LogQueue {
    flush: Sender<Sender<()>>,
    wake: SyncSender<Vec<u8>>,
}

impl LogQueue {
    /// Waits until the lines so far are written, at most a second.
    pub fn flush(&self) {
        let (done, wait) = channel();
        // An empty line wakes the thread, which then sees the request.
        if self.flush.send(done).is_ok() && self.wake.send(Vec::new()).is_ok() {
            let _late = wait.recv_timeout(Duration::from_secs(1));
        }
    }
}

/// Sends the `log` facade to stderr through the queue. `RUST_LOG` sets the level; the default is
/// info.
pub fn start_logger() -> io::Result<LogQueue> {
    let (lines, waiting) = sync_channel(LINES_MAX);
    let (flush, requests) = channel();
    let dropped = Arc::new(AtomicU64::new(0));
    let queue = Queue { lines: lines.clone(), dropped: dropped.clone() };
    std::thread::Builder::new()
        .name("log".to_owned())
        .spawn(move || write_lines(&waiting, &requests, &dropped))?;
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info"))
        .format(|out, record| {
            let level = record.level().as_str().to_ascii_lowercase();
            writeln!(out, "{level:5} {}", record.args())
        })
        .target(env_logger::Target::Pipe(Box::new(queue)))
        .init();
    Ok(LogQueue { flush, wake: lines })
}

fn write_lines(waiting: &Receiver<Vec<u8>>, requests: &Receiver<Sender<()>>, dropped: &AtomicU64) {
    let mut stderr = io::stderr();
    for line in waiting {
        // Nobody is left to tell when stderr is gone.
        let _gone = stderr.write_all(&line);
        let lost = dropped.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let _gone = writeln!(stderr, "warn  dropped log lines count={lost}");
        }
        if line.is_empty()
            && let Ok(done) = requests.try_recv()
        {
            let _gone = done.send(());
        }
    }
}
