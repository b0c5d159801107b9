//! What the page makes of odd names and of refusals, in headless Chromium.

use nearbrick_e2e::packages;

use crate::browser::Browser;
use crate::log;
use crate::world::World;

#[tokio::test]
async fn names_of_files_are_text_and_a_refusal_is_one_line() {
    log::start();
    packages::ensure(packages::PAGE).unwrap();
    let path = "<img src=x onerror=\"document.title='caught'\">.txt";
    let world =
        World::new("odd", ["q-a", "q-b", "q-c"], path, "<script>document.title='caught'</script>").await;
    let reader = world.person("reader", &[("fileconflicts", "list"), ("bricks", "list")]).await;
    let nobody = world.person("nobody", &[]).await;
    let mut page = Browser::start().await;
    page.open(&format!("http://{}/", world.address)).await;
    page.until("it is there", "document.querySelectorAll('#volumes article').length >= 1").await;
    let give = "(token) => { document.querySelector('#token').value = token; document.querySelector('#person').requestSubmit(); }";

    page.value(&format!("({give})({nobody:?})")).await;
    page.until("it is refused", "document.querySelector('#refused').innerText.includes('may list neither')")
        .await;
    page.until("counts go on", "document.querySelector('#state').innerText.includes('online')").await;

    page.value(&format!("({give})({reader:?})")).await;
    page.until("the name is shown as it is", &format!("document.body.innerText.includes({path:?})")).await;
    page.until("and the project", "document.querySelector('#heat').innerText.includes('<script>')").await;
    assert_eq!(page.value("document.querySelectorAll('img').length").await, 0);
    assert_eq!(page.value("document.querySelectorAll('script').length").await, 1);
    assert_eq!(page.value("document.title").await, "Nearbrick");

    // Who may read may not choose: the API server's line is shown, and the button can be used again.
    page.value("document.querySelector(\"button[id$='-Newest']\").click()").await;
    page.until(
        "it says why",
        "document.querySelector('#outcome').innerText.includes('cannot patch resource')",
    )
    .await;
    page.until("again", "!document.querySelector(\"button[id$='-Newest']\").disabled").await;
    assert_eq!(world.resolution().await, None);
}
