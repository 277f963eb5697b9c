//! Signals: the first INT or TERM asks for an orderly end, the second ends at once.
//!
//! An orderly end that takes too long becomes an immediate one, so the process is gone within two seconds whatever
//! hangs. Ends nothing itself: `cli::run` returns, and `main` exits. Commands ask [`Signals`], `cli` holds [`Urgent`].
//! Source: the product description, "Exit codes"; POSIX signals.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::exit::ExitCode;

/// From the first signal to the end of the command. Two seconds are promised for the whole process; the rest is for
/// the runtime and the terminal.
const ORDERLY_END_MAX: Duration = Duration::from_millis(1_900);

/// Signals heard and not looked at yet. Only two count; beyond, they are dropped.
const HEARD_MAX: usize = 4;

/// What commands see of signals. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Signals {
    first: watch::Receiver<Option<ExitCode>>,
    is_complete: Arc<AtomicBool>,
}

/// When to end without waiting for the command.
#[derive(Debug)]
pub(crate) struct Urgent {
    now: watch::Receiver<bool>,
    signals: Signals,
}

impl Signals {
    /// Begins to listen, in place of what the system would do. Needs a runtime.
    ///
    /// # Errors
    /// When the system gives no signal handlers.
    pub(crate) fn listen() -> io::Result<(Self, Urgent)> {
        let mut source = Source::open()?;
        let (sender, heard) = mpsc::channel(HEARD_MAX);
        // Both tasks end with the runtime: signals are heard to the last.
        tokio::spawn(async move {
            loop {
                let code = source.next().await;
                let _ = sender.try_send(code);
            }
        });
        Ok(Self::relay(heard, ORDERLY_END_MAX))
    }

    fn relay(mut heard: mpsc::Receiver<ExitCode>, orderly_max: Duration) -> (Self, Urgent) {
        let (first, now) = (watch::Sender::new(None), watch::Sender::new(false));
        let signals = Self {
            first: first.subscribe(),
            is_complete: Arc::default(),
        };
        let urgent = Urgent {
            now: now.subscribe(),
            signals: signals.clone(),
        };
        tokio::spawn(async move {
            let Some(code) = heard.recv().await else {
                return;
            };
            first.send_replace(Some(code));
            // The second signal, or none in time.
            let _ = tokio::time::timeout(orderly_max, heard.recv()).await;
            now.send_replace(true);
        });
        (signals, urgent)
    }

    /// Waits for the first signal; says with which code to end, if what was asked for is not complete.
    ///
    /// # Cancel safety
    /// A signal is not lost by a cancelled call: the next one returns at once.
    pub(crate) async fn first(&self) -> ExitCode {
        let mut first = self.first.clone();
        match first.wait_for(Option::is_some).await.map(|code| *code) {
            Ok(Some(code)) => code,
            // Nobody listens any more: the runtime is ending.
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }

    /// From now on what was asked for is complete, and a signal is no failure.
    pub(crate) fn complete(&self) {
        self.is_complete.store(true, Ordering::Release);
    }
}

impl Urgent {
    /// Waits for the moment when the process has to end, and says with which code.
    pub(crate) async fn end(mut self) -> ExitCode {
        if self.now.wait_for(|now| *now).await.is_err() {
            return std::future::pending().await;
        }
        if self.signals.is_complete.load(Ordering::Acquire) {
            return ExitCode::Done;
        }
        self.signals.first().await
    }
}

/// Where signals come from.
#[cfg(unix)]
struct Source {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Source {
    fn open() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) -> ExitCode {
        tokio::select! {
            _ = self.interrupt.recv() => ExitCode::Interrupted,
            _ = self.terminate.recv() => ExitCode::Terminated,
        }
    }
}

#[cfg(not(unix))]
struct Source;

#[cfg(not(unix))]
impl Source {
    fn open() -> io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) -> ExitCode {
        match tokio::signal::ctrl_c().await {
            Ok(()) => ExitCode::Interrupted,
            // Without a handler the system ends the process itself.
            Err(_) => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEVER: Duration = Duration::from_secs(3600);

    #[tokio::test]
    async fn the_first_signal_is_told_to_everybody_and_the_second_ends() {
        let (sender, heard) = mpsc::channel(HEARD_MAX);
        let (signals, urgent) = Signals::relay(heard, NEVER);
        sender.try_send(ExitCode::Terminated).expect("room");
        assert_eq!(signals.first().await, ExitCode::Terminated);
        assert_eq!(signals.clone().first().await, ExitCode::Terminated);
        assert!(!*urgent.now.borrow(), "one signal ends nothing by force");
        sender.try_send(ExitCode::Interrupted).expect("room");
        assert_eq!(urgent.end().await, ExitCode::Terminated);
    }

    #[tokio::test]
    async fn an_orderly_end_that_hangs_is_cut_short() {
        let (sender, heard) = mpsc::channel(HEARD_MAX);
        let (_signals, urgent) = Signals::relay(heard, Duration::from_millis(1));
        sender.try_send(ExitCode::Interrupted).expect("room");
        assert_eq!(urgent.end().await, ExitCode::Interrupted);
    }

    #[tokio::test]
    async fn after_completion_no_signal_is_a_failure() {
        let (sender, heard) = mpsc::channel(HEARD_MAX);
        let (signals, urgent) = Signals::relay(heard, NEVER);
        signals.complete();
        for _ in 0..2 {
            sender.try_send(ExitCode::Interrupted).expect("room");
        }
        assert_eq!(urgent.end().await, ExitCode::Done);
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn a_real_signal_is_heard_and_does_not_end_the_process() {
        use rustix::process::{Signal, getpid, kill_process};
        let (signals, _urgent) = Signals::listen().expect("handlers");
        kill_process(getpid(), Signal::TERM).expect("we may signal ourselves");
        assert_eq!(signals.first().await, ExitCode::Terminated);
    }
}
