//! The Kubernetes API: what to mount, when to heal, and reports.
//!
//! * [`watch`] follows the objects that concern this workstation ([`tracked`]: whole lists only);
//! * [`convert`] makes a volume's configuration of them, [`cache`] keeps it on disk;
//! * [`facts`] is what the agent knows, [`status`] makes reports of it, [`report`] writes them,
//!   [`events`] tells people;
//! * [`jobs`] runs heal jobs; [`alone`] heals where none comes; [`verify`]: when the brick is looked through;
//! * [`api`] is the way to the server.
//!
//! Invariant: nothing here holds up local work. Without the API everything that
//! is mounted stays mounted, and reports resume by themselves.

pub mod alone;
pub mod api;
pub mod cache;
pub mod certificate;
pub mod convert;
pub mod events;
pub mod facts;
pub mod jobs;
pub mod report;
pub mod status;
pub mod tracked;
pub mod verify;
pub mod watch;
