//! Bench.
use crate::Result;
use clap::Args;
/// Options.
#[derive(Args, Clone, Debug, Default)]
pub struct Options {}
/// Local.
///
/// # Errors
/// None.
pub async fn local(_name: &str, _options: &Options) -> Result<Vec<std::path::PathBuf>> {
    Ok(Vec::new())
}
