//! The mount: the kernel's requests translated to calls of [`crate::volume::Volume`].
//!
//! * [`mount()`], and [`Mounted`], which unmounts.
//! * `shell`: the requests, one by one; `opening` and `listing`: those that take more than a line.
//! * `open`: which nodes are open in passthrough, and which are served.
//! * `init`: what is agreed with the kernel.
//! * `invalidate`: tells the kernel what it must forget.
//! * `far`: threads for reads that may wait for a peer.
//! * `attr`: values from and to the kernel's.

mod attr;
mod far;
mod init;
mod invalidate;
mod listing;
mod mount;
mod open;
mod opening;
mod shell;

pub use mount::{MountError, MountOptions, Mounted, available, mount};
