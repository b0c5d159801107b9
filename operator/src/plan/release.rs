//! Whether a brick that is being deleted may go: never the last holder of anything.

use nearbrick_crds::condition::{Finding, RELEASED, Status};

use super::evict::{View, evicted};

/// The volume of a brick, as far as its end asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VolumeIs {
    /// There is none, or another of the same name.
    Gone,
    /// It is being deleted.
    Ending,
    /// It goes on without this brick.
    Living,
}

/// What is known of a brick that is being deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    /// Its volume.
    pub volume: VolumeIs,
    /// Whether the volume asks that its files go too.
    pub delete: bool,
    /// Whether its agent has ever used it.
    pub was_used: bool,
    /// Whether its agent reports at present.
    pub online: bool,
    /// Whether a person said that its workstation will not return.
    pub lost: bool,
    /// Whether its agent says that the files are deleted.
    pub emptied: bool,
    /// What is still held there.
    pub view: View,
}

/// What follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// It stays, for this reason.
    Wait(Finding),
    /// Its agent is to delete the files; it stays until that is done.
    Empty(Finding),
    /// The object may go.
    Free,
}

/// The next step. A brick of a volume that goes on gives up what others hold first; one of a volume that is deleted goes with it, and what
/// is in its directory stays unless the volume says otherwise.
pub fn step(ending: &Ending) -> Step {
    let wait = |reason, line: String| Finding::new(RELEASED, Status::False, reason, line);
    let silent = || {
        let line =
            "its agent is silent: switch it on; or, if it will not return, set lost of its Workstation";
        Finding::new(RELEASED, Status::Unknown, "AgentSilent", line)
    };
    if ending.emptied || ending.lost || !ending.was_used || ending.volume == VolumeIs::Gone {
        return Step::Free;
    }
    if ending.volume == VolumeIs::Living {
        if !ending.online {
            return Step::Wait(silent());
        }
        let found = evicted(std::slice::from_ref(&ending.view));
        if found.status != Status::True {
            return Step::Wait(Finding { type_: RELEASED, ..found });
        }
    }
    match (ending.delete, ending.online) {
        (false, _) => Step::Free,
        (true, true) => Step::Empty(wait("Emptying", "its agent deletes the files".to_string())),
        (true, false) => Step::Empty(silent()),
    }
}

/// How far the end of a volume with `deletionPolicy: Delete` is: its bricks that are left, and whether their agents report.
pub fn volume_ends(left: &[(String, bool)]) -> Finding {
    let names = |online: bool| {
        let list: Vec<&str> = left.iter().filter(|(_, on)| *on == online).map(|(n, _)| n.as_str()).collect();
        (!list.is_empty()).then(|| list.join(", "))
    };
    let line = match (names(true), names(false)) {
        (None, None) => {
            return Finding::new(RELEASED, Status::True, "AllEmptied", "its files are gone from all bricks");
        }
        (Some(at_work), None) => format!("the files of {at_work} are being deleted"),
        (at_work, Some(silent)) => format!(
            "{}waits for {silent}: switch it on; or, if it will not return, set lost of its Workstation; or set deletionPolicy to Retain",
            at_work.map(|n| format!("the files of {n} are being deleted; ")).unwrap_or_default()
        ),
    };
    Finding::new(RELEASED, Status::False, "Emptying", line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ending() -> Ending {
        Ending {
            volume: VolumeIs::Living,
            delete: false,
            was_used: true,
            online: true,
            lost: false,
            emptied: false,
            view: View { brick: "v.a".into(), looked: true, in_set: Some((0, 0)), ..View::default() },
        }
    }

    fn shown(ending: &Ending) -> String {
        match step(ending) {
            Step::Wait(f) => format!("wait {}", f.reason),
            Step::Empty(f) => format!("empty {}", f.reason),
            Step::Free => "free".to_owned(),
        }
    }

    #[test]
    fn table() {
        let holds = View { in_set: Some((3, 30)), ..ending().view };
        let alone = View { only_here: (1, 10), ..ending().view };
        let named = View { named: true, ..holds.clone() };
        for (e, wanted) in [
            (ending(), "free"),
            (Ending { delete: true, ..ending() }, "empty Emptying"),
            (Ending { delete: true, emptied: true, ..ending() }, "free"),
            (Ending { view: holds.clone(), ..ending() }, "wait Moving"),
            (Ending { view: holds.clone(), delete: true, ..ending() }, "wait Moving"),
            (Ending { view: named, ..ending() }, "wait TooFewOthers"),
            (Ending { view: alone.clone(), ..ending() }, "wait OnlyHere"),
            (Ending { online: false, ..ending() }, "wait AgentSilent"),
            (Ending { online: false, was_used: false, ..ending() }, "free"),
            (Ending { online: false, lost: true, view: holds.clone(), ..ending() }, "free"),
            // Of a volume that is deleted nothing is waited for but what its policy asks.
            (Ending { volume: VolumeIs::Ending, view: alone.clone(), ..ending() }, "free"),
            (Ending { volume: VolumeIs::Ending, view: alone, delete: true, ..ending() }, "empty Emptying"),
            (
                Ending { volume: VolumeIs::Ending, delete: true, online: false, ..ending() },
                "empty AgentSilent",
            ),
            (Ending { volume: VolumeIs::Gone, delete: true, online: false, view: holds, ..ending() }, "free"),
        ] {
            assert_eq!(shown(&e), wanted, "{e:?}");
        }
        let all = [("v.a".to_string(), true), ("v.b".to_string(), false)];
        assert_eq!(volume_ends(&[]).status, Status::True);
        assert_eq!(volume_ends(&all[..1]).message, "the files of v.a are being deleted");
        assert!(volume_ends(&all).message.starts_with("the files of v.a are being deleted; waits for v.b"));
    }

    proptest! {
        #[test]
        fn the_last_holder_of_a_living_volume_never_goes(
            online in any::<bool>(), delete in any::<bool>(), emptied in Just(false), in_set in 0..3u64, only in 0..3u64,
            dirty in 0..3u64, looked in any::<bool>(), named in any::<bool>(),
        ) {
            let view = View {
                named, looked, in_set: Some((in_set, in_set)), only_here: (only, only), dirty, ..ending().view
            };
            let holds = in_set + only + dirty > 0 || !looked || named || !online;
            let next = step(&Ending { online, delete, emptied, view, ..ending() });
            prop_assert_eq!(matches!(next, Step::Wait(_)), holds);
        }
    }
}
