//! The mount: the kernel's requests translated to calls of [`crate::volume::Volume`].
//!
//! * [`mount()`], and [`Mounted`], which unmounts.
//! * `shell`: the requests, one by one; `opening` and `listing`: those that take more than a line.
//! * `open`: which nodes are open in passthrough, and which are served.
//! * `begin`: a session on a new mount, or on one that an agent before this one served; `device`: what that takes of
//!   the kernel.
//! * `ledger`: what programs have open, in memory that outlives the agent; `keep`: has it and the device kept;
//!   `again`: calls that come once more after an agent died over them.
//! * `init`: what is agreed with the kernel.
//! * `invalidate`: tells the kernel what it must forget.
//! * `listed`: which directories the kernel may list from its memory.
//! * `far`: threads for reads that may wait for a peer.
//! * `attr`: values from and to the kernel's.

mod again;
mod attr;
mod begin;
mod device;
mod far;
mod init;
mod invalidate;
mod keep;
pub mod ledger;
mod listed;
mod listing;
mod mount;
mod open;
mod opening;
mod shell;

pub use keep::{Keep, Taken};
pub use mount::{MountError, MountOptions, Mounted, available, mount, mount_kept, take_over};
