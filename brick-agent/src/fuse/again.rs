//! Calls that come again, after an agent died that had read them and not answered: what was done then is not
//! done twice, and is a success. See [`crate::volume::once`].

use fuser::{Errno, Request};
use rustix::io::Errno as Failed;

use super::shell::Shell;
use crate::volume::Volume;
use crate::volume::once::{RequestId, during};
use crate::volume::types::{Caller, FsResult, NodeId, Stat};

/// The kernel's mark on a request that it gives out again: `FUSE_UNIQUE_RESEND`.
const AGAIN: u64 = 1 << 63;

/// The kernel's number of a request, and whether it comes again.
pub(super) fn number(req: &Request) -> (u64, bool) {
    let number = req.unique().0;
    (number & !AGAIN, number & AGAIN != 0)
}

impl Shell {
    fn request(&self, req: &Request) -> Option<(RequestId, bool)> {
        let (number, again) = number(req);
        self.keep.as_ref().map(|keep| (RequestId { mount: keep.mount(), number }, again))
    }

    /// A call that makes a name; of what had been made before, owner and mode are `dress`ed.
    pub(super) fn makes(
        &self,
        what: &'static str,
        req: &Request,
        (parent, name): (NodeId, &[u8]),
        dress: Option<(Caller, u32)>,
        call: impl FnOnce(&Volume) -> FsResult<Stat>,
    ) -> Result<Stat, Errno> {
        self.call(what, |v| match self.request(req) {
            None => call(v),
            Some((id, false)) => during(id, || call(v)),
            Some((id, true)) => {
                if let Some(Some(file)) = v.was_done(id)
                    && let Ok(stat) = v.looked_up(file)
                {
                    return Ok(stat);
                }
                match during(id, || call(v)) {
                    Err(Failed::EXIST) => match (v.take_made(parent, name), dress) {
                        (None, _) => Err(Failed::EXIST),
                        (Some(file), None) => v.looked_up(file),
                        (Some(file), Some((caller, mode))) => v.dressed(file, caller, mode),
                    },
                    other => other,
                }
            }
        })
    }

    /// A call that removes or moves a name.
    pub(super) fn takes_away(
        &self,
        what: &'static str,
        req: &Request,
        (parent, name): (NodeId, &[u8]),
        call: impl FnOnce(&Volume) -> FsResult<()>,
    ) -> Result<(), Errno> {
        self.call(what, |v| match self.request(req) {
            None => call(v),
            Some((id, false)) => during(id, || call(v)),
            Some((id, true)) => {
                if v.was_done(id).is_some() {
                    return Ok(());
                }
                match during(id, || call(v)) {
                    Err(Failed::NOENT) if v.take_gone(parent, name) => Ok(()),
                    other => other,
                }
            }
        })
    }
}
