//! An operator that is killed in each of its steps.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::proxy::{Fate, Proxy, is_write};
use crate::story::Story;
use crate::support;
use crate::support::operator::{Operator, service_account};

/// For the whole story.
const LIMIT: Duration = Duration::from_secs(300);

/// Each operator gets to ask for one change, and is dead before it has the answer: the change was made, or was not. Between any two of its
/// steps, also within a migration, the next one begins anew. All of it comes to its end, and nothing is done twice.
#[tokio::test]
async fn an_operator_that_is_killed_at_each_of_its_steps_does_all_of_it_once() {
    let _alone = crate::ALONE.lock().await;
    let asked = Arc::new(AtomicBool::new(false));
    let count = Arc::new(AtomicU32::new(0));
    let (due, counter) = (asked.clone(), count.clone());
    let decide = move |method: &hyper::Method, path: &str| {
        if !is_write(method, path) {
            return Fate::Pass;
        }
        if due.swap(true, Ordering::SeqCst) {
            // It is as good as dead.
            return Fate::Lost;
        }
        // Two of three are made.
        match counter.fetch_add(1, Ordering::SeqCst) % 3 {
            0 => Fate::Lost,
            _ => Fate::DoneInSilence,
        }
    };
    let config = service_account(&support::client().await).await;
    let proxy = Proxy::start(config, Arc::new(decide)).await;
    let mut story = Story::begin("killed").await;
    let began = Instant::now();
    let mut lives = 0;
    let mut operator = None;
    while !story.step().await {
        assert!(began.elapsed() < LIMIT, "after {lives} operators it is not at its end");
        if asked.load(Ordering::SeqCst)
            && let Some(dead) = operator.take()
        {
            Operator::kill(dead).await;
        }
        if operator.is_none() {
            asked.store(false, Ordering::SeqCst);
            lives += 1;
            let patience = |lease: &mut nearbrick_operator::lease::Config| {
                lease.duration = Duration::from_secs(1);
                lease.renew_within = Duration::from_millis(700);
                lease.retry = Duration::from_millis(100);
            };
            operator = Some(Operator::start_on(proxy.config.clone(), &format!("life-{lives}"), patience));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    println!(
        "{lives} operators, {} changes, {:.1} s",
        count.load(Ordering::SeqCst),
        began.elapsed().as_secs_f64()
    );
    assert!(lives > 10, "it has more steps than that");
    assert!(
        story.done.len() <= 3,
        "one heal for what was pending, and not one for each operator: {:?}",
        story.done
    );
    if let Some(last) = operator {
        last.kill().await;
    }
}
