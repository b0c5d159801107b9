//! The page asks every few seconds while somebody looks, and not while it is hidden; what it has is not sent again.

use nearbrick_e2e::packages;
use serde_json::json;

use crate::browser::Browser;
use crate::support::operator::{Operator, page as body_of};
use crate::world::World;
use crate::{log, support};

/// Counts what the page's script asks and plans.
const COUNTS: &str = "window.asked = 0; window.answers = []; window.timers = 0;
  const ask = window.fetch, later = window.setTimeout;
  window.fetch = async (...all) => {
    window.asked += 1;
    const answer = await ask(...all);
    window.answers.push(answer.status);
    return answer;
  };
  window.setTimeout = (...all) => { window.timers += 1; return later(...all); };";

#[tokio::test]
async fn it_asks_while_it_is_looked_at_and_only_for_what_is_new() {
    log::start();
    packages::ensure(packages::PAGE).unwrap();
    let world = World::new("poll", ["r-a", "r-b", "r-c"], "a/plan.txt", "a").await;
    let mut page = Browser::start().await;
    page.call("Page.addScriptToEvaluateOnNewDocument", json!({ "source": COUNTS })).await;
    page.open(&format!("http://{}/", world.address)).await;
    page.until("news, and then none", "answers[0] === 200 && answers.includes(304)").await;

    let look = |hidden: bool| {
        format!(
            "Object.defineProperty(document, 'hidden', {{ configurable: true, get: () => {hidden} }}); \
             timers = 0; document.dispatchEvent(new Event('visibilitychange')); asked"
        )
    };
    page.value(&look(true)).await;
    page.until("what was asked is answered", "asked === answers.length").await;
    // The answer is dealt with before anything else is evaluated there, and with it goes the last timer.
    assert_eq!(page.value("new Promise((done) => requestAnimationFrame(() => done(timers)))").await, 0);
    let asked = page.value(&look(false)).await;
    page.until("it asks again", &format!("answers.length > {asked}")).await;
}

#[tokio::test]
async fn an_operator_that_stands_by_says_so_and_nothing_else() {
    log::start();
    let world = World::new("standby", ["s-a", "s-b", "s-c"], "a/plan.txt", "a").await;
    let other = Operator::start("stands-by").await;
    let address = other.address;
    support::eventually("it stands by", || async {
        (body_of(address, "/readyz").await? == "stands by\n").then_some(())
    })
    .await;
    let said = body_of(address, "/status.json").await.unwrap();
    let status: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!((&status["leading"], &status["volumes"]), (&json!(false), &json!([])), "{said}");
    assert!(!said.contains(&world.ns.name), "{said}");
    other.stop().await.unwrap();
}
