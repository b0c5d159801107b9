//! Copies follow the person.

use nearbrick_e2e::scene::Scene;
use nearbrick_e2e::volumes::Volume;
use nearbrick_e2e::{Lab, Result, fail, story};

pub async fn a_project_follows_the_person_who_works_on_it(lab: Lab) -> Result<()> {
    let mut scene = Scene::without_volume(&lab).await?;
    scene.volume = Volume::new(&scene.client, &scene.volume.namespace.clone(), "projects");
    story::apply(&scene).await?;
    let told = story::tell(&scene, |line| println!("{line}")).await?;
    println!(
        "before: {}; after: {}; {:?}; fewest copies {:?}",
        told.before.say(),
        told.after.say(),
        told.took,
        told.fewest
    );
    // The contents of that half are three megabytes; the rest is talk between agents.
    if told.before.received < 3_000_000 || told.after.received > 1_000_000 {
        fail!("reads did not become local: {} before, {} after", told.before.received, told.after.received);
    }
    Ok(())
}
