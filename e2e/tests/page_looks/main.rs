//! The page in headless Chromium: on a phone and on a desk, light and dark, and by keyboard.
//!
//! With `NEARBRICK_IMAGES=1` the pictures in `docs/images` are made anew. A program of its own, so that one lab is all that is seen.

// Helpers of tests are tests.
#![allow(clippy::unwrap_used)]
// What other tests use of them.
#![allow(dead_code)]

#[path = "../page/browser.rs"]
mod browser;
#[path = "../operator_support/mod.rs"]
mod support;
#[path = "../page/world.rs"]
mod world;

use nearbrick_crds::FileConflict;
use nearbrick_e2e::{packages, paths};
use serde_json::Value;

use browser::{Browser, Screen};
use world::{CONFLICT, World};

/// The most bytes of a picture in the repository.
const MOST: usize = 150_000;

/// Text with less contrast than WCAG's 4.5 to 1: the text, its colour, its ground.
const FAINT: &str = r"(() => {
  const parse = (color) => (color.match(/[\d.]+/g) || []).map(Number);
  const light = (color) => {
    const [r, g, b] = parse(color).map((c) => (c /= 255) <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const color = getComputedStyle(e).backgroundColor;
      if (parse(color)[3] !== 0) return color;
    }
    return 'rgb(255, 255, 255)';
  };
  const texts = [...document.body.querySelectorAll('*')].filter((e) =>
    e.getClientRects().length && [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim()));
  return { seen: texts.length, faint: texts.flatMap((e) => {
    const [a, b] = [light(getComputedStyle(e).color), light(ground(e))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    return ratio < 4.5 ? [`${e.textContent.slice(0, 40)}: ${ratio.toFixed(2)}`] : [];
  }) };
})()";

/// What is too wide for the screen.
const WIDE: &str = r"[...document.body.querySelectorAll('*')]
  .filter((e) => e.getClientRects().length && !e.classList.contains('skip') && e.getBoundingClientRect().right > innerWidth + 1)
  .map((e) => `${e.tagName} ${e.className}: ${e.textContent.slice(0, 40)}`)";

/// What has no name for somebody who does not see it.
const NAMELESS: &str = r"[...document.querySelectorAll('button, input, progress, svg, section, article')].filter((e) => {
  const by = e.getAttribute('aria-labelledby');
  const label = e.id && document.querySelector(`label[for='${e.id}']`);
  return !(e.getAttribute('aria-label') || (by && document.getElementById(by)) || label || e.textContent.trim());
}).map((e) => e.outerHTML.slice(0, 80))";

async fn fits(page: &mut Browser, screen: Screen) {
    let width = page.value("document.documentElement.scrollWidth").await;
    assert_eq!(page.value(WIDE).await, Value::Array(vec![]), "too wide on {screen:?}");
    assert!(width.as_u64().unwrap() <= u64::from(screen.width), "{width} wide on {screen:?}");
    let contrast = page.value(FAINT).await;
    assert!(contrast["seen"].as_u64().unwrap() > 30, "{contrast}");
    assert_eq!(contrast["faint"], Value::Array(vec![]), "faint on {screen:?}");
    assert_eq!(page.value(NAMELESS).await, Value::Array(vec![]));
}

/// Keeps so many rows of the page, from the heading with this id on, or from its top.
async fn keep_picture(page: &mut Browser, screen: Screen, name: &str, heading: Option<&str>, rows: u32) {
    let from = match heading {
        None => 0,
        Some(id) => {
            let top = format!(
                "Math.floor(document.getElementById({id:?}).getBoundingClientRect().top + scrollY) - 12"
            );
            u32::try_from(page.value(&top).await.as_u64().unwrap()).unwrap()
        }
    };
    let whole = page.value("document.documentElement.scrollHeight").await.as_u64().unwrap();
    let rows = rows.min(u32::try_from(whole).unwrap() - from);
    let png = page.picture(screen, from, rows).await;
    assert!(png.starts_with(b"\x89PNG") && png.len() < MOST, "{name} has {} bytes", png.len());
    if std::env::var("NEARBRICK_IMAGES").is_ok_and(|v| v == "1") {
        std::fs::write(paths::workspace().join("docs/images").join(name), png).unwrap();
    }
}

/// Presses Tab until the focus is on what `selector` means; what has it is always to be seen.
async fn tab_to(page: &mut Browser, selector: &str) {
    let has_it = format!("!!document.activeElement && document.activeElement.matches({selector:?})");
    for _ in 0..60 {
        page.press("Tab", 9, None).await;
        let outline = page.value("getComputedStyle(document.activeElement).outlineStyle").await;
        let on_body = page.value("document.activeElement === document.body").await;
        assert!(on_body == Value::Bool(true) || outline != "none", "the focus is not to be seen");
        if page.value(&has_it).await == Value::Bool(true) {
            return;
        }
    }
    panic!("Tab never comes to {selector}");
}

#[tokio::test]
async fn it_is_read_on_a_phone_and_at_a_desk_and_used_by_keyboard() {
    packages::ensure(packages::PAGE).unwrap();
    let path = "thesis/chapter 2/plan for the second chapter.odt";
    let world = World::new("lab", ["ws-a", "ws-b", "ws-c"], path, "thesis").await;
    let namespace = world.ns.name.clone();
    // A curve, of samples that are taken as time goes by.
    for (files, mebibytes) in [(9, 60), (52, 391), (31, 214)] {
        world.lacks(files, mebibytes).await;
        world
            .until("a sample", |status| {
                let volumes = status["volumes"].as_array()?;
                let volume = volumes.iter().find(|v| v["namespace"] == namespace.as_str())?;
                (*volume["history"]["bytes"].as_array()?.last()? == mebibytes << 20).then_some(())
            })
            .await;
    }
    world.heals().await;
    world.moves("thesis/chapter 2/**").await;
    let rules = [("fileconflicts", "get,list,patch"), ("bricks", "list"), ("replicamigrations", "list")];
    let owner = world.person("owner", &rules).await;

    let mut page = Browser::start().await;
    let phone = Screen { width: 390, height: 844, phone: true, dark: false };
    let desk = Screen { width: 1280, height: 900, phone: false, dark: false };
    page.on(phone).await;
    page.open(&format!("http://{}/", world.address)).await;
    let text = |part: &str| format!("document.body.innerText.includes({part:?})");
    for part in ["ws-a", "ws-b", "ws-c", "south", "214.0 MiB", "12 of 31 files"] {
        page.until(part, &text(part)).await;
    }
    let home = format!("{namespace}/home");
    let cards = "document.querySelectorAll('#zones article').length >= 3";
    page.until("workstations", cards).await;
    let bricks = format!(
        "[...document.querySelectorAll('#zones .bricks h5')].filter((e) => e.textContent === {home:?}).length === 3"
    );
    page.until("bricks", &bricks).await;
    page.until("the curve", "document.querySelectorAll('#volumes svg path').length >= 1").await;
    // Nobody in particular sees that there is a conflict, and no more.
    page.until(
        "the conflict is counted",
        "/open\\. To see which/.test(document.querySelector('#conflicts').innerText)",
    )
    .await;
    assert_eq!(page.value("document.body.innerHTML.includes('thesis')").await, false);
    assert_eq!(page.value("document.querySelectorAll('#conflicts button').length").await, 0);
    fits(&mut page, phone).await;

    // By keyboard: the token, and then the choice.
    tab_to(&mut page, "#token").await;
    page.write(&owner).await;
    page.press("Enter", 13, Some("\r")).await;
    page.until("the conflict is shown", &text(path)).await;
    assert_eq!(page.value("document.querySelector('#token').value").await, "");
    for part in ["Written on ws-a", "Written on ws-b", "23.7 KiB", "24.4 KiB"] {
        page.until(part, &text(part)).await;
    }
    page.until("what moves", "document.querySelector('#moves').innerText.includes('thesis/chapter 2/**')")
        .await;
    page.until("heat by project", "document.querySelector('#heat').innerText.includes('thesis')").await;
    // Of a long page one part in the light, and another in the dark.
    for (name, screen, heading, rows) in [
        ("desk-light", desk, None, 1100),
        ("desk-dark", Screen { dark: true, ..desk }, Some("heals-title"), 1100),
        ("phone-light", phone, None, 1500),
        ("phone-dark", Screen { dark: true, ..phone }, Some("heals-title"), 1500),
    ] {
        page.on(screen).await;
        let dark = screen.dark;
        page.until("the colours", &format!("matchMedia('(prefers-color-scheme: dark)').matches === {dark}"))
            .await;
        fits(&mut page, screen).await;
        keep_picture(&mut page, screen, &format!("page-{name}.png"), heading, rows).await;
    }
    let narrow = Screen { width: 320, ..phone };
    page.on(narrow).await;
    fits(&mut page, narrow).await;

    page.on(desk).await;
    page.value("document.activeElement.blur()").await;
    tab_to(&mut page, "button[id$='-Brick/ws-b']").await;
    page.press("Enter", 13, Some("\r")).await;
    page.until("it says so", "document.querySelector('#outcome').innerText.includes('Brick/ws-b is chosen')")
        .await;
    world
        .ns
        .until("the choice", CONFLICT, |c: &FileConflict| {
            (c.spec.resolution.as_deref() == Some("Brick/ws-b")).then_some(())
        })
        .await;
    page.until("the page shows it", &text("chosen: Brick/ws-b")).await;

    // The token goes with the button, and what it showed with it.
    tab_to(&mut page, "#forget").await;
    page.press("Enter", 13, Some("\r")).await;
    page.until("no name is left", "!document.body.innerText.includes('thesis')").await;
    assert_eq!(page.value("localStorage.length + sessionStorage.length + document.cookie.length").await, 0);
    assert_eq!(page.complaints, Vec::<String>::new());
}
