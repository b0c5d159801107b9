//! An API server that answers with errors, late, or not at all.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hyper::Method;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::proxy::{Fate, Proxy};
use crate::story::Story;
use crate::support;
use crate::support::operator::{Operator, service_account};

/// For the whole story.
const LIMIT: Duration = Duration::from_secs(180);

/// A third of all requests goes wrong: refused with 409, 429 or 500, done and answered with 500 all the same, or late. The lease's too.
#[tokio::test]
async fn errors_of_the_api_server_delay_the_work_and_neither_stop_nor_double_it() {
    let _alone = crate::ALONE.lock().await;
    let seed = 20_261_127;
    println!("seed {seed}");
    let random = Mutex::new(StdRng::seed_from_u64(seed));
    let decide = move |method: &Method, path: &str| {
        let mut random = random.lock().unwrap();
        if !random.random_ratio(1, 3) {
            return Fate::Pass;
        }
        let writes = *method != Method::GET;
        match random.random_range(0..6) {
            0 if writes => Fate::Refused(409),
            1 if writes && !path.contains("/leases") => Fate::Done(500),
            2 => Fate::Refused(500),
            3 => Fate::Late(Duration::from_millis(random.random_range(100..1500))),
            _ => Fate::Refused(429),
        }
    };
    let config = service_account(&support::client().await).await;
    let proxy = Proxy::start(config, Arc::new(decide)).await;
    let mut story = Story::begin("faults").await;
    let operator = Operator::start_on(proxy.config.clone(), "faults", |_| {});
    let began = Instant::now();
    while !story.step().await {
        assert!(began.elapsed() < LIMIT, "it is not at its end");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    println!("{:.1} s", began.elapsed().as_secs_f64());
    assert!(story.done.len() <= 3, "one heal for what was pending: {:?}", story.done);
    operator.kill().await;
}
