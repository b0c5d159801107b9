//! Names of files are for those who may read them, by the API server's word; and so are changes.

use serde_json::Value;

use crate::log;
use crate::world::{CONFLICT, World};

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

/// The one line of a refusal.
fn line(body: &str) -> String {
    let line = json(body)["error"].as_str().unwrap().to_owned();
    assert!(!line.is_empty() && !line.contains('\n'), "{line:?}");
    line
}

fn conflicts(body: &str) -> Vec<String> {
    let all = json(body)["conflicts"].as_array().unwrap().clone();
    all.iter()
        .map(|c| format!("{}/{}", c["namespace"].as_str().unwrap(), c["path"].as_str().unwrap()))
        .collect()
}

#[tokio::test]
async fn names_are_shown_and_conflicts_decided_with_the_rights_of_a_person() {
    let log = log::start();
    let world = World::new("names", ["n-a", "n-b", "n-c"], "thesis/plan.txt", "thesis").await;
    let other = World::new("others", ["o-a", "o-b", "o-c"], "hidden/plan.txt", "hidden").await;
    let namespace = world.ns.name.clone();
    world.heals().await;
    world.moves("thesis/chapter 2/**").await;

    // Nobody in particular: all counts, no path.
    let (code, text) = world.get("/status.json", None).await;
    assert_eq!(code, 200);
    for path in ["thesis", "plan.txt", "hidden", "papers"] {
        assert!(!text.contains(path), "{path} is in {text}");
    }
    let status = json(&text);
    assert_eq!((&status["leading"], &status["names"]), (&Value::from(true), &Value::from(false)));
    let of_here = |list: &str| -> Value {
        let found = status[list].as_array().unwrap().iter().find(|o| o["namespace"] == namespace.as_str());
        found.unwrap_or_else(|| panic!("no {list} of {namespace}: {text}")).clone()
    };
    let volume = of_here("volumes");
    assert_eq!((&volume["conflicts"], &volume["pending"]["files"]), (&Value::from(1), &Value::from(31)));
    assert_eq!(of_here("heals")["files"]["done"], 12);
    assert_eq!(of_here("heat")["groups"], 2);
    assert_eq!(
        (of_here("moves")["name"].as_str(), of_here("moves")["paths"].as_array().unwrap().len()),
        (Some("follow"), 0)
    );
    let zones: Vec<String> = status["zones"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|z| {
            let workstations = z["workstations"].as_array().unwrap();
            workstations.iter().map(move |w| format!("{} {}", z["name"], w["name"]))
        })
        .collect();
    for workstation in ["\"north\" \"n-a\"", "\"north\" \"n-b\"", "\"south\" \"n-c\""] {
        assert!(zones.iter().any(|z| z == workstation), "{workstation}: {zones:?}");
    }

    // Somebody whom the API server does not know, and somebody without rights.
    let (code, body) = world.get("/status.json", Some("abc.def.ghi")).await;
    assert_eq!(code, 401, "{body}");
    assert!(line(&body).contains("does not take this token"), "{body}");
    let nobody = world.person("nobody", &[]).await;
    let (code, body) = world.get("/status.json", Some(&nobody)).await;
    assert_eq!(code, 403, "{body}");
    assert!(line(&body).contains("may list neither"), "{body}");
    let (code, body) = world.resolve(&nobody, "Newest").await;
    assert_eq!(code, 403, "{body}");
    assert!(line(&body).contains("cannot patch"), "{body}");

    // Somebody who may read here, and not there.
    let reader = world.person("reader", &[("fileconflicts", "get,list"), ("bricks", "list")]).await;
    let (code, text) = world.get("/status.json", Some(&reader)).await;
    assert_eq!(code, 200, "{text}");
    assert_eq!(conflicts(&text), [format!("{namespace}/thesis/plan.txt")]);
    assert!(text.contains("papers") && !text.contains("hidden"), "{text}");
    let (code, body) = world.resolve(&reader, "Newest").await;
    assert_eq!(code, 403, "{body}");
    assert!(line(&body).contains("reader") && line(&body).contains(CONFLICT), "{body}");
    // Conflicts alone: no groups of files, and nothing that an agent says.
    let half = world.person("half", &[("fileconflicts", "list")]).await;
    let (_, text) = world.get("/status.json", Some(&half)).await;
    assert_eq!(conflicts(&text).len(), 1);
    assert!(
        !text.contains("papers") && !text.contains("last wrote") && !text.contains("chapter 2"),
        "{text}"
    );
    // Moves alone.
    let mover = world.person("mover", &[("replicamigrations", "list")]).await;
    let (_, text) = world.get("/status.json", Some(&mover)).await;
    assert!(text.contains("thesis/chapter 2/**") && conflicts(&text).is_empty(), "{text}");
    assert_eq!(world.resolution().await, None);

    // Somebody who may decide.
    let owner = world.person("owner", &[("fileconflicts", "get,list,patch")]).await;
    let (code, body) = world.resolve(&owner, "Mine").await;
    assert_eq!(code, 400, "{body}");
    let (code, body) = world.resolve(&owner, "Brick/n-b").await;
    assert_eq!((code, &json(&body)["path"]), (200, &Value::from("thesis/plan.txt")), "{body}");
    assert_eq!(world.resolution().await.as_deref(), Some("Brick/n-b"));
    let (code, _) = other.resolve(&owner, "Newest").await;
    assert_eq!((code, other.resolution().await), (403, None));

    let said = log.text();
    assert!(said.contains("leads as"), "nothing was logged");
    for token in [&nobody, &reader, &half, &mover, &owner] {
        let secret = token.rsplit('.').next().unwrap();
        assert!(!said.contains(secret), "a token is in the log");
    }
}

#[tokio::test]
async fn changes_come_from_the_page_and_nothing_comes_from_elsewhere() {
    log::start();
    let world = World::new("origin", ["p-a", "p-b", "p-c"], "a/plan.txt", "a").await;
    let owner = world.person("owner", &[("fileconflicts", "get,list,patch")]).await;
    let body = serde_json::json!({ "namespace": world.ns.name, "name": CONFLICT, "resolution": "Newest" });
    let body = body.to_string();
    let token = format!("authorization: Bearer {owner}");
    let own = format!("origin: http://{}", world.address);
    let json = "content-type: application/json";
    for (wanted, headers) in [
        (401, vec![json, &own]),
        (415, vec!["content-type: text/plain", &own, &token]),
        (415, vec![&own, &token]),
        (403, vec![json, "origin: http://evil.example", &token]),
        (403, vec![json, "sec-fetch-site: cross-site", &token]),
    ] {
        let headers: Vec<String> = headers.into_iter().map(str::to_owned).collect();
        let (code, _, said) = world.request("POST", "/resolve", &headers, &body).await;
        assert_eq!(code, wanted, "{headers:?}: {said}");
    }
    let headers = [json.to_owned(), own, token];
    let (code, ..) = world.request("GET", "/resolve", &headers, "").await;
    assert!((400..500).contains(&code), "{code}");
    let long = format!("{{\"namespace\":\"{}\"}}", "a".repeat(5000));
    let (code, ..) = world.request("POST", "/resolve", &headers, &long).await;
    assert_eq!(code, 413);
    assert_eq!(world.resolution().await, None);

    for path in ["/", "/page.js", "/page.css", "/status.json"] {
        let (code, head, _) = world.request("GET", path, &[], "").await;
        assert_eq!(code, 200, "{path}");
        for header in [
            "content-security-policy: default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'",
            "x-content-type-options: nosniff",
            "cache-control: no-store",
            "referrer-policy: no-referrer",
        ] {
            assert!(head.contains(header), "{path}: {header} is not in {head}");
        }
        assert!(!head.contains("access-control-allow"), "{path}: {head}");
    }
    for path in ["/page.html", "/../status.json", "/secrets"] {
        assert_eq!(world.request("GET", path, &[], "").await.0, 404, "{path}");
    }
}
