//! What is agreed with the kernel when the mount begins.

use std::sync::atomic::{AtomicBool, Ordering};

use fuser::{InitFlags, KernelConfig};

/// The kernel takes no more in one request.
pub(super) const MAX_WRITE: u32 = 1 << 20;
/// Reads ahead and the like that may be under way at once.
const MAX_BACKGROUND: u16 = 64;

/// What the kernel agreed to.
#[derive(Debug, Default)]
pub struct Negotiated {
    passthrough: AtomicBool,
}

impl Negotiated {
    /// Whether the kernel reads and writes brick files itself.
    pub fn passthrough(&self) -> bool {
        self.passthrough.load(Ordering::Relaxed)
    }
}

/// Asks for what is wanted and notes what is to be had.
///
/// Never asked for: the writeback cache, which excludes passthrough; and locks,
/// which the kernel then keeps itself, within the workstation.
pub fn negotiate(config: &mut KernelConfig, passthrough: bool, negotiated: &Negotiated) {
    for wanted in [
        // O_TRUNC comes with the open: one dirty mark for both.
        InitFlags::FUSE_ATOMIC_O_TRUNC,
        InitFlags::FUSE_PARALLEL_DIROPS,
        InitFlags::FUSE_DO_READDIRPLUS,
        InitFlags::FUSE_READDIRPLUS_AUTO,
        // Otherwise every write asks for security.capability first, also one in passthrough.
        InitFlags::FUSE_HANDLE_KILLPRIV_V2,
        // The kernel asks for ACLs and decides by them; what is inherited, and what the umask takes, is decided here.
        InitFlags::FUSE_POSIX_ACL,
        InitFlags::FUSE_DONT_MASK,
        // The target of a node never changes.
        InitFlags::FUSE_CACHE_SYMLINKS,
    ] {
        // A kernel has it or has not: what it does not say of itself is not needed.
        if let Err(missing) = config.add_capabilities(wanted) {
            tracing::debug!(?missing, "not offered by this kernel");
        }
    }
    let _ = config.set_max_write(MAX_WRITE);
    let _ = config.set_max_background(MAX_BACKGROUND);
    // Depth 1: the brick lies on a plain file system, not on a stacked one.
    let agreed = passthrough
        && config.add_capabilities(InitFlags::FUSE_PASSTHROUGH).is_ok()
        && config.set_max_stack_depth(1).is_ok();
    if passthrough && !agreed {
        tracing::info!("this kernel has no FUSE passthrough (Linux 6.9): reads and writes are served");
    }
    negotiated.passthrough.store(agreed, Ordering::Relaxed);
}
