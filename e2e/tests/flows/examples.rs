//! The examples of `docs/SEMANTICS.md`, done as they are written there.

use nearbrick_e2e::error::Context;
use nearbrick_e2e::kube_api::eventually;
use nearbrick_e2e::scene::{LIMIT, Scene};
use nearbrick_e2e::{Lab, Result, fail, paths};

/// A line of an example that does something, and what it shall write.
struct Step {
    at: String,
    command: String,
    output: String,
}

pub async fn of_the_semantics_hold(lab: Lab) -> Result<()> {
    let file = paths::workspace().join("docs/SEMANTICS.md");
    let text = std::fs::read_to_string(&file).context(format!("cannot read {}", file.display()))?;
    let examples = parse(&text)?;
    if examples.len() < 8 {
        fail!("only {} examples were found in {}", examples.len(), file.display());
    }
    let scene = Scene::new(&lab, "10m").await?;
    for (number, steps) in examples.iter().enumerate() {
        for step in steps {
            let what = format!("example {}: {}$ {}", number + 1, step.at, step.command);
            perform(&scene, step).await.context(what)?;
        }
        agree(&scene).await?;
        let what = format!("example {}: what is left when all is removed", number + 1);
        // Twice: of two files of one name the second has that name as soon as the first is gone.
        let left = scene.sh(&scene.a, "rm -rf ./* && rm -rf ./* && find . -mindepth 1 -ls").context(&what)?;
        if !left.is_empty() {
            fail!("{what}: {left}");
        }
        agree(&scene).await?;
    }
    Ok(())
}

/// Waits until all three show the same.
async fn agree(scene: &Scene) -> Result<()> {
    scene.wait_same_listing(&scene.b, &scene.a, LIMIT).await?;
    scene.wait_same_listing(&scene.c, &scene.a, LIMIT).await
}

async fn perform(scene: &Scene, step: &Step) -> Result<()> {
    let words: Vec<&str> = step.command.split(' ').collect();
    match (step.at.as_str(), &words[..]) {
        ("lab", ["partition", node]) => scene.lab.set_link(node, false),
        ("lab", ["join", node]) => scene.lab.set_link(node, true),
        ("lab", ["kill", node]) => scene.lab.workstation(node)?.power_off(true),
        ("lab", ["start", node]) => scene.lab.start(node),
        ("lab", ["heal"]) => {
            // All of them have heard of what is to be healed.
            agree(scene).await?;
            scene.heal(&format!("example-{}", nanos())).await
        }
        (node, _) => {
            let workstation = scene.lab.workstation(node)?;
            if step.output.is_empty() {
                return scene.sh(&workstation, &step.command).map(drop);
            }
            // What is written elsewhere comes within a second or so: the line is tried until it says that.
            eventually("what the example says", LIMIT, || async {
                match scene.sh(&workstation, &step.command) {
                    Ok(output) if output == step.output => Ok(()),
                    Ok(output) => Err(format!("it wrote {output:?}, not {:?}", step.output)),
                    Err(error) => Err(error.to_string()),
                }
            })
            .await
        }
    }
}

fn nanos() -> u128 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_nanos())
}

/// Blocks of the language `console`: `ws-a$ COMMAND` does something, other lines are what that writes.
fn parse(text: &str) -> Result<Vec<Vec<Step>>> {
    let mut examples = Vec::new();
    for block in text.split("```console\n").skip(1) {
        let (block, _) = block.split_once("```").context("an example without an end")?;
        let mut steps: Vec<Step> = Vec::new();
        for line in block.lines().filter(|l| !l.starts_with('#')) {
            let prompt = line.split_once("$ ").filter(|(at, _)| *at == "lab" || at.starts_with("ws-"));
            match (prompt, steps.last_mut()) {
                (Some((at, rest)), _) => {
                    let command = rest.split("  #").next().unwrap_or(rest).trim().to_owned();
                    steps.push(Step { at: at.to_owned(), command, output: String::new() });
                }
                (None, Some(step)) => {
                    step.output.push_str(line);
                    step.output.push('\n');
                }
                (None, None) => fail!("an example begins with {line:?}"),
            }
        }
        examples.push(steps);
    }
    Ok(examples)
}
