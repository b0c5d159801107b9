//! Fourth step: makes what is missing. What exists is left alone: a brick's identity is given once.

use kube::ResourceExt;
use kube::api::{Api, PostParams};
use nearbrick_crds::meta::OPERATOR_MANAGER;
use nearbrick_crds::{Brick, Workstation};

use super::build::Built;
use crate::context::Context;
use crate::error::{Error, is_conflict};

/// Makes it.
pub async fn apply(context: &Context, built: &Built) -> Result<(), Error> {
    let Built { workstations, bricks, placement: _, again_in: _, summary: _ } = built;
    let params = PostParams { field_manager: Some(OPERATOR_MANAGER.to_string()), ..PostParams::default() };
    let api: Api<Workstation> = Api::all(context.client.clone());
    for workstation in workstations {
        match api.create(&params, workstation).await {
            Ok(_) => tracing::info!("made Workstation {}", workstation.name_any()),
            // The store is a moment behind: it is there.
            Err(error) if is_conflict(&error) => {}
            Err(error) => {
                return Err(Error::api(format!("make Workstation {}", workstation.name_any()))(error));
            }
        }
    }
    for brick in bricks {
        let namespace = brick.namespace().unwrap_or_default();
        let api: Api<Brick> = Api::namespaced(context.client.clone(), &namespace);
        match api.create(&params, brick).await {
            Ok(_) => tracing::info!("made Brick {namespace}/{}", brick.name_any()),
            Err(error) if is_conflict(&error) => {}
            Err(error) => {
                return Err(Error::api(format!("make Brick {namespace}/{}", brick.name_any()))(error));
            }
        }
    }
    Ok(())
}
