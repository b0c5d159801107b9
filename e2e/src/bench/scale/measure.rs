//! What the operator and the API server did within a time: processor, memory, requests.

use std::net::TcpListener;
use std::process::Child;
use std::time::Instant;

use kube::Client;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::error::{Context, Result};

/// Ticks of `/proc` in a second: the same on all that Linux tells of itself (time(7), USER_HZ).
const TICKS: f64 = 100.0;

/// What a process has used.
#[derive(Clone, Copy, Debug)]
pub struct Use {
    /// Seconds of a processor.
    pub cpu: f64,
    /// The most memory that was resident, in MiB.
    pub peak_mib: f64,
}

impl Use {
    /// Of a process that runs.
    pub fn of(child: &Child) -> Result<Self> {
        let pid = child.id();
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).context("the operator has ended")?;
        let after = stat.rsplit_once(')').map_or("", |(_, after)| after);
        // utime and stime are fields 14 and 15 (proc_pid_stat(5)); the first after the name is 3.
        let ticks: u64 =
            after.split_whitespace().skip(11).take(2).filter_map(|f| f.parse::<u64>().ok()).sum();
        let status =
            std::fs::read_to_string(format!("/proc/{pid}/status")).context("the operator has ended")?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib: f64 = peak.and_then(|p| p.split_whitespace().next()?.parse().ok()).unwrap_or(0.0);
        Ok(Self { cpu: ticks as f64 / TICKS, peak_mib: kib / 1024.0 })
    }
}

/// Counts at the start of a time.
pub struct Window {
    start: Instant,
    cpu: f64,
    requests: f64,
    status_writes: f64,
    server_requests: f64,
}

/// What there was of each in a second.
pub struct Rates {
    /// Processors of the operator.
    pub cores: f64,
    /// Requests of the operator.
    pub requests: f64,
    /// Statuses that it wrote.
    pub status_writes: f64,
    /// Requests of everybody to the API server.
    pub server_requests: f64,
}

impl Window {
    /// From now.
    pub async fn begin(operator: &Child, listen: &str, client: &Client) -> Result<Self> {
        let page = page(listen).await?;
        Ok(Self {
            start: Instant::now(),
            cpu: Use::of(operator)?.cpu,
            requests: sum(&page, "nearbrick_operator_api_requests_total"),
            status_writes: sum(&page, "nearbrick_operator_status_writes_total"),
            server_requests: server_requests(client).await?,
        })
    }

    /// Until now.
    pub async fn end(self, operator: &Child, listen: &str, client: &Client) -> Result<Rates> {
        let seconds = self.start.elapsed().as_secs_f64();
        let now = Self::begin(operator, listen, client).await?;
        Ok(Rates {
            cores: (now.cpu - self.cpu) / seconds,
            requests: (now.requests - self.requests) / seconds,
            status_writes: (now.status_writes - self.status_writes) / seconds,
            server_requests: (now.server_requests - self.server_requests) / seconds,
        })
    }
}

/// All requests that the API server has had.
pub async fn server_requests(client: &Client) -> Result<f64> {
    let request = http::Request::get("/metrics").body(Vec::new()).context("no request")?;
    let text = client.request_text(request).await.context("cannot read the API server's metrics")?;
    Ok(sum(&text, "apiserver_request_total"))
}

/// How many statuses the operator has written.
pub async fn status_writes(listen: &str) -> Result<f64> {
    Ok(sum(&page(listen).await?, "nearbrick_operator_status_writes_total"))
}

/// The sum of all series of a metric in OpenMetrics text.
fn sum(text: &str, metric: &str) -> f64 {
    let values = text.lines().filter_map(|line| {
        let rest = line.strip_prefix(metric)?;
        if !rest.starts_with(['{', ' ']) {
            return None;
        }
        rest.rsplit_once(' ')?.1.parse::<f64>().ok()
    });
    values.sum()
}

/// The operator's metrics.
async fn page(listen: &str) -> Result<String> {
    let mut stream = tokio::net::TcpStream::connect(listen).await.context("the operator does not listen")?;
    let request = format!("GET /metrics HTTP/1.1\r\nhost: {listen}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.context("the operator does not listen")?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await.context("the operator sent no text")?;
    Ok(text)
}

/// A free port of loopback.
pub fn free_address() -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").context("no free port on loopback")?;
    Ok(listener.local_addr().context("no free port on loopback")?.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_summed_and_others_left_out() {
        let text = "# TYPE a_total counter\na_total{verb=\"get\"} 3\na_total{verb=\"x y\"} 4\na_total_more 9\na_total 1\n";
        assert_eq!(sum(text, "a_total"), 8.0);
    }
}
