//! The file system of one volume on one brick, as a plain library: no FUSE, no
//! API, no network of its own.
//!
//! * [`types`]: what its calls take and give.

pub mod types;
