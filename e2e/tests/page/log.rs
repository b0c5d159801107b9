//! All that this process logs, and so the operator in it.

use std::io::Write;
use std::sync::{Mutex, OnceLock};

use tracing_subscriber::EnvFilter;

/// What was logged so far.
#[derive(Default)]
pub struct Log(Mutex<Vec<u8>>);

impl Log {
    /// As a text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

/// Begins to keep it; each test does that first, as all have one operator.
pub fn start() -> &'static Log {
    static LOG: OnceLock<Log> = OnceLock::new();
    static BEGUN: OnceLock<()> = OnceLock::new();
    BEGUN.get_or_init(|| {
        let filter = EnvFilter::new("debug,nearbrick_operator=trace,kube=trace,warp=trace");
        let writer = || LOG.get_or_init(Log::default);
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).init();
    });
    LOG.get_or_init(Log::default)
}

impl Write for &Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
