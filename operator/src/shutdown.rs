//! One signal that tells every part to come to an end.

use tokio::sync::watch;

/// Gives the signal.
#[derive(Debug)]
pub struct Trigger(watch::Sender<bool>);

/// Waits for it; can be cloned.
#[derive(Clone, Debug)]
pub struct Shutdown(watch::Receiver<bool>);

/// A new signal that has not been given.
pub fn channel() -> (Trigger, Shutdown) {
    let (tx, rx) = watch::channel(false);
    (Trigger(tx), Shutdown(rx))
}

impl Trigger {
    /// Tells everybody.
    pub fn fire(&self) {
        self.0.send_replace(true);
    }
}

impl Shutdown {
    /// Returns once the signal was given, or nobody is left to give it.
    pub async fn wait(mut self) {
        // An error means that the trigger is gone: that is an end as well.
        let _ = self.0.wait_for(|fired| *fired).await;
    }

    /// Whether it was given.
    pub fn is_fired(&self) -> bool {
        *self.0.borrow()
    }
}

/// Gives the signal at SIGTERM or Ctrl-C.
pub async fn on_signals() -> std::io::Result<()> {
    let mut term = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        _ = term.recv() => Ok(()),
        done = tokio::signal::ctrl_c() => done,
    }
}
