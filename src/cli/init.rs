//! `aviary init`.

use super::args::{Global, InitArgs};
use crate::error::Result;

pub(super) async fn run(global: &Global, args: InitArgs) -> Result<()> {
    let store = global.store("aviary-init").await?;
    store.init().await?;
    if let Some(window) = args.history_window {
        store.raise_history_window(window.into()).await?;
        if !global.quiet {
            eprintln!("snapshots can be read {window} back, until the servers restart");
        }
    }
    if !global.quiet {
        let on = match store.shards().await?.as_slice() {
            [one] => one.name.clone(),
            several => format!("{} shards", several.len()),
        };
        eprintln!("{} is ready for Aviary on {on}", store.db_name());
    }
    Ok(())
}
